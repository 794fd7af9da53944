package remote

import (
	"errors"
	"fmt"
	"io"
	"path"
	"slices"
	"strings"

	"github.com/go-git/go-git/v5/plumbing"
	"github.com/go-git/go-git/v5/plumbing/filemode"
	"github.com/go-git/go-git/v5/plumbing/object"

	"github.com/slipway-dev/slipway/gitsource"
)

// Bounds on a tree. One folder's object can stand in many places, so entries are counted where they stand.
const (
	maxTreeDepth = 100
	maxEntries   = 250_000
	maxLink      = 4096
)

// treeReader makes a snapshot of a commit. Only blobs with a manifest's name are read; nothing is written anywhere.
type treeReader struct {
	cache   *cache
	root    plumbing.Hash
	budget  gitsource.Budget
	entries int
	trees   map[plumbing.Hash]*object.Tree // decoded: one may stand in many places
	files   []gitsource.File
	modules []string // submodules, which are not followed
}

// read returns the snapshot of a commit and the paths of submodules in it. Folder restricts it to a part of the
// tree; files are named from the repository's top all the same.
func (c *cache) read(id plumbing.Hash, folder string) (*gitsource.Snapshot, []string, error) {
	commit, err := object.GetCommit(c.store, id)
	if err != nil {
		return nil, nil, fmt.Errorf("read commit %s: %w", id, err)
	}
	r := &treeReader{cache: c, root: commit.TreeHash, trees: map[plumbing.Hash]*object.Tree{}}
	start := commit.TreeHash
	if folder != "" {
		entry, err := r.find(folder)
		if err != nil {
			return nil, nil, err
		}
		if entry == nil || entry.Mode != filemode.Dir {
			return nil, nil, refuse("there is no folder %q in commit %s", folder, id.String()[:7])
		}
		start = entry.Hash
	}
	if err := r.folder(folder, start, 0); err != nil {
		return nil, nil, err
	}
	slices.SortFunc(r.files, func(a, b gitsource.File) int { return strings.Compare(a.Path, b.Path) })
	return &gitsource.Snapshot{Files: r.files, Revision: gitsource.Revision{
		ID: id.String(), Subject: gitsource.Subject(commit.Message), Author: gitsource.Subject(commit.Author.Name), Time: commit.Committer.When.UTC()}}, r.modules, nil
}

func (r *treeReader) folder(dir string, id plumbing.Hash, depth int) error {
	if depth > maxTreeDepth {
		return refuse("%.100s: folders are nested too deeply (want at most %d levels)", dir, maxTreeDepth)
	}
	tree := r.trees[id]
	if tree == nil {
		var err error
		if tree, err = object.GetTree(r.cache.store, id); err != nil {
			return fmt.Errorf("read folder %q: %w", dir, err)
		}
		r.trees[id] = tree
	}
	for _, e := range tree.Entries {
		if r.entries++; r.entries > maxEntries {
			return refuse("the tree has too many files (want at most %d)", maxEntries)
		}
		if strings.HasPrefix(e.Name, ".") && e.Name != "." && e.Name != ".." {
			continue
		}
		if e.Name == "" || e.Name == "." || e.Name == ".." || strings.ContainsFunc(e.Name, func(c rune) bool { return c == '/' || c == '\\' || c < ' ' }) {
			return refuse("folder %q: name %q is not allowed", dir, e.Name)
		}
		if err := r.entry(path.Join(dir, e.Name), e, depth); err != nil {
			return err
		}
	}
	return nil
}

func (r *treeReader) entry(name string, e object.TreeEntry, depth int) error {
	switch {
	case e.Mode == filemode.Dir:
		return r.folder(name, e.Hash, depth+1)
	case e.Mode == filemode.Submodule:
		r.modules = append(r.modules, name)
	case e.Mode == filemode.Symlink:
		return r.link(name, e.Hash)
	case gitsource.IsManifest(e.Name):
		size, err := r.cache.store.EncodedObjectSize(e.Hash)
		if err != nil {
			return fmt.Errorf("read %s: %w", name, err)
		}
		if err := r.budget.Add(name, size); err != nil {
			return refusal{err}
		}
		data, err := r.blob(e.Hash, gitsource.MaxFileBytes)
		if err != nil {
			return fmt.Errorf("read %s: %w", name, err)
		}
		r.files = append(r.files, gitsource.File{Path: name, Data: data})
	}
	return nil
}

func (r *treeReader) blob(id plumbing.Hash, limit int64) ([]byte, error) {
	blob, err := object.GetBlob(r.cache.store, id)
	if err != nil {
		return nil, err
	}
	f, err := blob.Reader()
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return io.ReadAll(io.LimitReader(f, limit))
}

// link refuses a symbolic link that would bring manifests in: one named like a manifest, or to a folder.
func (r *treeReader) link(name string, id plumbing.Hash) error {
	refused := refuse("%s: is a symbolic link, which is not followed: put the file itself there", name)
	if gitsource.IsManifest(name) {
		return refused
	}
	target, err := r.blob(id, maxLink)
	if err != nil {
		return fmt.Errorf("read %s: %w", name, err)
	}
	to := path.Join(path.Dir(name), string(target))
	if path.IsAbs(string(target)) || to == ".." || strings.HasPrefix(to, "../") || to == "." || to == name {
		return refused
	}
	entry, err := r.find(to)
	if err != nil {
		return err
	}
	if entry != nil && (entry.Mode == filemode.Dir || entry.Mode == filemode.Symlink) {
		return refused
	}
	return nil
}

func refuse(format string, args ...any) error { return refusal{fmt.Errorf(format, args...)} }

// find returns the entry at a path, or nil.
func (r *treeReader) find(name string) (*object.TreeEntry, error) {
	tree, err := object.GetTree(r.cache.store, r.root)
	if err != nil {
		return nil, err
	}
	entry, err := tree.FindEntry(name)
	switch {
	case errors.Is(err, object.ErrEntryNotFound), errors.Is(err, object.ErrDirectoryNotFound), errors.Is(err, object.ErrFileNotFound):
		return nil, nil
	case err != nil:
		return nil, fmt.Errorf("read %q: %w", name, err)
	}
	return entry, nil
}
