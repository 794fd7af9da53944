package keeper

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/slipway-dev/slipway/apiserver/store/kv"
)

// history is what the loop remembers of the past.
type history struct {
	marks        []mark // oldest first
	compacted    uint64
	compactedAt  time.Time
	defragmented time.Time
	copied       time.Time
	copyRevision uint64
	short        bool   // writes were refused at the last look
	said         string // the last error
}

// mark is the newest revision at a time.
type mark struct {
	at       time.Time
	revision uint64
}

// old returns the newest revision that is older than historyTime, and forgets those before.
func (h *history) old(now time.Time, newest uint64) uint64 {
	h.marks = append(h.marks, mark{now, newest})
	n := 0
	for n+1 < len(h.marks) && now.Sub(h.marks[n+1].at) >= historyTime {
		n++
	}
	h.marks = h.marks[n:]
	if now.Sub(h.marks[0].at) < historyTime {
		return 0
	}
	return h.marks[0].revision
}

// maintain looks at the engine and does what is to be done.
func (k *Keeper) maintain(ctx context.Context) {
	s := k.now.Load()
	o, err := k.observe(ctx, s.engine)
	if err == nil {
		err = k.reserve(s.engine, o)
	}
	for _, a := range plan(o) {
		if err == nil {
			err = k.act(ctx, s.engine, a)
		}
	}
	k.say(ctx, s, err)
}

// observe collects what plan looks at.
func (k *Keeper) observe(ctx context.Context, engine Engine) (o observed, err error) {
	o = observed{now: time.Now(), compacted: k.history.compacted, compactedAt: k.history.compactedAt, defragmented: k.history.defragmented, reserve: k.cfg.Reserve, full: k.full.Load(),
		copying: k.cfg.Copies != "", copied: k.history.copied, copyRevision: k.history.copyRevision}
	if o.newest, err = engine.Revision(ctx); err != nil {
		return o, err
	}
	if o.free, err = k.cfg.Free(); err != nil {
		return o, err
	}
	o.usage = engine.Usage()
	o.old = k.history.old(o.now, o.newest)
	o.followed = o.newest
	k.mu.Lock()
	defer k.mu.Unlock()
	for f := range k.followers {
		o.followed = min(o.followed, f.seen.Load())
	}
	return o, nil
}

// reserve makes the engine hold its slack as long as that leaves enough for others.
func (k *Keeper) reserve(engine Engine, o observed) error {
	k.space.known.Store(o.usage.Size)
	if o.free < o.reserve+slack {
		return nil
	}
	return engine.Reserve(slack)
}

// act does one thing.
func (k *Keeper) act(ctx context.Context, engine Engine, a action) error {
	began := time.Now()
	switch a.verb {
	case compact:
		k.history.compacted, k.history.compactedAt = a.revision, began
		if err := engine.Compact(ctx, a.revision); err != nil && !errors.Is(err, kv.ErrCompacted) {
			return fmt.Errorf("%s: %w", a, err)
		}
		k.cfg.Log.Debug("store compacted", "dir", k.cfg.Dir, "revision", a.revision)
	case defragment:
		k.history.defragmented = began
		if err := k.defragment(ctx, engine); err != nil {
			return fmt.Errorf("%s: %w", a, err)
		}
		k.cfg.Log.Info("store defragmented", "dir", k.cfg.Dir, "bytes", engine.Usage().Size, "took", time.Since(began).Round(time.Millisecond))
	case snapshot:
		k.history.copied, k.history.copyRevision = began, a.revision
		path, err := k.copy(ctx, engine, began)
		if err != nil {
			return err
		}
		k.cfg.Log.Debug("store copied", "path", path, "took", time.Since(began).Round(time.Millisecond))
	case clearAlarm:
		if err := engine.ClearAlarm(ctx); err != nil {
			return fmt.Errorf("%s: %w", a, err)
		}
		k.full.Store(false)
		k.cfg.Log.Info("the store takes writes again: its quota has room", "dir", k.cfg.Dir)
	}
	return nil
}

// defragment lets writes wait outside meanwhile: inside they would time out and not know what became of them.
func (k *Keeper) defragment(ctx context.Context, engine Engine) error {
	if err := k.writes.Acquire(ctx, manyWrites); err != nil {
		return err
	}
	defer k.writes.Release(manyWrites)
	if err := engine.Defragment(ctx); err != nil {
		return err
	}
	return engine.Reserve(slack)
}

// say logs what has changed: a problem once, and when writes begin or end being refused.
func (k *Keeper) say(ctx context.Context, s *state, err error) {
	text := ""
	if err != nil {
		text = err.Error()
	}
	if text != k.history.said && err != nil && ctx.Err() == nil && s.engine.Cause() == nil {
		k.cfg.Log.Warn("keep the store", "dir", k.cfg.Dir, "err", err)
	}
	k.history.said = text
	short := k.space.check()
	if (short != nil) == k.history.short {
		return
	}
	if k.history.short = short != nil; short != nil {
		k.cfg.Log.Error("writes are refused", "err", short)
	} else {
		k.cfg.Log.Info("writes work again: the disk has room", "dir", k.cfg.Dir)
	}
}
