package agent

import (
	"context"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
)

func TestFollowClockTellsWhenItIsSet(t *testing.T) {
	const year = 365 * 24 * time.Hour
	synctest.Test(t, func(t *testing.T) {
		offset := time.Duration(0)
		var told []time.Duration
		ctx, cancel := context.WithCancel(t.Context())
		go followClock(ctx, func() time.Time { return time.Now().Add(offset) }, func(by time.Duration) { told = append(told, by) })
		for _, by := range []time.Duration{0, year, 20 * time.Second, -2 * year, -time.Second} {
			time.Sleep(clockPeriod + time.Second)
			offset += by
		}
		time.Sleep(2 * clockPeriod)
		cancel()
		synctest.Wait()
		if diff := cmp.Diff([]time.Duration{year, -2 * year}, told); diff != "" {
			t.Errorf("told (-want +got):\n%s", diff)
		}
	})
}
