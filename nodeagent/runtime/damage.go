package runtime

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"runtime/debug"
	"slices"
	"time"

	bolt "go.etcd.io/bbolt"
	bolterrors "go.etcd.io/bbolt/errors"
	"golang.org/x/sys/unix"
)

// databases are what containerd knows its containers, images and layers by. Without them all else it keeps is of no
// use.
func (p paths) databases() []string {
	root := filepath.Join(p.state, "root")
	return []string{
		filepath.Join(root, "io.containerd.metadata.v1.bolt", "meta.db"),
		filepath.Join(root, "io.containerd.snapshotter.v1.overlayfs", "metadata.db"),
	}
}

// checkDatabases reads containerd's databases to their end before it is started on them: it would end at once, or
// answer without half of what it needs.
func (r *Runtime) checkDatabases() error {
	for _, path := range r.paths.databases() {
		if err := checkDatabase(path); err != nil {
			return fmt.Errorf("%s is damaged: %w", path, err)
		}
	}
	return nil
}

// openWait is how long a database may be locked by a containerd that is just ending.
const openWait = 2 * time.Second

// checkDatabase returns an error when a database cannot be read. One that is not there, or in use, is sound.
func checkDatabase(path string) (err error) {
	info, err := os.Stat(path)
	if errors.Is(err, fs.ErrNotExist) || err == nil && info.Size() == 0 {
		return nil
	}
	if err != nil {
		return err
	}
	defer debug.SetPanicOnFault(debug.SetPanicOnFault(true)) // a file that is cut short is a fault of the memory it is mapped to
	defer func() {
		if r := recover(); r != nil {
			err = fmt.Errorf("read it: %v", r)
		}
	}()
	db, err := bolt.Open(path, 0o600, &bolt.Options{ReadOnly: true, Timeout: openWait})
	if errors.Is(err, bolterrors.ErrTimeout) {
		return nil
	}
	if err != nil {
		return err
	}
	defer func() { _ = db.Close() }()
	tx, err := db.Begin(false)
	if err != nil {
		return err
	}
	defer func() { _ = tx.Rollback() }()
	left := maxEntries
	return tx.ForEach(func(_ []byte, b *bolt.Bucket) error { return walk(b, &left) })
}

// maxEntries bounds the walk: pages that lead in a circle are damage, too.
const maxEntries = 20_000_000

func walk(b *bolt.Bucket, left *int) error {
	return b.ForEach(func(k, v []byte) error {
		if *left--; *left < 0 {
			return errors.New("its pages lead in a circle")
		}
		if v != nil {
			return nil
		}
		return walk(b.Bucket(k), left)
	})
}

// setAside makes room for a new beginning: containers nobody can find any more are ended, and what containerd had is
// kept beside it for whoever wants to look.
func (r *Runtime) setAside() (kept string, err error) {
	r.killShims()
	mounts, err := mountsBelow(r.paths.run, r.paths.state)
	if err != nil {
		return "", err
	}
	for _, target := range slices.Backward(mounts) {
		if err := unix.Unmount(target, unix.MNT_DETACH); err != nil {
			return "", fmt.Errorf("unmount %s: %w", target, err)
		}
	}
	root := filepath.Join(r.paths.state, "root")
	kept = root + ".damaged"
	err = errors.Join(os.RemoveAll(filepath.Join(r.paths.run, "state")), os.RemoveAll(kept))
	if err != nil {
		return "", err
	}
	return kept, os.Rename(root, kept)
}
