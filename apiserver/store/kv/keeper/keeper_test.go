package keeper

import (
	"context"
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/slipway-dev/slipway/apiserver/store/kv"
	"github.com/slipway-dev/slipway/apiserver/store/kv/etcd"
	"github.com/slipway-dev/slipway/apiserver/store/kv/kvtest"
	"github.com/slipway-dev/slipway/apiserver/store/kv/memory"
)

// rig is a keeper of mortals over one memory.
type rig struct {
	*Keeper
	free    atomic.Uint64
	data    kv.Backend
	engines chan *mortal // opened, in order
	refuse  atomic.Pointer[error]
}

func newRig(t *testing.T, change ...func(*mortal)) *rig {
	t.Helper()
	r := &rig{data: memory.New(), engines: make(chan *mortal, 10)}
	r.free.Store(1 << 40)
	var err error
	r.Keeper, err = Open(t.Context(), Config{
		Dir: "/data", Log: slog.New(slog.DiscardHandler), Free: func() (uint64, error) { return r.free.Load(), nil },
		Open: func(context.Context) (Engine, error) {
			if err := r.refuse.Load(); err != nil {
				return nil, *err
			}
			m := newMortal(r.data)
			for _, c := range change {
				c(m)
			}
			r.engines <- m
			return m, nil
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := r.Close(); err != nil {
			t.Error(err)
		}
	})
	return r
}

func put(key string) []kv.Op { return []kv.Op{{Verb: kv.Put, Key: key, Revision: kv.Any}} }

func (r *rig) write(t *testing.T, key string) uint64 {
	t.Helper()
	revision, err := r.Txn(t.Context(), put(key))
	if err != nil {
		t.Fatal(err)
	}
	return revision
}

func TestKeeperIsABackend(t *testing.T) {
	kvtest.Run(t, func(t *testing.T) kvtest.Backend {
		dir := t.TempDir()
		k, err := Open(t.Context(), Config{Dir: dir, Open: func(ctx context.Context) (Engine, error) { return etcd.Open(ctx, etcd.Config{Dir: dir}) }})
		if err != nil {
			t.Fatal(err)
		}
		return compacter{k}
	})
}

// compacter does at once what the keeper would do later.
type compacter struct{ *Keeper }

func (c compacter) Compact(ctx context.Context, revision uint64) error {
	return c.now.Load().engine.Compact(ctx, revision)
}

func TestNearlyFullDiskRefusesWritesOnly(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t)
		before := r.write(t, "/a")
		r.free.Store(100 * mb)
		time.Sleep(2 * lookEvery)
		_, err := r.Txn(t.Context(), put("/a"))
		want := "the disk of /data has 104857600 bytes (100 MB) free and writes need 128 MB: make room; reading goes on"
		if !errors.Is(err, kv.ErrNoSpace) || err.Error() != want {
			t.Errorf("a write: %v, want %s", err, want)
		}
		if err := r.Err(); err == nil || err.Error() != want {
			t.Errorf("the keeper says %v", err)
		}
		if revision, err := r.Revision(t.Context()); err != nil || revision != before {
			t.Errorf("revision %d (%v), want %d", revision, err, before)
		}
		r.free.Store(200 * mb)
		time.Sleep(2 * lookEvery)
		r.write(t, "/a")
	})
}

func TestDeadEngineIsReplaced(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t)
		first := <-r.engines
		seen := make(chan uint64, 100)
		go func() {
			for batch, err := range r.Watch(context.WithoutCancel(t.Context()), "", 1) {
				if err != nil {
					close(seen)
					return
				}
				seen <- batch.Revision
			}
		}()
		second := r.write(t, "/a")
		no := errors.New("no room to open")
		r.refuse.Store(&no)
		first.die(errors.New("write log: disk full"))
		time.Sleep(time.Second)
		_, err := r.Txn(t.Context(), put("/a"))
		if want := "backend has stopped in /data and cannot be opened again: no room to open; reading goes on"; !errors.Is(err, kv.ErrStopped) || err.Error() != want {
			t.Errorf("a write without an engine: %v, want %s", err, want)
		}
		if revision, err := r.Revision(t.Context()); err != nil || revision != second {
			t.Errorf("revision without an engine: %d (%v), want %d", revision, err, second)
		}
		r.refuse.Store(nil)
		time.Sleep(time.Minute)
		third := r.write(t, "/b")
		synctest.Wait()
		if a, b := <-seen, <-seen; a != second || b != third || len(seen) != 0 {
			t.Errorf("the watch saw %d, %d and %d more, want %d, %d", a, b, len(seen), second, third)
		}
		if err := r.Close(); err != nil {
			t.Error(err)
		}
		if _, more := <-seen; more {
			t.Error("the watch outlives the keeper")
		}
	})
}

func TestEngineOfAFullDiskWaitsForRoom(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t)
		first := <-r.engines
		r.free.Store(0)
		first.die(errors.New("write log: disk full"))
		time.Sleep(time.Hour)
		if len(r.engines) != 0 {
			t.Error("an engine was opened on a full disk")
		}
		r.free.Store(1 << 40)
		time.Sleep(time.Second)
		r.write(t, "/a")
	})
}

func TestEngineThatForgotIsNotUsed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t)
		first := <-r.engines
		newest := r.write(t, "/a")
		r.data = memory.New()
		first.die(errors.New("bad disk"))
		time.Sleep(time.Minute)
		_, err := r.Txn(t.Context(), put("/a"))
		if !errors.Is(err, kv.ErrStopped) || !strings.Contains(err.Error(), "it was at revision 2 and has come back at 1") {
			t.Errorf("a write: %v", err)
		}
		if revision, err := r.Revision(t.Context()); err != nil || revision != newest {
			t.Errorf("revision is %d (%v), want %d", revision, err, newest)
		}
	})
}

func TestWritesWaitForADefragmentation(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, func(m *mortal) { m.usage = kv.Usage{Size: 200 * mb, InUse: 10 * mb, Quota: 8000 * mb} })
		engine := <-r.engines
		time.Sleep(2 * time.Minute)
		if got := engine.calls.String(); got != "defragment" {
			t.Fatalf("called: %s", got)
		}
		written := make(chan error, 1)
		go func() {
			_, err := r.Txn(t.Context(), put("/a"))
			written <- err
		}()
		synctest.Wait()
		if len(written) != 0 {
			t.Error("a write did not wait")
		}
		impatient, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if _, err := r.Txn(impatient, put("/a")); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("a write that waits ends with its context: %v", err)
		}
		if _, err := r.Revision(t.Context()); err != nil {
			t.Error(err)
		}
		close(engine.defrag)
		if err := <-written; err != nil {
			t.Error(err)
		}
	})
}

func TestHistoryIsCompactedBehindTheFollowers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t)
		engine := <-r.engines
		synctest.Wait() // the first look is at an empty store
		for range 3000 {
			r.write(t, "/a")
		}
		time.Sleep(historyTime + 2*turns)
		if got, want := engine.calls.String(), "compact 3001"; got != want {
			t.Errorf("called: %s, want %s", got, want)
		}
		next := make(chan struct{})
		defer close(next)
		go func() { // has seen nothing new
			for range r.Watch(context.WithoutCancel(t.Context()), "", 3001) {
				<-next
				return
			}
		}()
		synctest.Wait()
		for range 3000 {
			r.write(t, "/a")
		}
		time.Sleep(historyTime + 2*turns)
		if got, want := engine.calls.String(), "compact 3001"; got != want {
			t.Errorf("called: %s, want %s: somebody has not seen what is later", got, want)
		}
	})
}

func TestCopiesAreMadeAndReplaced(t *testing.T) {
	dir := t.TempDir()
	synctest.Test(t, func(t *testing.T) {
		engine := newMortal(memory.New())
		k, err := Open(t.Context(), Config{Dir: "/data", Copies: dir, Log: slog.New(slog.DiscardHandler), Free: func() (uint64, error) { return 1 << 40, nil },
			Open: func(context.Context) (Engine, error) { return engine, nil }})
		if err != nil {
			t.Fatal(err)
		}
		defer k.Close()
		for hour, want := range []int{1, 2, 2, 2} {
			if _, err := k.Txn(t.Context(), put("/a")); err != nil {
				t.Fatal(err)
			}
			time.Sleep(copyRest + 2*turns)
			copies, err := Copies(dir)
			if err != nil || len(copies) != want {
				t.Errorf("after %d hours: %v (%v), want %d", hour+1, copies, err, want)
			}
			if age := time.Since(copies[0].Made); age > copyRest+copyStart {
				t.Errorf("after %d hours the newest is %s old", hour+1, age)
			}
		}
		time.Sleep(10 * copyRest)
		if copies, err := Copies(dir); err != nil || time.Since(copies[0].Made) < 9*copyRest {
			t.Errorf("a copy was made though nothing had changed: %v (%v)", copies, err)
		}
	})
}

// TestCopiesOfAClockThatWasSetBackDoNotCrowdOutTheNew has snapshots of next year: the new one stays beside the newer
// of them, and in an hour they are gone.
func TestCopiesOfAClockThatWasSetBackDoNotCrowdOutTheNew(t *testing.T) {
	dir := t.TempDir()
	now := time.Date(2030, 1, 1, 0, 0, 0, 0, time.UTC)
	for _, name := range []string{"20310101T000000Z", "20310101T010000Z"} {
		if err := os.WriteFile(filepath.Join(dir, name+copySuffix), nil, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	k := &Keeper{cfg: Config{Copies: dir}}
	var got [][]string
	for hour := range 2 {
		if _, err := k.copy(t.Context(), newMortal(memory.New()), now.Add(time.Duration(hour)*time.Hour)); err != nil {
			t.Fatal(err)
		}
		copies, err := Copies(dir)
		if err != nil {
			t.Fatal(err)
		}
		var years []string
		for _, c := range copies {
			years = append(years, c.Made.Format("2006-15h"))
		}
		got = append(got, years)
	}
	if diff := cmp.Diff([][]string{{"2031-01h", "2030-00h"}, {"2030-01h", "2030-00h"}}, got); diff != "" {
		t.Errorf("kept after each copy (-want +got):\n%s", diff)
	}
}
