package runtime

import (
	"context"
	"time"
)

const (
	firstDelay  = 100 * time.Millisecond // before the first restart
	maxDelay    = 10 * time.Second
	stableAfter = time.Minute // a containerd that lived this long begins anew with firstDelay
	logCheck    = time.Minute
)

// supervise restarts containerd when it dies, until ctx ends. Shims and containers do not notice.
func (r *Runtime) supervise(ctx context.Context) {
	defer close(r.ended)
	delay := firstDelay
	for {
		began := time.Now()
		if !r.watch(ctx) {
			return
		}
		delay = nextDelay(delay, time.Since(began))
		r.cfg.Log.Warn("containerd ended: restarting it", "in", delay, "last", r.lastLog())
		for !r.relaunch(ctx, delay) {
			if ctx.Err() != nil {
				return
			}
			delay = nextDelay(delay, 0)
		}
	}
}

// watch returns true when containerd has died, false when ctx ended.
func (r *Runtime) watch(ctx context.Context) bool {
	r.mu.Lock()
	exited := r.proc.exited
	r.mu.Unlock()
	tick := time.NewTicker(logCheck)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return false
		case <-exited:
			return true
		case <-tick.C:
			if err := boundLog(r.paths.log, logBytes); err != nil {
				r.cfg.Log.Warn("containerd's log cannot be shortened", "err", err)
			}
		}
	}
}

func (r *Runtime) relaunch(ctx context.Context, delay time.Duration) bool {
	timer := time.NewTimer(delay)
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return false
	case <-timer.C:
	}
	r.setProcess(nil)
	proc, err := r.launch(ctx)
	if err != nil {
		r.cfg.Log.Error("containerd does not start", "err", err)
		return false
	}
	r.cfg.Log.Info("containerd restarted", "pid", proc.pid)
	r.setProcess(proc)
	return true
}

func (r *Runtime) setProcess(proc *process) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.proc = proc
}

// nextDelay is how long to wait before the next start, after one that lived for the time given.
func nextDelay(last, lived time.Duration) time.Duration {
	if lived >= stableAfter {
		return firstDelay
	}
	return min(2*last, maxDelay)
}
