// Package inspect reads what an etcd server keeps in its directory, and says what of it is damaged. It opens
// everything for reading only and changes nothing.
//
// etcd panics on damage, and so may the libraries that read its files: call it in a process that may end.
package inspect

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"runtime/debug"
	"strings"
	"time"

	bolt "go.etcd.io/bbolt"
	"go.etcd.io/etcd/server/v3/etcdserver/api/snap"
	"go.etcd.io/etcd/server/v3/storage/wal"
	"go.etcd.io/etcd/server/v3/storage/wal/walpb"
	"go.uber.org/zap"
)

// ErrEmpty says that nothing was ever kept in a directory, or that all of it is gone.
var ErrEmpty = errors.New("there is no store")

// Damage is what keeps a store from being opened.
type Damage struct {
	Path    string // the file or folder
	Problem string
}

// Error names the file.
func (d *Damage) Error() string { return d.Path + ": " + d.Problem }

func damage(path, format string, args ...any) error {
	return &Damage{Path: path, Problem: fmt.Sprintf(format, args...)}
}

// found is what a directory's files say of themselves.
type found struct {
	applied uint64 // the newest entry of the log the database knows
	first   *walpb.Snapshot
	last    uint64 // entry of the log
}

// Directory returns nil if a server can be opened on dir, ErrEmpty or a *Damage. It tells at which file it is, so that
// whoever is left knows where reading ended.
func Directory(dir string, at func(path string)) error {
	members, err := os.ReadDir(filepath.Join(dir, "member"))
	if errors.Is(err, fs.ErrNotExist) || err == nil && len(members) == 0 {
		return fmt.Errorf("%w in %s", ErrEmpty, dir)
	}
	if err != nil {
		return damage(dir, "%v", err)
	}
	db, logs := filepath.Join(dir, "member", "snap", "db"), filepath.Join(dir, "member", "wal")
	var f found
	at(db)
	if f.applied, _, err = database(db); err != nil {
		return err
	}
	at(logs)
	if err := f.log(logs, filepath.Dir(db)); err != nil {
		return err
	}
	switch {
	case f.applied > f.last:
		return damage(logs, "the end of the log is missing: it ends at entry %d, and the database knows entry %d", f.last, f.applied)
	case f.applied < f.first.GetIndex():
		return damage(db, "it is older than the log: it knows entry %d, and the log begins after entry %d", f.applied, f.first.GetIndex())
	}
	return nil
}

// Snapshot checks a copy of the database and returns its newest revision.
func Snapshot(path string) (revision uint64, err error) {
	_, revision, err = database(path)
	return revision, err
}

// database checks a database's pages and keys.
func database(path string) (applied, revision uint64, err error) {
	info, err := os.Stat(path)
	if errors.Is(err, fs.ErrNotExist) {
		return 0, 0, damage(path, "the database is missing")
	}
	if err != nil {
		return 0, 0, damage(path, "%v", err)
	}
	db, err := bolt.Open(path, 0, &bolt.Options{ReadOnly: true, Timeout: time.Second})
	if err != nil {
		return 0, 0, damage(path, "the database cannot be read: %v", err)
	}
	defer db.Close()
	debug.SetPanicOnFault(true) // a page that leads out of the file
	defer func() {
		if broken := recover(); broken != nil {
			err = damage(path, "the database is damaged: %v", broken)
		}
	}()
	err = db.View(func(tx *bolt.Tx) error {
		if tx.Size() > info.Size() {
			return damage(path, "the database is cut off: it has %d bytes of %d", info.Size(), tx.Size())
		}
		for problem := range tx.Check() {
			return damage(path, "the database is damaged: %v", problem)
		}
		applied = number(tx.Bucket([]byte("meta")), "consistent_index")
		revision, err = revisions(path, tx.Bucket([]byte("key")))
		return err
	})
	return applied, revision, err
}

// number reads a number of the database's own, 0 if it is absent.
func number(bucket *bolt.Bucket, key string) uint64 {
	if bucket == nil {
		return 0
	}
	if value := bucket.Get([]byte(key)); len(value) == 8 {
		return binary.BigEndian.Uint64(value)
	}
	return 0
}

// revisions checks the form of every key: a revision, a separator, a number within it and perhaps a mark.
func revisions(path string, keys *bolt.Bucket) (newest uint64, err error) {
	if keys == nil {
		return 0, damage(path, "the database has no keys")
	}
	return newest, keys.ForEach(func(key, _ []byte) error {
		if len(key) != 17 && len(key) != 18 || key[8] != '_' {
			return damage(path, "the database is damaged: %x is no revision", key)
		}
		newest = max(newest, binary.BigEndian.Uint64(key))
		return nil
	})
}

// log reads the log after the newest snapshot that is there.
func (f *found) log(dir, snapshots string) error {
	quiet := zap.NewNop()
	names, err := os.ReadDir(dir)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return damage(dir, "%v", err)
	}
	if !anyLog(names) {
		return damage(dir, "the log is missing")
	}
	entries, err := wal.ValidSnapshotEntries(quiet, dir)
	if err != nil {
		return damage(dir, "the log cannot be read: %v", err)
	}
	f.first = &walpb.Snapshot{}
	missing := ""
	for _, entry := range entries {
		if entry.GetIndex() == 0 {
			continue
		}
		path := filepath.Join(snapshots, fmt.Sprintf("%016x-%016x.snap", entry.GetTerm(), entry.GetIndex()))
		if _, err := snap.Read(quiet, path); err != nil {
			missing = fmt.Sprintf("%s: %v", path, err)
			continue
		}
		f.first, missing = entry, ""
	}
	if missing != "" && f.first.GetIndex() == 0 {
		return damage(snapshots, "the log goes on from a snapshot that cannot be read: %s", missing)
	}
	w, err := wal.OpenForRead(quiet, dir, f.first)
	if err != nil {
		return damage(dir, "the log cannot be read: %v", err)
	}
	defer w.Close()
	_, _, read, err := w.ReadAll()
	if err != nil {
		return damage(dir, "the log cannot be read: %v", err)
	}
	if f.last = f.first.GetIndex(); len(read) > 0 {
		f.last = read[len(read)-1].GetIndex()
	}
	return nil
}

func anyLog(names []fs.DirEntry) bool {
	for _, name := range names {
		if strings.HasSuffix(name.Name(), ".wal") {
			return true
		}
	}
	return false
}
