package event

import (
	"time"

	"k8s.io/apimachinery/pkg/types"
)

// An object may have this many events at once and one more every refill, as in Kubernetes.
const (
	burst      = 25
	refill     = 5 * time.Minute
	maxBuckets = 4096
)

// limiter holds a token bucket per object.
type limiter struct {
	buckets map[types.UID]*bucket
}

type bucket struct {
	tokens float64
	at     time.Time
}

// allow takes a token of the object uid.
func (l *limiter) allow(uid types.UID, now time.Time) bool {
	b := l.buckets[uid]
	if b == nil {
		if len(l.buckets) >= maxBuckets {
			l.sweep(now)
		}
		b = &bucket{tokens: burst, at: now}
		l.buckets[uid] = b
	}
	b.fill(now)
	if b.tokens < 1 {
		return false
	}
	b.tokens--
	return true
}

func (b *bucket) fill(now time.Time) {
	b.tokens = min(burst, b.tokens+float64(now.Sub(b.at))/float64(refill))
	b.at = now
}

// sweep forgets the objects that were quiet, and everything when none was: memory stays bounded.
func (l *limiter) sweep(now time.Time) {
	for uid, b := range l.buckets {
		if b.fill(now); b.tokens >= burst-1 {
			delete(l.buckets, uid)
		}
	}
	if len(l.buckets) >= maxBuckets {
		clear(l.buckets)
	}
}
