package main

import (
	"strings"
	"time"

	"github.com/rogpeppe/go-internal/testscript"
)

func contains(text, part string) bool { return strings.Contains(text, part) }

// waitUntil looks again and again until done or the test's patience ends.
func waitUntil(ts *testscript.TestScript, done func() bool) {
	patience := time.NewTimer(time.Minute)
	defer patience.Stop()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for !done() {
		select {
		case <-tick.C:
		case <-patience.C:
			ts.Fatalf("waited a minute in vain")
		}
	}
}
