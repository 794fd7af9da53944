package volume

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// A projected volume looks as the kubelet's do: the files are in a folder ..<stamp>, "..data" links to it, and each
// visible name links into "..data". Replacing that one link replaces all files at once, for a reader who looks at
// any moment.
const (
	dataLink = "..data"
	dataTemp = "..data_tmp"

	stampPrefix = "..20"
)

// project brings dir to hold exactly c. A reader sees the old files or the new, never a mix.
func project(dir string, c content) error {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	if err := os.Chmod(dir, 0o755); err != nil {
		return err
	}
	root, err := os.OpenRoot(dir)
	if err != nil {
		return err
	}
	defer root.Close()
	old, err := root.Readlink(dataLink)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("read %s: %w", dataLink, err)
	}
	if old != "" && holds(root, old, c) {
		return errors.Join(link(root, c), sweep(root, old))
	}
	stamp, err := os.MkdirTemp(dir, stampPrefix)
	if err != nil {
		return err
	}
	stamp = filepath.Base(stamp)
	if err := write(root, stamp, c); err != nil {
		_ = root.RemoveAll(stamp)
		return err
	}
	if err := swap(root, stamp); err != nil {
		return err
	}
	if err := link(root, c); err != nil {
		return err
	}
	return sweep(root, stamp)
}

// sweep removes the folders of files but the one in use: the one before it, and those that were never finished.
func sweep(root *os.Root, keep string) error {
	entries, err := fs.ReadDir(root.FS(), ".")
	if err != nil {
		return err
	}
	for _, e := range entries {
		if name := e.Name(); name != keep && e.IsDir() && strings.HasPrefix(name, stampPrefix) {
			err = errors.Join(err, root.RemoveAll(name))
		}
	}
	return err
}

// holds reports whether the folder has exactly the files of c.
func holds(root *os.Root, folder string, c content) bool {
	seen := 0
	err := fs.WalkDir(root.FS(), folder, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		name, _ := filepath.Rel(folder, path)
		want, ok := c.files[name]
		if !ok {
			return fs.ErrNotExist
		}
		got, err := root.ReadFile(path)
		if err != nil || !bytes.Equal(got, want.data) {
			return fs.ErrNotExist
		}
		seen++
		return nil
	})
	return err == nil && seen == len(c.files)
}

func write(root *os.Root, folder string, c content) error {
	if err := own(root, folder, 0o755, -1, c.group, true); err != nil {
		return err
	}
	for _, path := range slices.Sorted(maps.Keys(c.files)) {
		f := c.files[path]
		if !filepath.IsLocal(path) {
			return fmt.Errorf("path %q leads out of the volume", path)
		}
		for _, parent := range parents(path) {
			err := root.Mkdir(filepath.Join(folder, parent), 0o755)
			if errors.Is(err, fs.ErrExist) {
				continue
			}
			if err != nil {
				return err
			}
			if err := own(root, filepath.Join(folder, parent), 0o755, -1, c.group, true); err != nil {
				return err
			}
		}
		full := filepath.Join(folder, path)
		if err := root.WriteFile(full, f.data, 0o600); err != nil {
			return err
		}
		if err := own(root, full, os.FileMode(f.mode), f.uid, c.group, false); err != nil {
			return err
		}
	}
	return nil
}

// parents returns the folders on the way to path, outermost first.
func parents(path string) []string {
	var out []string
	for dir := filepath.Dir(path); dir != "."; dir = filepath.Dir(dir) {
		out = append([]string{dir}, out...)
	}
	return out
}

// own sets mode and owner. With a group, the group may read, and what is made in a folder belongs to it too.
func own(root *os.Root, path string, mode os.FileMode, uid int, group *int64, dir bool) error {
	gid := -1
	if group != nil {
		gid = int(*group)
		mode |= 0o440
		if dir {
			mode |= os.ModeSetgid | 0o110
		}
	}
	if uid >= 0 || gid >= 0 {
		if err := root.Chown(path, uid, gid); err != nil {
			return err
		}
	}
	return root.Chmod(path, mode)
}

// swap leads ..data to folder in one step.
func swap(root *os.Root, folder string) error {
	if err := root.Remove(dataTemp); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	if err := root.Symlink(folder, dataTemp); err != nil {
		return err
	}
	return root.Rename(dataTemp, dataLink)
}

// link makes the visible names, and removes those that are no longer.
func link(root *os.Root, c content) error {
	want := map[string]bool{}
	for path := range c.files {
		want[strings.SplitN(path, "/", 2)[0]] = true
	}
	present, err := fs.ReadDir(root.FS(), ".")
	if err != nil {
		return err
	}
	for _, e := range present {
		switch name := e.Name(); {
		case want[name]:
			delete(want, name)
		case !strings.HasPrefix(name, ".."):
			if err := root.RemoveAll(name); err != nil {
				return err
			}
		}
	}
	for name := range want {
		if err := root.Symlink(filepath.Join(dataLink, name), name); err != nil {
			return err
		}
	}
	return nil
}
