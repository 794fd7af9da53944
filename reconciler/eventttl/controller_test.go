package eventttl

import (
	"context"
	"log/slog"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/slipway-dev/slipway/apiserver/api"
	"github.com/slipway-dev/slipway/apiserver/event"
	"github.com/slipway-dev/slipway/apiserver/store"
	"github.com/slipway-dev/slipway/apiserver/store/kv/memory"
	"github.com/slipway-dev/slipway/reconciler/loop"
)

// TestEventsGoAnHourAfterTheyWereMet has Events of clocks that were set since: none stays for a year.
func TestEventsGoAnHourAfterTheyWereMet(t *testing.T) {
	const year = 365 * 24 * time.Hour
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancel(context.Background())
		s, err := store.New(ctx, memory.New(), api.StorageCodec{})
		if err != nil {
			t.Fatal(err)
		}
		for name, ago := range map[string]time.Duration{"now": 0, "of-the-future": -year, "half-an-hour-old": 30 * time.Minute, "long-ago": year} {
			at := metav1.NewTime(time.Now().Add(-ago).Truncate(time.Second))
			ev := &corev1.Event{ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: name, CreationTimestamp: at}, LastTimestamp: at}
			if _, err := s.Create(ctx, ev, store.CreateOptions{}); err != nil {
				t.Fatal(err)
			}
		}
		ended := make(chan error)
		go func() { ended <- loop.Run(ctx, s, slog.New(slog.DiscardHandler), New(s, event.Discard)) }()
		left := func() (names []string) {
			synctest.Wait()
			events, err := store.All[*corev1.Event](ctx, s, store.ListOptions{})
			if err != nil {
				t.Fatal(err)
			}
			for _, ev := range events {
				names = append(names, ev.Name)
			}
			return names
		}
		got := [][]string{left()}
		for range 2 {
			time.Sleep(31 * time.Minute)
			got = append(got, left())
		}
		want := [][]string{{"half-an-hour-old", "now", "of-the-future"}, {"now", "of-the-future"}, nil}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("at once, after 31 and after 62 minutes (-want +got):\n%s", diff)
		}
		cancel()
		if err := <-ended; err != nil {
			t.Error(err)
		}
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
}
