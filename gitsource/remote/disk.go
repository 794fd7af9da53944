package remote

import (
	"context"
	"errors"
	"fmt"
	"io"

	"github.com/go-git/go-git/v5"
	"github.com/go-git/go-git/v5/plumbing"
	"github.com/go-git/go-git/v5/plumbing/filemode"
	"github.com/go-git/go-git/v5/plumbing/format/packfile"
	"github.com/go-git/go-git/v5/plumbing/object"
	"github.com/go-git/go-git/v5/plumbing/storer"
	"github.com/go-git/go-git/v5/plumbing/transport"

	"github.com/slipway-dev/slipway/gitsource"
)

// disk is a repository on this machine. It is read in place; its configuration, hooks and filters are not used.
type disk struct {
	path string
	repo *git.Repository
}

func (d *disk) tip(_ context.Context, branch string) (tip, error) {
	repo, err := git.PlainOpenWithOptions(d.path, &git.PlainOpenOptions{EnableDotGitCommonDir: true})
	if err != nil {
		return tip{}, err
	}
	d.repo = repo
	name := plumbing.NewBranchReferenceName(branch)
	if branch == "" {
		name = plumbing.HEAD
	}
	ref, err := storer.ResolveReference(repo.Storer, name)
	if err == nil {
		return tip{branch: ref.Name().Short(), id: ref.Hash()}, nil
	}
	if !errors.Is(err, plumbing.ErrReferenceNotFound) {
		return tip{}, err
	}
	var has []string
	branches, err := repo.Branches()
	if err != nil {
		return tip{}, err
	}
	if err := branches.ForEach(func(r *plumbing.Reference) error {
		has = append(has, r.Name().Short())
		return nil
	}); err != nil {
		return tip{}, err
	}
	if len(has) == 0 {
		return tip{}, transport.ErrEmptyRemoteRepository
	}
	return tip{}, &noBranchError{branch, has}
}

func (d *disk) close() {}

// fetch copies the commits since have and the tree of id.
func (d *disk) fetch(ctx context.Context, c *cache, id, have plumbing.Hash) error {
	objects, shallow, err := d.commits(ctx, id, have)
	if err != nil {
		return err
	}
	commit, err := object.GetCommit(d.repo.Storer, id)
	if err != nil {
		return err
	}
	if objects, err = d.appendTree(objects, commit.TreeHash, map[plumbing.Hash]bool{}, 0); err != nil {
		return err
	}
	if len(shallow) > 0 {
		known, err := c.store.Shallow()
		if err != nil {
			return err
		}
		if err := c.store.SetShallow(append(known, shallow...)); err != nil {
			return err
		}
	}
	r, w := io.Pipe()
	go func() {
		_, err := packfile.NewEncoder(w, d.repo.Storer, false).Encode(objects, 0)
		w.CloseWithError(err)
	}()
	err = c.receive(r)
	r.CloseWithError(err)
	return err
}

// commits lists id and, where have is given, the commits between the two. The second result are those whose
// parents are left out.
func (d *disk) commits(ctx context.Context, id, have plumbing.Hash) (ids, shallow []plumbing.Hash, err error) {
	if have.IsZero() {
		return []plumbing.Hash{id}, []plumbing.Hash{id}, nil
	}
	seen := map[plumbing.Hash]bool{have: true, id: true}
	queue := []plumbing.Hash{id}
	for len(queue) > 0 {
		if err := ctx.Err(); err != nil {
			return nil, nil, err
		}
		commit, err := object.GetCommit(d.repo.Storer, queue[0])
		if errors.Is(err, plumbing.ErrObjectNotFound) && len(ids) > 0 { // the repository is shallow itself
			queue = queue[1:]
			continue
		}
		if err != nil {
			return nil, nil, err
		}
		ids = append(ids, queue[0])
		queue = queue[1:]
		for _, p := range commit.ParentHashes {
			if !seen[p] {
				seen[p] = true
				queue = append(queue, p)
			}
		}
		if len(ids) > maxWalk {
			return nil, nil, fmt.Errorf("more than %d commits are new", maxWalk)
		}
	}
	return ids, nil, nil
}

// appendTree adds a tree and what of it a snapshot reads, each object once.
func (d *disk) appendTree(ids []plumbing.Hash, id plumbing.Hash, seen map[plumbing.Hash]bool, depth int) ([]plumbing.Hash, error) {
	if depth > maxTreeDepth || len(ids) > maxObjects {
		return nil, fmt.Errorf("the tree is too large (want at most %d levels and %d objects)", maxTreeDepth, maxObjects)
	}
	tree, err := object.GetTree(d.repo.Storer, id)
	if err != nil {
		return nil, err
	}
	ids = append(ids, id)
	for _, e := range tree.Entries {
		wanted := e.Mode == filemode.Dir || e.Mode == filemode.Symlink || e.Mode.IsFile() && gitsource.IsManifest(e.Name)
		if seen[e.Hash] || !wanted {
			continue
		}
		seen[e.Hash] = true
		if e.Mode != filemode.Dir {
			ids = append(ids, e.Hash)
			continue
		}
		if ids, err = d.appendTree(ids, e.Hash, seen, depth+1); err != nil {
			return nil, err
		}
	}
	return ids, nil
}
