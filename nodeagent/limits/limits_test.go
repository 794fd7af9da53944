package limits

import (
	"os"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestPlanTellsOnce(t *testing.T) {
	told := map[string]bool{}
	var got []string
	for _, used := range []uint64{0, 89, 90, 100, 85, 91, 79, 85, 95} {
		var lines []Line
		lines, told = Plan(told, []Usage{{"things", used, 100, "raise it"}, {Name: "without limit", Used: used}})
		for _, l := range lines {
			got = append(got, l.Text)
		}
	}
	want := []string{
		"things: 90 of 100 are in use: raise it",
		"things: 79 of 100 are in use, there is room again",
		"things: 95 of 100 are in use: raise it",
	}
	if d := cmp.Diff(want, got); d != "" {
		t.Errorf("told (-want +got):\n%s", d)
	}
}

func TestLookCountsThisProcess(t *testing.T) {
	before := Look([]string{t.TempDir(), t.TempDir(), "/nonexistent"})
	var files []*os.File
	for range 10 {
		f, err := os.Open("/dev/null")
		if err != nil {
			t.Fatal(err)
		}
		files = append(files, f)
	}
	after := Look(nil)
	if got := after[0].Used - before[0].Used; got != uint64(len(files)) {
		t.Errorf("%d more descriptors, want %d", got, len(files))
	}
	inodes := 0
	for _, u := range before {
		if strings.HasPrefix(u.Name, "inodes of the filesystem of ") {
			inodes++
		} else if u.Limit == 0 || u.Used == 0 || u.Used > u.Limit || u.Raise == "" {
			t.Errorf("%+v", u)
		}
	}
	if inodes != 1 {
		t.Errorf("%d filesystems, want each once: %+v", inodes, before)
	}
	for _, f := range files {
		f.Close()
	}
}
