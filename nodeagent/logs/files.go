package logs

import (
	"cmp"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// files are the files of one attempt, oldest first: rotated ones, then the one being written. Symbolic links that
// lead out of the root are not followed.
type files struct {
	root *os.Root
	path string // below root
}

func openFiles(root, path string) (*files, error) {
	r, err := os.OpenRoot(root)
	if errors.Is(err, fs.ErrNotExist) {
		return &files{path: path}, nil
	}
	if err != nil {
		return nil, fmt.Errorf("open %s: %w", root, err)
	}
	return &files{root: r, path: path}, nil
}

func (f *files) close() {
	if f.root != nil {
		_ = f.root.Close()
	}
}

// dir returns the folder of the files as the host names it.
func (f *files) dir() string {
	if f.root == nil {
		return ""
	}
	return filepath.Join(f.root.Name(), filepath.Dir(f.path))
}

// open opens all files, oldest first. None is no error.
func (f *files) open() ([]*os.File, error) {
	if f.root == nil {
		return nil, nil
	}
	names, err := fs.ReadDir(f.root.FS(), filepath.Dir(f.path))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("list %s: %w", f.path, err)
	}
	type entry struct {
		info fs.FileInfo
		live bool
	}
	var found []entry
	base := filepath.Base(f.path)
	for _, n := range names {
		if n.Name() != base && !strings.HasPrefix(n.Name(), base+".") {
			continue
		}
		if info, err := n.Info(); err == nil && info.Mode().IsRegular() {
			found = append(found, entry{info, n.Name() == base})
		}
	}
	slices.SortFunc(found, func(a, b entry) int {
		if a.live != b.live {
			if b.live {
				return -1
			}
			return 1
		}
		return cmp.Or(a.info.ModTime().Compare(b.info.ModTime()), cmp.Compare(a.info.Name(), b.info.Name()))
	})
	var out []*os.File
	for _, e := range found {
		file, err := f.root.Open(filepath.Join(filepath.Dir(f.path), e.info.Name()))
		if errors.Is(err, fs.ErrNotExist) {
			continue // rotated away this moment
		}
		if err != nil {
			closeAll(out)
			return nil, fmt.Errorf("open %s: %w", e.info.Name(), err)
		}
		out = append(out, file)
	}
	return dedupe(out), nil
}

// dedupe drops a file that was opened twice because it was renamed between listing and opening.
func dedupe(in []*os.File) []*os.File {
	var out []*os.File
	for _, file := range in {
		if i := slices.IndexFunc(out, func(o *os.File) bool { return same(o, file) }); i >= 0 {
			_ = file.Close()
			continue
		}
		out = append(out, file)
	}
	return out
}

// after opens the files that follow current. When current was removed all are newer.
func (f *files) after(current *os.File) ([]*os.File, error) {
	all, err := f.open()
	if err != nil {
		return nil, err
	}
	i := slices.IndexFunc(all, func(o *os.File) bool { return same(o, current) })
	closeAll(all[:i+1])
	return all[i+1:], nil
}

func same(a, b *os.File) bool {
	x, errX := a.Stat()
	y, errY := b.Stat()
	return errX == nil && errY == nil && os.SameFile(x, y)
}

func closeAll(list []*os.File) {
	for _, f := range list {
		_ = f.Close()
	}
}
