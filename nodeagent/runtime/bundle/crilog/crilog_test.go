package crilog

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"testing/iotest"
	"testing/synctest"
	"time"

	"golang.org/x/sys/unix"
)

func TestCopyFormatsLines(t *testing.T) {
	long := strings.Repeat("x", maxLine)
	tests := map[string]struct {
		in   string
		want []string // without the time
	}{
		"nothing":               {"", nil},
		"two lines":             {"a\nb\n", []string{"stdout F a", "stdout F b"}},
		"empty line":            {"\n", []string{"stdout F "}},
		"no newline at the end": {"a\nb", []string{"stdout F a", "stdout F b"}},
		"a line of many pieces": {long + long + long + long + long + "y\n", []string{"stdout P " + long, "stdout P " + long, "stdout P " + long, "stdout P " + long, "stdout P " + long, "stdout F y"}},
		"long line is split":    {long + "y\nz\n", []string{"stdout P " + long, "stdout F y", "stdout F z"}},
		"carriage return stays": {"a\r\n", []string{"stdout F a\r"}},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			for _, chunk := range []string{"whole", "bytes"} {
				path := filepath.Join(t.TempDir(), "0.log")
				file := Open(path, DefaultLimits)
				if chunk == "whole" {
					Copy(file, Stdout, strings.NewReader(tt.in))
				} else {
					Copy(file, Stdout, iotest.OneByteReader(strings.NewReader(tt.in)))
				}
				file.Close()
				checkLines(t, path, tt.want)
			}
		})
	}
}

var stamp = regexp.MustCompile(`^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d{1,9})?Z `)

func checkLines(t *testing.T, path string, want []string) {
	t.Helper()
	got := readLines(t, path)
	if len(got) != len(want) {
		t.Fatalf("got %d lines, want %d: %.200q", len(got), len(want), got)
	}
	for i, line := range got {
		if !stamp.MatchString(line) {
			t.Errorf("line %d has no time: %.80q", i, line)
		}
		if text := stamp.ReplaceAllString(line, ""); text != want[i] {
			t.Errorf("line %d: got %.80q, want %.80q", i, text, want[i])
		}
	}
}

func readLines(t *testing.T, path string) []string {
	t.Helper()
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if len(data) == 0 {
		return nil
	}
	return strings.Split(strings.TrimSuffix(string(data), "\n"), "\n")
}

func TestFileRotatesAndKeepsTheNewest(t *testing.T) {
	path := filepath.Join(t.TempDir(), "0.log")
	file := Open(path, Limits{Bytes: 1000, Files: 3})
	foreign := []string{path + ".1", path + ".20300101-000000.gz", path + ".bak"}
	for _, name := range foreign {
		if err := os.WriteFile(name, nil, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	for i := range 2000 {
		Copy(file, Stdout, strings.NewReader(fmt.Sprintf("line %d\n", i)))
	}
	file.Close()
	var kept []string
	for _, r := range file.aside() {
		kept = append(kept, readLines(t, path+"."+r.name())...)
	}
	if n := len(file.aside()); n != 2 {
		t.Errorf("%d rotated files, want 2", n)
	}
	kept = append(kept, readLines(t, path)...)
	for i, line := range kept {
		if want := fmt.Sprintf(" line %d", 2000-len(kept)+i); !strings.HasSuffix(line, want) {
			t.Fatalf("line %d is %q, want%s", i, line, want)
		}
	}
	for _, name := range foreign {
		if _, err := os.Stat(name); err != nil {
			t.Error(err)
		}
	}
}

// The names of rotated files tell their order even when the clock is set back: what is pruned is the oldest.
func TestRotationFollowsNoClock(t *testing.T) {
	path := filepath.Join(t.TempDir(), "0.log")
	now := time.Date(2030, 1, 1, 0, 0, 0, 0, time.UTC)
	file := Open(path, Limits{Bytes: 1, Files: 4})
	file.now = func() time.Time { return now }
	for i, at := range []time.Time{now, now, now.Add(time.Hour), now.AddDate(-1, 0, 0), now.AddDate(-1, 0, 1)} {
		now = at
		Copy(file, Stdout, strings.NewReader(fmt.Sprintf("%d\n", i)))
	}
	file.Close()
	var names []string
	for _, r := range file.aside() {
		names = append(names, r.name()+": "+stamp.ReplaceAllString(readLines(t, path+"."+r.name())[0], ""))
	}
	want := []string{"20300101-010000: stdout F 1", "20300101-010000-001: stdout F 2", "20300101-010000-002: stdout F 3"}
	if !slices.Equal(names, want) {
		t.Errorf("got %q, want %q", names, want)
	}
}

func TestWhatOthersDoToTheFile(t *testing.T) {
	tests := map[string]struct {
		do    func(path string) error
		at    string // where the first line is afterwards
		first bool
	}{
		"nothing":        {func(string) error { return nil }, "0.log", true},
		"renamed":        {func(path string) error { return os.Rename(path, path+".1") }, "0.log.1", true},
		"removed":        {os.Remove, "", false},
		"emptied":        {func(path string) error { return os.Truncate(path, 0) }, "", false},
		"folder removed": {func(path string) error { return os.RemoveAll(filepath.Dir(path)) }, "", false},
		"replaced":       {func(path string) error { return errors.Join(os.Remove(path), os.WriteFile(path, nil, 0o600)) }, "", false},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "pod", "container", "0.log")
			file := Open(path, DefaultLimits)
			Copy(file, Stdout, strings.NewReader("a\n"))
			if err := tt.do(path); err != nil {
				t.Fatal(err)
			}
			Copy(file, Stderr, strings.NewReader("b\n"))
			file.Close()
			want := []string{"stderr F b"}
			if tt.at == "0.log" {
				want = []string{"stdout F a", "stderr F b"}
			} else if tt.first {
				checkLines(t, filepath.Join(filepath.Dir(path), tt.at), []string{"stdout F a"})
			}
			checkLines(t, path, want)
		})
	}
}

// When the container was deleted its log may be, too: what comes late must not bring the folder back.
func TestSealedFileStaysRemoved(t *testing.T) {
	path := filepath.Join(t.TempDir(), "pod", "0.log")
	file := Open(path, DefaultLimits)
	file.Seal()
	if err := os.RemoveAll(filepath.Dir(path)); err != nil {
		t.Fatal(err)
	}
	Copy(file, Stdout, strings.NewReader("late\n"))
	file.Close()
	if _, err := os.Stat(filepath.Dir(path)); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("the folder is back: %v", err)
	}
}

// A link or a pipe at the log's place is neither followed nor waited for.
func TestFileIsRegular(t *testing.T) {
	for name, make := range map[string]func(path string) error{
		"link":   func(path string) error { return os.Symlink("target", path) },
		"pipe":   func(path string) error { return unix.Mkfifo(path, 0o600) },
		"folder": func(path string) error { return os.Mkdir(path, 0o700) },
	} {
		t.Run(name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "0.log")
			if err := make(path); err != nil {
				t.Fatal(err)
			}
			file := Open(path, DefaultLimits)
			Copy(file, Stdout, strings.NewReader("a\nb\n"))
			if file.lost.lines != 2 || file.lost.cause == nil {
				t.Errorf("lost: %+v", file.lost)
			}
			if _, err := os.Stat(filepath.Join(filepath.Dir(path), "target")); err == nil {
				t.Error("the link was followed")
			}
			if err := os.Remove(path); err != nil {
				t.Fatal(err)
			}
			file.retry = time.Time{}
			file.Close()
			if lines := readLines(t, path); len(lines) != 1 || !strings.Contains(lines[0], "slipway: 2 log lines lost since ") {
				t.Errorf("the loss is told as %q", lines)
			}
		})
	}
}

var since = regexp.MustCompile(` since [^ ]+:`)

func TestFileDropsOnAFullDisk(t *testing.T) {
	full, err := os.OpenFile("/dev/full", os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(t.TempDir(), "0.log")
	file := Open(path, DefaultLimits)
	disk := file.file
	file.file = full
	Copy(file, Stdout, strings.NewReader("lost\nlost, too\n"))
	file.file = disk
	Copy(file, Stdout, strings.NewReader("kept\n"))
	full.Close()
	file.Close()
	lines := readLines(t, path)
	if len(lines) != 2 || !strings.HasSuffix(lines[1], " stdout F kept") {
		t.Fatalf("lines %q", lines)
	}
	if got := since.ReplaceAllString(stamp.ReplaceAllString(lines[0], ""), ":"); got != "stderr F slipway: 2 log lines lost: write /dev/full: no space left on device" {
		t.Errorf("the loss is told as %q", got)
	}
}

// A loss is told as soon as writing works again, not with the container's next line, which may never come.
func TestLossIsToldWithoutAnotherLine(t *testing.T) {
	dir := t.TempDir()
	synctest.Test(t, func(t *testing.T) {
		path := filepath.Join(dir, "blocked", "0.log")
		if err := os.WriteFile(filepath.Dir(path), nil, 0o600); err != nil {
			t.Fatal(err)
		}
		file := Open(path, DefaultLimits)
		Copy(file, Stdout, strings.NewReader("a\n"))
		time.Sleep(10 * retryEvery)
		if err := os.Remove(filepath.Dir(path)); err != nil {
			t.Fatal(err)
		}
		time.Sleep(2 * retryEvery)
		if lines := readLines(t, path); len(lines) != 1 || !strings.Contains(lines[0], "slipway: 1 log lines lost since ") {
			t.Errorf("lines %q", lines)
		}
		file.Close()
	})
}

func TestTimesOfLinesIncrease(t *testing.T) {
	path := filepath.Join(t.TempDir(), "0.log")
	file := Open(path, DefaultLimits)
	Copy(file, Stdout, strings.NewReader(strings.Repeat("x\n", 10_000)))
	file.Close()
	before := time.Time{}
	for _, line := range readLines(t, path) {
		at, err := time.Parse(time.RFC3339Nano, strings.Fields(line)[0])
		if err != nil || !at.After(before) {
			t.Fatalf("%s after %s (%v)", at, before, err)
		}
		before = at
	}
	if ahead := time.Until(before); ahead > time.Second {
		t.Errorf("the last line is %s ahead of the clock", ahead)
	}
}

func BenchmarkCopy(b *testing.B) {
	line := strings.Repeat("x", 99) + "\n"
	in := strings.Repeat(line, 10_000)
	b.SetBytes(int64(len(in)))
	for b.Loop() {
		file := Open(filepath.Join(b.TempDir(), "0.log"), DefaultLimits)
		Copy(file, Stdout, strings.NewReader(in))
		file.Close()
	}
}
