package keeper

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"
)

const (
	// copiesKept is how many snapshots are kept.
	copiesKept = 2
	// copySuffix and copyTime make the name of a snapshot, in UTC: names sort as times do.
	copySuffix = ".snapshot"
	copyTime   = "20060102T150405Z"
)

// Copy is a snapshot of the store.
type Copy struct {
	Path string
	Made time.Time
}

// Copies returns the snapshots in a folder, newest first.
func Copies(dir string) ([]Copy, error) {
	entries, err := os.ReadDir(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("list snapshots: %w", err)
	}
	var copies []Copy
	for _, entry := range entries {
		stamp, ok := strings.CutSuffix(entry.Name(), copySuffix)
		if made, err := time.Parse(copyTime, stamp); ok && err == nil {
			copies = append(copies, Copy{Path: filepath.Join(dir, entry.Name()), Made: made})
		}
	}
	slices.Reverse(copies)
	return copies, nil
}

// lastCopy returns when the newest snapshot was made; without one, a time that lets the first be made soon. A time
// that has not come yet, as the clock was set back, counts as now.
func lastCopy(dir string, now time.Time) (time.Time, error) {
	if dir == "" {
		return now, nil
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return now, fmt.Errorf("make the folder of snapshots: %w", err)
	}
	copies, err := Copies(dir)
	soon := now.Add(copyStart - copyRest)
	if err != nil || len(copies) == 0 || copies[0].Made.Before(soon) {
		return soon, err
	}
	if copies[0].Made.After(now) {
		return now, nil
	}
	return now.Add(copies[0].Made.Sub(now)), nil // by the clock that only goes on, from here
}

// copy makes a snapshot and removes all but the newest.
func (k *Keeper) copy(ctx context.Context, engine Engine, now time.Time) (path string, err error) {
	path = filepath.Join(k.cfg.Copies, now.UTC().Format(copyTime)+copySuffix)
	if err := engine.Snapshot(ctx, path); err != nil {
		return "", err
	}
	copies, err := Copies(k.cfg.Copies)
	if err != nil {
		return "", err
	}
	// Those of the future are of a clock that was set back: they count as the oldest, lest they crowd out the new.
	slices.SortStableFunc(copies, func(a, b Copy) int {
		switch aheadA, aheadB := a.Made.After(now), b.Made.After(now); {
		case aheadA == aheadB:
			return 0
		case aheadA:
			return 1
		}
		return -1
	})
	for _, old := range copies[min(copiesKept, len(copies)):] {
		if err := os.Remove(old.Path); err != nil {
			return "", fmt.Errorf("remove an old snapshot: %w", err)
		}
	}
	return path, nil
}
