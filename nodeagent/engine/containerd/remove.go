package containerd

import (
	"context"
	"strings"
	"time"

	"github.com/containerd/containerd/api/services/tasks/v1"
	"github.com/containerd/errdefs"
	"golang.org/x/sys/unix"

	"github.com/slipway-dev/slipway/nodeagent/engine/fault"
)

// Remove kills what still runs and deletes the container with its writable layer.
func (e *Engine) Remove(ctx context.Context, id string) error {
	if err := e.remove(e.in(ctx), id); err != nil {
		return err
	}
	e.watcher.notify(id)
	return nil
}

func (e *Engine) remove(ctx context.Context, id string) error {
	verb := "remove container " + id
	group, known, err := e.groupOf(ctx, id)
	if err != nil {
		return fault.Classify(verb, err)
	}
	met, err := e.settle(ctx, id)
	if err != nil {
		return fault.Classify(verb+": its task", err)
	}
	if met || !known { // it was not made whole, or containerd had trouble with it
		if err := e.clearRest(ctx, id, group); err != nil {
			return fault.Classify(verb+": what is left of it", err)
		}
		time.AfterFunc(strayGrace, e.lookSoon) // its shim may be left, too
	}
	if err := e.client.SnapshotService(e.snap).Remove(ctx, id); err != nil && !errdefs.IsNotFound(err) {
		return fault.Classify(verb+": its layer", err)
	}
	if err := e.client.ContainerService().Delete(ctx, id); err != nil && !errdefs.IsNotFound(err) {
		return fault.Classify(verb, err)
	}
	e.cache.drop(id)
	return e.forget(id)
}

// deleteTask ends a container's task, whatever state it is in, and deletes it. While containerd is just noticing that
// the task's shim has ended, it tries again.
func (e *Engine) deleteTask(ctx context.Context, id string) error {
	for try := 1; ; try++ {
		err := e.deleteTaskOnce(ctx, id)
		if err == nil || try == deleteTries || ctx.Err() != nil || !fault.LostShim(err) {
			return err
		}
		select {
		case <-time.After(retryAfter):
		case <-ctx.Done():
		}
	}
}

func (e *Engine) deleteTaskOnce(ctx context.Context, id string) error {
	service := e.client.TaskService()
	request := &tasks.DeleteTaskRequest{ContainerID: id}
	if st, ok := e.cache.get(id); ok && st.ended() {
		if _, err := service.Delete(ctx, request); err == nil || fault.NotFound(err) {
			return nil
		}
	}
	_, err := service.Kill(ctx, &tasks.KillRequest{ContainerID: id, Signal: uint32(unix.SIGKILL), All: true})
	switch {
	case fault.NotFound(err) && !isGone(err):
		return nil
	case err != nil && !isGone(err):
		return err
	}
	if _, err := service.Wait(ctx, &tasks.WaitRequest{ContainerID: id}); err != nil && !fault.NotFound(err) {
		return err
	}
	if _, err := service.Delete(ctx, request); err != nil && !fault.NotFound(err) {
		return err
	}
	return nil
}

// isGone tells that a process was already dead when it was signalled. The task may still be there.
func isGone(err error) bool {
	text := err.Error()
	return strings.Contains(text, "process already finished") || strings.Contains(text, "container not running") ||
		strings.Contains(text, "no such process")
}
