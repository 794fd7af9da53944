package loop

import (
	"testing"
	"time"
)

func TestAgesOutliveJumpsOfTheWallClock(t *testing.T) {
	const year = 365 * 24 * time.Hour
	mono := time.Date(2026, 5, 1, 0, 0, 0, 0, time.UTC)
	wall := mono
	a := NewAges()
	a.now, a.clock = func() time.Time { return mono }, func() time.Time { return wall }
	k := Key{Name: "web"}
	pass := func(d time.Duration) { mono, wall = mono.Add(d), wall.Add(d) }
	age := func(stamp time.Time) time.Duration { return a.Of(k, map[string]time.Time{"pod": stamp})["pod"] }
	want := func(fact string, got, want time.Duration) {
		t.Helper()
		if got != want {
			t.Errorf("%s: %s old, want %s", fact, got, want)
		}
	}

	stamp := wall.Add(-10 * time.Second)
	want("a time is believed when it is met", age(stamp), 10*time.Second)
	pass(5 * time.Second)
	want("and grows older", age(stamp), 15*time.Second)
	wall = wall.Add(year)
	want("a jump ahead does not make it older", age(stamp), 15*time.Second)
	wall = wall.Add(-2 * year)
	pass(time.Second)
	want("nor a jump back younger", age(stamp), 16*time.Second)
	fresh := wall
	want("another time is another age", age(fresh), 0)
	want("a time of the future is now", age(wall.Add(year)), 0)
	future := wall.Add(year)
	pass(30 * time.Second)
	want("and grows older all the same", age(future), 30*time.Second)
	a.Of(k, nil)
	if len(a.seen) != 0 {
		t.Errorf("%d keys are kept without a time", len(a.seen))
	}
}
