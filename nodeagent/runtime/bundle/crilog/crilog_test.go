package crilog

import (
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"testing/iotest"
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
	var in strings.Builder
	for i := range 2000 {
		fmt.Fprintf(&in, "line %d\n", i)
	}
	Copy(file, Stdout, iotest.HalfReader(strings.NewReader(in.String())))
	file.Close()

	files, err := filepath.Glob(path + "*")
	if err != nil {
		t.Fatal(err)
	}
	if len(files) != 3 {
		t.Errorf("got %d files, want 3: %v", len(files), files)
	}
	lines := readLines(t, path)
	if last := lines[len(lines)-1]; !strings.HasSuffix(last, " line 1999") {
		t.Errorf("last line is %q", last)
	}
}

func TestFileDropsWhatCannotBeWrittenAndSaysSo(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "later")
	path := filepath.Join(dir, "0.log")
	file := Open(path, DefaultLimits)
	Copy(file, Stdout, strings.NewReader("a\nb\n"))
	if err := os.Mkdir(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	file.retry = file.now()
	Copy(file, Stdout, strings.NewReader("c\n"))
	file.Close()
	checkLines(t, path, []string{
		"stderr F slipway: 2 log lines lost: open " + path + ": no such file or directory", "stdout F c",
	})
}

func TestFileDropsOnAFullDisk(t *testing.T) {
	full, err := os.OpenFile("/dev/full", os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(t.TempDir(), "0.log")
	file := Open(path, DefaultLimits)
	disk := file.file
	file.file = full
	Copy(file, Stdout, strings.NewReader("lost\n"))
	file.file = disk
	Copy(file, Stdout, strings.NewReader("kept\n"))
	full.Close()
	file.Close()
	checkLines(t, path, []string{
		"stderr F slipway: 1 log lines lost: write /dev/full: no space left on device", "stdout F kept",
	})
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
