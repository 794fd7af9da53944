package loop

import (
	"fmt"
	"math/rand/v2"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
)

func key(n int) Key { return Key{Namespace: "ns", Name: fmt.Sprint(n)} }

func (q *queue) take(t *testing.T) []Key {
	t.Helper()
	var got []Key
	for {
		q.mu.Lock()
		empty := len(q.ready) == 0
		q.mu.Unlock()
		if empty {
			return got
		}
		k, _ := q.next()
		got = append(got, k)
		q.done(k, outcome{})
	}
}

func TestQueueHoldsAKeyOnceInOrder(t *testing.T) {
	q := newQueue()
	for _, n := range []int{1, 2, 1, 3, 2} {
		q.add(key(n))
	}
	if diff := cmp.Diff([]Key{key(1), key(2), key(3)}, q.take(t)); diff != "" {
		t.Error(diff)
	}
	if len(q.state) != 0 {
		t.Errorf("state of %d idle keys is kept", len(q.state))
	}
}

func TestQueueNeverGivesOneKeyToTwoWorkers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		q := newQueue()
		var mu sync.Mutex
		active, turns := map[Key]bool{}, 0
		var workers sync.WaitGroup
		for range 8 {
			workers.Go(func() {
				for {
					k, ok := q.next()
					if !ok {
						return
					}
					mu.Lock()
					if active[k] {
						t.Errorf("%s is with two workers", k)
					}
					active[k] = true
					turns++
					mu.Unlock()
					time.Sleep(time.Millisecond)
					mu.Lock()
					active[k] = false
					mu.Unlock()
					q.done(k, outcome{failed: rand.IntN(4) == 0})
				}
			})
		}
		for range 2000 {
			q.add(key(rand.IntN(5)))
			time.Sleep(100 * time.Microsecond)
		}
		synctest.Wait()
		q.close()
		workers.Wait()
		if turns < 100 {
			t.Errorf("only %d turns", turns)
		}
	})
}

func TestQueueReturnsAKeyAddedDuringItsTurn(t *testing.T) {
	q := newQueue()
	q.add(key(1))
	k, _ := q.next()
	q.add(k)
	q.add(k)
	if len(q.ready) != 0 {
		t.Fatal("key is ready while with a worker")
	}
	q.done(k, outcome{after: time.Hour})
	if diff := cmp.Diff([]Key{k}, q.take(t)); diff != "" {
		t.Error(diff)
	}
}

func TestQueueBacksOffWithJitter(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		q := newQueue()
		q.add(key(1))
		want := firstRetry
		for n := 1; n <= 20; n++ {
			start := time.Now()
			k, _ := q.next()
			if n > 1 {
				if got := time.Since(start); got < want*3/4 || got > want*5/4 {
					t.Errorf("failure %d waited %s, want %s ±25 %%", n, got, want)
				}
				want = min(2*want, lastRetry)
			}
			if got := q.done(k, outcome{failed: true}); got != n {
				t.Errorf("failures = %d, want %d", got, n)
			}
		}
		k, _ := q.next()
		if got := q.done(k, outcome{}); got != 0 || len(q.state) != 0 {
			t.Errorf("after success: %d failures, %d states", got, len(q.state))
		}
	})
}

func TestQueueAddReplacesADelay(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		q := newQueue()
		q.add(key(1))
		k, _ := q.next()
		q.done(k, outcome{after: time.Minute})
		q.add(k)
		if diff := cmp.Diff([]Key{k}, q.take(t)); diff != "" {
			t.Error(diff)
		}
		time.Sleep(2 * time.Minute)
		synctest.Wait()
		if got := q.take(t); got != nil {
			t.Errorf("the replaced delay fired: %v", got)
		}
	})
}

func TestQueueCloseStopsTimersAndWorkers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		q := newQueue()
		q.add(key(1))
		k, _ := q.next()
		q.done(k, outcome{after: time.Minute})
		ended := make(chan bool)
		go func() { _, ok := q.next(); ended <- ok }()
		synctest.Wait()
		q.close()
		if <-ended {
			t.Error("next returned a key after close")
		}
		q.add(key(2))
		if len(q.ready) != 0 {
			t.Error("a closed queue took a key")
		}
	})
}
