package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"runtime"
	"strings"
	"testing"
)

// host stands where a test stands in the packages that start Slipway and git: it collects what went wrong and what
// is to be undone. Fatalf ends the goroutine, as in a test.
type host struct {
	testing.TB // nil: only what is written here is used
	ctx        context.Context
	dir        string
	errs       []error
	cleanups   []func()
}

// try calls work with a host of its own, undoes what it did, and returns what went wrong.
func try(ctx context.Context, dir string, work func(*host) error) error {
	h := &host{ctx: ctx, dir: dir}
	inGoroutine(func() {
		if err := work(h); err != nil {
			h.errs = append(h.errs, err)
		}
	})
	for len(h.cleanups) > 0 {
		last := h.cleanups[len(h.cleanups)-1]
		h.cleanups = h.cleanups[:len(h.cleanups)-1]
		inGoroutine(last)
	}
	return errors.Join(h.errs...)
}

// inGoroutine calls f where runtime.Goexit ends only f.
func inGoroutine(f func()) {
	done := make(chan struct{})
	go func() {
		defer close(done)
		f()
	}()
	<-done
}

func (h *host) Helper()          {}
func (h *host) Cleanup(f func()) { h.cleanups = append(h.cleanups, f) }
func (h *host) Failed() bool     { return len(h.errs) > 0 }

func (h *host) Context() context.Context { return h.ctx }

func (h *host) Errorf(format string, args ...any) {
	h.errs = append(h.errs, fmt.Errorf(format, args...))
}

func (h *host) Fatal(args ...any) { h.Fatalf("%s", strings.TrimSpace(fmt.Sprintln(args...))) }

func (h *host) Fatalf(format string, args ...any) {
	h.Errorf(format, args...)
	runtime.Goexit()
}

func (h *host) Logf(format string, args ...any) {
	fmt.Fprintf(os.Stderr, "    "+strings.ReplaceAll(format, "\n", "\n    ")+"\n", args...)
}

func (h *host) TempDir() string {
	dir, err := os.MkdirTemp(h.dir, "t")
	if err != nil {
		h.Fatalf("make folder: %v", err)
	}
	h.Cleanup(func() {
		if err := os.RemoveAll(dir); err != nil {
			h.Errorf("remove folder: %v", err)
		}
	})
	return dir
}
