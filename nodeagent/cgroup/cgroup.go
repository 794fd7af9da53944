// Package cgroup removes the control groups that Pods leave behind, and kills what runs in one, in every hierarchy of
// the host: v1, hybrid and v2.
//
// It makes none and sets no limits: the container runtime does.
package cgroup

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

	"golang.org/x/sys/unix"
)

// Mount is where the host has its control groups.
const Mount = "/sys/fs/cgroup"

// Tree is the part of a host's control groups below one path.
type Tree struct {
	mount string
	path  string
}

// At returns the tree below path ("/slipway") of the hierarchies under mount (Mount).
func At(mount, path string) Tree { return Tree{mount: mount, path: path} }

// hierarchies returns the folders that hold the tree: one per v1 controller, the mount itself with v2 alone.
func (t Tree) hierarchies() ([]string, error) {
	if _, err := os.Stat(filepath.Join(t.mount, "cgroup.controllers")); err == nil {
		return []string{t.mount}, nil
	}
	entries, err := os.ReadDir(t.mount)
	if err != nil {
		return nil, fmt.Errorf("list control groups: %w", err)
	}
	var dirs []string
	for _, e := range entries {
		if e.IsDir() { // links such as cpu → cpu,cpuacct are the same hierarchy again
			dirs = append(dirs, filepath.Join(t.mount, e.Name()))
		}
	}
	return dirs, nil
}

// List returns the names of the groups two levels below the tree's path that begin with prefix, sorted, each once:
// with the prefix "pod" the Pods of all quality classes.
func (t Tree) List(prefix string) ([]string, error) {
	hierarchies, err := t.hierarchies()
	if err != nil {
		return nil, err
	}
	var names []string
	for _, h := range hierarchies {
		found, err := filepath.Glob(filepath.Join(h, t.path, "*", prefix+"*"))
		if err != nil {
			return nil, fmt.Errorf("list control groups: %w", err)
		}
		for _, f := range found {
			names = append(names, strings.TrimPrefix(filepath.Base(f), prefix))
		}
	}
	slices.Sort(names)
	return slices.Compact(names), nil
}

// Remove removes the groups of a path below the tree's ("burstable/pod1", "" for the tree itself) with all below
// them. Groups that are not there are no error. One that is in use is tried again until ctx ends: a process that has
// ended counts until it is waited for, and its parent may be anybody.
func (t Tree) Remove(ctx context.Context, path string) error {
	hierarchies, err := t.hierarchies()
	if err != nil {
		return err
	}
	for pause := time.Millisecond; ; pause = min(2*pause, 100*time.Millisecond) {
		var errs []error
		for _, h := range hierarchies {
			errs = append(errs, remove(filepath.Join(h, t.path, path)))
		}
		err := errors.Join(errs...)
		if !errors.Is(err, unix.EBUSY) || ctx.Err() != nil {
			return err
		}
		select {
		case <-ctx.Done():
		case <-time.After(pause):
		}
	}
}

// remove removes a group after those below it: the files in it cannot and need not be removed.
func remove(dir string) error {
	entries, err := os.ReadDir(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("remove control group: %w", err)
	}
	for _, e := range entries {
		if e.IsDir() {
			if err := remove(filepath.Join(dir, e.Name())); err != nil {
				return err
			}
		}
	}
	if err := unix.Rmdir(dir); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("remove control group: %w", &fs.PathError{Op: "rmdir", Path: dir, Err: err})
	}
	return nil
}
