// Package callers bounds what each caller has under way at once: one who asks for too much is told to come back, and
// nobody else notices. Callers are people, workloads by namespace, Slipway's own parts, and those without a name.
//
// It must not know what is asked for, nor decide what may be seen or changed.
package callers

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"time"
)

// Pool is who callers of a kind share room with.
type Pool string

// The pools. None takes room from another.
const (
	People    Pool = "people"
	Workloads Pool = "workloads"
	Parts     Pool = "parts" // agents, controllers, whoever may do everything
	Nameless  Pool = "callers without a name"
)

// Caller is one of a pool. Group is what a caller shares with others beside it: a namespace, a user name.
type Caller struct {
	Pool  Pool
	Group string
	Name  string
}

// Work is what a caller has under way.
type Work int

// Kinds of work.
const (
	Short  Work = iota // a request that ends by itself
	Stream             // a watch, a log that is followed
	Large              // an answer or a body that holds much memory
)

func (w Work) String() string {
	return [...]string{"requests", "watches and followed logs", "large answers or bodies"}[w]
}

// Bounds are how much work of each kind one caller, one group and the pool may have under way.
type Bounds struct {
	Caller, Group, Pool [3]int
}

// Defaults are meant for one machine: generous to whoever works with it, tight enough that a pool's worst case costs
// some hundred megabytes.
func Defaults() map[Pool]Bounds {
	return map[Pool]Bounds{
		People:    {Caller: [3]int{50, 2000, 2}, Group: [3]int{100, 3000, 3}, Pool: [3]int{200, 4000, 4}},
		Workloads: {Caller: [3]int{50, 500, 2}, Group: [3]int{80, 1000, 2}, Pool: [3]int{200, 4000, 4}},
		Parts:     {Caller: [3]int{200, 5000, 8}, Group: [3]int{1000, 20000, 16}, Pool: [3]int{1000, 20000, 16}},
		Nameless:  {Caller: [3]int{20, 0, 0}, Group: [3]int{100, 0, 0}, Pool: [3]int{100, 0, 0}},
	}
}

// BusyError says that a caller has too much under way, or others it shares room with.
type BusyError struct {
	Work  Work
	Most  int
	Scope string // whose bound it is
}

// Error names the bound.
func (e *BusyError) Error() string {
	return fmt.Sprintf("too many %s at once: %s may have %d; try again later", e.Work, e.Scope, e.Most)
}

// Limiter counts. It may be used by any goroutine.
type Limiter struct {
	bounds map[Pool]Bounds

	mu      sync.Mutex
	used    map[level]int
	waiting []*waiter
}

// level is a bound that several callers may share.
type level struct {
	work  Work
	pool  Pool
	group string
	name  string
}

type waiter struct {
	caller  Caller
	work    Work
	entered chan struct{}
}

// New returns a Limiter with nothing under way.
func New(bounds map[Pool]Bounds) *Limiter {
	return &Limiter{bounds: bounds, used: map[level]int{}}
}

// patience is how long work waits for room. A watch does not: its caller may as well list.
var patience = [3]time.Duration{Short: time.Second, Stream: 0, Large: 10 * time.Second}

// Enter takes room for work of a caller, and waits a little for it when there is none. leave gives it back; it is
// called once. The error is a *BusyError or ctx's.
func (l *Limiter) Enter(ctx context.Context, c Caller, w Work) (leave func(), err error) {
	leave = func() { l.leave(c, w) }
	l.mu.Lock()
	full := l.full(c, w)
	if full == nil {
		l.count(c, w, 1)
		l.mu.Unlock()
		return leave, nil
	}
	if patience[w] == 0 || l.crowd(c, w) >= l.bounds[c.Pool].Caller[w] {
		l.mu.Unlock()
		return nil, full
	}
	me := &waiter{c, w, make(chan struct{})}
	l.waiting = append(l.waiting, me)
	l.mu.Unlock()
	timer := time.NewTimer(patience[w])
	defer timer.Stop()
	select {
	case <-me.entered:
		return leave, nil
	case <-timer.C:
		err = full
	case <-ctx.Done():
		err = ctx.Err()
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if i := slices.Index(l.waiting, me); i >= 0 {
		l.waiting = slices.Delete(l.waiting, i, i+1)
		return nil, err
	}
	return leave, nil // let in meanwhile
}

// crowd counts who waits as c already.
func (l *Limiter) crowd(c Caller, w Work) (n int) {
	for _, other := range l.waiting {
		if other.caller == c && other.work == w {
			n++
		}
	}
	return n
}

func (l *Limiter) leave(c Caller, w Work) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.count(c, w, -1)
	l.waiting = slices.DeleteFunc(l.waiting, func(other *waiter) bool {
		if l.full(other.caller, other.work) != nil {
			return false
		}
		l.count(other.caller, other.work, 1)
		close(other.entered)
		return true
	})
}

// levels are the bounds work counts against, the narrowest first.
func (l *Limiter) levels(c Caller, w Work) (levels [3]level, most [3]int) {
	b := l.bounds[c.Pool]
	return [3]level{{w, c.Pool, c.Group, c.Name}, {w, c.Pool, c.Group, "*"}, {w, c.Pool, "*", "*"}}, [3]int{b.Caller[w], b.Group[w], b.Pool[w]}
}

// full returns the bound that leaves no room, nil when there is some.
func (l *Limiter) full(c Caller, w Work) *BusyError {
	levels, most := l.levels(c, w)
	for i, scope := range []string{"one caller", string(c.Pool) + " of " + c.Group, "all " + string(c.Pool)} {
		if l.used[levels[i]] >= most[i] {
			return &BusyError{Work: w, Most: most[i], Scope: scope}
		}
	}
	return nil
}

func (l *Limiter) count(c Caller, w Work, by int) {
	levels, _ := l.levels(c, w)
	for _, lv := range levels {
		if l.used[lv] += by; l.used[lv] == 0 {
			delete(l.used, lv)
		}
	}
}
