package store

import (
	"sort"
	"sync"

	"github.com/slipway-dev/slipway/apiserver/api"
)

// change is one event of a kind: an object before and after. It is shared by all watchers.
type change struct {
	revision uint64
	old, new *item // nil: did not exist, was deleted

	once sync.Once
	gone api.Object
}

// last returns the state before the change with the change's resourceVersion: what a watcher is told to whom the
// object is gone.
func (c *change) last() api.Object {
	c.once.Do(func() {
		if c.gone == nil {
			c.gone = atRevision(c.old.obj, c.revision)
		}
	})
	return c.gone
}

// log keeps the newest changes in a ring that grows on demand up to a limit. Positions count up from zero and are
// never used again. Its lock is taken last.
type log struct {
	limit int

	mu         sync.Mutex
	ring       []*change // length a power of two, or zero
	start, end uint64    // positions kept: start <= p < end
	base       uint64    // every change after this revision is kept
	over       bool      // nothing will be appended any more
	changed    chan struct{}
	ends       [logAges]uint64     // end at the last calls of age, oldest first
	readers    map[*watch]struct{} // of a topic: who reads it
}

// logAges is after how many calls of age a change is dropped.
const logAges = 4

func newLog(base uint64, limit int) *log { return &log{base: base, limit: limit} }

func (l *log) at(position uint64) *change { return l.ring[position&uint64(len(l.ring)-1)] }

// append adds a change. Waiting readers are told by wake.
func (l *log) append(c *change) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if n := int(l.end - l.start); n == len(l.ring) {
		if n < l.limit {
			l.grow()
		} else {
			l.drop(l.start + 1)
		}
	}
	l.ring[l.end&uint64(len(l.ring)-1)] = c
	l.end++
}

func (l *log) grow() {
	grown := make([]*change, max(16, 2*len(l.ring)))
	for p := l.start; p < l.end; p++ {
		grown[p&uint64(len(grown)-1)] = l.at(p)
	}
	l.ring = grown
}

// drop forgets the changes before a position.
func (l *log) drop(until uint64) {
	for ; l.start < until; l.start++ {
		l.base = l.at(l.start).revision
		l.ring[l.start&uint64(len(l.ring)-1)] = nil
	}
	if l.start == l.end && len(l.ring) > 64 {
		l.ring = nil
	}
}

// age forgets what was old at the call logAges before this one.
func (l *log) age() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.drop(max(l.start, l.ends[0]))
	copy(l.ends[:], l.ends[1:])
	l.ends[logAges-1] = l.end
}

// after returns the position of the first change after a revision, or an error if some are not kept.
func (l *log) after(revision uint64) (uint64, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if revision < l.base {
		return 0, tooOld(revision, l.base)
	}
	n := sort.Search(int(l.end-l.start), func(i int) bool { return l.at(l.start+uint64(i)).revision > revision })
	return l.start + uint64(n), nil
}

// since returns the changes after a revision, or an error if some are not kept.
func (l *log) since(revision uint64) ([]*change, error) {
	position, err := l.after(revision)
	if err != nil {
		return nil, err
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.over || position < l.start {
		return nil, tooOld(revision, l.base)
	}
	changes := make([]*change, 0, l.end-position)
	for ; position < l.end; position++ {
		changes = append(changes, l.at(position))
	}
	return changes, nil
}

// read returns at most limit changes from a position, or none and a channel that is closed when there is more.
func (l *log) read(w *watch, position uint64, into []*change) (n int, changed <-chan struct{}, err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.over || position < l.start {
		return 0, nil, tooOld(w.known, l.base)
	}
	for ; n < len(into) && position < l.end; n++ {
		into[n] = l.at(position)
		position++
	}
	if _, alone := l.readers[w]; alone && len(l.readers) == 1 {
		l.drop(position)
	}
	if n > 0 {
		return n, nil, nil
	}
	if l.changed == nil {
		l.changed = make(chan struct{})
	}
	return 0, l.changed, nil
}

// wake tells waiting readers to look.
func (l *log) wake() {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.changed != nil {
		close(l.changed)
		l.changed = nil
	}
}

// finish ends every reader.
func (l *log) finish() {
	l.mu.Lock()
	l.over = true
	l.mu.Unlock()
	l.wake()
}
