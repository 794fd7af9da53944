package catalog

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sort"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/slipway-dev/slipway/apiserver/api"
	"github.com/slipway-dev/slipway/apiserver/store"
)

// script is a Reader whose watches deliver what the test sends.
type script struct {
	store.Reader
	events map[*api.Kind]chan store.Event
}

func newScript() *script {
	return &script{events: map[*api.Kind]chan store.Event{api.Services: make(chan store.Event), api.EndpointSlices: make(chan store.Event)}}
}

func (s *script) Watch(_ context.Context, kind *api.Kind, _ store.WatchOptions) (store.Watch, error) {
	return watch{s.events[kind]}, nil
}

type watch struct{ events chan store.Event }

func (w watch) Next(ctx context.Context) (store.Event, error) {
	select {
	case <-ctx.Done():
		return store.Event{}, ctx.Err()
	case e := <-w.events:
		if e.Type == "" {
			return e, errors.New("broken")
		}
		return e, nil
	}
}

func (watch) Close() {}

var (
	synced = store.Event{Type: store.Bookmark, InitialEventsEnd: true}
	broken = store.Event{}
)

func service(name string) *corev1.Service {
	return &corev1.Service{ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: name}}
}

func slice(name, owner string) *discoveryv1.EndpointSlice {
	return &discoveryv1.EndpointSlice{ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: name, Labels: map[string]string{discoveryv1.LabelServiceName: owner}}}
}

func (s *script) send(eventType store.EventType, objects ...api.Object) {
	for _, obj := range objects {
		kind, _ := api.KindOf(obj)
		s.events[kind] <- store.Event{Type: eventType, Object: obj}
	}
}

// text is changes as "web=[web-1 web-2] old=gone".
func text(changes Changes) string {
	var parts []string
	for name, s := range changes {
		if s == nil {
			parts = append(parts, name.Name+"=gone")
			continue
		}
		var slices []string
		for _, slice := range s.Slices {
			slices = append(slices, slice.Name)
		}
		parts = append(parts, fmt.Sprintf("%s=%v", name.Name, slices))
	}
	sort.Strings(parts)
	return strings.Join(parts, " ")
}

// followed runs f beside Follow; told returns what was told since its last call.
func followed(t *testing.T, fail func(Changes) error, f func(s *script, told func() string)) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		s, calls := newScript(), []string{}
		go Follow(ctx, s, slog.New(slog.DiscardHandler), func(c Changes) error {
			calls = append(calls, text(c))
			return fail(c)
		})
		f(s, func() string {
			synctest.Wait()
			defer func() { calls = nil }()
			return strings.Join(calls, "; ")
		})
		cancel()
		synctest.Wait()
	})
}

func never(Changes) error { return nil }

func expect(t *testing.T, what, got, want string) {
	t.Helper()
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("%s (-want +got):\n%s", what, diff)
	}
}

func TestFollowTellsEverythingOnceThenChanges(t *testing.T) {
	followed(t, never, func(s *script, told func() string) {
		s.send(store.Added, service("web"), service("db"), slice("web-2", "web"), slice("web-1", "web"))
		s.events[api.Services] <- synced
		expect(t, "before all is known", told(), "")
		s.events[api.EndpointSlices] <- synced
		expect(t, "first", told(), "db=[] web=[web-1 web-2]")
		s.send(store.Deleted, slice("web-1", "web"))
		expect(t, "slice deleted", told(), "web=[web-2]")
		s.send(store.Modified, slice("web-2", "db"))
		if got := told(); got != "db=[web-2] web=[]" {
			t.Errorf("slice of another Service: %s", got)
		}
		s.send(store.Deleted, service("db"))
		expect(t, "Service deleted", told(), "db=gone")
	})
}

func TestFollowTellsEvenWhenThereIsNothing(t *testing.T) {
	followed(t, never, func(s *script, told func() string) {
		s.events[api.Services] <- synced
		s.events[api.EndpointSlices] <- synced
		synctest.Wait()
		s.send(store.Added, service("web"))
		expect(t, "calls", told(), "; web=[]")
	})
}

func TestFollowFindsWhatWentWhileTheWatchWasBroken(t *testing.T) {
	followed(t, never, func(s *script, told func() string) {
		s.send(store.Added, service("web"), service("db"), slice("web-1", "web"), slice("db-1", "db"))
		s.events[api.Services] <- synced
		s.events[api.EndpointSlices] <- synced
		told()
		s.events[api.Services] <- broken
		s.events[api.EndpointSlices] <- broken
		s.send(store.Added, service("db"), slice("db-1", "db"))
		s.events[api.Services] <- synced
		s.events[api.EndpointSlices] <- synced
		got := told()
		if !strings.Contains(got, "web=gone") || strings.Contains(got, "db=gone") {
			t.Errorf("after the break: %s", got)
		}
	})
}

func TestFollowTellsAgainWhatFailed(t *testing.T) {
	failures := 2
	fail := func(Changes) error {
		if failures--; failures >= 0 {
			return errors.New("not now")
		}
		return nil
	}
	followed(t, fail, func(s *script, told func() string) {
		s.send(store.Added, service("web"))
		s.events[api.Services] <- synced
		s.events[api.EndpointSlices] <- synced
		synctest.Wait()
		s.send(store.Added, service("db")) // while it waits to try again
		<-time.After(5 * retry)
		expect(t, "calls", told(), "web=[]; db=[] web=[]; db=[] web=[]")
	})
}
