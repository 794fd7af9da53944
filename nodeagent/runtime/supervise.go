package runtime

import (
	"context"
	"time"

	"golang.org/x/sys/unix"
)

const (
	firstDelay  = 100 * time.Millisecond // before the first restart
	maxDelay    = 10 * time.Second
	stableAfter = time.Minute // a containerd that lived this long begins anew with firstDelay
	logCheck    = time.Minute

	// A containerd that stays this often in a row without an answer for this long hangs.
	silences    = 3
	answerCheck = 10 * time.Second
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
	proc := r.proc
	r.mu.Unlock()
	exited := proc.exited
	tick, ask := time.NewTicker(logCheck), time.NewTicker(r.cfg.answerCheck)
	defer tick.Stop()
	defer ask.Stop()
	silent := 0
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
			r.endIdleShims()
		case <-ask.C:
			if silent = r.ask(ctx, silent); silent < silences {
				continue
			}
			r.cfg.Log.Error("containerd hangs: it is ended, containers go on", "pid", proc.pid, "silent", silences*r.cfg.answerCheck)
			if err := proc.kill(); err != nil {
				r.cfg.Log.Error("containerd cannot be ended", "err", err)
			}
			silent = 0
		}
	}
}

// ask returns how often in a row containerd has not answered, with this time.
func (r *Runtime) ask(ctx context.Context, before int) int {
	limited, cancel := context.WithTimeout(ctx, r.cfg.answerCheck)
	defer cancel()
	if err := answers(limited, r.paths.socket); err == nil || ctx.Err() != nil {
		return 0
	}
	return before + 1
}

// endIdleShims ends shims that have held no process since the last look: those containerd lost, with the folder that
// says where they listen. A shim that is ended though it was about to be used is followed by another.
func (r *Runtime) endIdleShims() {
	idle := map[int]uint64{}
	for _, pid := range r.shims() {
		start, err := startTime(pid)
		if err != nil || len(children(pid)) > 0 {
			continue
		}
		if before, ok := r.idle[pid]; ok && before == start {
			r.cfg.Log.Info("a shim without containers is ended", "pid", pid)
			_ = unix.Kill(pid, unix.SIGKILL)
			continue
		}
		idle[pid] = start
	}
	r.idle = idle
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
