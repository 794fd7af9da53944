package etcd

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"time"

	bolt "go.etcd.io/bbolt"
	"go.etcd.io/etcd/api/v3/mvccpb"
	"google.golang.org/protobuf/proto"
)

// restored is where a restored store says so, in a key of nobody.
const restored = "/slipway/restored/"

// Snapshot writes a copy of the database to path, whole or not at all.
func (b *Backend) Snapshot(ctx context.Context, path string) error {
	_, err := guarded(ctx, b, func() (struct{}, error) { return struct{}{}, b.snapshot(path) })
	if err != nil {
		return fmt.Errorf("copy the store to %s: %w", path, err)
	}
	return nil
}

func (b *Backend) snapshot(path string) (err error) {
	state := b.server.Server.Backend().Snapshot()
	defer func() { err = errors.Join(err, state.Close()) }()
	file, err := os.CreateTemp(filepath.Dir(path), ".snapshot-*")
	if err != nil {
		return err
	}
	defer os.Remove(file.Name()) // gone already when it was renamed
	_, err = state.WriteTo(file)
	if err = errors.Join(err, file.Sync(), file.Close()); err != nil {
		return err
	}
	return os.Rename(file.Name(), path)
}

// Restore makes a new store in dir, which must not exist, with what the snapshot at path has; an empty path means
// nothing. Its revisions go on from the snapshot's or from floor, whichever is higher, and everything before is
// compacted: whoever knew a later state than the snapshot's is told to start over. It returns the revision reached.
func Restore(ctx context.Context, dir, path string, floor uint64) (revision uint64, err error) {
	if _, err := os.Lstat(dir); err == nil {
		return 0, fmt.Errorf("restore to %s: %w", dir, os.ErrExist)
	}
	// A server makes a member with a log of its own. What its database is about is then exchanged: the log does not
	// mind, as it only ever goes on from there.
	b, err := Open(ctx, Config{Dir: dir, Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		return 0, err
	}
	if err := b.Close(); err != nil {
		return 0, err
	}
	db, err := bolt.Open(filepath.Join(dir, "member", "snap", "db"), 0o600, &bolt.Options{Timeout: time.Second, NoFreelistSync: true})
	if err != nil {
		return 0, fmt.Errorf("restore to %s: %w", dir, err)
	}
	if revision, err = exchange(db, path, floor); err != nil {
		err = fmt.Errorf("restore %s to %s: %w", path, dir, err)
	}
	return revision, errors.Join(err, db.Close())
}

// exchange replaces every key of db.
func exchange(db *bolt.DB, path string, floor uint64) (revision uint64, err error) {
	if err := db.Update(func(tx *bolt.Tx) error {
		if err := tx.DeleteBucket([]byte("key")); err != nil {
			return err
		}
		_, err := tx.CreateBucket([]byte("key"))
		return err
	}); err != nil {
		return 0, err
	}
	if path != "" {
		if revision, err = copyKeys(db, path); err != nil {
			return 0, err
		}
	}
	revision = max(revision, floor) + 1
	return revision, db.Update(func(tx *bolt.Tx) error {
		key := fmt.Appendf(nil, "%s%d", restored, revision)
		mark, err := proto.Marshal(&mvccpb.KeyValue{Key: key, Value: []byte(filepath.Base(path)), CreateRevision: int64(revision), ModRevision: int64(revision), Version: 1})
		if err != nil {
			return err
		}
		at := revisionKey(revision)
		if err := tx.Bucket([]byte("key")).Put(at, mark); err != nil {
			return err
		}
		return tx.Bucket([]byte("meta")).Put([]byte("scheduledCompactRev"), at)
	})
}

// revisionKey is the form of a revision in the database: the revision, a separator, and a place within it.
func revisionKey(revision uint64) []byte {
	key := make([]byte, 17)
	binary.BigEndian.PutUint64(key, revision)
	key[8] = '_'
	return key
}

// copyBatch is how many keys are copied in one transaction.
const copyBatch = 10_000

// copyKeys copies every key of the snapshot at path and returns the newest revision.
func copyKeys(db *bolt.DB, path string) (newest uint64, err error) {
	from, err := bolt.Open(path, 0, &bolt.Options{ReadOnly: true, Timeout: time.Second})
	if err != nil {
		return 0, err
	}
	defer from.Close()
	return newest, from.View(func(source *bolt.Tx) error {
		keys := source.Bucket([]byte("key"))
		if keys == nil {
			return errors.New("it has no keys")
		}
		cursor := keys.Cursor()
		for key, value := cursor.First(); key != nil; {
			err := db.Update(func(tx *bolt.Tx) error {
				into := tx.Bucket([]byte("key"))
				into.FillPercent = 0.9
				for n := 0; n < copyBatch && key != nil; n++ {
					newest = max(newest, binary.BigEndian.Uint64(key))
					if err := into.Put(key, value); err != nil {
						return err
					}
					key, value = cursor.Next()
				}
				return nil
			})
			if err != nil {
				return err
			}
		}
		return nil
	})
}
