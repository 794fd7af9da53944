package local

import (
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"path"
	"path/filepath"
	"strings"
	"time"

	"github.com/go-git/go-git/v5"
	"github.com/go-git/go-git/v5/plumbing"
	"github.com/go-git/go-git/v5/plumbing/filemode"
	"github.com/go-git/go-git/v5/plumbing/object"

	"github.com/slipway-dev/slipway/gitsource"
)

// repository is the one a directory lies in, if any, with its HEAD as last read.
type repository struct {
	top  string // folder that holds .git; "" outside a repository
	dir  string // of git's own files, for index.lock
	last *head
}

// head is what HEAD has of a directory.
type head struct {
	commit  plumbing.Hash
	subject string
	author  string
	time    time.Time
	blobs   map[string]plumbing.Hash // manifests by path below the directory
	folders map[string]bool
}

// tracks says whether HEAD has a path. A nil head has none.
func (h *head) tracks(name string, isDir bool) bool {
	if h == nil {
		return false
	}
	if isDir {
		return h.folders[name]
	}
	_, ok := h.blobs[name]
	return ok
}

// find looks for the repository around dir.
func (r *repository) find(dir string) bool {
	for top := dir; ; top = filepath.Dir(top) {
		dot := filepath.Join(top, ".git")
		info, err := os.Stat(dot)
		if err == nil {
			r.top, r.dir = top, dot
			if !info.IsDir() {
				r.dir = worktreeDir(dot)
			}
			return true
		}
		if top == filepath.Dir(top) {
			*r = repository{}
			return false
		}
	}
}

// worktreeDir follows the .git file of a worktree or submodule.
func worktreeDir(dot string) string {
	f, err := os.Open(dot)
	if err != nil {
		return dot
	}
	defer f.Close()
	data, err := io.ReadAll(io.LimitReader(f, 4096))
	if err != nil {
		return dot
	}
	dir, ok := strings.CutPrefix(strings.TrimSpace(string(data)), "gitdir: ")
	if !ok {
		return dot
	}
	if !filepath.IsAbs(dir) {
		dir = filepath.Join(filepath.Dir(dot), dir)
	}
	return dir
}

// locked says whether git is changing the work tree around dir.
func (r *repository) locked(dir string) bool {
	if !r.find(dir) {
		return false
	}
	for _, name := range []string{"index.lock", "HEAD.lock"} {
		if _, err := os.Lstat(filepath.Join(r.dir, name)); err == nil {
			return true
		}
	}
	return false
}

// young says whether git wrote its index just now. A checkout moves HEAD only after that.
func (r *repository) young() bool {
	info, err := os.Stat(filepath.Join(r.dir, "index"))
	return err == nil && time.Since(info.ModTime()).Abs() < youngIndex
}

// read returns HEAD, or nil outside a repository and before its first commit.
func (r *repository) read(dir string) (h *head, err error) {
	if !r.find(dir) {
		return nil, nil
	}
	defer func() {
		if p := recover(); p != nil { // a damaged repository must not end the process
			h, err = nil, fmt.Errorf("read repository %s: %v", r.top, p)
		}
		r.last = h
	}()
	repo, err := git.PlainOpenWithOptions(r.top, &git.PlainOpenOptions{EnableDotGitCommonDir: true})
	if err != nil {
		return nil, fmt.Errorf("open repository %s: %w", r.top, err)
	}
	ref, err := repo.Head()
	if errors.Is(err, plumbing.ErrReferenceNotFound) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("read HEAD of %s: %w", r.top, err)
	}
	if r.last != nil && r.last.commit == ref.Hash() {
		return r.last, nil
	}
	rel, err := filepath.Rel(r.top, dir)
	if err != nil {
		return nil, err
	}
	if h, err = readHead(repo, ref.Hash(), filepath.ToSlash(rel)); err != nil {
		return nil, fmt.Errorf("read commit %s of %s: %w", ref.Hash(), r.top, err)
	}
	return h, nil
}

func readHead(repo *git.Repository, id plumbing.Hash, dir string) (*head, error) {
	commit, err := repo.CommitObject(id)
	if err != nil {
		return nil, err
	}
	h := &head{commit: id, subject: gitsource.Subject(commit.Message), author: commit.Author.Name, time: commit.Committer.When,
		blobs: map[string]plumbing.Hash{}, folders: map[string]bool{}}
	tree, err := commit.Tree()
	if err == nil && dir != "." {
		tree, err = tree.Tree(dir)
	}
	if errors.Is(err, object.ErrDirectoryNotFound) {
		return h, nil
	}
	if err != nil {
		return nil, err
	}
	walker := object.NewTreeWalker(tree, true, nil)
	defer walker.Close()
	for {
		name, entry, err := walker.Next()
		if errors.Is(err, io.EOF) {
			return h, nil
		}
		if err != nil {
			return nil, err
		}
		if entry.Mode == filemode.Regular || entry.Mode == filemode.Executable {
			h.add(name, entry.Hash)
		}
	}
}

func (h *head) add(name string, id plumbing.Hash) {
	if !gitsource.IsManifest(name) || strings.HasPrefix(name, ".") || strings.Contains(name, "/.") {
		return
	}
	h.blobs[name] = id
	for dir := path.Dir(name); dir != "." && !h.folders[dir]; dir = path.Dir(dir) {
		h.folders[dir] = true
	}
}

// dirty says whether files differ from what HEAD has.
func (h *head) dirty(files []gitsource.File) bool {
	if len(files) != len(h.blobs) {
		return true
	}
	for _, f := range files {
		if id, ok := h.blobs[f.Path]; !ok || id != plumbing.ComputeHash(plumbing.BlobObject, f.Data) {
			return true
		}
	}
	return false
}

// snapshot names a reading.
func (s *Source) snapshot(t *tree) *gitsource.Snapshot {
	revision := gitsource.Revision{ID: contentID(t.files), Time: t.newest}
	if h := s.repo.last; h != nil && s.repo.top != "" {
		revision.Head = h.commit.String()
		revision.Dirty = h.dirty(t.files)
		if !revision.Dirty {
			revision.Subject, revision.Author, revision.Time = h.subject, h.author, h.time
		}
	}
	return &gitsource.Snapshot{Revision: revision, Files: t.files}
}

// contentID hashes paths and contents, each with its length, so that nothing can move from one into the other.
func contentID(files []gitsource.File) string {
	sum := sha256.New()
	var length [8]byte
	for _, f := range files {
		for _, part := range [][]byte{[]byte(f.Path), f.Data} {
			binary.BigEndian.PutUint64(length[:], uint64(len(part)))
			sum.Write(length[:])
			sum.Write(part)
		}
	}
	return "dir-" + hex.EncodeToString(sum.Sum(nil)[:20])
}
