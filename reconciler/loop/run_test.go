package loop

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/slipway-dev/slipway/apiserver/api"
	"github.com/slipway-dev/slipway/apiserver/store"
)

// script is a Reader whose watches are written by the test: one list of steps for each call of Watch.
type script struct {
	store.Reader
	mu      sync.Mutex
	watches [][]any // store.Event or error; a watch that came to its end stays silent
	opened  int
	closed  int
}

func (s *script) Watch(context.Context, *api.Kind, store.WatchOptions) (store.Watch, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.opened++
	if len(s.watches) == 0 {
		return &scriptWatch{s: s}, nil
	}
	steps := s.watches[0]
	s.watches = s.watches[1:]
	if err, ok := steps[0].(error); ok {
		return nil, err
	}
	return &scriptWatch{s: s, steps: steps}, nil
}

type scriptWatch struct {
	s     *script
	steps []any
}

func (w *scriptWatch) Next(ctx context.Context) (store.Event, error) {
	if len(w.steps) == 0 {
		<-ctx.Done()
		return store.Event{}, ctx.Err()
	}
	step := w.steps[0]
	w.steps = w.steps[1:]
	if err, ok := step.(error); ok {
		return store.Event{}, err
	}
	return step.(store.Event), nil
}

func (w *scriptWatch) Close() {
	w.s.mu.Lock()
	defer w.s.mu.Unlock()
	w.s.closed++
}

func pod(name, version string) *corev1.Pod {
	return &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: "ns", Name: name, ResourceVersion: version}}
}

func added(name, version string) store.Event {
	return store.Event{Type: store.Added, Object: pod(name, version)}
}

func removed(name, version string) store.Event {
	return store.Event{Type: store.Deleted, Object: pod(name, version)}
}

var initialEnd = store.Event{Type: store.Bookmark, InitialEventsEnd: true}

// recorded collects what Keys was told.
type recorded struct {
	mu    sync.Mutex
	lines []string
}

func (r *recorded) keys(old, obj api.Object, deleted bool) []Key {
	r.mu.Lock()
	defer r.mu.Unlock()
	from := "-"
	if old != nil {
		from = old.GetResourceVersion()
	}
	line := fmt.Sprintf("%s %s→%s", obj.GetName(), from, obj.GetResourceVersion())
	if deleted {
		line += " deleted"
	}
	r.lines = append(r.lines, line)
	return []Key{KeyOf(obj)}
}

func TestRunTellsKeysWhatChangedAcrossABrokenWatch(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		client := &script{watches: [][]any{
			{added("a", "1"), added("b", "2"), initialEnd, added("a", "3"), removed("a", "4"), added("c", "5"), apierrors.NewResourceExpired("compacted")},
			{errors.New("connection refused")},
			{added("c", "9"), added("d", "8"), initialEnd},
		}}
		var seen recorded
		turns := map[string]int{}
		c := Controller{Name: "test", Inputs: []Input{{Kind: api.Pods, Keys: seen.keys}},
			Reconcile: func(_ context.Context, k Key) error { turns[k.Name]++; return nil }}
		ended := make(chan error)
		go func() { ended <- Run(ctx, client, slog.New(slog.DiscardHandler), c) }()
		time.Sleep(time.Second)
		cancel()
		if err := <-ended; err != nil {
			t.Error(err)
		}
		want := []string{"a -→1", "b -→2", "a 1→3", "a 3→4 deleted", "c -→5", "c 5→9", "d -→8", "b 2→2 deleted"}
		if diff := cmp.Diff(want, seen.lines); diff != "" {
			t.Error(diff)
		}
		for _, name := range []string{"a", "b", "c", "d"} {
			if turns[name] == 0 {
				t.Errorf("%s had no turn", name)
			}
		}
		if client.opened != 3 || client.closed != 2 {
			t.Errorf("opened %d watches, closed %d; want 3 and 2", client.opened, client.closed)
		}
	})
}

func TestRunReadsErrorClasses(t *testing.T) {
	conflict := apierrors.NewConflict(api.Pods.GroupResource(), "a", errors.New("changed"))
	tests := []struct {
		name    string
		errs    []error
		within  time.Duration
		turns   int
		logged  int
		mention string
	}{
		{"success is one turn", nil, time.Hour, 1, 0, ""},
		{"a wait comes back after its time", []error{Wait(time.Minute)}, 59 * time.Second, 1, 0, ""},
		{"and only once", []error{Wait(time.Minute)}, time.Hour, 2, 0, ""},
		{"a time that has passed comes back at once", []error{Wait(-time.Minute)}, time.Second, 2, 0, ""},
		{"a stalled key waits for its input", []error{Stalled(errors.New("no such image"))}, time.Hour, 1, 1, "no such image"},
		{"a wrapped class is still seen", []error{fmt.Errorf("apply: %w", Stalled(errors.New("bad")))}, time.Hour, 1, 1, "apply: bad"},
		{"a transient error is tried again", []error{errors.New("refused"), errors.New("refused"), errors.New("refused")}, time.Second, 4, 2, "refused"},
		{"a conflict plans again in silence", []error{conflict, conflict}, time.Second, 3, 0, ""},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				ctx, cancel := context.WithCancel(t.Context())
				client := &script{watches: [][]any{{added("a", "1"), initialEnd}}}
				turns := 0
				c := Controller{Name: "test", Inputs: []Input{{Kind: api.Pods, Keys: Own}}, Reconcile: func(context.Context, Key) error {
					turns++
					if turns <= len(tt.errs) {
						return tt.errs[turns-1]
					}
					return nil
				}}
				var out bytes.Buffer
				ended := make(chan error)
				go func() { ended <- Run(ctx, client, slog.New(slog.NewTextHandler(&out, nil)), c) }()
				time.Sleep(tt.within)
				cancel()
				<-ended
				if turns != tt.turns {
					t.Errorf("%d turns, want %d", turns, tt.turns)
				}
				if got := strings.Count(out.String(), "\n"); got != tt.logged || !strings.Contains(out.String(), tt.mention) {
					t.Errorf("want %d lines naming %q, got:\n%s", tt.logged, tt.mention, &out)
				}
			})
		})
	}
}

func TestRunSurvivesAPanic(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		client := &script{watches: [][]any{{added("bad", "1"), added("good", "2"), initialEnd}}}
		var good bool
		c := Controller{Name: "test", Inputs: []Input{{Kind: api.Pods, Keys: Own}}, Reconcile: func(_ context.Context, k Key) error {
			if k.Name == "bad" {
				panic("nil map")
			}
			good = true
			return nil
		}}
		ended := make(chan error)
		go func() { ended <- Run(ctx, client, slog.New(slog.DiscardHandler), c) }()
		time.Sleep(time.Second)
		cancel()
		if err := <-ended; err != nil || !good {
			t.Errorf("err %v, the other key had a turn: %v", err, good)
		}
	})
}

func TestRunWaitsForItsWorkers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		client := &script{watches: [][]any{{added("a", "1"), added("b", "1"), initialEnd}}}
		var mu sync.Mutex
		finished := 0
		c := Controller{Name: "test", Workers: 2, Inputs: []Input{{Kind: api.Pods, Keys: Own}}, Reconcile: func(ctx context.Context, _ Key) error {
			<-ctx.Done()
			time.Sleep(time.Second) // the last write takes its time
			mu.Lock()
			defer mu.Unlock()
			finished++
			return ctx.Err()
		}}
		ended := make(chan error)
		go func() { ended <- Run(ctx, client, slog.New(slog.DiscardHandler), c) }()
		synctest.Wait()
		cancel()
		<-ended
		if finished != 2 {
			t.Errorf("%d turns finished before Run returned, want 2", finished)
		}
	})
}

func TestRunEndsWithoutErrorWhateverTheCause(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancelCause(t.Context())
		ended := make(chan error)
		go func() {
			ended <- Run(ctx, &script{}, slog.New(slog.DiscardHandler), Controller{Name: "test", Inputs: []Input{{Kind: api.Pods, Keys: Own}}})
		}()
		synctest.Wait()
		cancel(errors.New("interrupt"))
		if err := <-ended; err != nil {
			t.Error(err)
		}
	})
}

func TestGroupOutlivesAPanic(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		client := &script{watches: [][]any{{added("a", "1"), initialEnd}, {added("a", "1"), initialEnd}}}
		asked, ran := 0, 0
		g := NewGroup(slog.New(slog.DiscardHandler))
		g.Add(client, Controller{Name: "keys", Reconcile: func(context.Context, Key) error { ran++; return nil },
			Inputs: []Input{{Kind: api.Pods, Keys: func(_, obj api.Object, _ bool) []Key {
				if asked++; asked == 1 {
					panic("nil map")
				}
				return []Key{KeyOf(obj)}
			}}}})
		started := 0
		g.AddFunc("part", func(ctx context.Context) error {
			if started++; started == 1 {
				panic("nil map")
			}
			<-ctx.Done()
			return nil
		})
		ended := make(chan bool)
		go func() { g.Run(ctx); close(ended) }()
		time.Sleep(10 * time.Second)
		cancel()
		<-ended
		if started != 2 || ran != 1 {
			t.Errorf("the part started %d times, the controller had %d turns; want 2 and 1", started, ran)
		}
	})
}

func TestGroupStartsAFailingPartAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		forbidden := apierrors.NewForbidden(api.Pods.GroupResource(), "", errors.New("no role"))
		client := &script{watches: [][]any{{forbidden}, {forbidden}, {added("a", "1"), initialEnd}}}
		var out bytes.Buffer
		var ran []string
		g := NewGroup(slog.New(slog.NewTextHandler(&out, nil)))
		g.Add(client, Controller{Name: "test", Inputs: []Input{{Kind: api.Pods, Keys: Own}},
			Reconcile: func(_ context.Context, k Key) error { ran = append(ran, k.Name); return nil }})
		g.AddFunc("short", func(context.Context) error { return nil })
		ended := make(chan bool)
		go func() { g.Run(ctx); close(ended) }()
		time.Sleep(10 * time.Second)
		cancel()
		<-ended
		if !slices.Equal(ran, []string{"a"}) {
			t.Errorf("turns: %v", ran)
		}
		if got := strings.Count(out.String(), "starting it again"); got != 1 || !strings.Contains(out.String(), "watch pods") {
			t.Errorf("want one line about pods, got:\n%s", &out)
		}
	})
}
