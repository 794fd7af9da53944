package callers

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
)

func small() map[Pool]Bounds {
	return map[Pool]Bounds{
		People:    {Caller: [3]int{2, 2, 1}, Group: [3]int{3, 3, 1}, Pool: [3]int{4, 4, 1}},
		Workloads: {Caller: [3]int{2, 2, 1}, Group: [3]int{3, 3, 1}, Pool: [3]int{4, 4, 1}},
	}
}

func TestEachBoundHolds(t *testing.T) {
	l := New(small())
	var got []string
	for _, name := range []string{"a/1", "a/1", "a/1", "a/2", "a/2", "b/1", "b/1"} {
		_, err := l.Enter(t.Context(), Caller{Workloads, name[:1], name[2:]}, Stream)
		got = append(got, fmt.Sprintf("%s: %v", name, err))
	}
	_, err := l.Enter(t.Context(), Caller{People, "a", "1"}, Stream)
	got = append(got, fmt.Sprintf("a person: %v", err))
	want := []string{
		"a/1: <nil>", "a/1: <nil>", "a/1: too many watches and followed logs at once: one caller may have 2; try again later",
		"a/2: <nil>", "a/2: too many watches and followed logs at once: workloads of a may have 3; try again later",
		"b/1: <nil>", "b/1: too many watches and followed logs at once: all workloads may have 4; try again later",
		"a person: <nil>",
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

func TestWorkWaitsALittle(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := New(small())
		c := Caller{People, "a", "1"}
		enter := func() (func(), error) { return l.Enter(t.Context(), c, Short) }
		first, err := enter()
		second, err2 := enter()
		if err != nil || err2 != nil {
			t.Fatal(err, err2)
		}
		go func() {
			time.Sleep(patience[Short] / 2)
			first()
		}()
		began := time.Now()
		third, err := enter()
		if err != nil || time.Since(began) != patience[Short]/2 {
			t.Errorf("room that came was not taken: %v after %s", err, time.Since(began))
		}
		began = time.Now()
		var busy *BusyError
		if _, err := enter(); !errors.As(err, &busy) || time.Since(began) != patience[Short] {
			t.Errorf("without room: %v after %s", err, time.Since(began))
		}
		second()
		third()
		if len(l.used) != 0 || len(l.waiting) != 0 {
			t.Errorf("left behind: %v, %v", l.used, l.waiting)
		}
	})
}

// TestNothingIsEverOverBoundsOrLost lets many callers come, wait, give up and go as they like.
func TestNothingIsEverOverBoundsOrLost(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		seed := rand.Uint64()
		t.Logf("seed %d", seed)
		l := New(small())
		for n := range 200 {
			draw := rand.New(rand.NewPCG(seed, uint64(n)))
			go func() {
				for range 20 {
					time.Sleep(time.Duration(draw.IntN(100)) * time.Millisecond)
					c := Caller{[]Pool{People, Workloads}[draw.IntN(2)], fmt.Sprint(draw.IntN(3)), fmt.Sprint(draw.IntN(3))}
					ctx, cancel := context.WithTimeout(context.Background(), time.Duration(draw.IntN(3000))*time.Millisecond)
					leave, err := l.Enter(ctx, c, Work(draw.IntN(3)))
					if err == nil {
						l.mu.Lock()
						for lv, n := range l.used {
							b := l.bounds[lv.pool].Pool[lv.work]
							if n < 0 || n > b || lv.name != "*" && n > l.bounds[lv.pool].Caller[lv.work] {
								t.Errorf("%v has %d", lv, n)
							}
						}
						l.mu.Unlock()
						time.Sleep(time.Duration(draw.IntN(200)) * time.Millisecond)
						leave()
					}
					cancel()
				}
			}()
		}
		synctest.Wait()
		time.Sleep(time.Hour)
		synctest.Wait()
		if len(l.used) != 0 || len(l.waiting) != 0 {
			t.Errorf("left behind: %v, %v", l.used, l.waiting)
		}
	})
}
