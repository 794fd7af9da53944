package agent

import (
	"context"
	"maps"
	"slices"
	"time"
)

const (
	// clockPeriod is how often the wall clock is compared with the time that passed.
	clockPeriod = 10 * time.Second
	// clockSlack is by how much it may be off before it counts as set.
	clockSlack = 30 * time.Second
)

// followClock calls set whenever the wall clock was set, until ctx ends.
func followClock(ctx context.Context, wall func() time.Time, set func(by time.Duration)) {
	tick := time.NewTicker(clockPeriod)
	defer tick.Stop()
	for last, mark := wall().Round(0), time.Now(); ; {
		select {
		case <-tick.C:
		case <-ctx.Done():
			return
		}
		now, passed := wall().Round(0), time.Since(mark)
		if by := now.Sub(last) - passed; by.Abs() > clockSlack {
			set(by)
		}
		last, mark = now, time.Now()
	}
}

// clockSet makes every Pod look at its files again: tokens are valid by the wall clock.
func (a *Agent) clockSet(by time.Duration) {
	a.log.Warn("the clock was set; tokens of Pods are looked at again", "by", by.Round(time.Second))
	a.mu.Lock()
	workers := slices.Collect(maps.Values(a.workers))
	a.mu.Unlock()
	for _, w := range workers {
		w.referenceChanged()
	}
}
