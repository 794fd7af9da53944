package runtime

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	bolt "go.etcd.io/bbolt"
	"golang.org/x/sys/unix"

	"github.com/slipway-dev/slipway/testing/need"
)

// database makes one with enough in it to have pages of every kind.
func database(t *testing.T) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "meta.db")
	db, err := bolt.Open(path, 0o600, &bolt.Options{NoSync: true})
	if err != nil {
		t.Fatal(err)
	}
	err = db.Update(func(tx *bolt.Tx) error {
		outer, err := tx.CreateBucket([]byte("v1"))
		if err != nil {
			return err
		}
		inner, err := outer.CreateBucket([]byte("slipway"))
		if err != nil {
			return err
		}
		for i := range 2000 {
			if err := inner.Put(fmt.Appendf(nil, "key-%d", i), []byte(strings.Repeat("x", 200))); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if err := db.Close(); err != nil {
		t.Fatal(err)
	}
	return path
}

func TestCheckDatabaseFindsDamage(t *testing.T) {
	tests := map[string]struct {
		damage func(path string, size int64) error
		sound  bool
	}{
		"none":      {func(string, int64) error { return nil }, true},
		"not there": {func(path string, _ int64) error { return os.Remove(path) }, true},
		"empty":     {func(path string, _ int64) error { return os.Truncate(path, 0) }, true}, // containerd makes it
		"cut short": {func(path string, size int64) error { return os.Truncate(path, size/2) }, false},
		"a stub":    {func(path string, _ int64) error { return os.Truncate(path, 100) }, false},
		"overwritten": {func(path string, size int64) error {
			f, err := os.OpenFile(path, os.O_WRONLY, 0)
			if err != nil {
				return err
			}
			defer f.Close()
			_, err = f.WriteAt([]byte(strings.Repeat("\xff", int(size)-3*os.Getpagesize())), int64(3*os.Getpagesize()))
			return err
		}, false},
		"something else": {func(path string, _ int64) error {
			return os.WriteFile(path, []byte(strings.Repeat("not a database ", 2000)), 0o600)
		}, false},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			path := database(t)
			info, err := os.Stat(path)
			if err != nil {
				t.Fatal(err)
			}
			if err := tt.damage(path, info.Size()); err != nil {
				t.Fatal(err)
			}
			if err := checkDatabase(path); (err == nil) != tt.sound {
				t.Errorf("got %v, want sound: %v", err, tt.sound)
			}
		})
	}
}

func TestHangingContainerdIsReplaced(t *testing.T) {
	r, err := Start(t.Context(), Config{BundleDir: need.Runtime(t), StateDir: t.TempDir(), answerCheck: 300 * time.Millisecond})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := r.Stop(context.Background()); err != nil {
			t.Errorf("stop: %v", err)
		}
	})
	pid := r.PID()
	if err := unix.Kill(pid, unix.SIGSTOP); err != nil { // its socket accepts, nobody answers
		t.Fatal(err)
	}
	deadline := time.After(20 * time.Second)
	for r.PID() == pid || r.PID() == 0 {
		select {
		case <-deadline:
			unix.Kill(pid, unix.SIGKILL)
			t.Fatal("containerd was not replaced")
		case <-time.After(10 * time.Millisecond):
		}
	}
	if err := answers(t.Context(), r.Address()); err != nil {
		t.Error(err)
	}
}
