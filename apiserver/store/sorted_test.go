package store

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// TestSortedAgainstAModel does random writes and checks that the items are those of a plain map, and that no
// snapshot ever changes.
func TestSortedAgainstAModel(t *testing.T) {
	random := rand.New(rand.NewPCG(1, 2))
	var s sorted
	model := map[string]uint64{}
	type taken struct {
		snapshot snapshot
		want     []string
	}
	var kept []taken
	for n := range uint64(20000) {
		namespace, name := fmt.Sprint(random.IntN(20)), fmt.Sprint(random.IntN(100))
		if random.IntN(3) == 0 {
			s.remove(namespace, name)
			delete(model, namespace+"/"+name)
		} else {
			s.put(&item{namespace: namespace, name: name, revision: n})
			model[namespace+"/"+name] = n
		}
		if got, want := s.get(namespace, name), model[namespace+"/"+name]; got == nil && want != 0 || got != nil && got.revision != want {
			t.Fatalf("step %d: got %v, want %d", n, got, want)
		}
		if n%500 == 0 {
			snapshot := s.snapshot()
			kept = append(kept, taken{snapshot, lines(snapshot)})
		}
	}
	var want []string
	for key, n := range model {
		want = append(want, fmt.Sprintf("%s %d", key, n))
	}
	got := lines(s.snapshot())
	if !slices.Equal(slices.Sorted(slices.Values(want)), slices.Sorted(slices.Values(got))) || s.size != len(want) {
		t.Errorf("%d items (size %d), want %d", len(got), s.size, len(want))
	}
	for i, k := range kept {
		if diff := cmp.Diff(k.want, lines(k.snapshot)); diff != "" {
			t.Errorf("snapshot %d changed:\n%s", i, diff)
		}
	}
}

// lines also checks the order.
func lines(s snapshot) []string {
	var all []string
	var last *item
	for it := range s.from("", "") {
		if last != nil && last.compare(it.namespace, it.name) >= 0 {
			all = append(all, "out of order:")
		}
		last = it
		all = append(all, fmt.Sprintf("%s/%s %d", it.namespace, it.name, it.revision))
	}
	return all
}

func TestSortedFromStartsInTheMiddle(t *testing.T) {
	var s sorted
	for i := range 1000 {
		s.put(&item{namespace: "a", name: fmt.Sprintf("%04d", 2*i)})
	}
	for _, row := range []struct{ from, want string }{{"", "0000"}, {"0000", "0000"}, {"0777", "0778"}, {"0778", "0778"}, {"1998", "1998"}, {"1999", ""}} {
		got := ""
		for it := range s.snapshot().from("a", row.from) {
			got = it.name
			break
		}
		if got != row.want {
			t.Errorf("from %q comes %q, want %q", row.from, got, row.want)
		}
	}
}

func TestLogKeepsTheNewest(t *testing.T) {
	l := newLog(10, 64)
	for i := range uint64(100) {
		l.append(&change{revision: 11 + i})
	}
	if l.base != 46 || l.end-l.start != 64 {
		t.Errorf("base %d with %d changes, want 46 with 64", l.base, l.end-l.start)
	}
	if _, err := l.after(45); err == nil {
		t.Error("changes that were dropped are found")
	}
	for revision := uint64(46); revision <= 110; revision++ {
		position, err := l.after(revision)
		if err != nil {
			t.Fatal(err)
		}
		if position < l.end && l.at(position).revision != revision+1 {
			t.Errorf("after %d comes %d", revision, l.at(position).revision)
		}
	}
}

func TestLogForgetsWhatIsOld(t *testing.T) {
	l := newLog(0, 64)
	for round := range uint64(logAges + 1) {
		if l.start != 0 {
			t.Errorf("round %d: something is forgotten", round)
		}
		l.append(&change{revision: round + 1})
		l.age()
	}
	if l.start != 1 || l.base != 1 {
		t.Errorf("start %d, base %d after %d rounds, want 1, 1", l.start, l.base, logAges+1)
	}
}
