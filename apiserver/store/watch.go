package store

import (
	"context"
	"fmt"
	"sync"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"

	"github.com/slipway-dev/slipway/apiserver/api"
)

const (
	// bookmarkEvery is how long a watcher that wants bookmarks hears nothing.
	bookmarkEvery = time.Minute
	// bookmarkAfter is how many changes it may pass over without hearing anything.
	bookmarkAfter = 1024
	// futureWait is how long a watch from a revision that does not exist yet waits for it.
	futureWait = 3 * time.Second
)

// watch reads the log of a kind from a position of its own. It has no goroutine, and nothing is kept for it.
type watch struct {
	store *Store
	k     *kindCache
	log   *log
	want  chosen

	initial   []api.Object // still to deliver as Added
	endOf     uint64       // not zero: deliver the bookmark that ends the initial objects, at this revision
	position  uint64       // next change in the log
	known     uint64       // revision the watcher knows everything up to
	bookmarks bool
	passed    int // changes since the last event delivered
	quiet     *time.Timer
	ahead     [16]*change // read from the log in one go
	read, got int
	over      error

	once   sync.Once
	closed chan struct{}
}

// Watch implements Reader.
func (s *Store) Watch(ctx context.Context, kind *api.Kind, opts WatchOptions) (Watch, error) {
	k, err := s.cache(kind)
	if err != nil {
		return nil, err
	}
	want, err := choose(kind, opts.Namespace, opts.Labels, opts.Fields)
	if err != nil {
		return nil, err
	}
	if err := s.consistent(ctx); err != nil {
		return nil, err
	}
	if err := s.future(ctx, opts.Revision); err != nil {
		return nil, err
	}
	w := &watch{store: s, k: k, want: want, bookmarks: opts.Bookmarks, closed: make(chan struct{})}
	if w.bookmarks {
		w.quiet = time.NewTimer(bookmarkEvery)
	}
	if err := w.start(opts.Revision); err != nil {
		return nil, err
	}
	return w, nil
}

// future waits a little for a revision that is newer than the store.
func (s *Store) future(ctx context.Context, revision uint64) error {
	if s.applied.Load() >= revision {
		return nil
	}
	bounded, cancel := context.WithTimeout(ctx, futureWait)
	defer cancel()
	err := s.reach(bounded, revision)
	if err != nil && bounded.Err() != nil && ctx.Err() == nil {
		return apierrors.NewTimeoutError(fmt.Sprintf("Too large resource version: %d, current: %d", revision, s.applied.Load()), 1)
	}
	return err
}

// start puts the watch at a revision, or at the present state with its objects to deliver.
func (w *watch) start(revision uint64) error {
	w.k.mu.RLock()
	w.log = w.k.log
	if revision != 0 {
		defer w.k.mu.RUnlock()
		if revision < w.log.base {
			return tooOld(revision, w.log.base)
		}
		w.position, w.known = w.log.after(revision), revision
		return nil
	}
	state := w.k.objects.snapshot()
	w.known = w.store.applied.Load()
	w.position, w.endOf = w.log.end, w.known
	w.k.mu.RUnlock()

	var list List
	list.fill(state, &w.want, token{Namespace: w.want.namespace}, 0)
	w.initial = list.Items
	return nil
}

// Close implements Watch.
func (w *watch) Close() { w.once.Do(func() { close(w.closed) }) }

// Next implements Watch.
func (w *watch) Next(ctx context.Context) (Event, error) {
	if w.over != nil {
		return Event{}, w.over
	}
	event, err := w.next(ctx)
	if err != nil {
		w.over, w.initial = err, nil
		if w.quiet != nil {
			w.quiet.Stop()
		}
		return Event{}, err
	}
	w.passed = 0
	if w.quiet != nil {
		w.quiet.Reset(bookmarkEvery)
	}
	return event, nil
}

func (w *watch) next(ctx context.Context) (Event, error) {
	for {
		select {
		case <-w.closed:
			return Event{}, ErrWatchClosed
		case <-ctx.Done():
			return Event{}, ctx.Err()
		default:
		}
		if event, ok := w.first(); ok {
			return event, nil
		}
		if event, ok := w.pick(); ok {
			return event, nil
		}
		if w.bookmarks && w.passed >= bookmarkAfter {
			return Event{Type: Bookmark, Revision: w.known}, nil
		}
		changed, err := w.fetch()
		if err != nil {
			return Event{}, err
		}
		if w.read < w.got {
			continue
		}
		if w.wait(ctx, changed) {
			return Event{Type: Bookmark, Revision: w.known}, nil
		}
	}
}

// first delivers the objects that were there when the watch began.
func (w *watch) first() (Event, bool) {
	if len(w.initial) > 0 {
		obj := w.initial[0]
		w.initial = w.initial[1:]
		return Event{Type: Added, Object: obj, Revision: revisionOf(obj)}, true
	}
	if w.endOf != 0 {
		event := Event{Type: Bookmark, Revision: w.endOf, InitialEventsEnd: true}
		w.initial, w.endOf = nil, 0
		return event, true
	}
	return Event{}, false
}

// pick returns the next event among the changes read ahead.
func (w *watch) pick() (Event, bool) {
	for w.read < w.got {
		c := w.ahead[w.read]
		w.ahead[w.read] = nil
		w.read++
		w.passed++
		w.known = c.revision
		had, has := w.want.has(c.old), w.want.has(c.new)
		switch {
		case had && has:
			return Event{Type: Modified, Object: c.new.obj, Revision: c.revision}, true
		case has:
			return Event{Type: Added, Object: c.new.obj, Revision: c.revision}, true
		case had:
			return Event{Type: Deleted, Object: c.last(), Revision: c.revision}, true
		}
	}
	return Event{}, false
}

// fetch reads ahead. When there is nothing to read the returned channel tells of the next change.
func (w *watch) fetch() (<-chan struct{}, error) {
	w.k.mu.RLock()
	defer w.k.mu.RUnlock()
	if w.log.over || w.position < w.log.start {
		return nil, tooOld(w.known, w.log.base)
	}
	w.read, w.got = 0, 0
	for ; w.position < w.log.end && w.got < len(w.ahead); w.position++ {
		w.ahead[w.got] = w.log.at(w.position)
		w.got++
	}
	if w.got > 0 {
		return nil, nil
	}
	w.known = max(w.known, w.store.applied.Load())
	return w.log.changed(), nil
}

// wait returns true when it is time for a bookmark.
func (w *watch) wait(ctx context.Context, changed <-chan struct{}) bool {
	var quiet <-chan time.Time
	if w.quiet != nil {
		quiet = w.quiet.C
	}
	select {
	case <-changed:
	case <-w.closed:
	case <-ctx.Done():
	case <-w.store.done:
		w.Close()
	case <-quiet:
		// Nothing of this kind has happened since fetch; if something has now, the bookmark is merely older.
		return true
	}
	return false
}
