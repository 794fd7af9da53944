package main

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestFullDiskIsRefused(t *testing.T) {
	data, err := openDataDir(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	defer data.close()
	if err := data.checkSpace(0); err != nil {
		t.Errorf("nothing is needed: %v", err)
	}
	if err := data.checkSpace(1 << 62); err == nil || !strings.Contains(err.Error(), "make room") {
		t.Errorf("more is needed than any disk has: %v", err)
	}
}

func TestFormatIsUpgradedInSteps(t *testing.T) {
	var done []string
	broken := errors.New("no room")
	step := func(name string, err *error) upgrade {
		return func(string) error {
			if *err != nil {
				return *err
			}
			done = append(done, name)
			return nil
		}
	}
	var fine error
	bad := broken
	steps := []upgrade{step("1-2", &fine), step("2-3", &bad), step("3-4", &fine)}
	d := &dataDir{path: t.TempDir()}
	holds := func(want string) {
		t.Helper()
		text, err := os.ReadFile(filepath.Join(d.path, formatFile))
		if got := fmt.Sprintf("%v %s", done, strings.TrimSpace(string(text))); err != nil || got != want {
			t.Errorf("steps and format: %s (%v), want %s", got, err, want)
		}
	}
	if err := d.settleFormat(nil); err != nil {
		t.Fatal(err)
	}
	holds("[] 1")
	if err := d.settleFormat(steps); !errors.Is(err, broken) || !strings.Contains(err.Error(), "upgrade from format 2 to 3") {
		t.Errorf("got %v", err)
	}
	holds("[1-2] 2")
	bad = nil
	if err := d.settleFormat(steps); err != nil {
		t.Fatal(err)
	}
	holds("[1-2 2-3 3-4] 4")
	if err := d.settleFormat(steps); err != nil {
		t.Fatal(err)
	}
	holds("[1-2 2-3 3-4] 4")
	if err := d.settleFormat(nil); err == nil || !strings.Contains(err.Error(), "newer Slipway (format 4, this binary knows 1)") {
		t.Errorf("a newer format: %v", err)
	}
}
