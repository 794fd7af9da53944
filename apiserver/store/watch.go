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
	futureWait = time.Second
)

// watch reads the log of a kind, or of a topic, from a position of its own. It has no goroutine and no buffer.
type watch struct {
	store *Store
	k     *kindCache
	log   *log
	topic *topic // nil: log is the kind's
	want  chosen

	initial   []api.Object // still to deliver as Added
	endOf     uint64       // not zero: deliver the bookmark that ends the initial objects, at this revision
	position  uint64       // next change in the log
	known     uint64       // revision the watcher knows everything up to
	bookmarks bool
	passed    int // changes since the last event delivered
	quiet     *time.Timer
	ahead     []*change // read from a log, not looked at yet
	room      [16]*change
	over      error

	once   sync.Once
	closed chan struct{}
	left   sync.Once
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
	if revision != 0 {
		return w.startAt(revision)
	}
	w.k.mu.Lock()
	state := w.k.objects.snapshot()
	w.known = w.store.applied.Load()
	w.join()
	w.k.mu.Unlock()

	var list List
	list.fill(state, &w.want, token{Namespace: w.want.namespace}, 0)
	w.initial, w.endOf = list.Items, w.known
	return nil
}

// startAt begins with the changes after a revision. They are in the kind's log even if the topic's is younger.
func (w *watch) startAt(revision uint64) error {
	w.k.mu.Lock()
	defer w.k.mu.Unlock()
	position, err := w.k.log.after(revision)
	if err != nil {
		return err
	}
	w.known = revision
	w.join()
	if w.log == w.k.log {
		w.position = position
		return nil
	}
	w.ahead = make([]*change, w.k.log.end-position)
	_, _, err = w.k.log.read(w, position, w.ahead)
	return err
}

// join puts the watch at the end of the log it reads. The kind is locked.
func (w *watch) join() {
	w.log = w.k.log
	if on, ok := w.want.topicOf(); ok {
		w.topic = &on
		w.log = w.k.topics.join(w, on, w.store.applied.Load(), w.store.logLimit)
	}
	w.position = w.log.end
}

// leave frees what join took.
func (w *watch) leave() {
	w.left.Do(func() {
		if w.topic != nil {
			w.k.mu.Lock()
			defer w.k.mu.Unlock()
			w.k.topics.leave(w, *w.topic, w.log)
		}
	})
}

// Close implements Watch.
func (w *watch) Close() {
	w.once.Do(func() { close(w.closed) })
	w.leave()
}

// Next implements Watch.
func (w *watch) Next(ctx context.Context) (Event, error) {
	if w.over != nil {
		return Event{}, w.over
	}
	event, err := w.next(ctx)
	if err != nil {
		w.over, w.initial, w.ahead = err, nil, nil
		w.leave()
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
		if changed != nil && w.wait(ctx, changed) {
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
	for len(w.ahead) > 0 {
		c := w.ahead[0]
		w.ahead[0] = nil
		w.ahead = w.ahead[1:]
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

// fetch reads ahead. When there is nothing to read it returns a channel that tells of the next change.
func (w *watch) fetch() (<-chan struct{}, error) {
	applied := w.store.applied.Load() // before reading: the log has every change up to here
	n, changed, err := w.log.read(w, w.position, w.room[:])
	if err != nil {
		return nil, err
	}
	w.position += uint64(n)
	if w.ahead = w.room[:n]; n == 0 {
		w.known = max(w.known, applied)
	}
	return changed, nil
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
