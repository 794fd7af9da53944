package main

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"runtime/pprof"
)

// profileEnv names a folder that gets processor and memory profiles of this process. It is for those who work on
// Slipway; CONTRIBUTING.md says how.
const profileEnv = "SLIPWAY_PPROF"

// profile begins to record when profileEnv is set. What it returns ends that and writes <folder>/cpu.prof and
// heap.prof.
func profile() (stop func() error, err error) {
	dir := os.Getenv(profileEnv)
	if dir == "" {
		return func() error { return nil }, nil
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, usage("%s: %w", profileEnv, err)
	}
	cpu, err := os.Create(filepath.Join(dir, "cpu.prof"))
	if err != nil {
		return nil, usage("%s: %w", profileEnv, err)
	}
	if err := pprof.StartCPUProfile(cpu); err != nil {
		return nil, errors.Join(fmt.Errorf("profile processor: %w", err), cpu.Close())
	}
	return func() error {
		pprof.StopCPUProfile()
		return errors.Join(cpu.Close(), writeHeap(filepath.Join(dir, "heap.prof")))
	}, nil
}

// writeHeap writes what is in memory and what was allocated since the start.
func writeHeap(path string) error {
	file, err := os.Create(path)
	if err != nil {
		return fmt.Errorf("profile memory: %w", err)
	}
	runtime.GC() // the profile shows the heap as of the last collection
	return errors.Join(pprof.WriteHeapProfile(file), file.Close())
}
