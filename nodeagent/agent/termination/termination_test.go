package termination

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestMessage(t *testing.T) {
	dir := t.TempDir()
	file := func(name, text string) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	var long strings.Builder
	for i := range 200 {
		fmt.Fprintf(&long, "2030-01-01T00:00:00Z stdout F line %d\n", i)
	}
	empty, log := file("empty", ""), file("log", "2030-01-01T00:00:00Z stdout F one\n2030-01-01T00:00:01Z stderr P tw\n2030-01-01T00:00:01Z stderr F o\n")
	cases := []struct {
		name, file, log, want string
	}{
		{"its own words", file("said", "42 rows"), log, "42 rows"},
		{"cut at 4096 bytes", file("much", strings.Repeat("x", 5000)), "", strings.Repeat("x", 4096)},
		{"no half character at the cut", file("wide", strings.Repeat("x", 4095)+"é"), "", strings.Repeat("x", 4095)},
		{"the log when there are none", empty, log, "one\ntwo\n"},
		{"nothing asked of the log", empty, "", ""},
		{"nothing to read", filepath.Join(dir, "none"), filepath.Join(dir, "none"), ""},
	}
	for _, tc := range cases {
		t.Run(tc.name, func(t *testing.T) {
			if got := Message(tc.file, tc.log); got != tc.want {
				t.Errorf("message %.60q, want %.60q", got, tc.want)
			}
		})
	}
	if got := Message(empty, file("long", long.String())); strings.Count(got, "\n") != 80 || !strings.HasSuffix(got, "line 199\n") || !strings.HasPrefix(got, "line 120\n") {
		t.Errorf("of a long log %d lines, %.30q", strings.Count(got, "\n"), got)
	}
}
