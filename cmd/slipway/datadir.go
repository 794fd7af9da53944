package main

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// defaultDataDir is where a machine's Slipway keeps everything.
const defaultDataDir = "/var/lib/slipway"

// formatFile holds that version. A directory without it is not one of Slipway's.
const formatFile = "format"

// dataDir is a locked data directory.
type dataDir struct {
	path string
	lock *os.File
}

func (d *dataDir) etcd() string       { return filepath.Join(d.path, "etcd") }
func (d *dataDir) snapshots() string  { return filepath.Join(d.path, "snapshots") }
func (d *dataDir) pki() string        { return filepath.Join(d.path, "pki") }
func (d *dataDir) containerd() string { return filepath.Join(d.path, "containerd") }
func (d *dataDir) pods() string       { return filepath.Join(d.path, "pods") }
func (d *dataDir) archives() string   { return filepath.Join(d.path, "archives.json") }
func (d *dataDir) log() string        { return filepath.Join(d.path, "slipway.log") }
func (d *dataDir) secretKeys() string { return filepath.Join(d.path, secretKeys) }
func (d *dataDir) kubeconfig() string { return filepath.Join(d.path, "kubeconfig") }

// own returns base for the default data directory, and base with a suffix of its own for any other.
func (d *dataDir) own(base string) string {
	if d.path == defaultDataDir {
		return base
	}
	sum := sha256.Sum256([]byte(d.path))
	return base + "-" + hex.EncodeToString(sum[:4])
}

// run is the directory for what does not outlive a reboot.
func (d *dataDir) run() string { return d.own("/run/slipway") }

// cgroup is the control group that holds all Pods'.
func (d *dataDir) cgroup() string { return d.own("/slipway") }

// busyError says that another process holds a data directory.
type busyError struct {
	dir string
	pid int // 0: not known
}

func (e busyError) Error() string {
	holder := "another process"
	if e.pid > 0 {
		holder = fmt.Sprintf("pid %d", e.pid)
	}
	return fmt.Sprintf("%s holds the data directory %s: end it first, or choose another with --data-dir", holder, e.dir)
}

// openDataDir makes the directory if needed, locks it and checks its format.
func openDataDir(path string) (*dataDir, error) {
	path, err := filepath.Abs(path)
	if err != nil {
		return nil, usage("data directory: %w", err)
	}
	if err := os.MkdirAll(path, 0o700); err != nil {
		return nil, usage("data directory: %w", err)
	}
	lock, err := os.OpenFile(filepath.Join(path, "lock"), os.O_RDWR|os.O_CREATE|unix.O_CLOEXEC, 0o600)
	if err != nil {
		return nil, usage("lock data directory: %w", err)
	}
	if err := unix.Flock(int(lock.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		defer lock.Close()
		if errors.Is(err, unix.EWOULDBLOCK) {
			return nil, exitError{exitBusy, busyError{path, lockHolder(path)}}
		}
		return nil, usage("lock data directory %s: %w", path, err)
	}
	d := &dataDir{path: path, lock: lock}
	if err := errors.Join(d.writePID(), d.settleFormat(upgrades())); err != nil {
		d.close()
		return nil, usage("open data directory %s: %w", path, err)
	}
	return d, nil
}

// leastSpace is what the store's log takes at its first start: two segments.
const leastSpace = 128 << 20

// leastInodes is how many files the store makes at its start, with something to spare.
const leastInodes = 64

// checkSpace says whether the directory's disk has room to start: the store cannot go on from a log half made.
func (d *dataDir) checkSpace(least uint64) error {
	var fs unix.Statfs_t
	if err := unix.Statfs(d.path, &fs); err != nil {
		return usage("look at the disk of %s: %w", d.path, err)
	}
	if free := fs.Bavail * uint64(fs.Bsize); free < least {
		return usage("the disk of the data directory %s has %d MB free, and at least %d are needed: make room, or choose another with --data-dir", d.path, free>>20, least>>20)
	}
	if fs.Files > 0 && fs.Ffree < leastInodes { // zero: a filesystem that does not count them
		return usage("the disk of the data directory %s has %d inodes free, and at least %d are needed: remove files, or choose another with --data-dir", d.path, fs.Ffree, leastInodes)
	}
	return nil
}

// giveBack removes what the store has made ahead for its log: on a full disk that is the room in which containers can
// be removed. The store must be closed; it makes a new one when it is opened.
func (d *dataDir) giveBack() error {
	ahead, err := filepath.Glob(filepath.Join(d.etcd(), "member", "wal", "*.tmp"))
	if err != nil {
		return fmt.Errorf("make room in %s: %w", d.path, err)
	}
	for _, path := range ahead {
		if err := os.Remove(path); err != nil {
			return fmt.Errorf("make room: %w", err)
		}
	}
	return nil
}

// lockHolder returns the pid in the lock file, or 0.
func lockHolder(path string) int {
	text, err := os.ReadFile(filepath.Join(path, "lock"))
	if err != nil {
		return 0
	}
	pid, err := strconv.Atoi(strings.TrimSpace(string(text)))
	if err != nil {
		return 0
	}
	return pid
}

func (d *dataDir) writePID() error {
	// In place and always as long: there may be no room on the disk for another block.
	_, err := fmt.Fprintf(io.NewOffsetWriter(d.lock, 0), "%-10d\n", os.Getpid())
	return err
}

// close gives the lock back. The pid in it says nothing any more.
func (d *dataDir) close() { d.lock.Close() }
