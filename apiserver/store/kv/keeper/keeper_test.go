package keeper

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"
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

// mortal is an engine in memory. What it holds outlives it.
type mortal struct {
	kv.Backend
	died   chan struct{}
	closed chan struct{}
	cause  error
	defrag chan struct{} // closed: a defragmentation ends
	usage  kv.Usage
	calls  *calls
}

type calls struct {
	sync.Mutex
	lines []string
}

func (c *calls) add(line string) {
	c.Lock()
	defer c.Unlock()
	c.lines = append(c.lines, line)
}

func (c *calls) String() string {
	c.Lock()
	defer c.Unlock()
	return strings.Join(c.lines, ", ")
}

func newMortal(data kv.Backend) *mortal {
	return &mortal{Backend: data, died: make(chan struct{}), closed: make(chan struct{}), defrag: make(chan struct{}), calls: &calls{}}
}

func (m *mortal) die(cause error) {
	m.cause = cause
	close(m.died)
}

func (m *mortal) Died() <-chan struct{} { return m.died }
func (m *mortal) Usage() kv.Usage       { return m.usage }

func (m *mortal) Close() error {
	close(m.closed)
	return nil
}

func (m *mortal) Cause() error {
	select {
	case <-m.died:
		return m.cause
	default:
		return nil
	}
}

func (m *mortal) alive() error {
	if m.Cause() != nil {
		return kv.ErrStopped
	}
	return nil
}

func (m *mortal) Txn(ctx context.Context, ops []kv.Op) (uint64, error) {
	if err := m.alive(); err != nil {
		return 0, err
	}
	return m.Backend.Txn(ctx, ops)
}

func (m *mortal) Watch(ctx context.Context, prefix string, after uint64) iter.Seq2[kv.Batch, error] {
	return func(yield func(kv.Batch, error) bool) {
		living, cancel := context.WithCancel(ctx)
		defer cancel()
		go func() {
			select {
			case <-m.died:
				cancel()
			case <-m.closed:
				cancel()
			case <-living.Done():
			}
		}()
		for batch, err := range m.Backend.Watch(living, prefix, after) {
			if err != nil && ctx.Err() == nil {
				if err = kv.ErrClosed; m.Cause() != nil {
					err = kv.ErrStopped
				}
			}
			if !yield(batch, err) {
				return
			}
		}
	}
}

func (m *mortal) Compact(_ context.Context, revision uint64) error {
	m.calls.add(fmt.Sprintf("compact %d", revision))
	return nil
}

func (m *mortal) Defragment(context.Context) error {
	m.calls.add("defragment")
	<-m.defrag
	return nil
}

func (m *mortal) ClearAlarm(context.Context) error {
	m.calls.add("clear alarm")
	return nil
}

func (m *mortal) Reserve(int64) error { return nil }

func (m *mortal) Snapshot(_ context.Context, path string) error {
	return os.WriteFile(path, nil, 0o600)
}

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
