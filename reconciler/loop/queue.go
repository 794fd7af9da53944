package loop

import (
	"math/rand/v2"
	"sync"
	"time"
)

// Back-off of a key that failed: 5 ms, doubling with each failure in a row, at most a minute, ±25 %.
const (
	firstRetry = 5 * time.Millisecond
	lastRetry  = time.Minute
)

// queue holds the keys that need a turn. A key is in it once, however often it is added; a key that is added while
// a worker has it comes back when that worker is done. Timers run on the monotonic clock.
type queue struct {
	mu     sync.Mutex
	wake   sync.Cond
	ready  []Key
	state  map[Key]*keyState
	closed bool
}

type keyState struct {
	queued   bool // in ready
	active   bool // with a worker
	again    bool // added while with a worker
	failures int
	timer    *time.Timer // pending delayed add
	turn     uint64      // counts timers, so that one that fired late is recognised
}

func newQueue() *queue {
	q := &queue{state: map[Key]*keyState{}}
	q.wake.L = &q.mu
	return q
}

// add asks for a turn of key as soon as a worker is free. It replaces a delayed add: whoever looks now decides anew
// whether to look again later.
func (q *queue) add(key Key) {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.push(key)
}

func (q *queue) push(key Key) {
	if q.closed {
		return
	}
	s := q.state[key]
	if s == nil {
		s = &keyState{}
		q.state[key] = s
	}
	s.stop()
	switch {
	case s.active:
		s.again = true
	case !s.queued:
		s.queued = true
		q.ready = append(q.ready, key)
		q.wake.Signal()
	}
}

// next waits for a key and hands it to the caller, who must call done. It returns false when the queue is closed.
func (q *queue) next() (Key, bool) {
	q.mu.Lock()
	defer q.mu.Unlock()
	for len(q.ready) == 0 && !q.closed {
		q.wake.Wait()
	}
	if q.closed {
		return Key{}, false
	}
	key := q.ready[0]
	q.ready = q.ready[1:]
	s := q.state[key]
	s.queued, s.active = false, true
	return key, true
}

// outcome is what a turn asks of the queue.
type outcome struct {
	failed bool          // back off
	after  time.Duration // not zero: come back after this time
}

// done ends a turn of key. It returns how often key failed in a row, this turn included.
func (q *queue) done(key Key, o outcome) int {
	q.mu.Lock()
	defer q.mu.Unlock()
	s := q.state[key]
	s.active = false
	if o.failed {
		s.failures++
		o.after = backoff(s.failures)
	} else {
		s.failures = 0
	}
	failures := s.failures
	switch {
	case q.closed:
	case s.again:
		s.again = false
		q.push(key)
	case o.after > 0:
		q.later(key, s, o.after)
	case failures == 0:
		delete(q.state, key)
	}
	return failures
}

// later adds key after d unless it is added before.
func (q *queue) later(key Key, s *keyState, d time.Duration) {
	s.turn++
	turn := s.turn
	s.timer = time.AfterFunc(d, func() {
		q.mu.Lock()
		defer q.mu.Unlock()
		if s.timer != nil && s.turn == turn {
			q.push(key)
		}
	})
}

func (s *keyState) stop() {
	if s.timer != nil {
		s.timer.Stop()
		s.timer = nil
	}
}

// close wakes all workers, drops what is queued and stops all timers.
func (q *queue) close() {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.closed = true
	q.ready = nil
	for _, s := range q.state {
		s.stop()
	}
	q.wake.Broadcast()
}

// backoff returns how long to wait after so many failures in a row.
func backoff(failures int) time.Duration {
	d := lastRetry
	if shift := failures - 1; shift < 16 {
		d = min(d, firstRetry<<shift)
	}
	return jitter(d)
}

// jitter spreads d over ±25 %, so that keys that failed together do not come back together.
func jitter(d time.Duration) time.Duration {
	return d - d/4 + rand.N(d/2+1)
}
