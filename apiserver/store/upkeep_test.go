package store_test

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"path/filepath"
	"sort"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"

	"github.com/slipway-dev/slipway/apiserver/api"
	"github.com/slipway-dev/slipway/apiserver/store"
	"github.com/slipway-dev/slipway/apiserver/store/kv"
	"github.com/slipway-dev/slipway/apiserver/store/kv/etcd"
	"github.com/slipway-dev/slipway/apiserver/store/kv/keeper"
	"github.com/slipway-dev/slipway/testing/smalldisk"
)

// keep opens a store that keeps itself on a disk, and the engine it has at first.
func keep(t *testing.T, cfg keeper.Config) (*store.Store, *keeper.Keeper, *etcd.Backend) {
	t.Helper()
	var first *etcd.Backend
	cfg.Log = quiet()
	cfg.Open = func(ctx context.Context) (keeper.Engine, error) {
		engine, err := etcd.Open(ctx, etcd.Config{Dir: filepath.Join(cfg.Dir, "etcd"), Log: quiet()})
		if first == nil {
			first = engine
		}
		return engine, err
	}
	k, err := keeper.Open(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	return open(t, k, store.WithHistory(1<<20)), k, first
}

// ledger is what writers were told, by revision: "name=value", or "name" for a deletion.
type ledger struct {
	mu      sync.Mutex
	entries map[uint64]string
	refused []error
}

func (l *ledger) add(obj api.Object, text string) {
	revision, err := strconv.ParseUint(obj.GetResourceVersion(), 10, 64)
	if err != nil {
		panic(err)
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.entries[revision] = text
}

// after returns the entries after a revision as lines, in order.
func (l *ledger) after(revision uint64) []string {
	l.mu.Lock()
	defer l.mu.Unlock()
	var lines []string
	for r, text := range l.entries {
		if r > revision {
			lines = append(lines, fmt.Sprintf("%020d %s", r, text))
		}
	}
	sort.Strings(lines)
	return lines
}

// scribble creates, updates and deletes a ConfigMap n times; it stops at the first refusal.
func (l *ledger) scribble(s *store.Store, name string, n int) {
	for i := range n {
		if err := l.round(s, name, strconv.Itoa(i)); err != nil {
			l.mu.Lock()
			l.refused = append(l.refused, err)
			l.mu.Unlock()
			return
		}
	}
}

func (l *ledger) round(s *store.Store, name, value string) error {
	ctx := context.Background()
	made, err := s.Create(ctx, configMap(name, value), store.CreateOptions{})
	if err != nil {
		return err
	}
	l.add(made, name+"="+value)
	changed := configMap(name, value+strings.Repeat("x", 1000))
	updated, err := s.Update(ctx, changed, store.UpdateOptions{})
	if err != nil {
		return err
	}
	l.add(updated, name+"="+changed.Data["value"])
	gone, err := s.Delete(ctx, api.ConfigMaps, updated.GetNamespace(), name, store.DeleteOptions{})
	if err != nil {
		return err
	}
	l.add(gone, name)
	return nil
}

// observer watches ConfigMaps from a revision, anew after every so many events.
type observer struct {
	seen    []string
	resumed int
}

func (o *observer) watch(ctx context.Context, s *store.Store, revision, until uint64, each int) error {
	for revision < until {
		w, err := s.Watch(ctx, api.ConfigMaps, store.WatchOptions{Revision: revision})
		if err != nil {
			return err
		}
		for n := 0; n < each && revision < until; n++ {
			event, err := w.Next(ctx)
			if err != nil {
				return err
			}
			revision = event.Revision
			text := event.Object.GetName()
			if event.Type != store.Deleted {
				text += "=" + event.Object.(*corev1.ConfigMap).Data["value"]
			}
			o.seen = append(o.seen, fmt.Sprintf("%020d %s", revision, text))
		}
		w.Close()
		o.resumed++
	}
	return nil
}

func TestUpkeepUnderWatchLosesAndRepeatsNothing(t *testing.T) {
	// A disk that is always nearly full: the past is compacted at every turn.
	s, k, engine := keep(t, keeper.Config{Dir: t.TempDir(), Turns: 5 * time.Millisecond, Free: func() (uint64, error) { return 129 << 20, nil }})
	first, err := s.Revision(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	const writers, rounds = 8, 30
	last := first + writers*rounds*3
	observers := make([]observer, 40)
	ended := make(chan error, len(observers))
	for i := range observers {
		each := 1 << 20
		if i%2 == 0 {
			each = 7 + i
		}
		go func() { ended <- observers[i].watch(t.Context(), s, first, last, each) }()
	}
	l := &ledger{entries: map[uint64]string{}}
	var writing sync.WaitGroup
	for w := range writers {
		writing.Go(func() { l.scribble(s, fmt.Sprintf("map-%d", w), rounds) })
	}
	written := make(chan struct{})
	go func() { writing.Wait(); close(written) }()
	defragmented := defragment(t, engine, written)
	for range observers {
		if err := <-ended; err != nil {
			t.Fatal(err)
		}
	}
	<-written
	want := l.after(first)
	for i := range observers {
		if diff := cmp.Diff(want, observers[i].seen); diff != "" {
			t.Fatalf("observer %d, resumed %d times (-acknowledged +seen):\n%s", i, observers[i].resumed, diff)
		}
	}
	_, err = k.Range(t.Context(), kv.Range{Revision: first + 1})
	if !errors.Is(err, kv.ErrCompacted) || defragmented() == 0 {
		t.Errorf("nothing was compacted (%v) or defragmented (%d times)", err, defragmented())
	}
	t.Logf("%d events, %d defragmentations, %d resumptions by the most diligent", len(want), defragmented(), observers[0].resumed)
}

// defragment defragments again and again until done, and returns how often.
func defragment(t *testing.T, engine *etcd.Backend, done chan struct{}) (times func() int) {
	var n atomic.Int64
	var running sync.WaitGroup
	running.Go(func() {
		for {
			select {
			case <-done:
				return
			default:
			}
			if err := engine.Defragment(context.Background()); err != nil {
				t.Error(err)
				return
			}
			n.Add(1)
		}
	})
	return func() int {
		running.Wait()
		return int(n.Load())
	}
}

// TestFullDisk fills a disk during writes: with the guard, which sees it in time, and behind its back, so that etcd's
// own write fails.
func TestFullDisk(t *testing.T) {
	plenty := func() (uint64, error) { return 1 << 40, nil }
	for name, c := range map[string]struct {
		free func() (uint64, error)
		code int32
		dies bool
	}{
		"seen":                    {nil, http.StatusInsufficientStorage, false},
		"behind the guard's back": {plenty, http.StatusServiceUnavailable, true},
	} {
		t.Run(name, func(t *testing.T) {
			dir := smalldisk.Mount(t, 400)
			var blind atomic.Bool
			cfg := keeper.Config{Dir: dir}
			if c.free != nil {
				blind.Store(true)
				cfg.Free = func() (uint64, error) {
					var fs unix.Statfs_t
					err := unix.Statfs(dir, &fs)
					if blind.Load() {
						return 1 << 27, err // enough to write, too little to reserve
					}
					return fs.Bavail * uint64(fs.Bsize), err
				}
			}
			s, k, engine := keep(t, cfg)
			fullDisk(t, s, dir, c.code, func() { blind.Store(false) })
			if died := engine.Cause() != nil; died != c.dies {
				t.Errorf("the first engine died: %v", engine.Cause())
			}
			if err := k.Err(); err != nil {
				t.Error(err)
			}
		})
	}
}

func fullDisk(t *testing.T, s *store.Store, dir string, code int32, see func()) {
	first, err := s.Revision(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	l := &ledger{entries: map[uint64]string{}}
	if err := l.round(s, "kept", "1"); err != nil {
		t.Fatal(err)
	}
	var writing sync.WaitGroup
	for w := range 8 {
		writing.Go(func() { l.scribble(s, fmt.Sprintf("map-%d", w), 1<<20) })
	}
	vacate := smalldisk.Fill(t, dir)
	writing.Wait() // every writer was refused
	for _, err := range l.refused {
		var status apierrors.APIStatus
		if !errors.As(err, &status) || status.Status().Code != code && status.Status().Code != http.StatusInsufficientStorage || !strings.Contains(err.Error(), dir) {
			t.Errorf("a writer was told: %v", err)
		}
	}
	t.Logf("%d writes, then: %v", len(l.after(0)), l.refused[0])
	if _, err := s.List(t.Context(), api.ConfigMaps, store.ListOptions{}); err != nil {
		t.Errorf("a read on the full disk: %v", err)
	}
	see()
	vacate()
	for l.round(s, "again", "1") != nil { // until the store is open again
		if err := t.Context().Err(); err != nil {
			t.Fatal(err)
		}
	}
	last, err := s.Revision(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	var o observer
	if err := o.watch(t.Context(), s, first, last, 1<<30); err != nil {
		t.Fatal(err)
	}
	seen := map[string]bool{}
	for _, line := range o.seen {
		if seen[line] {
			t.Errorf("seen twice: %.60s", line)
		}
		seen[line] = true
	}
	for _, line := range l.after(first) {
		if !seen[line] {
			t.Errorf("acknowledged and lost: %.60s", line)
		}
	}
}
