package containerd

import (
	"cmp"
	"context"
	"fmt"
	"maps"
	"net/url"
	"runtime"
	"strconv"
	"time"

	"github.com/containerd/containerd/api/services/tasks/v1"
	"github.com/containerd/containerd/api/types/task"
	"github.com/containerd/containerd/v2/core/containers"
	"github.com/containerd/containerd/v2/core/mount"
	"github.com/containerd/errdefs"
	"github.com/containerd/typeurl/v2"
	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/slipway-dev/slipway/nodeagent/engine"
	"github.com/slipway-dev/slipway/nodeagent/engine/fault"
	"github.com/slipway-dev/slipway/nodeagent/engine/imagestore"
	"github.com/slipway-dev/slipway/nodeagent/engine/runspec"
)

// Labels by which the engine finds its own notes on a container; they are not shown.
const (
	labelLog        = "io.slipway.engine/log"
	labelCgroup     = "io.slipway.engine/cgroup"
	labelImageID    = "io.slipway.engine/image-id"
	labelStopSignal = "io.slipway.engine/stop-signal"
	labelGroup      = "io.slipway.engine/group"
)

// Addresses by which the shim is asked to write the log and to hold the standard input open.
const (
	logScheme = "slipway-log"
	stdinPipe = "slipway-stdin:"
)

const (
	createTries  = 5
	deleteTries  = 250 // while containerd is noticing that a shim has ended
	retryAfter   = 20 * time.Millisecond
	cleanupLimit = 30 * time.Second
	// exitNeverStarted is the exit code of a container whose command could not be executed, as of every runtime.
	exitNeverStarted = 128
)

// creations is how many containers are made at once: it is work for processors, more of them only wait for another.
func creations() int { return 4 * runtime.NumCPU() }

// Create makes a container with its writable layer and its task.
func (e *Engine) Create(ctx context.Context, c engine.Container) error {
	ctx = e.in(ctx)
	verb := "create container " + c.ID
	info, err := e.Lookup(ctx, c.Image)
	if err != nil {
		return fmt.Errorf("%s: %w", verb, err)
	}
	c.Resources.PIDs = cmp.Or(c.Resources.PIDs, e.cfg.PIDs)
	spec, err := runspec.Build(c, info.Config, e.host)
	if err != nil {
		return fmt.Errorf("%s: %w", verb, err)
	}
	select {
	case e.slots <- struct{}{}:
		defer func() { <-e.slots }()
	case <-ctx.Done():
		return fmt.Errorf("%s: %w", verb, ctx.Err())
	}
	e.cache.begin(c.ID, cmp.Or(c.Group, c.ID))
	defer e.cache.end(c.ID)
	if err := e.removeLeft(ctx, c.ID); err != nil {
		return fmt.Errorf("%s: %w", verb, err)
	}
	created, err := e.create(ctx, c, spec, info)
	if err != nil && created {
		undo, cancel := context.WithTimeout(context.WithoutCancel(ctx), cleanupLimit)
		defer cancel()
		if e.remove(undo, c.ID) != nil {
			e.cache.leave(c.ID) // removed when containerd answers again
		}
	}
	return err
}

// removeLeft removes what an earlier try to make a container left, before it is made again. It waits for a look that
// does the same.
func (e *Engine) removeLeft(ctx context.Context, id string) error {
	e.undoing.Lock()
	defer e.undoing.Unlock()
	if !e.cache.isLeft(id) {
		return nil
	}
	return e.remove(ctx, id)
}

// removeLeftovers removes what tries to make containers left and nobody makes again. What cannot be removed stays
// noted, for the next look.
func (e *Engine) removeLeftovers(ctx context.Context) {
	e.undoing.Lock()
	defer e.undoing.Unlock()
	for _, id := range e.cache.leftovers() {
		if err := e.remove(ctx, id); err != nil {
			e.cfg.Log.Warn("remove a container that was never made whole", "id", id, "err", err)
		}
	}
}

// create returns whether there is something to undo when it fails: a container of the same id that was there before
// is not.
func (e *Engine) create(ctx context.Context, c engine.Container, spec *specs.Spec, info imagestore.Info) (created bool, err error) {
	verb := "create container " + c.ID
	encoded, err := typeurl.MarshalAny(spec)
	if err != nil {
		return false, fmt.Errorf("%s: %w", verb, err)
	}
	labels := labelsOf(c, spec, info)
	// The container comes before its layer: a layer without one would be garbage to containerd.
	record, err := e.client.ContainerService().Create(ctx, containers.Container{
		ID: c.ID, Labels: labels, Image: info.Ref, Runtime: e.runtime, Spec: encoded,
		SnapshotKey: c.ID, Snapshotter: e.snap,
	})
	if err != nil {
		return !errdefs.IsAlreadyExists(err), fault.Classify(verb, err)
	}
	mounts, err := e.client.SnapshotService(e.snap).Prepare(ctx, c.ID, info.ChainID)
	if err != nil {
		return true, fault.Classify(verb+": prepare its layer", err)
	}
	st := entryOf(record)
	pid, err := e.createTask(ctx, c, mounts)
	if err != nil {
		sentence := fault.Command(err)
		if sentence == "" {
			if fault.Unavailable(err) || fault.Late(err) || ctx.Err() != nil {
				return true, fault.Classify(verb, err)
			}
			return true, fmt.Errorf("%s: %w: %s", verb, engine.ErrConfig, fault.Runc(err))
		}
		st.startFault = sentence // told by Start, as the container itself is sound
	}
	st.process = spec.Process
	st.status.PID = int(pid)
	e.cache.put(st)
	e.watcher.notify(c.ID)
	return true, nil
}

// createTask makes the task. A shim of the group that was just ending is followed by a new one.
func (e *Engine) createTask(ctx context.Context, c engine.Container, mounts []mount.Mount) (uint32, error) {
	request := &tasks.CreateTaskRequest{ContainerID: c.ID, Rootfs: mount.ToProto(mounts), Terminal: c.TTY}
	if c.LogPath != "" {
		request.Stdout = e.logAddress(c)
		if !c.TTY {
			request.Stderr = request.Stdout
		}
	}
	if c.Stdin {
		request.Stdin = stdinPipe
	}
	patience := time.Now().Add(clearLimit)
	for try := 1; ; try++ {
		resp, err := e.client.TaskService().Create(ctx, request)
		if err == nil {
			return resp.Pid, nil
		}
		exists := errdefs.IsAlreadyExists(fault.Native(err)) || bundleInTheWay(err, c.ID)
		if ctx.Err() != nil || !(fault.LostShim(err) && try < createTries) && !(exists && time.Now().Before(patience)) {
			return 0, err
		}
		if exists { // of a try that was cut off: containerd is just taking it away, or does not know that nobody wants it
			if err := e.clearTask(ctx, c.ID); err != nil && !fault.NotFound(err) {
				e.cfg.Log.Debug("a task in the way cannot be deleted", "id", c.ID, "err", fault.Plain(err))
			}
		}
		select {
		case <-time.After(retryAfter):
		case <-ctx.Done():
		}
	}
}

// logAddress says where the shim writes a container's output, and its note of the exit.
func (e *Engine) logAddress(c engine.Container) string {
	query := url.Values{"exit": {e.exitPath(c.ID)}}
	if e.cfg.LogLimits.Bytes > 0 {
		query.Set("bytes", strconv.FormatInt(e.cfg.LogLimits.Bytes, 10))
	}
	if e.cfg.LogLimits.Files > 0 {
		query.Set("files", strconv.Itoa(e.cfg.LogLimits.Files))
	}
	u := url.URL{Scheme: logScheme, Path: c.LogPath, RawQuery: query.Encode()}
	return u.String()
}

func labelsOf(c engine.Container, spec *specs.Spec, info imagestore.Info) map[string]string {
	labels := maps.Clone(c.Labels)
	if labels == nil {
		labels = map[string]string{}
	}
	labels[labelLog] = c.LogPath
	labels[labelCgroup] = spec.Linux.CgroupsPath
	labels[labelImageID] = info.ID
	labels[labelStopSignal] = cmp.Or(c.StopSignal, info.Config.StopSignal)
	labels[labelGroup] = c.Group
	return labels
}

// Start runs the container's process.
func (e *Engine) Start(ctx context.Context, id string) error {
	ctx = e.in(ctx)
	verb := "start container " + id
	st, ok := e.cache.get(id)
	switch {
	case !ok:
		return fmt.Errorf("%s: %w", verb, engine.ErrNotFound)
	case st.status.State == engine.Running:
		return nil
	}
	why := st.startFault
	if why == "" {
		// From here on the container may run, whatever becomes of this process: it must be known to have begun.
		e.save(e.cache.starting(id, time.Now()))
		resp, err := e.client.TaskService().Start(ctx, &tasks.StartRequest{ContainerID: id})
		if err == nil {
			e.cache.started(id, int(resp.Pid))
			e.watcher.notify(id)
			return nil
		}
		if fault.Unavailable(err) || ctx.Err() != nil || fault.NotFound(err) || fault.LostShim(err) || fault.Late(err) {
			e.lookSoon() // whether it began is seen there
			return fault.Classify(verb, err)
		}
		if begun, lookErr := e.beganBefore(ctx, st); begun || lookErr != nil {
			return lookErr
		}
		why = fault.Runc(err)
	}
	e.save(e.cache.neverStarted(id))
	e.watcher.notify(id)
	return fmt.Errorf("%s: %w: %s", verb, engine.ErrStart, why)
}

// beganBefore says whether a container that cannot be started began at an earlier call, whose answer was lost.
func (e *Engine) beganBefore(ctx context.Context, st entry) (bool, error) {
	if st.begun.IsZero() {
		return false, nil
	}
	resp, err := e.client.TaskService().Get(ctx, &tasks.GetRequest{ContainerID: st.status.ID})
	if err != nil {
		e.lookSoon()
		return false, fault.Classify("look at container "+st.status.ID, err)
	}
	switch resp.Process.Status {
	case task.Status_RUNNING, task.Status_PAUSED, task.Status_PAUSING:
		e.cache.started(st.status.ID, int(resp.Process.Pid))
	case task.Status_STOPPED:
		e.finish(ctx, st.status.ID, exit{code: int(resp.Process.ExitStatus), at: resp.Process.ExitedAt.AsTime()})
	default:
		return false, nil
	}
	e.watcher.notify(st.status.ID)
	return true, nil
}

// Signal sends a signal; 0 stands for the signal by which the container wants to be stopped.
func (e *Engine) Signal(ctx context.Context, id string, signal int, all bool) error {
	ctx = e.in(ctx)
	verb := "signal container " + id
	st, ok := e.cache.get(id)
	if !ok {
		return fmt.Errorf("%s: %w", verb, engine.ErrNotFound)
	}
	if st.status.State == engine.Exited {
		return nil
	}
	stop := signal == 0
	if stop {
		signal = int(parseSignal(st.stopSignal))
	}
	_, err := e.client.TaskService().Kill(ctx, &tasks.KillRequest{ContainerID: id, Signal: uint32(signal), All: all})
	if err != nil && !isGone(err) {
		return fault.Classify(verb, err)
	}
	if stop { // noted afterwards: asked twice is better than never
		e.save(e.cache.change(id, func(st *entry) { st.status.StopAskedAt = time.Now() }))
	}
	return nil
}

// parseSignal reads "SIGQUIT", "QUIT" or "3"; what makes no sense is SIGTERM.
func parseSignal(name string) unix.Signal {
	if n, err := strconv.Atoi(name); err == nil && n > 0 {
		return unix.Signal(n)
	}
	if s := unix.SignalNum(name); s != 0 {
		return s
	}
	if s := unix.SignalNum("SIG" + name); s != 0 {
		return s
	}
	return unix.SIGTERM
}
