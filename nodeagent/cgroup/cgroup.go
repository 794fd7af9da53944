// Package cgroup removes the control groups that Pods leave behind, in every hierarchy of the host: v1, hybrid and v2.
//
// It makes none and sets no limits: the container runtime does.
package cgroup

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
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

// RemoveAny removes the group of this name one level below the tree's children: that of a Pod, whatever its quality
// class.
func (t Tree) RemoveAny(name string) error {
	hierarchies, err := t.hierarchies()
	if err != nil {
		return err
	}
	var errs []error
	for _, h := range hierarchies {
		found, err := filepath.Glob(filepath.Join(h, t.path, "*", name))
		if err != nil {
			return fmt.Errorf("find control group: %w", err)
		}
		for _, dir := range found {
			errs = append(errs, remove(dir))
		}
	}
	return errors.Join(errs...)
}

// Prune removes the tree's own groups where nothing is in them any more.
func (t Tree) Prune() error {
	hierarchies, err := t.hierarchies()
	if err != nil {
		return err
	}
	for _, h := range hierarchies {
		classes, err := filepath.Glob(filepath.Join(h, t.path, "*"))
		if err != nil {
			return fmt.Errorf("list control groups: %w", err)
		}
		for _, dir := range append(classes, filepath.Join(h, t.path)) {
			_ = os.Remove(dir) // a file, or in use: stays
		}
	}
	return nil
}

// Remove removes the groups of a path below the tree's ("burstable/pod1", "" for the tree itself) with all below
// them. Groups that are not there are no error; one with processes in it is.
func (t Tree) Remove(path string) error {
	hierarchies, err := t.hierarchies()
	if err != nil {
		return err
	}
	var errs []error
	for _, h := range hierarchies {
		errs = append(errs, remove(filepath.Join(h, t.path, path)))
	}
	return errors.Join(errs...)
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
	if err := os.Remove(dir); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("remove control group: %w", err)
	}
	return nil
}
