// Package memory keeps keys and values in this process: for tests, and for trying things out. It promises what
// etcd promises except durability. History is bounded: old revisions are compacted as new ones are made.
package memory

import (
	"context"
	"fmt"
	"iter"
	"sort"
	"strings"
	"sync"

	"github.com/slipway-dev/slipway/apiserver/store/kv"
)

// history is how many transactions New keeps.
const history = 1 << 14

// Backend is a kv.Backend in memory.
type Backend struct {
	keep int

	mu        sync.RWMutex
	revision  uint64               // newest
	compacted uint64               // states before it are gone
	versions  map[string][]version // oldest first
	log       []kv.Batch           // transactions after compacted
	changed   chan struct{}        // closed at the next transaction
	closed    chan struct{}
}

type version struct {
	revision uint64
	value    []byte
	deleted  bool
}

// New returns an empty backend at revision 1, as etcd starts.
func New() *Backend { return WithHistory(history) }

// WithHistory returns an empty backend that remembers the last n transactions.
func WithHistory(n int) *Backend {
	return &Backend{
		keep: n, revision: 1, compacted: 1, versions: map[string][]version{},
		changed: make(chan struct{}), closed: make(chan struct{}),
	}
}

// Range implements kv.Backend.
func (b *Backend) Range(ctx context.Context, r kv.Range) (kv.Page, error) {
	b.mu.RLock()
	defer b.mu.RUnlock()
	if err := b.usable(ctx); err != nil {
		return kv.Page{}, err
	}
	at := b.revision
	if r.Revision != 0 {
		at = r.Revision
	}
	if at < b.compacted {
		return kv.Page{}, fmt.Errorf("read at revision %d: %w", at, kv.ErrCompacted)
	}
	page := kv.Page{Revision: at}
	for key, versions := range b.versions {
		if key < r.From || !strings.HasPrefix(key, r.Prefix) {
			continue
		}
		if v, ok := lookup(versions, at); ok {
			page.Entries = append(page.Entries, kv.Entry{Key: key, Value: v.value, Revision: v.revision})
		}
	}
	sort.Slice(page.Entries, func(i, j int) bool { return page.Entries[i].Key < page.Entries[j].Key })
	if r.Limit > 0 && len(page.Entries) > r.Limit {
		page.Entries, page.More = page.Entries[:r.Limit:r.Limit], true
	}
	return page, nil
}

// lookup returns the version of a key in the state at a revision.
func lookup(versions []version, at uint64) (version, bool) {
	for i := len(versions) - 1; i >= 0; i-- {
		if versions[i].revision <= at {
			return versions[i], !versions[i].deleted
		}
	}
	return version{}, false
}

// Txn implements kv.Backend.
func (b *Backend) Txn(ctx context.Context, ops []kv.Op) (uint64, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if err := b.usable(ctx); err != nil {
		return 0, err
	}
	seen := make(map[string]bool, len(ops))
	for _, op := range ops {
		if seen[op.Key] {
			return 0, fmt.Errorf("key %s occurs twice in a transaction", op.Key)
		}
		seen[op.Key] = true
		current, _ := lookup(b.versions[op.Key], b.revision)
		if current.deleted {
			current.revision = 0
		}
		if op.Revision != kv.Any && op.Revision != current.revision {
			return 0, fmt.Errorf("%s %s: %w", op.Verb, op.Key, kv.ErrCondition)
		}
	}
	batch := kv.Batch{Revision: b.revision + 1}
	for _, op := range ops {
		switch op.Verb {
		case kv.Put:
			batch.Events = append(batch.Events, kv.Event{Key: op.Key, Value: op.Value})
		case kv.Delete:
			if _, ok := lookup(b.versions[op.Key], b.revision); ok {
				batch.Events = append(batch.Events, kv.Event{Key: op.Key, Deleted: true})
			}
		}
	}
	if len(batch.Events) > 0 {
		b.commit(batch)
	}
	return b.revision, nil
}

func (b *Backend) commit(batch kv.Batch) {
	b.revision = batch.Revision
	for _, e := range batch.Events {
		b.versions[e.Key] = append(b.versions[e.Key], version{batch.Revision, e.Value, e.Deleted})
	}
	b.log = append(b.log, batch)
	if len(b.log) > b.keep {
		b.compact(b.log[len(b.log)-b.keep].Revision - 1)
	}
	close(b.changed)
	b.changed = make(chan struct{})
}

// Compact forgets the states before revision.
func (b *Backend) Compact(ctx context.Context, revision uint64) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	if err := b.usable(ctx); err != nil {
		return err
	}
	if revision > b.revision {
		return fmt.Errorf("compact at %d: newest revision is %d", revision, b.revision)
	}
	if revision <= b.compacted {
		return fmt.Errorf("compact at %d: %w", revision, kv.ErrCompacted)
	}
	b.compact(revision)
	return nil
}

func (b *Backend) compact(revision uint64) {
	b.compacted = revision
	n := sort.Search(len(b.log), func(i int) bool { return b.log[i].Revision > revision })
	for _, batch := range b.log[:n] {
		for _, e := range batch.Events {
			b.prune(e.Key)
		}
	}
	clear(b.log[:n])
	b.log = b.log[n:]
}

// prune forgets the versions of a key that no readable state has.
func (b *Backend) prune(key string) {
	versions := b.versions[key]
	for len(versions) > 1 && versions[1].revision <= b.compacted {
		versions = versions[1:]
	}
	if len(versions) > 0 && versions[0].deleted && versions[0].revision <= b.compacted {
		versions = versions[1:]
	}
	if len(versions) == 0 {
		delete(b.versions, key)
		return
	}
	b.versions[key] = append([]version(nil), versions...)
}

// Watch implements kv.Backend.
func (b *Backend) Watch(ctx context.Context, prefix string, after uint64) iter.Seq2[kv.Batch, error] {
	return func(yield func(kv.Batch, error) bool) {
		for {
			batches, changed, err := b.since(ctx, after)
			if err != nil {
				yield(kv.Batch{}, err)
				return
			}
			for _, batch := range batches {
				after = batch.Revision
				if batch.Events = under(prefix, batch.Events); len(batch.Events) > 0 && !yield(batch, nil) {
					return
				}
			}
			if len(batches) > 0 {
				continue
			}
			select {
			case <-changed:
			case <-b.closed:
			case <-ctx.Done():
			}
		}
	}
}

// since returns the transactions after a revision, and a channel that is closed at the next one.
func (b *Backend) since(ctx context.Context, after uint64) ([]kv.Batch, <-chan struct{}, error) {
	b.mu.RLock()
	defer b.mu.RUnlock()
	if err := b.usable(ctx); err != nil {
		return nil, nil, err
	}
	if after < b.compacted {
		return nil, nil, fmt.Errorf("watch after revision %d: %w", after, kv.ErrCompacted)
	}
	n := sort.Search(len(b.log), func(i int) bool { return b.log[i].Revision > after })
	return append([]kv.Batch(nil), b.log[n:]...), b.changed, nil
}

func under(prefix string, events []kv.Event) []kv.Event {
	var matched []kv.Event
	for _, e := range events {
		if strings.HasPrefix(e.Key, prefix) {
			matched = append(matched, e)
		}
	}
	return matched
}

// Revision implements kv.Backend.
func (b *Backend) Revision(ctx context.Context) (uint64, error) {
	b.mu.RLock()
	defer b.mu.RUnlock()
	return b.revision, b.usable(ctx)
}

// Close implements kv.Backend: every later call and every running watch returns ErrClosed.
func (b *Backend) Close() error {
	b.mu.Lock()
	defer b.mu.Unlock()
	select {
	case <-b.closed:
	default:
		close(b.closed)
	}
	return nil
}

func (b *Backend) usable(ctx context.Context) error {
	select {
	case <-b.closed:
		return kv.ErrClosed
	default:
		return ctx.Err()
	}
}
