package logs

import (
	"cmp"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"
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

// place is where a file stands in the order of an attempt's files. The shim names a rotated file
// "0.log.20060102-150405" or, where that would not come after the one before, "0.log.20060102-150405-001", so that
// names tell the order whatever the clock did.
type place struct {
	stamp string
	n     int
}

const stampLayout = "20060102-150405"

func parsePlace(suffix string) (place, bool) {
	if len(suffix) < len(stampLayout) {
		return place{}, false
	}
	stamp, rest := suffix[:len(stampLayout)], suffix[len(stampLayout):]
	if _, err := time.Parse(stampLayout, stamp); err != nil {
		return place{}, false
	}
	if rest == "" {
		return place{stamp: stamp}, true
	}
	n, err := strconv.Atoi(strings.TrimPrefix(rest, "-"))
	return place{stamp, n}, err == nil && n > 0 && rest[0] == '-'
}

func (p place) compare(other place) int {
	return cmp.Or(strings.Compare(p.stamp, other.stamp), cmp.Compare(p.n, other.n))
}

// entry is a file as it was listed.
type entry struct {
	name  string
	info  fs.FileInfo
	place place // of the file being written: that of the newest rotated one
	live  bool
}

// list lists the files, oldest first. None is no error; what has another name is not a log of the shim.
func (f *files) list() ([]entry, error) {
	if f.root == nil {
		return nil, nil
	}
	dir, base := filepath.Split(f.path)
	names, err := fs.ReadDir(f.root.FS(), filepath.Clean(dir))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("list %s: %w", f.path, err)
	}
	var found []entry
	for _, n := range names {
		e := entry{name: dir + n.Name(), live: n.Name() == base}
		suffix, rotated := strings.CutPrefix(n.Name(), base+".")
		if rotated {
			e.place, rotated = parsePlace(suffix)
		}
		if !rotated && !e.live {
			continue
		}
		if e.info, err = n.Info(); err == nil && e.info.Mode().IsRegular() {
			found = append(found, e)
		}
	}
	slices.SortFunc(found, func(a, b entry) int {
		if a.live != b.live {
			if b.live {
				return -1
			}
			return 1
		}
		return a.place.compare(b.place)
	})
	if last := len(found) - 1; last > 0 && found[last].live {
		found[last].place = found[last-1].place
	}
	return found, nil
}

// file is one open log file.
type file struct {
	*os.File
	entry entry
}

// tries is how often files are listed anew because they were rotated meanwhile.
const tries = 100

// after opens the files that follow current, all when it is nil. A file that is renamed while its folder is listed may
// be missing in the list, or another be behind its name when it is opened: what was opened counts when the list is the
// same afterwards.
func (f *files) after(current *file) ([]*file, error) {
	all, err := f.list()
	for range tries {
		wanted := newer(all, current)
		if err != nil || len(wanted) == 0 {
			return nil, err
		}
		opened, openErr := f.open(wanted)
		before := all
		all, err = f.list()
		if err == nil && slices.EqualFunc(before, all, entry.same) {
			return opened, openErr
		}
		closeAll(opened)
	}
	return nil, fmt.Errorf("open %s: it is rotated faster than it can be read", f.path)
}

func (e entry) same(other entry) bool { return e.name == other.name && os.SameFile(e.info, other.info) }

// newer returns the entries that follow current. Current may have been renamed since, or removed.
func newer(all []entry, current *file) []entry {
	if current == nil {
		return all
	}
	if i := slices.IndexFunc(all, func(e entry) bool { return os.SameFile(e.info, current.entry.info) }); i >= 0 {
		return all[i+1:]
	}
	i := slices.IndexFunc(all, func(e entry) bool { return e.live || e.place.compare(current.entry.place) > 0 })
	if i < 0 {
		return nil
	}
	return all[i:]
}

func (f *files) open(entries []entry) ([]*file, error) {
	var out []*file
	for _, e := range entries {
		opened, err := f.root.Open(e.name)
		if err != nil {
			closeAll(out)
			return nil, fmt.Errorf("open %s: %w", e.name, err)
		}
		out = append(out, &file{opened, e})
	}
	return out, nil
}

func closeAll(list []*file) {
	for _, f := range list {
		_ = f.Close()
	}
}
