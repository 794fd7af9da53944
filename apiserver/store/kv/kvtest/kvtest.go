// Package kvtest is the conformance suite of kv.Backend.
package kvtest

import (
	"context"
	"errors"
	"fmt"
	"testing"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sync/errgroup"

	"github.com/slipway-dev/slipway/apiserver/store/kv"
)

// Backend is what the suite needs of an implementation.
type Backend interface {
	kv.Backend
	Compact(ctx context.Context, revision uint64) error
}

// Run runs the suite. open returns an empty backend.
func Run(t *testing.T, open func(t *testing.T) Backend) {
	rows := []struct {
		name string
		run  func(*testing.T, Backend)
	}{
		{"ConditionsGuardWrites", conditions},
		{"TransactionsAreWhole", whole},
		{"WritelessTransactionsMakeNoRevision", writeless},
		{"RangeSelectsAndPages", ranges},
		{"RangeReadsThePast", past},
		{"WatchDeliversTransactions", watch},
		{"WatchSeesEveryTransactionOfManyWriters", watchMany},
		{"WatchOfCompactedHistoryEnds", watchCompacted},
		{"CallsEndWithTheirContext", cancelled},
		{"CloseEndsEverything", closing},
	}
	for _, row := range rows {
		t.Run(row.name, func(t *testing.T) {
			b := open(t)
			t.Cleanup(func() {
				if err := b.Close(); err != nil {
					t.Error(err)
				}
			})
			row.run(t, b)
		})
	}
}

func put(key, value string, revision uint64) kv.Op {
	return kv.Op{Verb: kv.Put, Key: key, Value: []byte(value), Revision: revision}
}

func do(t *testing.T, b Backend, ops ...kv.Op) uint64 {
	t.Helper()
	revision, err := b.Txn(t.Context(), ops)
	if err != nil {
		t.Fatal(err)
	}
	return revision
}

func read(t *testing.T, b Backend, r kv.Range) kv.Page {
	t.Helper()
	page, err := b.Range(t.Context(), r)
	if err != nil {
		t.Fatal(err)
	}
	return page
}

func entries(page kv.Page) []string {
	var all []string
	for _, e := range page.Entries {
		all = append(all, fmt.Sprintf("%s=%s", e.Key, e.Value))
	}
	return all
}

func same(t *testing.T, what string, want, got any) {
	t.Helper()
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("%s (-want +got):\n%s", what, diff)
	}
}

func conditions(t *testing.T, b Backend) {
	first := do(t, b, put("/a", "1", 0))
	second := do(t, b, put("/a", "2", first))
	if second <= first {
		t.Errorf("revision went from %d to %d", first, second)
	}
	for name, op := range map[string]kv.Op{
		"put of what exists":    put("/a", "x", 0),
		"put of an old version": put("/a", "x", first),
		"put of what is absent": put("/b", "x", second),
		"delete of an old one":  {Verb: kv.Delete, Key: "/a", Revision: first},
		"check of an old one":   {Verb: kv.Check, Key: "/a", Revision: first},
		"check of absence":      {Verb: kv.Check, Key: "/a"},
	} {
		if _, err := b.Txn(t.Context(), []kv.Op{op}); !errors.Is(err, kv.ErrCondition) {
			t.Errorf("%s: %v, want ErrCondition", name, err)
		}
	}
	do(t, b, put("/a", "3", kv.Any))
	third := do(t, b, put("/b", "1", kv.Any))
	do(t, b, kv.Op{Verb: kv.Delete, Key: "/b", Revision: third})
	do(t, b, put("/b", "2", 0))
	same(t, "entries", []string{"/a=3", "/b=2"}, entries(read(t, b, kv.Range{})))
}

func whole(t *testing.T, b Backend) {
	first := do(t, b, put("/a", "1", 0), put("/b", "1", 0))
	_, err := b.Txn(t.Context(), []kv.Op{put("/a", "2", first), put("/b", "2", 0)})
	if !errors.Is(err, kv.ErrCondition) {
		t.Errorf("%v, want ErrCondition", err)
	}
	page := read(t, b, kv.Range{})
	same(t, "entries", []string{"/a=1", "/b=1"}, entries(page))
	for _, e := range page.Entries {
		if e.Revision != first {
			t.Errorf("%s has revision %d, its transaction %d", e.Key, e.Revision, first)
		}
	}
}

func writeless(t *testing.T, b Backend) {
	first := do(t, b, put("/a", "1", 0))
	if got := do(t, b, kv.Op{Verb: kv.Check, Key: "/a", Revision: first}); got != first {
		t.Errorf("a check made revision %d of %d", got, first)
	}
	if got := do(t, b, kv.Op{Verb: kv.Delete, Key: "/none", Revision: kv.Any}); got != first {
		t.Errorf("a deletion of nothing made revision %d of %d", got, first)
	}
	if got, err := b.Revision(t.Context()); err != nil || got != first {
		t.Errorf("revision is %d (%v), want %d", got, err, first)
	}
}

func ranges(t *testing.T, b Backend) {
	for _, key := range []string{"/b/2", "/a/1", "/b/1", "/b", "/b/3", "/c/1"} {
		do(t, b, put(key, "x", 0))
	}
	page := read(t, b, kv.Range{Prefix: "/b/", Limit: 2})
	same(t, "first page", []string{"/b/1=x", "/b/2=x"}, entries(page))
	if !page.More {
		t.Error("the first page says that it is the last")
	}
	page = read(t, b, kv.Range{Prefix: "/b/", Limit: 2, From: "/b/2\x00", Revision: page.Revision})
	same(t, "second page", []string{"/b/3=x"}, entries(page))
	if page.More {
		t.Error("the last page says that more follow")
	}
	same(t, "none", []string(nil), entries(read(t, b, kv.Range{Prefix: "/d"})))
}

func past(t *testing.T, b Backend) {
	first := do(t, b, put("/a", "1", 0))
	second := do(t, b, put("/a", "2", first))
	third := do(t, b, kv.Op{Verb: kv.Delete, Key: "/a", Revision: second})
	same(t, "first", []string{"/a=1"}, entries(read(t, b, kv.Range{Revision: first})))
	same(t, "second", []string{"/a=2"}, entries(read(t, b, kv.Range{Revision: second})))
	same(t, "third", []string(nil), entries(read(t, b, kv.Range{Revision: third})))
	if err := b.Compact(t.Context(), second); err != nil {
		t.Fatal(err)
	}
	if _, err := b.Range(t.Context(), kv.Range{Revision: first}); !errors.Is(err, kv.ErrCompacted) {
		t.Errorf("a read of the compacted past: %v, want ErrCompacted", err)
	}
	same(t, "second", []string{"/a=2"}, entries(read(t, b, kv.Range{Revision: second})))
	same(t, "newest", []string(nil), entries(read(t, b, kv.Range{})))
}

// follow collects n transactions of a watch as lines.
func follow(ctx context.Context, b Backend, prefix string, after uint64, n int) ([]string, error) {
	var lines []string
	for batch, err := range b.Watch(ctx, prefix, after) {
		if err != nil {
			return lines, err
		}
		line := ""
		for _, e := range batch.Events {
			if e.Deleted {
				line += " -" + e.Key
			} else {
				line += fmt.Sprintf(" %s=%s", e.Key, e.Value)
			}
		}
		if lines = append(lines, fmt.Sprintf("%d%s", batch.Revision-after, line)); len(lines) == n {
			break
		}
	}
	return lines, nil
}

func watch(t *testing.T, b Backend) {
	start := do(t, b, put("/x/a", "0", 0))
	type result struct {
		lines []string
		err   error
	}
	early := make(chan result, 1)
	go func() {
		lines, err := follow(t.Context(), b, "/x/", start, 3)
		early <- result{lines, err}
	}()
	do(t, b, put("/x/a", "1", kv.Any), put("/x/b", "1", 0), put("/y/a", "1", 0))
	do(t, b, put("/y/a", "2", kv.Any))
	do(t, b, kv.Op{Verb: kv.Delete, Key: "/x/a", Revision: kv.Any}, put("/x/c", "1", 0))
	do(t, b, put("/x/a", "3", 0))
	want := []string{"1 /x/a=1 /x/b=1", "3 -/x/a /x/c=1", "4 /x/a=3"}
	got := <-early
	if got.err != nil {
		t.Error(got.err)
	}
	same(t, "early watch", want, got.lines)
	late, err := follow(t.Context(), b, "/x/", start, 3)
	if err != nil {
		t.Error(err)
	}
	same(t, "late watch", want, late)
	all, err := follow(t.Context(), b, "", start, 4)
	if err != nil {
		t.Error(err)
	}
	same(t, "watch of everything", []string{"1 /x/a=1 /x/b=1 /y/a=1", "2 /y/a=2", "3 -/x/a /x/c=1", "4 /x/a=3"}, all)
}

func watchMany(t *testing.T, b Backend) {
	const writers, writes = 16, 100
	start, err := b.Revision(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	var group errgroup.Group
	for w := range writers {
		group.Go(func() error {
			for i := range writes {
				if _, err := b.Txn(t.Context(), []kv.Op{put(fmt.Sprintf("/%d/%d", w, i), "x", 0)}); err != nil {
					return err
				}
			}
			return nil
		})
	}
	last := start
	for batch, err := range b.Watch(t.Context(), "", start) {
		if err != nil {
			t.Fatal(err)
		}
		if batch.Revision != last+1 {
			t.Fatalf("revision %d follows %d", batch.Revision, last)
		}
		if last = batch.Revision; last == start+writers*writes {
			break
		}
	}
	if err := group.Wait(); err != nil {
		t.Error(err)
	}
}

func watchCompacted(t *testing.T, b Backend) {
	first := do(t, b, put("/a", "1", 0))
	do(t, b, put("/a", "2", kv.Any))
	last := do(t, b, put("/a", "3", kv.Any))
	if err := b.Compact(t.Context(), last); err != nil {
		t.Fatal(err)
	}
	if _, err := follow(t.Context(), b, "", first, 1); !errors.Is(err, kv.ErrCompacted) {
		t.Errorf("watch of the compacted past: %v, want ErrCompacted", err)
	}
	do(t, b, put("/a", "4", kv.Any))
	lines, err := follow(t.Context(), b, "", last, 1)
	if err != nil {
		t.Error(err)
	}
	same(t, "watch after the compaction", []string{"1 /a=4"}, lines)
}

func cancelled(t *testing.T, b Backend) {
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() {
		_, err := follow(ctx, b, "", 1, 1)
		done <- err
	}()
	cancel()
	if err := <-done; !errors.Is(err, context.Canceled) {
		t.Errorf("watch: %v, want Canceled", err)
	}
	if _, err := b.Txn(ctx, []kv.Op{put("/a", "1", 0)}); !errors.Is(err, context.Canceled) {
		t.Errorf("txn: %v, want Canceled", err)
	}
}

func closing(t *testing.T, b Backend) {
	do(t, b, put("/a", "1", 0))
	revision, err := b.Revision(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan error, 1)
	go func() {
		_, err := follow(t.Context(), b, "", revision, 1)
		done <- err
	}()
	if err := b.Close(); err != nil {
		t.Error(err)
	}
	_, revisionErr := b.Revision(t.Context())
	_, rangeErr := b.Range(t.Context(), kv.Range{})
	_, txnErr := b.Txn(t.Context(), []kv.Op{put("/a", "2", kv.Any)})
	for name, err := range map[string]error{"watch": <-done, "revision": revisionErr, "range": rangeErr, "txn": txnErr} {
		if !errors.Is(err, kv.ErrClosed) {
			t.Errorf("%s: %v, want ErrClosed", name, err)
		}
	}
}
