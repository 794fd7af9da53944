package agent

import (
	"context"
	"os"
	"path/filepath"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"

	"github.com/slipway-dev/slipway/nodeagent/engine"
	"github.com/slipway-dev/slipway/nodeagent/volume"
)

func TestFollowClockTellsWhenItIsSet(t *testing.T) {
	const year = 365 * 24 * time.Hour
	synctest.Test(t, func(t *testing.T) {
		var offset atomic.Int64
		var told []time.Duration
		ctx, cancel := context.WithCancel(t.Context())
		go followClock(ctx, func() time.Time { return time.Now().Add(time.Duration(offset.Load())) }, func(by time.Duration) { told = append(told, by) })
		for _, by := range []time.Duration{0, year, 20 * time.Second, -2 * year, -time.Second} {
			time.Sleep(clockPeriod + time.Second)
			offset.Add(int64(by))
		}
		time.Sleep(2 * clockPeriod)
		cancel()
		synctest.Wait()
		if diff := cmp.Diff([]time.Duration{year, -2 * year}, told); diff != "" {
			t.Errorf("told (-want +got):\n%s", diff)
		}
	})
}

// TestContainersOfThisProcessAreKnownByTheirIDs: when they started says nothing once the clock was set.
func TestContainersOfThisProcessAreKnownByTheirIDs(t *testing.T) {
	w := &worker{own: map[string]bool{"mine": true}, pod: &corev1.Pod{}}
	for _, offset := range []time.Duration{-365 * 24 * time.Hour, 365 * 24 * time.Hour} {
		at := time.Now().Add(offset)
		if w.adopted(engine.Status{ID: "mine", StartedAt: at}) != nil || w.adopted(engine.Status{ID: "theirs", StartedAt: at}) == nil {
			t.Errorf("of containers started at %s the wrong one counts as adopted", at)
		}
	}
}

// TestWhatWasAskedToEndIsKilledAfterItsGrace: a note of the future is of a clock that was set back since.
func TestWhatWasAskedToEndIsKilledAfterItsGrace(t *testing.T) {
	w := &worker{a: &Agent{volumes: volume.New(t.TempDir(), nil)}, uid: "u1"}
	now := time.Now()
	for id, at := range map[string]time.Time{"future": now.Add(365 * 24 * time.Hour), "past": now.Add(-time.Minute)} {
		if err := w.noteAsked(id); err != nil {
			t.Fatal(err)
		}
		if err := os.Chtimes(filepath.Join(w.askedDir(), id), at, at); err != nil {
			t.Fatal(err)
		}
	}
	asked := w.readAsked()
	if late := asked["future"].Sub(now); late < 0 || late > time.Minute {
		t.Errorf("it counts as asked %s from now", late)
	}
	if ago := now.Sub(asked["past"]); (ago - time.Minute).Abs() > time.Second {
		t.Errorf("it counts as asked %s ago, want a minute", ago)
	}
}
