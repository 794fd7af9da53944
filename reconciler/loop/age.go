package loop

import (
	"sync"
	"time"
)

// Ages tells how long ago stored times were, by a clock nobody sets. Stored times are of the wall clock, which may
// jump. A time that is met for the first time is believed, as far as it is not of the future; from then on its age
// grows by the monotonic clock. So a jump makes nothing older or younger that was seen before it, and what is met
// only after a jump back is young, instead of not born yet.
type Ages struct {
	mu    sync.Mutex
	seen  map[Key]map[string]sighting
	now   func() time.Time // with a monotonic reading
	clock func() time.Time // the wall clock
}

// sighting is a stored time, how old it was when it was met, and when that was.
type sighting struct {
	stamp time.Time
	age   time.Duration
	met   time.Time
}

// NewAges returns Ages that have met no time yet.
func NewAges() *Ages {
	return &Ages{seen: map[Key]map[string]sighting{}, now: time.Now, clock: func() time.Time { return time.Now().Round(0) }}
}

// Of returns how long ago the stamps of key were. Stamps of key that are not among them are forgotten.
func (a *Ages) Of(key Key, stamps map[string]time.Time) map[string]time.Duration {
	a.mu.Lock()
	defer a.mu.Unlock()
	before := a.seen[key]
	delete(a.seen, key)
	if len(stamps) == 0 {
		return nil
	}
	met := make(map[string]sighting, len(stamps))
	ages := make(map[string]time.Duration, len(stamps))
	for id, stamp := range stamps {
		s, ok := before[id]
		if !ok || !s.stamp.Equal(stamp) {
			s = sighting{stamp: stamp, age: max(0, a.clock().Sub(stamp)), met: a.now()}
		}
		met[id], ages[id] = s, s.age+a.now().Sub(s.met)
	}
	a.seen[key] = met
	return ages
}
