package main

import (
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
