package local

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/slipway-dev/slipway/gitsource"
)

// errChanged says that the directory changed while it was read.
var errChanged = errors.New("changed while it was read")

// maxEntries bounds what is looked at, manifests or not.
const maxEntries = 500_000

// tree is one reading of a directory.
type tree struct {
	files   []gitsource.File
	newest  time.Time // of the files' modification times
	emptied bool      // a file that had content was emptied just now
}

// scanner reads a directory through an os.Root: whatever links and renames happen meanwhile, nothing outside the
// directory is opened.
type scanner struct {
	dir     string
	root    *os.Root
	watch   func(dir string)
	before  *gitsource.Snapshot // what was read last; nil: nothing
	ignore  *ignore
	budget  gitsource.Budget
	entries int
	seen    []seen
	refused []string // files that are refused, and why
	tree    tree
}

// seen is what was found at a path, to be compared with what is there after reading.
type seen struct {
	path string
	info fs.FileInfo
}

func (s *Source) scan(w *watcher) (*tree, error) {
	root, err := os.OpenRoot(s.dir)
	if err != nil {
		return nil, err
	}
	defer root.Close()
	head, err := s.repo.read(s.dir)
	if err != nil {
		s.opts.Log.Debug("repository is not read", "dir", s.dir, "error", err)
	}
	sc := &scanner{dir: s.dir, root: root, watch: w.add, before: s.last, ignore: newIgnore(s.repo.top, s.dir, head)}
	if err := sc.folder("."); err != nil {
		if !errors.Is(err, errChanged) && sc.unchanged() != nil {
			return nil, errChanged
		}
		return nil, err
	}
	if err := sc.unchanged(); err != nil {
		return nil, err
	}
	if err := sc.refusal(); err != nil {
		return nil, err
	}
	slices.SortFunc(sc.tree.files, func(a, b gitsource.File) int { return strings.Compare(a.Path, b.Path) })
	return &sc.tree, nil
}

// shownRefusals bounds how many of a directory's refused files are named.
const shownRefusals = 20

// refusal names every file that is refused, so that they can be mended all at once.
func (sc *scanner) refusal() error {
	if len(sc.refused) == 0 {
		return nil
	}
	slices.Sort(sc.refused)
	lines := sc.refused[:min(len(sc.refused), shownRefusals)]
	if more := len(sc.refused) - len(lines); more > 0 {
		lines = append(slices.Clone(lines), fmt.Sprintf("and %d more", more))
	}
	return errors.New(strings.Join(lines, "\n"))
}

// folder reads one directory. It is watched before it is listed, so that nothing appears unseen in between.
func (sc *scanner) folder(name string) error {
	sc.watch(filepath.Join(sc.dir, filepath.FromSlash(name)))
	dir, err := sc.root.Open(name)
	if err != nil {
		return vanished(err)
	}
	defer dir.Close()
	info, err := dir.Stat()
	if err != nil {
		return err
	}
	sc.seen = append(sc.seen, seen{name, info})
	if err := sc.ignore.enter(sc.root, name); err != nil {
		return err
	}
	for {
		entries, err := dir.ReadDir(1000)
		for _, e := range entries {
			if err := sc.entry(path.Join(name, e.Name()), e); err != nil {
				return err
			}
		}
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return vanished(err)
		}
	}
}

func (sc *scanner) entry(name string, e fs.DirEntry) error {
	if sc.entries++; sc.entries > maxEntries {
		return fmt.Errorf("too many files (want at most %d): watch a smaller directory", maxEntries)
	}
	if strings.HasPrefix(e.Name(), ".") || len(name) > gitsource.MaxPath || strings.HasPrefix(e.Name(), "flycheck_") {
		return nil
	}
	if !e.IsDir() && e.Type()&fs.ModeSymlink == 0 && !gitsource.IsManifest(e.Name()) || sc.ignore.matches(name, e.IsDir()) {
		return nil
	}
	switch {
	case e.IsDir():
		return sc.folder(name)
	case e.Type()&fs.ModeSymlink != 0:
		return sc.link(name)
	}
	return sc.file(name)
}

// link refuses a symbolic link that would bring manifests in. Others are of no concern.
func (sc *scanner) link(name string) error {
	refused := name + ": is a symbolic link, which is not followed: put the file itself there"
	if gitsource.IsManifest(name) {
		sc.refused = append(sc.refused, refused)
		return nil
	}
	info, err := sc.root.Stat(name) // refuses to leave the directory
	if errors.Is(err, fs.ErrNotExist) || err == nil && !info.IsDir() {
		return nil
	}
	sc.refused = append(sc.refused, refused)
	return nil
}

func (sc *scanner) file(name string) error {
	f, err := sc.root.OpenFile(name, openFlags, 0)
	if err != nil {
		return vanished(err)
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return err
	}
	if !info.Mode().IsRegular() {
		sc.refused = append(sc.refused, fmt.Sprintf("%s: is not a regular file (got %s)", name, info.Mode().Type()))
		return nil
	}
	if err := sc.budget.Add(name, info.Size()); err != nil {
		return err
	}
	data, err := io.ReadAll(io.LimitReader(f, gitsource.MaxFileBytes+1))
	if err != nil {
		return fmt.Errorf("%s: %w", name, err)
	}
	if int64(len(data)) != info.Size() {
		return errChanged
	}
	sc.seen = append(sc.seen, seen{name, info})
	sc.tree.files = append(sc.tree.files, gitsource.File{Path: name, Data: data})
	if info.ModTime().After(sc.tree.newest) {
		sc.tree.newest = info.ModTime()
	}
	if age := time.Since(info.ModTime()).Abs(); len(data) == 0 && age < youngFile && sc.hadContent(name) {
		sc.tree.emptied = true
	}
	return nil
}

// hadContent says whether a file was not empty when it was read last.
func (sc *scanner) hadContent(name string) bool {
	if sc.before == nil {
		return false
	}
	i, ok := slices.BinarySearchFunc(sc.before.Files, name, func(f gitsource.File, name string) int { return strings.Compare(f.Path, name) })
	return ok && len(sc.before.Files[i].Data) > 0
}

// unchanged looks again at everything that was read.
func (sc *scanner) unchanged() error {
	now, err := os.Stat(sc.dir)
	if err != nil || !os.SameFile(now, sc.seen[0].info) {
		return errChanged
	}
	for _, s := range sc.seen {
		now, err := sc.root.Lstat(s.path)
		if err != nil || !same(now, s.info) {
			return errChanged
		}
	}
	return nil
}

func same(a, b fs.FileInfo) bool {
	return os.SameFile(a, b) && a.Mode() == b.Mode() && a.ModTime().Equal(b.ModTime()) && (a.IsDir() || a.Size() == b.Size()) && changeTime(a) == changeTime(b)
}

// vanished turns the disappearance of something that was just listed into errChanged.
func vanished(err error) error {
	if errors.Is(err, fs.ErrNotExist) {
		return errChanged
	}
	return err
}
