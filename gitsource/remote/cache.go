package remote

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/go-git/go-billy/v5/osfs"
	"github.com/go-git/go-git/v5/config"
	"github.com/go-git/go-git/v5/plumbing"
	gitcache "github.com/go-git/go-git/v5/plumbing/cache"
	"github.com/go-git/go-git/v5/plumbing/format/packfile"
	"github.com/go-git/go-git/v5/plumbing/object"
	"github.com/go-git/go-git/v5/storage/filesystem"
)

const (
	maxWalk   = 100_000 // commits looked at to find out whether one descends from another
	manyPacks = 40      // from here on the cache is made anew
)

// cache is a bare repository on disk with the newest tree that was read. Losing it costs one fetch.
type cache struct {
	dir   string
	store *filesystem.Storage
	ref   plumbing.ReferenceName
}

// Names inside the cache directory. A fetch from nothing goes into fresh, which then takes current's place.
const (
	current = "repo.git"
	fresh   = "next.git"
)

// openCache opens the cache of a repository's branch below dir, making an empty one where there is none or another
// repository's.
func openCache(dir, url, branch string) (*cache, error) {
	if err := os.RemoveAll(filepath.Join(dir, fresh)); err != nil {
		return nil, fmt.Errorf("clear cache: %w", err)
	}
	c, err := makeCache(filepath.Join(dir, current), url, branch)
	if err != nil {
		return nil, err
	}
	if cfg, err := c.store.Config(); err == nil {
		if r := cfg.Remotes["origin"]; r != nil && len(r.URLs) > 0 && r.URLs[0] == url {
			return c, nil
		}
	}
	if err := os.RemoveAll(filepath.Join(dir, current)); err != nil {
		return nil, fmt.Errorf("clear cache: %w", err)
	}
	return makeCache(filepath.Join(dir, current), url, branch)
}

func makeCache(dir, url, branch string) (*cache, error) {
	store := filesystem.NewStorageWithOptions(osfs.New(dir), gitcache.NewObjectLRU(8*gitcache.MiByte), filesystem.Options{LargeObjectThreshold: maxObjectBytes / 8})
	c := &cache{dir: dir, store: store, ref: plumbing.ReferenceName("refs/slipway/" + hexName(branch))}
	if _, err := os.Stat(filepath.Join(dir, "HEAD")); err == nil {
		return c, nil
	} else if !errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("open cache: %w", err)
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("make cache: %w", err)
	}
	cfg := config.NewConfig()
	cfg.Core.IsBare = true
	cfg.Remotes["origin"] = &config.RemoteConfig{Name: "origin", URLs: []string{url}}
	err := errors.Join(store.Init(), store.SetConfig(cfg), store.SetReference(plumbing.NewSymbolicReference(plumbing.HEAD, c.ref)))
	if err != nil {
		return nil, fmt.Errorf("make cache: %w", err)
	}
	return c, nil
}

// hexName makes a reference name's last part of any branch name.
func hexName(branch string) string {
	if branch == "" {
		return "default"
	}
	return fmt.Sprintf("branch-%x", branch)
}

// last returns the commit read last, or zero.
func (c *cache) last() plumbing.Hash {
	ref, err := c.store.Reference(c.ref)
	if err != nil {
		return plumbing.ZeroHash
	}
	return ref.Hash()
}

// remember makes id the commit read last.
func (c *cache) remember(id plumbing.Hash) error {
	return c.store.SetReference(plumbing.NewHashReference(c.ref, id))
}

// receive stores a pack after looking through it.
func (c *cache) receive(r io.Reader) error {
	f, err := os.CreateTemp(c.dir, "incoming-")
	if err != nil {
		return fmt.Errorf("store pack: %w", err)
	}
	defer os.Remove(f.Name())
	defer f.Close()
	n, err := io.Copy(f, io.LimitReader(r, maxPack+1))
	if err != nil {
		return err
	}
	if n > maxPack {
		return errTooLong
	}
	if _, err := f.Seek(0, io.SeekStart); err != nil {
		return err
	}
	if err := checkPack(f); err != nil {
		return err
	}
	if _, err := f.Seek(0, io.SeekStart); err != nil {
		return err
	}
	if err := packfile.UpdateObjectStorage(c.store, f); err != nil {
		return fmt.Errorf("store pack: %w", err)
	}
	return nil
}

// crowded says whether many fetches have left their packs.
func (c *cache) crowded() bool {
	entries, err := os.ReadDir(filepath.Join(c.dir, "objects", "pack"))
	if err != nil {
		return false
	}
	packs := 0
	for _, e := range entries {
		if strings.HasSuffix(e.Name(), ".pack") {
			packs++
		}
	}
	return packs >= manyPacks
}

// descends says whether id is old or has it among its ancestors, as far as they are known.
func (c *cache) descends(id, old plumbing.Hash) bool {
	seen := map[plumbing.Hash]bool{id: true}
	queue := []plumbing.Hash{id}
	for len(queue) > 0 && len(seen) < maxWalk {
		next := queue[0]
		queue = queue[1:]
		if next == old {
			return true
		}
		commit, err := object.GetCommit(c.store, next)
		if err != nil { // the edge of what was fetched
			continue
		}
		for _, p := range commit.ParentHashes {
			if !seen[p] {
				seen[p] = true
				queue = append(queue, p)
			}
		}
	}
	return false
}

// replace puts a fresh cache in this one's place.
func (c *cache) replace(by *cache, url, branch string) error {
	if err := os.RemoveAll(c.dir); err != nil {
		return fmt.Errorf("replace cache: %w", err)
	}
	if err := os.Rename(by.dir, c.dir); err != nil {
		return fmt.Errorf("replace cache: %w", err)
	}
	again, err := makeCache(c.dir, url, branch)
	if err != nil {
		return err
	}
	*c = *again
	return nil
}
