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
// never used again. The kind's lock guards it, except for waiting.
type log struct {
	ring       []*change // length a power of two, or zero
	limit      int
	start, end uint64 // positions kept: start <= p < end
	base       uint64 // every change after this revision is kept
	over       bool   // nothing will be appended any more: the cache has been loaded anew

	wait struct {
		sync.Mutex
		ch chan struct{}
	}
}

func newLog(base uint64, limit int) *log { return &log{base: base, limit: limit} }

func (l *log) at(position uint64) *change { return l.ring[position&uint64(len(l.ring)-1)] }

func (l *log) append(c *change) {
	if n := int(l.end - l.start); n == len(l.ring) {
		if n < l.limit {
			l.grow()
		} else {
			l.base = l.at(l.start).revision
			l.start++
		}
	}
	l.ring[l.end&uint64(len(l.ring)-1)] = c
	l.end++
}

func (l *log) grow() {
	grown := make([]*change, max(64, 2*len(l.ring)))
	for p := l.start; p < l.end; p++ {
		grown[p&uint64(len(grown)-1)] = l.at(p)
	}
	l.ring = grown
}

// after returns the position of the first change after a revision.
func (l *log) after(revision uint64) uint64 {
	n := sort.Search(int(l.end-l.start), func(i int) bool { return l.at(l.start+uint64(i)).revision > revision })
	return l.start + uint64(n)
}

// changed returns a channel that is closed by the next wake.
func (l *log) changed() <-chan struct{} {
	l.wait.Lock()
	defer l.wait.Unlock()
	if l.wait.ch == nil {
		l.wait.ch = make(chan struct{})
	}
	return l.wait.ch
}

func (l *log) wake() {
	l.wait.Lock()
	defer l.wait.Unlock()
	if l.wait.ch != nil {
		close(l.wait.ch)
		l.wait.ch = nil
	}
}
