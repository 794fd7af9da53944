package loop

import (
	"context"
	"fmt"
	"log/slog"
	"runtime/debug"
	"sync"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"

	"github.com/slipway-dev/slipway/apiserver/store"
)

// Run runs c until parent ends and returns nil when its workers have stopped. It returns an error when an input cannot
// be watched at all (forbidden, or no such kind); a watch that breaks is resumed instead.
func Run(parent context.Context, client store.Reader, log *slog.Logger, c Controller) error {
	log = log.With("controller", c.Name)
	ctx, cancel := context.WithCancelCause(parent)
	defer cancel(nil)
	q := newQueue()
	var running sync.WaitGroup
	for _, in := range c.Inputs {
		running.Go(func() {
			err := guard(func() error { return watch(ctx, client, log, in, q.add) })
			if err != nil {
				cancel(fmt.Errorf("run %s: %w", c.Name, err))
			}
		})
	}
	for range max(1, c.Workers) {
		running.Go(func() { work(ctx, log, c, q) })
	}
	<-ctx.Done()
	q.close()
	running.Wait()
	if parent.Err() != nil {
		return nil // asked to end, for whatever cause
	}
	return context.Cause(ctx)
}

// work takes keys from q until it is closed.
func work(ctx context.Context, log *slog.Logger, c Controller, q *queue) {
	for {
		key, ok := q.next()
		if !ok {
			return
		}
		err := guard(func() error { return c.Reconcile(ctx, key) })
		transient, stalled, after := class(err)
		failures := q.done(key, outcome{failed: transient, after: after})
		if ctx.Err() == nil {
			report(ctx, log, turnResult{key: key, err: err, failures: failures, stalled: stalled})
		}
	}
}

// guard turns a panic of do into an error: a mistake met by one object or one part must not end the process that
// others live in.
func guard(do func() error) (err error) {
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("panic: %v\n%s", p, debug.Stack())
		}
	}()
	return do()
}

type turnResult struct {
	key      Key
	err      error
	failures int
	stalled  bool
}

// report logs a turn that went wrong: a stalled one once, a failing one when it starts and each time the number of
// failures has doubled. A conflict only means that somebody else was faster: plan again.
func report(ctx context.Context, log *slog.Logger, r turnResult) {
	switch {
	case r.stalled:
		log.LogAttrs(ctx, slog.LevelWarn, "stalled", slog.String("key", r.key.String()), slog.Any("err", r.err))
	case r.failures == 0 || r.failures&(r.failures-1) != 0:
	case apierrors.IsConflict(r.err) && r.failures < 8:
	default:
		log.LogAttrs(ctx, slog.LevelWarn, "reconcile", slog.String("key", r.key.String()), slog.Int("failures", r.failures), slog.Any("err", r.err))
	}
}

// sleep waits for d and reports whether ctx is still alive.
func sleep(ctx context.Context, d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-ctx.Done():
		return false
	}
}
