package store

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"reflect"
	"strconv"
	"sync"
	"sync/atomic"

	"github.com/slipway-dev/slipway/apiserver/api"
	"github.com/slipway-dev/slipway/apiserver/store/kv"
)

// Codec turns objects into bytes and back. Encode is called with resourceVersion empty; the revision an object was
// written at is not stored in it. Decode returns apiVersion and kind set.
type Codec interface {
	Encode(api.Object) ([]byte, error)
	Decode(kind *api.Kind, data []byte) (api.Object, error)
}

// Store is the Client on a key-value backend: raw objects, without defaulting, validation, authorization or
// graceful deletion. All reads are served from a cache that follows the backend; no read reaches the backend.
type Store struct {
	backend  kv.Backend
	codec    Codec
	log      *slog.Logger
	kinds    map[*api.Kind]*kindCache
	byPrefix map[string]*kindCache
	logLimit int // changes kept per kind
	guard    *guard

	applied atomic.Uint64 // newest revision the cache has; 0 while it is loaded anew
	waiting waiters
	flight  inFlight
	woken   []*log // room for apply

	stop context.CancelFunc
	done chan struct{} // closed when the cache follows no more
}

// kindCache is what the cache knows of one kind.
type kindCache struct {
	kind   *api.Kind
	prefix string

	mu      sync.RWMutex // guards what follows; objects and log change together
	objects sorted
	log     *log
	topics  topics
	pages   pages
}

// Option changes what New does.
type Option func(*Store)

// WithLog sets where the cache reports what it cannot return to a caller. The default is slog.Default().
func WithLog(log *slog.Logger) Option { return func(s *Store) { s.log = log } }

// WithHistory sets how many changes of each kind are kept for watchers. The default is 16384. It is rounded up to
// a power of two, and to 64.
func WithHistory(changes int) Option {
	return func(s *Store) {
		for s.logLimit = 64; s.logLimit < changes; s.logLimit *= 2 {
		}
	}
}

// New reads the whole backend into the cache and then follows it until Close is called or ctx ends. The backend
// stays the caller's to close, after the Store.
func New(ctx context.Context, backend kv.Backend, codec Codec, options ...Option) (*Store, error) {
	s := &Store{
		backend: backend, codec: codec, log: slog.Default(), logLimit: 1 << 14,
		kinds: map[*api.Kind]*kindCache{}, byPrefix: map[string]*kindCache{}, done: make(chan struct{}),
	}
	for _, option := range options {
		option(s)
	}
	for _, kind := range api.Kinds() {
		if kind.CreateOnly {
			continue
		}
		k := &kindCache{kind: kind, prefix: prefixOf(kind), log: newLog(0, s.logLimit)}
		s.kinds[kind], s.byPrefix[k.prefix] = k, k
	}
	revision, err := s.load(ctx)
	if err != nil {
		return nil, fmt.Errorf("load the store: %w", err)
	}
	ctx, s.stop = context.WithCancel(ctx)
	go s.follow(ctx, revision)
	go s.tidy(ctx)
	return s, nil
}

// Close ends the cache and every watch. Objects already read stay valid.
func (s *Store) Close() error {
	s.stop()
	<-s.done
	return s.guard.sweep(s)
}

// Revision returns the newest revision of the backend.
func (s *Store) Revision(ctx context.Context) (uint64, error) {
	revision, err := s.backend.Revision(ctx)
	if err != nil {
		return 0, unavailable(err)
	}
	return revision, nil
}

// cache returns the kind's cache.
func (s *Store) cache(kind *api.Kind) (*kindCache, error) {
	k := s.kinds[kind]
	if k == nil {
		return nil, notStored(kind)
	}
	return k, nil
}

// consistent waits until the cache has everything that was acknowledged before the call.
func (s *Store) consistent(ctx context.Context) error {
	revision, err := s.Revision(ctx)
	if err != nil {
		return err
	}
	return s.reach(ctx, revision)
}

// reach waits until the cache has a revision.
func (s *Store) reach(ctx context.Context, revision uint64) error {
	if s.applied.Load() >= revision {
		return nil
	}
	reached := s.waiting.add(&s.applied, revision)
	if reached == nil {
		return nil
	}
	select {
	case <-reached:
		return nil
	case <-ctx.Done():
		s.waiting.drop(reached)
		return ctx.Err()
	case <-s.done:
		return unavailable(errors.New("the store is closed"))
	}
}

// waiters are those who wait for the cache to reach a revision.
type waiters struct {
	sync.Mutex
	list []waiter
}

type waiter struct {
	revision uint64
	reached  chan struct{}
}

// add returns a channel that is closed when applied reaches revision, nil if it has.
func (w *waiters) add(applied *atomic.Uint64, revision uint64) chan struct{} {
	w.Lock()
	defer w.Unlock()
	if applied.Load() >= revision {
		return nil
	}
	reached := make(chan struct{})
	w.list = append(w.list, waiter{revision, reached})
	return reached
}

func (w *waiters) drop(reached chan struct{}) {
	w.Lock()
	defer w.Unlock()
	for i := range w.list {
		if w.list[i].reached == reached {
			w.list = append(w.list[:i], w.list[i+1:]...)
			return
		}
	}
}

// advance sets applied and lets go those who waited for it.
func (w *waiters) advance(applied *atomic.Uint64, revision uint64) {
	w.Lock()
	defer w.Unlock()
	applied.Store(revision)
	kept := w.list[:0]
	for _, one := range w.list {
		if one.revision <= revision {
			close(one.reached)
		} else {
			kept = append(kept, one)
		}
	}
	clear(w.list[len(kept):])
	w.list = kept
}

// atRevision returns a copy of obj with a resourceVersion that shares everything else with obj.
func atRevision(obj api.Object, revision uint64) api.Object {
	copied := shallow(obj)
	copied.SetResourceVersion(strconv.FormatUint(revision, 10))
	return copied
}

// shallow returns a copy of an object's struct. Fields of its ObjectMeta may be set, not changed in depth.
func shallow(obj api.Object) api.Object {
	from := reflect.ValueOf(obj).Elem()
	copied := reflect.New(from.Type())
	copied.Elem().Set(from)
	return copied.Interface().(api.Object)
}
