package event

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
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
	"k8s.io/apimachinery/pkg/types"

	"github.com/slipway-dev/slipway/apiserver/api"
	"github.com/slipway-dev/slipway/apiserver/store"
)

// shelf holds Events, and fails a write with the next of errs.
type shelf struct {
	store.Client
	mu     sync.Mutex
	events map[string]*corev1.Event
	writes int
	errs   []error
	delay  time.Duration
}

func (s *shelf) Get(_ context.Context, k *api.Kind, ns, name string) (api.Object, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if ev, ok := s.events[ns+"/"+name]; ok {
		return ev, nil
	}
	return nil, apierrors.NewNotFound(k.GroupResource(), name)
}

func (s *shelf) List(context.Context, *api.Kind, store.ListOptions) (store.List, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	var l store.List
	for _, ev := range s.events {
		l.Items = append(l.Items, ev)
	}
	return l, nil
}

func (s *shelf) put(obj api.Object) (api.Object, error) {
	time.Sleep(s.delay)
	s.mu.Lock()
	defer s.mu.Unlock()
	s.writes++
	if len(s.errs) > 0 {
		err := s.errs[0]
		s.errs = s.errs[1:]
		return nil, err
	}
	s.events[obj.GetNamespace()+"/"+obj.GetName()] = obj.(*corev1.Event)
	return obj, nil
}

func (s *shelf) Create(_ context.Context, obj api.Object, _ store.CreateOptions) (api.Object, error) {
	return s.put(obj)
}

func (s *shelf) Update(_ context.Context, obj api.Object, _ store.UpdateOptions) (api.Object, error) {
	return s.put(obj)
}

// lines shows the shelf as text, sorted by nothing but what the test asks for: one line per Event.
func (s *shelf) lines() map[string]int32 {
	s.mu.Lock()
	defer s.mu.Unlock()
	got := map[string]int32{}
	for _, ev := range s.events {
		o := ev.InvolvedObject
		got[fmt.Sprintf("%s: %s %s/%s %s %s: %s", ev.Namespace, ev.Type, o.Kind, o.Name, o.FieldPath, ev.Reason, ev.Message)] = ev.Count
	}
	return got
}

func testPod(name string) *corev1.Pod {
	return &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: name, UID: types.UID("uid-" + name), ResourceVersion: "7"},
		Spec: corev1.PodSpec{InitContainers: []corev1.Container{{Name: "setup"}}, Containers: []corev1.Container{{Name: "app"}}}}
}

// writing runs a Writer on s for the length of say, then for a second more.
func writing(t *testing.T, s *shelf, say func(*Writer)) *Writer {
	t.Helper()
	if s.events == nil {
		s.events = map[string]*corev1.Event{}
	}
	ctx, cancel := context.WithCancel(t.Context())
	w := New(s, "test", slog.New(slog.DiscardHandler))
	ended := make(chan error)
	go func() { ended <- w.Run(ctx) }()
	say(w)
	time.Sleep(time.Second)
	cancel()
	if err := <-ended; err != nil {
		t.Error(err)
	}
	return w
}

func TestWriterWritesWhatKubectlShows(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &shelf{}
		writing(t, s, func(w *Writer) {
			pod := testPod("web")
			w.Event(pod, corev1.EventTypeNormal, "Scheduled", "on node a")
			w.Event(Container(pod, "app"), corev1.EventTypeNormal, "Started", "container app")
			w.Event(Container(pod, "setup"), corev1.EventTypeNormal, "Started", "container setup")
			w.Event(&corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: "a"}}, corev1.EventTypeWarning, "DiskFull", "")
		})
		want := map[string]int32{
			"shop: Normal Pod/web  Scheduled: on node a":                               1,
			"shop: Normal Pod/web spec.containers{app} Started: container app":         1,
			"shop: Normal Pod/web spec.initContainers{setup} Started: container setup": 1,
			"default: Warning Node/a  DiskFull: ":                                      1,
		}
		if diff := cmp.Diff(want, s.lines()); diff != "" {
			t.Error(diff)
		}
		for _, ev := range s.events {
			if ev.InvolvedObject.Kind == "Pod" && (ev.InvolvedObject.UID != "uid-web" || ev.InvolvedObject.ResourceVersion != "7" || ev.InvolvedObject.APIVersion != "v1") {
				t.Errorf("reference: %+v", ev.InvolvedObject)
			}
			if ev.Source.Component != "test" || ev.FirstTimestamp.IsZero() {
				t.Errorf("event: %+v", ev)
			}
		}
	})
}

func TestWriterCountsEqualEvents(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &shelf{}
		say := func(w *Writer) {
			for range 3 {
				w.Event(testPod("web"), corev1.EventTypeWarning, "BackOff", "restarting")
				time.Sleep(10 * time.Second)
			}
		}
		writing(t, s, say)
		writing(t, s, say) // a new process finds the old Event
		if diff := cmp.Diff(map[string]int32{"shop: Warning Pod/web  BackOff: restarting": 6}, s.lines()); diff != "" {
			t.Error(diff)
		}
		for _, ev := range s.events {
			if got := ev.LastTimestamp.Sub(ev.FirstTimestamp.Time); got != 51*time.Second {
				t.Errorf("from first to last %s, want 51s", got)
			}
		}
	})
}

// TestEventsOfOneSecondAreListedInTheirOrder: a list is in the order of names.
func TestEventsOfOneSecondAreListedInTheirOrder(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &shelf{}
		want := []string{"Scheduled", "Pulling", "Pulled", "Created", "Started", "Unhealthy"}
		writing(t, s, func(w *Writer) {
			for _, reason := range want {
				w.Event(testPod("web"), corev1.EventTypeNormal, reason, "") // all at the same moment
			}
			w.Event(testPod("web"), corev1.EventTypeNormal, "Pulled", "") // again: it stays where it is
		})
		var got []string
		for _, key := range slices.Sorted(maps.Keys(s.events)) {
			got = append(got, s.events[key].Reason)
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("listed (-want +got):\n%s", diff)
		}
	})
}

func TestNamesOfEventsThatAreGoneAreForgotten(t *testing.T) {
	s, n := &shelf{events: map[string]*corev1.Event{}}, &names{}
	for i := range 3 * fewNames {
		id := identity{message: fmt.Sprint(i)}
		if _, err := n.find(t.Context(), s, id); err != nil {
			t.Fatal(err)
		}
		n.known[id] = "x"
	}
	if len(n.known) > fewNames+1 {
		t.Errorf("%d names are kept of no Events", len(n.known))
	}
}

func TestWriterNeverBlocksAndDropsTheOldest(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &shelf{delay: time.Hour, events: map[string]*corev1.Event{}}
		w := New(s, "test", slog.New(slog.DiscardHandler))
		start := time.Now()
		for n := range maxQueued + 10 {
			w.Event(testPod(fmt.Sprint(n)), corev1.EventTypeNormal, "Told", "once")
		}
		if time.Since(start) != 0 {
			t.Error("Event waited")
		}
		if got := w.Dropped(); got != 10 {
			t.Errorf("dropped %d, want 10", got)
		}
		if id, _, _ := w.shared.pop(); id.object.Name != "10" {
			t.Errorf("oldest is %s, want 10", id.object.Name)
		}
	})
}

func TestWriterLimitsOneObjectOnly(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &shelf{}
		w := writing(t, s, func(w *Writer) {
			for n := range 100 {
				w.Event(testPod("noisy"), corev1.EventTypeNormal, "Talk", fmt.Sprint(n))
			}
			w.Event(testPod("quiet"), corev1.EventTypeNormal, "Talk", "hello")
			time.Sleep(refill)
			w.Event(testPod("noisy"), corev1.EventTypeNormal, "Talk", "later")
		})
		if got := len(s.events); got != burst+2 {
			t.Errorf("%d events, want %d", got, burst+2)
		}
		if got := w.Dropped(); got != 100-burst {
			t.Errorf("dropped %d", got)
		}
	})
}

func TestWriterTriesAgainButNotForever(t *testing.T) {
	gr := api.Events.GroupResource()
	tests := []struct {
		name           string
		errs           []error
		writes, events int
	}{
		{"a conflict is planned again", []error{apierrors.NewConflict(gr, "x", errors.New("changed"))}, 2, 1},
		{"an unreachable store gives up", []error{errors.New("a"), errors.New("b"), errors.New("c"), errors.New("d")}, 3, 0},
		{"a namespace that goes takes no events", []error{apierrors.NewForbidden(gr, "x", errors.New("terminating"))}, 1, 0},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := &shelf{errs: tt.errs}
				writing(t, s, func(w *Writer) { w.Event(testPod("web"), corev1.EventTypeNormal, "Talk", "hello") })
				if s.writes != tt.writes || len(s.events) != tt.events {
					t.Errorf("%d writes, %d events; want %d and %d", s.writes, len(s.events), tt.writes, tt.events)
				}
			})
		})
	}
}

func TestWriterFlushesWhenStopped(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &shelf{events: map[string]*corev1.Event{}}
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		w := New(s, "test", slog.New(slog.DiscardHandler))
		w.For("other").Event(testPod("web"), corev1.EventTypeNormal, "Killing", "bye")
		if err := w.Run(ctx); err != nil {
			t.Fatal(err)
		}
		if len(s.events) != 1 {
			t.Fatalf("%d events", len(s.events))
		}
		for _, ev := range s.events {
			if ev.Source.Component != "other" {
				t.Errorf("component %q", ev.Source.Component)
			}
		}
	})
}

func TestNamesAndMessagesStayInBounds(t *testing.T) {
	long := testPod(strings.Repeat("a", 253))
	ref, err := Reference(long)
	if err != nil {
		t.Fatal(err)
	}
	id := newIdentity("test", ref, corev1.EventTypeNormal, "Talk", strings.Repeat("é", 2000))
	if len(id.name(1<<62)) > 253 {
		t.Errorf("name has %d bytes", len(id.name(1<<62)))
	}
	if len(id.message) > maxMessage || !strings.HasSuffix(id.message, "é...") {
		t.Errorf("message has %d bytes and ends %q", len(id.message), id.message[len(id.message)-6:])
	}
}
