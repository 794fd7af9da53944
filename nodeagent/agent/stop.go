package agent

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"sync"
	"time"

	"golang.org/x/sys/unix"
	corev1 "k8s.io/api/core/v1"

	"github.com/slipway-dev/slipway/nodeagent/engine"
	"github.com/slipway-dev/slipway/nodeagent/lifecycle"
	"github.com/slipway-dev/slipway/nodeagent/probe"
)

// stop runs a container's preStop hook and asks it to end.
func (w *worker) stop(ctx context.Context, pod *corev1.Pod, ip string, action lifecycle.Action) func() {
	w.eventOf(pod, action.Container, corev1.EventTypeNormal, "Killing", action.Reason)
	c, _ := containerNamed(pod, action.Container)
	if c.Lifecycle != nil && c.Lifecycle.PreStop != nil && action.Grace > 0 {
		hookCtx, cancel := context.WithTimeout(ctx, action.Grace)
		if err := w.hook(hookCtx, c, ip, action.ID, c.Lifecycle.PreStop); err != nil {
			w.eventOf(pod, action.Container, corev1.EventTypeWarning, "FailedPreStopHook", "PreStopHook failed: "+err.Error())
		}
		cancel()
	}
	signal := 0 // the container's own
	if action.Grace <= 0 {
		signal = int(unix.SIGKILL)
	}
	err := w.a.cfg.Engine.Signal(ctx, action.ID, signal, false)
	if errors.Is(err, engine.ErrNotFound) {
		err = nil
	}
	if err == nil {
		if err := w.noteAsked(action.ID); err != nil {
			w.a.log.Warn("stop container", "namespace", pod.Namespace, "pod", pod.Name, "err", err)
		}
	}
	if err != nil && ctx.Err() == nil {
		w.a.log.Warn("stop container", "namespace", pod.Namespace, "pod", pod.Name, "container", action.Container, "err", err)
		rest(ctx, firstPause)
	}
	return func() {
		if err != nil {
			delete(w.o.Signalled, action.ID) // it was not asked: ask again
		}
	}
}

// askedDir holds an empty file per container that was asked to end. Programs may take a second signal as an order to
// drop what they are finishing, so an agent that starts again does not repeat it. Where it cannot be written, on a full
// disk, the container ends all the same.
func (w *worker) askedDir() string { return filepath.Join(w.podDir(), "asked") }

func (w *worker) noteAsked(id string) error {
	err := os.MkdirAll(w.askedDir(), 0o700)
	if err == nil {
		err = os.WriteFile(filepath.Join(w.askedDir(), id), nil, 0o600)
	}
	if err != nil {
		return fmt.Errorf("note that container %s was asked to end: %w", id, err)
	}
	return nil
}

// readAsked returns what noteAsked noted.
func (w *worker) readAsked() map[string]time.Time {
	entries, err := os.ReadDir(w.askedDir())
	if err != nil {
		return nil // none
	}
	asked := map[string]time.Time{}
	for _, entry := range entries {
		if info, err := entry.Info(); err == nil {
			asked[entry.Name()] = time.Now().Add(min(0, time.Until(info.ModTime()))) // not in the future, if the clock was set back
		}
	}
	return asked
}

// postStart runs a container's postStart hook; when it fails the container is killed, and restarts as after a crash.
func (w *worker) postStart(ctx context.Context, pod *corev1.Pod, ip string, action lifecycle.Action) {
	c, _ := containerNamed(pod, action.Container)
	if c.Lifecycle == nil || c.Lifecycle.PostStart == nil {
		return
	}
	err := w.hook(ctx, c, ip, action.ID, c.Lifecycle.PostStart)
	if err == nil || ctx.Err() != nil {
		return
	}
	w.eventOf(pod, c.Name, corev1.EventTypeWarning, "FailedPostStartHook", "PostStartHook failed: "+err.Error())
	if err := w.a.cfg.Engine.Signal(ctx, action.ID, int(unix.SIGKILL), true); err != nil {
		w.a.log.Warn("kill container after its hook failed", "namespace", pod.Namespace, "pod", pod.Name, "container", c.Name, "err", err)
	}
}

// hook carries out a lifecycle handler.
func (w *worker) hook(ctx context.Context, c corev1.Container, ip, id string, h *corev1.LifecycleHandler) error {
	switch {
	case h.Exec != nil:
		code, output, err := w.a.execIn(id)(ctx, h.Exec.Command)
		if err == nil && code != 0 {
			err = fmt.Errorf("command %q ended with %d: %s", h.Exec.Command, code, output)
		}
		return err
	case h.HTTPGet != nil:
		return getOnce(ctx, c, ip, h.HTTPGet)
	case h.Sleep != nil:
		rest(ctx, time.Duration(h.Sleep.Seconds)*time.Second)
	}
	return nil
}

func getOnce(ctx context.Context, c corev1.Container, ip string, get *corev1.HTTPGetAction) error {
	req, err := probe.Request(ctx, c, ip, get)
	if err != nil {
		return err
	}
	status, err := probe.Get(req)
	if err == nil && status >= http.StatusBadRequest {
		err = fmt.Errorf("GET %s: status %d", req.URL.Path, status)
	}
	return err
}

// execOutput bounds what is kept of a command's output.
const execOutput = 10 << 10

// execIn returns how commands are run in a container.
func (a *Agent) execIn(id string) func(context.Context, []string) (int, []byte, error) {
	return func(ctx context.Context, command []string) (int, []byte, error) {
		out := &bounded{}
		code, err := a.cfg.Engine.Exec(ctx, id, engine.Exec{Command: command, Stdout: out, Stderr: out})
		return code, out.bytes(), err
	}
}

// bounded keeps the beginning of what is written to it; stdout and stderr may write at the same time.
type bounded struct {
	mu   sync.Mutex
	kept []byte
}

func (b *bounded) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if room := execOutput - len(b.kept); room > 0 {
		b.kept = append(b.kept, p[:min(len(p), room)]...)
	}
	return len(p), nil
}

func (b *bounded) bytes() []byte {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.kept
}
