package containerd

import (
	"context"
	"time"

	"github.com/containerd/containerd/api/services/tasks/v1"
	"github.com/containerd/containerd/api/types/task"

	"github.com/slipway-dev/slipway/nodeagent/cgroup"
	"github.com/slipway-dev/slipway/nodeagent/engine"
)

// exitUnknown is the exit code of a container that is gone without a word: the machine restarted, its shim died.
const exitUnknown = 137

// killLimit bounds the wait for the processes of a container nobody holds any more.
const killLimit = 5 * time.Second

// Why nobody knows how a container ended, for people.
const (
	lostShim = "its shim, the process that holds it, was killed: the container was ended, its exit code is not known"
	lostTask = "the container engine lost it (a restart of the machine, a damaged state): its exit code is not known"
)

// look reads the state of every container from containerd and returns the ids of those that differ from the cache.
func (e *Engine) look(ctx context.Context) ([]string, error) {
	e.removeLeftovers(ctx)
	before := e.cache.picture()
	records, err := e.client.ContainerService().List(ctx)
	if err != nil {
		return nil, err
	}
	resp, err := e.client.TaskService().List(ctx, &tasks.ListTasksRequest{})
	if err != nil {
		return nil, err
	}
	running := map[string]*task.Process{}
	for _, t := range resp.Tasks {
		running[t.ID] = t
	}
	found := make(map[string]entry, len(records))
	for _, c := range records {
		if e.cache.meanwhile(before, c.ID) {
			continue // what containerd said of it may be older than what is known
		}
		st, known := before.entries[c.ID]
		if !known {
			st = entryOf(c)
			e.load(&st)
		}
		if halfMade(st, running[c.ID]) {
			e.cache.leave(c.ID)
			continue
		}
		found[c.ID] = e.observe(ctx, st, running[c.ID])
	}
	changed := e.cache.replace(found, before)
	e.removeLeftovers(ctx)
	if err := e.sweep(ctx); err != nil {
		e.cfg.Log.Warn("remove what is left of containers that are gone", "err", err)
	}
	return changed, nil
}

// lookSoon asks for a look at everything.
func (e *Engine) lookSoon() {
	select {
	case e.hurry <- struct{}{}:
	default:
	}
}

// dropHalfMade gives up a container that turned out never to have begun: it is removed soon, and may be made again.
func (e *Engine) dropHalfMade(id string) {
	e.cache.leave(id)
	e.lookSoon()
}

// halfMade tells a container that never began to run and never will: making it was cut off, or what was made is lost.
func halfMade(st entry, t *task.Process) bool {
	return t == nil && !st.ended() && st.begun.IsZero() && st.startFault == ""
}

// observe brings an entry up to what containerd says of its task.
func (e *Engine) observe(ctx context.Context, st entry, t *task.Process) entry {
	st.task = t != nil
	if st.ended() {
		return st
	}
	switch {
	case t == nil && st.startFault != "":
	case t == nil:
		return e.loseTask(ctx, st)
	case t.Status == task.Status_CREATED:
		st.status.State, st.status.PID = engine.Created, int(t.Pid)
	case t.Status == task.Status_STOPPED:
		if st.begun.IsZero() {
			st.begun = st.status.CreatedAt // its record is lost; that it ran is not
		}
		return e.endNow(st, exit{code: int(t.ExitStatus), at: t.ExitedAt.AsTime()})
	case t.Status == task.Status_RUNNING, t.Status == task.Status_PAUSED, t.Status == task.Status_PAUSING:
		e.runs(&st, int(t.Pid))
	}
	return st
}

// loseTask ends a container that containerd has no task of any more. As long as a process of it cannot be ended it
// counts as running, so that none is made in its place; the next look tries again.
func (e *Engine) loseTask(ctx context.Context, st entry) entry {
	how := e.lost(st) // before what is done here can be noted by a shim that lives
	if err := e.killRest(ctx, st.cgroup); err != nil {
		e.cfg.Log.Warn("end what is left of a container", "id", st.status.ID, "err", err)
		st.status.State, st.status.StartedAt = engine.Running, st.begun
		return st
	}
	st = e.endNow(st, how)
	if err := e.removeGroup(ctx, st.cgroup); err != nil {
		e.cfg.Log.Warn("remove the control group of a container that is gone", "id", st.status.ID, "err", err)
	}
	return st
}

// runs makes an entry one of a container that runs. When nothing says since when, its process does.
func (e *Engine) runs(st *entry, pid int) {
	st.status.State, st.status.PID = engine.Running, pid
	if !st.status.StartedAt.IsZero() {
		return
	}
	if st.begun.IsZero() {
		st.begun = began(pid, st.status.CreatedAt)
		e.save(*st, true)
	}
	st.status.StartedAt = st.begun
}

// lost is how a container ended that containerd has no task of any more: as its shim noted, or nobody knows.
func (e *Engine) lost(st entry) exit {
	if n := e.noted(st.status.ID); !n.exit.at.IsZero() {
		return n.exit
	}
	return exit{code: exitUnknown, at: time.Now(), lost: lostTask}
}

// endNow makes an entry one of a container that ended, and keeps that.
func (e *Engine) endNow(st entry, x exit) entry {
	x.oom = x.code != 0 && e.host.OOMKills(st.cgroup) > 0
	st.end(x)
	e.save(st, true)
	return st
}

// finish notes what an event told of a container's end. When its shim was killed, containerd tells of an end whose
// code it made up, and processes of the container may still run.
func (e *Engine) finish(ctx context.Context, id string, x exit) {
	st, ok := e.cache.get(id)
	if !ok || st.ended() {
		return
	}
	if st.begun.IsZero() { // it was made and never started: nothing is to be told of it
		e.dropHalfMade(id)
		return
	}
	if n := e.noted(id); n.kept && n.exit.at.IsZero() && madeUp(x.code) {
		x.code, x.lost = exitUnknown, lostShim
		if err := e.killRest(ctx, st.cgroup); err != nil {
			e.cfg.Log.Warn("end what a killed shim left", "container", id, "err", err)
		}
	}
	x.oom = x.code != 0 && e.host.OOMKills(st.cgroup) > 0
	e.save(e.cache.exited(id, x))
	e.watcher.notify(id)
}

// removeGroup removes the control group of a container that runc no longer removes.
func (e *Engine) removeGroup(ctx context.Context, group string) error {
	if group == "" {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, killLimit)
	defer cancel()
	return cgroup.At(cgroup.Mount, "/").Remove(ctx, group)
}

// madeUp says whether an exit code can be the one containerd tells for a shim that cannot tell any more.
func madeUp(code int) bool { return code == exitUnknown || code == 255 }

// killRest ends processes of a container that nobody holds any more: it must not run on unseen beside its successor.
func (e *Engine) killRest(ctx context.Context, group string) error {
	if group == "" {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, killLimit)
	defer cancel()
	return cgroup.At(cgroup.Mount, "/").Kill(ctx, group)
}
