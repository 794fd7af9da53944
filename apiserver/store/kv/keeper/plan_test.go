package keeper

import (
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/slipway-dev/slipway/apiserver/store/kv"
)

const mb = 1 << 20

func TestPlan(t *testing.T) {
	now := time.Date(2030, 1, 1, 0, 0, 0, 0, time.UTC)
	roomy := observed{now: now, newest: 90_000, followed: 90_000, compacted: 60_000, free: 10_000 * mb, reserve: 128 * mb,
		usage: kv.Usage{Size: 100 * mb, InUse: 80 * mb, Quota: 8000 * mb}, defragmented: now.Add(-time.Hour)}
	with := func(change func(*observed)) observed {
		o := roomy
		change(&o)
		return o
	}
	for name, c := range map[string]struct {
		observed
		want string
	}{
		"nothing is old":                   {roomy, ""},
		"the old past is forgotten":        {with(func(o *observed) { o.old = 70_000 }), "compact up to revision 70000"},
		"a little past is not worth it":    {with(func(o *observed) { o.old = 60_999 }), ""},
		"much past is forgotten sooner":    {with(func(o *observed) { o.newest, o.followed = 200_000, 200_000 }), "compact up to revision 150000"},
		"a follower's future is kept":      {with(func(o *observed) { o.old, o.followed = 70_000, 65_000 }), "compact up to revision 65000"},
		"what is compacted stays so":       {with(func(o *observed) { o.old, o.followed = 70_000, 50_000 }), ""},
		"no past is kept on a full disk":   {with(func(o *observed) { o.free = 100 * mb }), "compact up to revision 90000"},
		"nothing is written without room":  {with(func(o *observed) { o.free, o.old = mb, 70_000 }), ""},
		"mostly free pages are given back": {with(func(o *observed) { o.usage.Size = 200 * mb }), "defragment"},
		"not twice in a row":               {with(func(o *observed) { o.usage.Size, o.defragmented = 200*mb, now.Add(-time.Minute) }), ""},
		"not where the copy has no room":   {with(func(o *observed) { o.usage.Size, o.free, o.compacted = 200*mb, 90*mb, 90_000 }), ""},
		"a large database waits for need":  {with(func(o *observed) { o.usage = kv.Usage{Size: 1000 * mb, InUse: 400 * mb, Quota: 8000 * mb} }), ""},
		"a large database on a full disk": {with(func(o *observed) {
			o.usage, o.free, o.reserve, o.compacted = kv.Usage{Size: 1000 * mb, InUse: 400 * mb}, 500*mb, 300*mb, 90_000
		}), "defragment"},
		"a used up quota": {with(func(o *observed) { o.full, o.usage = true, kv.Usage{Size: 100 * mb, InUse: 90 * mb, Quota: 100 * mb} }), "compact up to revision 90000"},
		"a used up quota, compacted": {with(func(o *observed) {
			o.full, o.compacted, o.compactedAt, o.usage = true, 90_000, now, kv.Usage{Size: 100 * mb, InUse: 40 * mb, Quota: 100 * mb}
		}), "defragment, clear the quota alarm"},
		"a used up quota of what is needed": {with(func(o *observed) {
			o.full, o.compacted, o.defragmented, o.usage = true, 90_000, now, kv.Usage{Size: 100 * mb, InUse: 95 * mb, Quota: 100 * mb}
		}), ""},
		"a used up quota that was made room": {with(func(o *observed) {
			o.full, o.compacted, o.defragmented, o.usage = true, 90_000, now, kv.Usage{Size: 50 * mb, InUse: 45 * mb, Quota: 100 * mb}
		}), "clear the quota alarm"},
	} {
		t.Run(name, func(t *testing.T) {
			var lines []string
			for _, a := range plan(c.observed) {
				lines = append(lines, a.String())
			}
			if diff := cmp.Diff(c.want, strings.Join(lines, ", ")); diff != "" {
				t.Error(diff)
			}
		})
	}
}

func TestHistoryRemembersFiveMinutes(t *testing.T) {
	now := time.Date(2030, 1, 1, 0, 0, 0, 0, time.UTC)
	var h history
	for minute, want := range []uint64{0, 0, 0, 0, 0, 1, 2, 3} {
		if got := h.old(now.Add(time.Duration(minute)*time.Minute), uint64(minute+1)); got != want {
			t.Errorf("after %d minutes: revision %d is old, want %d", minute, got, want)
		}
	}
	if len(h.marks) != 6 {
		t.Errorf("%d marks are kept", len(h.marks))
	}
}
