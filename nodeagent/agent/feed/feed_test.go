package feed

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/slipway-dev/slipway/apiserver/api"
	"github.com/slipway-dev/slipway/apiserver/store"
)

// script is a reader whose watches deliver what is written for them, then break.
type script struct {
	store.Reader
	watches [][]store.Event
	next    int
}

func (s *script) Watch(context.Context, *api.Kind, store.WatchOptions) (store.Watch, error) {
	if s.next >= len(s.watches) {
		return &watch{hold: true}, nil
	}
	events := s.watches[s.next]
	s.next++
	if events == nil {
		return nil, errors.New("no connection")
	}
	return &watch{events: events}, nil
}

type watch struct {
	events []store.Event
	hold   bool
}

func (w *watch) Next(ctx context.Context) (store.Event, error) {
	if len(w.events) > 0 {
		ev := w.events[0]
		w.events = w.events[1:]
		return ev, nil
	}
	if w.hold {
		<-ctx.Done()
		return store.Event{}, ctx.Err()
	}
	return store.Event{}, errors.New("broken")
}

func (w *watch) Close() {}

func put(name, uid string) store.Event {
	return store.Event{Type: store.Added, Object: &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Name: name, UID: types.UID(uid)}}}
}

var end = store.Event{Type: store.Bookmark, InitialEventsEnd: true}

func TestFollowTellsWhatHappenedWhileNobodyWatched(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		gone := put("c", "3")
		gone.Type = store.Deleted
		s := &script{watches: [][]store.Event{
			{put("a", "1"), put("b", "2"), put("c", "3"), end, gone},
			nil,
			{put("a", "1"), put("d", "4"), end}, // b was deleted meanwhile
			{put("a", "9"), put("d", "4"), end}, // a was replaced
		}}
		var told []string
		ctx, cancel := context.WithCancel(t.Context())
		go Follow(ctx, s, api.Pods, store.WatchOptions{}, slog.New(slog.DiscardHandler), func(c Change) {
			switch {
			case c.Synced:
				told = append(told, "synced")
			case c.Err != nil:
				told = append(told, c.Err.Error())
			case c.Deleted:
				told = append(told, fmt.Sprintf("-%s%s", c.Object.GetName(), c.Object.GetUID()))
			default:
				told = append(told, fmt.Sprintf("+%s%s", c.Object.GetName(), c.Object.GetUID()))
			}
		})
		for range 4 {
			synctest.Wait()
			time.Sleep(lastPause) // fake time
		}
		cancel()
		synctest.Wait()
		want := []string{"+a1", "+b2", "+c3", "synced", "-c3", "no connection", "+a1", "+d4", "-b2", "synced", "-a1", "+a9", "+d4", "synced"}
		if diff := cmp.Diff(want, told); diff != "" {
			t.Errorf("changes (-want +got):\n%s", diff)
		}
	})
}
