package main

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/slipway-dev/slipway/apiserver/store/kv"
	"github.com/slipway-dev/slipway/apiserver/store/kv/etcd"
)

// aStore makes a data directory whose store has been through a snapshot of its log, and a copy of the store.
func aStore(t *testing.T) *dataDir {
	t.Helper()
	data, err := openDataDir(filepath.Join(t.TempDir(), "data"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(data.close)
	backend, err := etcd.Open(t.Context(), etcd.Config{Dir: data.etcd(), Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	var writing sync.WaitGroup
	for w := range 50 {
		writing.Go(func() {
			for i := range 110 {
				if _, err := backend.Txn(t.Context(), []kv.Op{{Verb: kv.Put, Key: fmt.Sprintf("/registry/configmaps/ns/%d-%d", w, i), Value: []byte("x")}}); err != nil {
					t.Error(err)
				}
			}
		})
	}
	writing.Wait()
	err = os.Mkdir(data.snapshots(), 0o700)
	for _, name := range []string{"20300101T000000Z", "20300102T000000Z"} {
		err = errors.Join(err, backend.Snapshot(t.Context(), filepath.Join(data.snapshots(), name+".snapshot")))
	}
	if err := errors.Join(err, backend.Close(), data.markStore()); err != nil {
		t.Fatal(err)
	}
	return data
}

// files returns the digest of everything in a directory.
func files(t *testing.T, dir string) map[string]string {
	t.Helper()
	all := map[string]string{}
	err := filepath.WalkDir(dir, func(path string, entry fs.DirEntry, err error) error {
		if err != nil || !entry.Type().IsRegular() {
			return err
		}
		file, err := os.Open(path)
		if err != nil {
			return err
		}
		defer file.Close()
		sum := sha256.New()
		if _, err := io.Copy(sum, file); err != nil {
			return err
		}
		all[path] = fmt.Sprintf("%x", sum.Sum(nil))
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return all
}

// flip changes a byte of every page but the first two, from a place in it on.
func flip(t *testing.T, path string, place int) {
	t.Helper()
	content, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	for page := 2 * 4096; page < len(content); page += 4096 {
		content[page+place] ^= 0x41
	}
	if err := os.WriteFile(path, content, 0o600); err != nil {
		t.Fatal(err)
	}
}

func only(t *testing.T, pattern string) string {
	t.Helper()
	paths, err := filepath.Glob(pattern)
	if err != nil || len(paths) != 1 {
		t.Fatalf("%s: %v (%v), want one", pattern, paths, err)
	}
	return paths[0]
}

func TestDamagedStoreIsRefusedAndLeftAlone(t *testing.T) {
	whole := aStore(t)
	remove := func(path string) { // also a folder
		if err := os.RemoveAll(path); err != nil {
			t.Fatal(err)
		}
	}
	for name, c := range map[string]struct {
		damage func(t *testing.T, member string)
		path   string // below member
		want   string
	}{
		"no damage":           {func(*testing.T, string) {}, "", ""},
		"database cut off":    {func(t *testing.T, m string) { truncate(t, m+"/snap/db", 150) }, "snap/db", "the database "},
		"database empty":      {func(t *testing.T, m string) { truncate(t, m+"/snap/db", 1000000) }, "snap/db", "the database "},
		"database missing":    {func(_ *testing.T, m string) { remove(m + "/snap/db") }, "snap/db", "the database is missing"},
		"page heads flipped":  {func(t *testing.T, m string) { flip(t, m+"/snap/db", 8) }, "snap/db", ""},
		"page bodies flipped": {func(t *testing.T, m string) { flip(t, m+"/snap/db", 24) }, "snap/db", ""},
		"both heads zeroed":   {func(t *testing.T, m string) { zero(t, m+"/snap/db", 0, 2*4096) }, "snap/db", "the database cannot be read"},
		"log missing":         {func(_ *testing.T, m string) { remove(m + "/wal") }, "wal", "the log is missing"},
		"log flipped":         {func(t *testing.T, m string) { zero(t, only(t, m+"/wal/*.wal"), 30000, 8) }, "wal", "the log cannot be read"},
		"end of log missing":  {func(t *testing.T, m string) { cutLog(t, only(t, m+"/wal/*.wal")) }, "wal", "the end of the log is missing"},
		"snapshot missing":    {func(_ *testing.T, m string) { remove(only(t, m+"/snap/*.snap")) }, "snap", "the log goes on from a snapshot that cannot be read"},
		"member gone":         {func(_ *testing.T, m string) { remove(m) }, "", "it is gone, and it was there before"},
		"member empty":        {func(_ *testing.T, m string) { remove(m + "/snap"); remove(m + "/wal") }, "", "it is gone, and it was there before"},
	} {
		t.Run(name, func(t *testing.T) {
			data := &dataDir{path: filepath.Join(t.TempDir(), "data")}
			if err := os.CopyFS(data.path, os.DirFS(whole.path)); err != nil {
				t.Fatal(err)
			}
			c.damage(t, filepath.Join(data.etcd(), "member"))
			before := files(t, data.path)
			kept, err := openStore(t.Context(), data, slog.New(slog.DiscardHandler))
			if name == "no damage" {
				if err != nil {
					t.Fatal(err)
				}
				if err := kept.Close(); err != nil {
					t.Error(err)
				}
				return
			}
			var exit exitError
			if err == nil || !errors.As(err, &exit) || exit.code != exitUsage {
				t.Fatalf("opened: %v", err)
			}
			t.Log(err)
			for _, part := range []string{filepath.Join(data.etcd(), "member", c.path), c.want, "slipway recover --data-dir " + data.path} {
				if !strings.Contains(err.Error(), part) {
					t.Errorf("the message is without %q: %v", part, err)
				}
			}
			if diff := cmp.Diff(before, files(t, data.path)); diff != "" {
				t.Errorf("files were changed (-before +after):\n%s", diff)
			}
		})
	}
}

func truncate(t *testing.T, path string, part int64) {
	t.Helper()
	info, err := os.Stat(path)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Truncate(path, info.Size()/part); err != nil {
		t.Fatal(err)
	}
}

func zero(t *testing.T, path string, from int64, n int) {
	t.Helper()
	file, err := os.OpenFile(path, os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	_, err = file.WriteAt(make([]byte, n), from)
	if err := errors.Join(err, file.Close()); err != nil {
		t.Fatal(err)
	}
}

// cutLog zeroes the later half of what is written in a log, as a disk does that lost its last writes.
func cutLog(t *testing.T, path string) {
	t.Helper()
	content, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	used := len(bytes.TrimRight(content, "\x00"))
	sector := (used - 200) / 512 * 512
	zero(t, path, int64(sector), used-sector)
}

func TestRecoverGoesBackToASnapshot(t *testing.T) {
	data := aStore(t)
	if err := os.WriteFile(filepath.Join(data.snapshots(), "20300103T000000Z.snapshot"), []byte("broken"), 0o600); err != nil {
		t.Fatal(err)
	}
	truncate(t, filepath.Join(data.etcd(), "member", "snap", "db"), 2)
	data.close()
	out := func(args ...string) string {
		var printed bytes.Buffer
		if err := run(context.WithoutCancel(t.Context()), append(args, "--data-dir", data.path), &printed, &printed); err != nil {
			t.Fatalf("%v: %v\n%s", args, err, printed.String())
		}
		return printed.String()
	}
	for _, c := range []struct {
		args []string
		keys int
		says string
	}{
		{[]string{"recover"}, 5501, "the store is as in " + filepath.Join(data.snapshots(), "20300102T000000Z.snapshot")},
		{[]string{"recover", "--snapshot", filepath.Join(data.snapshots(), "20300101T000000Z.snapshot")}, 5501, "20300101T000000Z.snapshot now"},
		{[]string{"recover", "--from-git"}, 1, "the store is empty now"},
	} {
		var before uint64
		if b, err := etcd.Open(t.Context(), etcd.Config{Dir: data.etcd(), Log: slog.New(slog.DiscardHandler)}); err == nil {
			if before, err = b.Revision(t.Context()); err != nil {
				t.Fatal(err)
			}
			if err := b.Close(); err != nil {
				t.Fatal(err)
			}
		}
		printed := out(c.args...)
		if !strings.Contains(printed, c.says) || !strings.Contains(printed, data.etcd()+".damaged-") {
			t.Errorf("%v printed:\n%s", c.args, printed)
		}
		kept, err := openStore(t.Context(), data, slog.New(slog.DiscardHandler))
		if err != nil {
			t.Fatal(err)
		}
		page, err := kept.Range(t.Context(), kv.Range{})
		if err != nil {
			t.Fatal(err)
		}
		if len(page.Entries) != c.keys || page.Revision <= before || page.Revision < 1e15 {
			t.Errorf("%v: %d keys at revision %d, want %d after revision %d", c.args, len(page.Entries), page.Revision, c.keys, before)
		}
		for _, err := range kept.Watch(t.Context(), "", before+1) {
			if !errors.Is(err, kv.ErrCompacted) {
				t.Errorf("%v: a watch from before: %v, want ErrCompacted", c.args, err)
			}
			break
		}
		if _, err := kept.Txn(t.Context(), []kv.Op{{Verb: kv.Put, Key: "/registry/a", Revision: kv.Any}}); err != nil {
			t.Errorf("%v: a write: %v", c.args, err)
		}
		if err := kept.Close(); err != nil {
			t.Fatal(err)
		}
	}
}
