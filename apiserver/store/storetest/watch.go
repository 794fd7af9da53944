package storetest

import (
	"context"
	"errors"
	"fmt"
	"testing"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sync/errgroup"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/types"

	"github.com/slipway-dev/slipway/apiserver/api"
	"github.com/slipway-dev/slipway/apiserver/store"
)

// The concurrent rows write this much: so many writers, each making, changing and deleting so many objects.
const (
	writers = 8
	objects = 12
)

// churn makes, changes and deletes objects from several goroutines: 4 writes an object.
func (s suite) churn() error {
	var group errgroup.Group
	for w := range writers {
		group.Go(func() error {
			for i := range objects {
				if err := s.life(fmt.Sprintf("map-%d-%d", w, i)); err != nil {
					return err
				}
			}
			return nil
		})
	}
	return group.Wait()
}

func (s suite) life(name string) error {
	if _, err := s.Create(s.ctx, configMap("red", name, "0"), store.CreateOptions{}); err != nil {
		return err
	}
	for _, value := range []string{"1", "2"} {
		if _, err := s.Update(s.ctx, configMap("red", name, value), store.UpdateOptions{}); err != nil {
			return err
		}
	}
	_, err := s.Delete(s.ctx, api.ConfigMaps, "red", name, store.DeleteOptions{})
	return err
}

// lives checks that events tell each object's life completely and in order, and that revisions rise.
func lives(t *testing.T, events []store.Event) {
	t.Helper()
	got := map[string][]string{}
	var last uint64
	for _, e := range events {
		if e.Revision <= last {
			t.Fatalf("%s has revision %d after %d", what(e), e.Revision, last)
		}
		last = e.Revision
		if revision(t, e.Object) != e.Revision {
			t.Errorf("%s at %d has resourceVersion %s", what(e), e.Revision, e.Object.GetResourceVersion())
		}
		name := e.Object.GetName()
		got[name] = append(got[name], fmt.Sprintf("%s %s", e.Type, e.Object.(*corev1.ConfigMap).Data["value"]))
	}
	want := map[string][]string{}
	for w := range writers {
		for i := range objects {
			want[fmt.Sprintf("map-%d-%d", w, i)] = []string{"ADDED 0", "MODIFIED 1", "MODIFIED 2", "DELETED 2"}
		}
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("events (-want +got):\n%s", diff)
	}
}

func watchOnce(t *testing.T, s suite) {
	from := s.list(t, api.ConfigMaps, store.ListOptions{Namespace: "red"}).Revision
	early := s.watch(t, api.ConfigMaps, store.WatchOptions{Namespace: "red", Revision: from})
	done := make(chan error, 1)
	go func() { done <- s.churn() }()
	var events []store.Event
	for range writers * objects * 4 {
		events = append(events, s.next(t, early))
	}
	lives(t, events)
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	late := s.watch(t, api.ConfigMaps, store.WatchOptions{Namespace: "red", Revision: from})
	for i, want := range events {
		if got := s.next(t, late); got.Revision != want.Revision || what(got) != what(want) {
			t.Fatalf("event %d: a late watcher sees %s at %d, an early one %s at %d", i, what(got), got.Revision, what(want), want.Revision)
		}
	}
}

func watchResumes(t *testing.T, s suite) {
	at := s.list(t, api.ConfigMaps, store.ListOptions{Namespace: "red"}).Revision
	done := make(chan error, 1)
	go func() { done <- s.churn() }()
	var events []store.Event
	for range writers * objects * 4 {
		w := s.watch(t, api.ConfigMaps, store.WatchOptions{Namespace: "red", Revision: at})
		event := s.next(t, w)
		w.Close()
		events = append(events, event)
		at = event.Revision
	}
	lives(t, events)
	if err := <-done; err != nil {
		t.Fatal(err)
	}
}

func watchInitial(t *testing.T, s suite) {
	s.create(t, configMap("red", "a", "1"))
	s.create(t, configMap("red", "b", "1"))
	s.create(t, configMap("blue", "a", "1"))
	w := s.watch(t, api.ConfigMaps, store.WatchOptions{Namespace: "red", Labels: labels.Everything()})
	var got []string
	for {
		event, err := w.Next(s.ctx)
		if err != nil {
			t.Fatal(err)
		}
		if event.Type == store.Bookmark {
			if !event.InitialEventsEnd || event.Object != nil || event.Revision == 0 {
				t.Errorf("the bookmark is %+v", event)
			}
			break
		}
		if event.Object.GetName() != "kube-root-ca.crt" {
			got = append(got, what(event))
		}
	}
	s.set(t, configMap("red", "a", "2"))
	s.delete(t, api.ConfigMaps, "red", "b")
	got = append(got, what(s.next(t, w)), what(s.next(t, w)))
	want := []string{"ADDED red/a 1", "ADDED red/b 1", "MODIFIED red/a 2", "DELETED red/b 1"}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("events (-want +got):\n%s", diff)
	}
}

func watchSelectors(t *testing.T, s suite) {
	from := s.list(t, api.ConfigMaps, store.ListOptions{}).Revision
	w := s.watch(t, api.ConfigMaps, store.WatchOptions{Revision: from, Namespace: "red", Labels: labels.SelectorFromSet(labels.Set{"app": "x"})})
	s.create(t, configMap("red", "a", "1", "app", "y"))
	s.set(t, configMap("red", "a", "2", "app", "x"))
	s.set(t, configMap("red", "a", "3", "app", "x"))
	leaves := s.set(t, configMap("red", "a", "4", "app", "y"))
	s.delete(t, api.ConfigMaps, "red", "a")
	s.create(t, configMap("blue", "a", "5", "app", "x"))
	s.create(t, configMap("red", "a", "6", "app", "x"))
	s.delete(t, api.ConfigMaps, "red", "a")
	want := []string{"ADDED red/a 2", "MODIFIED red/a 3", "DELETED red/a 3", "ADDED red/a 6", "DELETED red/a 6"}
	var got []string
	for i := range want {
		event := s.next(t, w)
		got = append(got, what(event))
		if i == 2 && (event.Revision != revision(t, leaves) || revision(t, event.Object) != event.Revision) {
			t.Errorf("the event of leaving has revision %d and its object %s, want %s", event.Revision, event.Object.GetResourceVersion(), leaves.GetResourceVersion())
		}
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("events (-want +got):\n%s", diff)
	}
}

func watchFields(t *testing.T, s suite) {
	from := s.list(t, api.Pods, store.ListOptions{}).Revision
	running := s.watch(t, api.Pods, store.WatchOptions{Revision: from, Fields: fields.OneTermEqualSelector("status.phase", "Running")})
	named := s.watch(t, api.Pods, store.WatchOptions{Revision: from, Fields: fields.OneTermEqualSelector("metadata.name", "b")})
	for _, name := range []string{"a", "b"} {
		obj := s.create(t, pod("red", name))
		for _, phase := range []corev1.PodPhase{corev1.PodRunning, corev1.PodFailed} {
			next := obj.DeepCopyObject().(*corev1.Pod)
			next.Status.Phase = phase
			var err error
			if obj, err = s.Update(s.ctx, next, store.UpdateOptions{Subresource: "status"}); err != nil {
				t.Fatal(err)
			}
		}
	}
	late := s.watch(t, api.Pods, store.WatchOptions{Revision: from, Fields: fields.OneTermEqualSelector("status.phase", "Running")})
	for name, w := range map[string]store.Watch{"early": running, "late": late} {
		for _, want := range []string{"ADDED red/a", "DELETED red/a", "ADDED red/b", "DELETED red/b"} {
			if got := what(s.next(t, w)); got != want {
				t.Errorf("%s watcher of Running: %s, want %s", name, got, want)
			}
		}
	}
	for _, want := range []string{"ADDED red/b", "MODIFIED red/b", "MODIFIED red/b"} {
		if got := what(s.next(t, named)); got != want {
			t.Errorf("watcher of a name: %s, want %s", got, want)
		}
	}
}

// watchName lets many changes of one object wait for its watchers, who read in turn.
func watchName(t *testing.T, s suite) {
	opts := store.WatchOptions{Revision: s.list(t, api.ConfigMaps, store.ListOptions{}).Revision, Namespace: "red",
		Fields: fields.OneTermEqualSelector("metadata.name", "a")}
	first, second := s.watch(t, api.ConfigMaps, opts), s.watch(t, api.ConfigMaps, opts)
	var want []string
	for i := range 100 {
		s.set(t, configMap("red", "a", fmt.Sprint(i)))
		s.set(t, configMap("red", "b", fmt.Sprint(i)))
		s.set(t, configMap("blue", "a", fmt.Sprint(i)))
		want = append(want, fmt.Sprintf("MODIFIED red/a %d", i))
	}
	want[0] = "ADDED red/a 0"
	watches := map[string]store.Watch{"first": first, "second": second, "late": s.watch(t, api.ConfigMaps, opts)}
	opts.Fields = fields.OneTermEqualSelector("metadata.name", "b")
	alone := s.watch(t, api.ConfigMaps, opts)
	for range 50 {
		s.next(t, alone)
	}
	for i := range 100 {
		s.set(t, configMap("red", "b", fmt.Sprint("more", i)))
	}
	for range 100 - 50 + 99 {
		s.next(t, alone)
	}
	if got := what(s.next(t, alone)); got != "MODIFIED red/b more99" {
		t.Errorf("the last event of a watcher alone is %s", got)
	}
	for name, w := range watches {
		var got []string
		for range want {
			got = append(got, what(s.next(t, w)))
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("%s watcher (-want +got):\n%s", name, diff)
		}
	}
}

func watchFuture(t *testing.T, s suite) {
	now := revision(t, s.create(t, configMap("red", "a", "1")))
	_, err := s.Watch(s.ctx, api.ConfigMaps, store.WatchOptions{Revision: now + 1000})
	if !apierrors.IsTimeout(err) {
		t.Errorf("Watch: %v, want Timeout", err)
	}
}

func watchPast(t *testing.T, s suite) {
	w, err := s.Watch(s.ctx, api.ConfigMaps, store.WatchOptions{Revision: 0})
	if err != nil {
		t.Fatal(err)
	}
	w.Close()
	// Revision 1 is the empty store: whoever knows it may have missed nothing, or everything.
	w, err = s.Watch(s.ctx, api.ConfigMaps, store.WatchOptions{Revision: 1})
	if err == nil {
		w.Close()
	} else if !apierrors.IsResourceExpired(err) && !apierrors.IsGone(err) {
		t.Errorf("Watch: %v, want none or Expired", err)
	}
}

// burst writes n changes to objects of a namespace, from several goroutines.
func (s suite) burst(t *testing.T, namespace string, n int) {
	t.Helper()
	var group errgroup.Group
	for w := range writers {
		group.Go(func() error {
			name := fmt.Sprintf("burst-%d", w)
			_, err := s.Create(s.ctx, configMap(namespace, name, "0"), store.CreateOptions{})
			for i := 0; i < n/writers && (err == nil || apierrors.IsAlreadyExists(err)); i++ {
				_, err = s.Patch(s.ctx, api.ConfigMaps, namespace, name, store.Patch{Type: types.MergePatchType,
					Data: fmt.Appendf(nil, `{"data":{"value":"%d-%s"}}`, i, name+t.Name())})
			}
			return err
		})
	}
	if err := group.Wait(); err != nil {
		t.Fatal(err)
	}
}

// watchBehind writes until a watcher that reads nothing must have been left behind.
func watchBehind(t *testing.T, s suite) {
	const enough = 1 << 15
	from := s.list(t, api.ConfigMaps, store.ListOptions{}).Revision
	idle := s.watch(t, api.ConfigMaps, store.WatchOptions{Revision: from})
	for written := 0; ; written += 1024 {
		w, err := s.Watch(s.ctx, api.ConfigMaps, store.WatchOptions{Revision: from})
		if apierrors.IsResourceExpired(err) {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		w.Close()
		if written > enough {
			t.Fatalf("%d changes are kept for watchers", enough)
		}
		s.burst(t, "red", 1024)
	}
	var err error
	for last := from; err == nil; {
		var event store.Event
		if event, err = idle.Next(s.ctx); err == nil && event.Revision <= last {
			t.Fatalf("revision %d follows %d", event.Revision, last)
		}
		last = event.Revision
	}
	if !apierrors.IsResourceExpired(err) {
		t.Errorf("Next: %v, want Expired", err)
	}
	if _, again := idle.Next(s.ctx); again == nil {
		t.Error("the watch goes on after Expired")
	}
}

func watchBookmarks(t *testing.T, s suite) {
	from := s.list(t, api.ConfigMaps, store.ListOptions{}).Revision
	w := s.watch(t, api.ConfigMaps, store.WatchOptions{Revision: from, Bookmarks: true, Labels: labels.SelectorFromSet(labels.Set{"app": "x"})})
	s.burst(t, "red", 2048)
	mark, err := w.Next(s.ctx)
	if err != nil {
		t.Fatal(err)
	}
	if mark.Type != store.Bookmark || mark.Object != nil || mark.InitialEventsEnd || mark.Revision <= from {
		t.Fatalf("the event is %+v, want a bookmark after %d", mark, from)
	}
	s.create(t, configMap("red", "a", "1", "app", "x"))
	w = s.watch(t, api.ConfigMaps, store.WatchOptions{Revision: mark.Revision, Labels: labels.SelectorFromSet(labels.Set{"app": "x"})})
	if got := what(s.next(t, w)); got != "ADDED red/a 1" {
		t.Errorf("after the bookmark comes %s", got)
	}
}

func watchClose(t *testing.T, s suite) {
	w := s.watch(t, api.ConfigMaps, store.WatchOptions{Revision: s.list(t, api.ConfigMaps, store.ListOptions{}).Revision})
	done := make(chan error, 1)
	go func() {
		_, err := w.Next(s.ctx)
		done <- err
	}()
	w.Close()
	if err := <-done; err == nil {
		t.Error("Next returned an event")
	}
	if _, err := w.Next(s.ctx); err == nil {
		t.Error("Next after Close returned an event")
	}
	w.Close()
}

func watchContext(t *testing.T, s suite) {
	w := s.watch(t, api.ConfigMaps, store.WatchOptions{Revision: s.list(t, api.ConfigMaps, store.ListOptions{}).Revision})
	ctx, cancel := context.WithCancel(s.ctx)
	done := make(chan error, 1)
	go func() {
		_, err := w.Next(ctx)
		done <- err
	}()
	cancel()
	if err := <-done; !errors.Is(err, context.Canceled) {
		t.Errorf("Next: %v, want Canceled", err)
	}
}
