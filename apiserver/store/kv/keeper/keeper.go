// Package keeper keeps a backend usable for as long as the process lives: it refuses writes while the disk is nearly
// full, opens the backend again when it has stopped by itself, and decides when history is compacted and the database
// defragmented. What it cannot mend it says in the error of every write; revisions and watches go on.
//
// It must not know what is stored, nor how.
package keeper

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sync/semaphore"

	"github.com/slipway-dev/slipway/apiserver/store/kv"
)

// Engine is a backend that may stop by itself.
type Engine interface {
	kv.Backend
	Upkeep
	// Snapshot writes a copy of the database to path, whole or not at all.
	Snapshot(ctx context.Context, path string) error
	// Died is closed when the engine has stopped. It can only be closed then.
	Died() <-chan struct{}
	// Cause says why.
	Cause() error
}

// Upkeep is what an engine wants done now and then. While Defragment runs the engine does nothing else.
type Upkeep interface {
	Usage() kv.Usage
	Compact(ctx context.Context, revision uint64) error
	Defragment(ctx context.Context) error
	// ClearAlarm allows writes after the quota was used up.
	ClearAlarm(ctx context.Context) error
	// Reserve takes space on the disk for slack bytes more than there are.
	Reserve(slack int64) error
}

// Config says what is kept and how.
type Config struct {
	Dir     string                                // on the disk that is watched, named in messages
	Open    func(context.Context) (Engine, error) // called again after the engine has died
	Reserve uint64                                // bytes of the disk that writes leave free; 0: Reserve
	Free    func() (uint64, error)                // bytes the disk has free; nil: asks the kernel about Dir
	Turns   time.Duration                         // how often to look without being called; 0: ten seconds
	Copies  string                                // folder for snapshots; empty: none are made
	Log     *slog.Logger                          // nil: slog.Default()
}

const (
	turns = 10 * time.Second
	// manyWrites is more than ever run at once: who holds as many keeps all others out.
	manyWrites = 1 << 30
	// firstReopen and lastReopen bound the wait before another attempt to open an engine.
	firstReopen = 250 * time.Millisecond
	lastReopen  = time.Minute
	// slack is what an engine may still write of what it has accepted when the disk is full.
	slack = 32 << 20
)

// Keeper is a kv.Backend that outlives its engines.
type Keeper struct {
	cfg    Config
	space  space
	writes *semaphore.Weighted // one for each write, all for a defragmentation
	now    atomic.Pointer[state]
	urgent chan struct{} // there may be something to do at once

	mu        sync.Mutex
	followers map[*follower]struct{}

	full    atomic.Bool // the engine's quota is used up
	history history     // the loop's own

	stop context.CancelFunc
	done chan struct{}
}

// state is what calls go by: an engine, or why there is none.
type state struct {
	engine  Engine
	err     error
	newest  uint64        // revision of the engine that was there
	changed chan struct{} // closed when another state has come
}

// follower is a watch of everything. What it has not seen is not compacted.
type follower struct{ seen atomic.Uint64 }

// Open opens the engine and keeps it until Close.
func Open(ctx context.Context, cfg Config) (*Keeper, error) {
	if cfg.Log == nil {
		cfg.Log = slog.Default()
	}
	if cfg.Reserve == 0 {
		cfg.Reserve = Reserve
	}
	if cfg.Turns == 0 {
		cfg.Turns = turns
	}
	if cfg.Free == nil {
		cfg.Free = func() (uint64, error) { return freeOf(cfg.Dir) }
	}
	k := &Keeper{cfg: cfg, writes: semaphore.NewWeighted(manyWrites), urgent: make(chan struct{}, 1), followers: map[*follower]struct{}{}, done: make(chan struct{})}
	k.space = space{dir: cfg.Dir, reserve: cfg.Reserve, free: cfg.Free, began: time.Now()}
	engine, err := cfg.Open(ctx)
	if err != nil {
		return nil, err
	}
	k.now.Store(&state{engine: engine, changed: make(chan struct{})})
	k.history.defragmented = time.Now().Add(defragStart - defragRest)
	if k.history.copied, err = lastCopy(cfg.Copies, time.Now()); err != nil {
		return nil, errors.Join(err, engine.Close())
	}
	ctx, k.stop = context.WithCancel(context.WithoutCancel(ctx))
	go k.run(ctx)
	return k, nil
}

// Close closes the engine and ends every call.
func (k *Keeper) Close() error {
	k.stop()
	<-k.done
	s := k.now.Load()
	if errors.Is(s.err, kv.ErrClosed) {
		return nil
	}
	k.turn(&state{err: kv.ErrClosed})
	if s.engine == nil {
		return nil
	}
	return s.engine.Close()
}

// turn sets a new state.
func (k *Keeper) turn(next *state) {
	next.changed = make(chan struct{})
	close(k.now.Swap(next).changed)
}

// Err says why writes are refused now, nil if they are not.
func (k *Keeper) Err() error {
	if err := k.space.check(); err != nil {
		return err
	}
	return k.now.Load().err
}

// Range implements kv.Backend.
func (k *Keeper) Range(ctx context.Context, r kv.Range) (kv.Page, error) {
	s := k.now.Load()
	if s.engine == nil {
		return kv.Page{}, s.err
	}
	return s.engine.Range(ctx, r)
}

// Txn implements kv.Backend. It returns a *SpaceError, which is a kv.ErrNoSpace, while the disk is nearly full.
func (k *Keeper) Txn(ctx context.Context, ops []kv.Op) (uint64, error) {
	if err := k.space.check(); err != nil {
		return 0, err
	}
	if err := k.writes.Acquire(ctx, 1); err != nil {
		return 0, err
	}
	defer k.writes.Release(1)
	s := k.now.Load()
	if s.engine == nil {
		return 0, s.err
	}
	revision, err := s.engine.Txn(ctx, ops)
	if err != nil && errors.Is(err, kv.ErrNoSpace) && !k.full.Swap(true) {
		k.hurry()
	}
	if size := s.engine.Usage().Size; size > k.space.known.Load() {
		k.space.known.Store(size)
		k.hurry() // the database has grown: reserve more
	}
	return revision, err
}

// hurry makes the loop look at once.
func (k *Keeper) hurry() {
	select {
	case k.urgent <- struct{}{}:
	default:
	}
}

// Revision implements kv.Backend. It is known while there is no engine, too.
func (k *Keeper) Revision(ctx context.Context) (uint64, error) {
	s := k.now.Load()
	switch {
	case s.engine != nil:
		revision, err := s.engine.Revision(ctx)
		if errors.Is(err, kv.ErrClosed) && k.now.Load() != s { // closed to be opened again
			return k.Revision(ctx)
		}
		return revision, err
	case errors.Is(s.err, kv.ErrClosed):
		return 0, kv.ErrClosed
	}
	return s.newest, ctx.Err()
}

// Watch implements kv.Backend. It goes on with the next engine when one has died.
func (k *Keeper) Watch(ctx context.Context, prefix string, after uint64) iter.Seq2[kv.Batch, error] {
	return func(yield func(kv.Batch, error) bool) {
		f := k.follow(prefix, after)
		defer k.leave(f)
		for {
			s, err := k.await(ctx)
			if err != nil {
				yield(kv.Batch{}, err)
				return
			}
			for batch, err := range s.engine.Watch(ctx, prefix, after) {
				if err != nil && k.over(ctx, s, err) {
					yield(kv.Batch{}, err)
					return
				}
				if err != nil {
					break
				}
				if after = batch.Revision; !yield(batch, nil) {
					return
				}
				f.seen.Store(after)
			}
			select {
			case <-s.changed:
			case <-ctx.Done():
			}
		}
	}
}

// over says whether a watch's error is its end, rather than that of its engine.
func (k *Keeper) over(ctx context.Context, s *state, err error) bool {
	if ctx.Err() != nil || !errors.Is(err, kv.ErrStopped) && !errors.Is(err, kv.ErrClosed) {
		return true
	}
	select {
	case <-s.engine.Died(): // the loop sees it too, unless the keeper is closed
		select {
		case <-k.done:
			return true
		default:
			return false
		}
	default:
		return true
	}
}

// await waits for an engine.
func (k *Keeper) await(ctx context.Context) (*state, error) {
	for {
		s := k.now.Load()
		if s.engine != nil {
			return s, nil
		}
		if errors.Is(s.err, kv.ErrClosed) {
			return nil, kv.ErrClosed
		}
		select {
		case <-s.changed:
		case <-k.done:
			return nil, kv.ErrClosed
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
}

func (k *Keeper) follow(prefix string, after uint64) *follower {
	f := &follower{}
	f.seen.Store(after)
	if prefix == "" {
		k.mu.Lock()
		defer k.mu.Unlock()
		k.followers[f] = struct{}{}
	}
	return f
}

func (k *Keeper) leave(f *follower) {
	k.mu.Lock()
	defer k.mu.Unlock()
	delete(k.followers, f)
}

// run keeps the engine until ctx ends.
func (k *Keeper) run(ctx context.Context) {
	defer close(k.done)
	tick := time.NewTicker(k.cfg.Turns)
	defer tick.Stop()
	k.maintain(ctx)
	for ctx.Err() == nil {
		select {
		case <-ctx.Done():
		case <-k.now.Load().engine.Died():
			k.reopen(ctx)
		case <-k.urgent:
			k.maintain(ctx)
		case <-tick.C:
			k.maintain(ctx)
		}
	}
}

// reopen closes a dead engine and opens another when the disk has room, or ctx ends.
func (k *Keeper) reopen(ctx context.Context) {
	dead, began := k.now.Load().engine, time.Now()
	newest, err := dead.Revision(ctx)
	if err != nil {
		return // ctx has ended
	}
	k.cfg.Log.Error("the store has stopped: writes are refused until it is open again, reads go on", "dir", k.cfg.Dir, "err", dead.Cause())
	k.turn(&state{newest: newest, err: fmt.Errorf("%w in %s: %w; reading goes on, and it is opened again by itself", kv.ErrStopped, k.cfg.Dir, dead.Cause())})
	if err := dead.Close(); err != nil {
		k.cfg.Log.Warn("close the store that has stopped", "dir", k.cfg.Dir, "err", err)
	}
	said := ""
	for delay := firstReopen; sleep(ctx, delay); {
		if k.space.check() != nil {
			continue // looking costs nothing
		}
		engine, err := k.open(ctx, newest)
		if err == nil {
			k.turn(&state{engine: engine})
			k.cfg.Log.Info("the store is open again", "dir", k.cfg.Dir, "after", time.Since(began).Round(time.Millisecond))
			return
		}
		if text := err.Error(); text != said {
			k.cfg.Log.Error("open the store again", "dir", k.cfg.Dir, "err", err)
			said = text
		}
		k.turn(&state{newest: newest, err: fmt.Errorf("%w in %s and cannot be opened again: %w; reading goes on", kv.ErrStopped, k.cfg.Dir, err)})
		delay = min(2*delay, lastReopen)
	}
}

// open opens an engine that knows everything up to a revision.
func (k *Keeper) open(ctx context.Context, newest uint64) (Engine, error) {
	engine, err := k.cfg.Open(ctx)
	if err != nil {
		return nil, err
	}
	found, err := engine.Revision(ctx)
	if err == nil && found < newest {
		err = fmt.Errorf("it was at revision %d and has come back at %d: its disk has lost what was written", newest, found)
	}
	if err != nil {
		return nil, errors.Join(err, engine.Close())
	}
	return engine, nil
}

func sleep(ctx context.Context, d time.Duration) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-ctx.Done():
		return false
	}
}
