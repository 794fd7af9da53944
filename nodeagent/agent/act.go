package agent

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sys/unix"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"

	"github.com/slipway-dev/slipway/apiserver/api"
	"github.com/slipway-dev/slipway/apiserver/event"
	"github.com/slipway-dev/slipway/apiserver/store"
	"github.com/slipway-dev/slipway/nodeagent/agent/admission"
	"github.com/slipway-dev/slipway/nodeagent/agent/recipe"
	"github.com/slipway-dev/slipway/nodeagent/cgroup"
	"github.com/slipway-dev/slipway/nodeagent/dns"
	"github.com/slipway-dev/slipway/nodeagent/engine"
	"github.com/slipway-dev/slipway/nodeagent/lifecycle"
	"github.com/slipway-dev/slipway/nodeagent/network"
	"github.com/slipway-dev/slipway/nodeagent/volume/downward"
)

// isPreparation reports whether an action under way is pointless once the Pod is to end.
func isPreparation(key string) bool {
	return strings.HasPrefix(key, string(lifecycle.EnsureImage)) || strings.HasPrefix(key, string(lifecycle.MountVolumes)) || key == string(lifecycle.Finish)
}

// begin carries an action out beside the worker. What came of it is applied in the worker's own goroutine.
func (w *worker) begin(ctx context.Context, action lifecycle.Action) {
	key := action.Key()
	if _, busy := w.busy[key]; busy {
		return
	}
	w.a.log.Debug("pod", "namespace", w.pod.Namespace, "pod", w.pod.Name, "action", action.String())
	ctx, cancel := context.WithCancel(ctx)
	w.busy[key] = cancel
	if action.Verb == lifecycle.Stop {
		w.o.Signalled[action.ID] = w.o.Now // its grace begins now, whatever a hook takes
	}
	job := w.job(action)
	go func() {
		apply := job(ctx)
		cancel()
		w.results <- func() {
			delete(w.busy, key)
			apply()
		}
	}()
}

// job returns what an action does. The function runs outside the worker's goroutine with what it captured here; the
// function it returns runs inside.
func (w *worker) job(action lifecycle.Action) func(context.Context) func() {
	pod, ip := w.pod, w.o.Sandbox.IP // as they are now: jobs do not look at w
	switch action.Verb {
	case lifecycle.SetupSandbox:
		return func(ctx context.Context) func() { return w.setupSandbox(ctx, pod) }
	case lifecycle.MountVolumes:
		self := w.self()
		w.stale = false
		return func(ctx context.Context) func() { return w.mountVolumes(ctx, self) }
	case lifecycle.EnsureImage:
		return func(ctx context.Context) func() { return w.ensureImage(ctx, pod, action) }
	case lifecycle.Create:
		in := w.createInput(action)
		return func(ctx context.Context) func() { return w.create(ctx, in) }
	case lifecycle.Start:
		return func(ctx context.Context) func() { return w.start(ctx, pod, action, ip) }
	case lifecycle.Drain:
		return func(ctx context.Context) func() { return w.drain(ctx, pod) }
	case lifecycle.Stop:
		return func(ctx context.Context) func() { return w.stop(ctx, pod, ip, action) }
	case lifecycle.Kill:
		return w.attempt(action, func(ctx context.Context) error {
			return w.a.cfg.Engine.Signal(ctx, action.ID, int(unix.SIGKILL), true)
		})
	case lifecycle.Remove:
		return w.attempt(action, func(ctx context.Context) error { return w.remove(ctx, pod, action) })
	case lifecycle.TeardownSandbox:
		return func(ctx context.Context) func() { return w.teardownSandbox(ctx, pod) }
	case lifecycle.UnmountVolumes:
		return w.unmountVolumes
	case lifecycle.WriteStatus:
		status, pause := lifecycle.Status(w.o), w.pause(action.Key())
		return func(ctx context.Context) func() { return w.writeStatus(ctx, pod, status, pause) }
	case lifecycle.Finish:
		pause := w.pause(action.Key())
		return func(ctx context.Context) func() { return w.finish(ctx, pod, pause) }
	}
	return func(context.Context) func() { return func() {} }
}

// attempt returns a job that does something to a container and lists again. An error is logged; the next turn plans
// the same again after a pause.
func (w *worker) attempt(action lifecycle.Action, do func(context.Context) error) func(context.Context) func() {
	pause := w.pause(action.Key())
	return func(ctx context.Context) func() {
		err := do(ctx)
		if err == nil || errors.Is(err, engine.ErrNotFound) {
			err = w.a.refresh(ctx)
		}
		if err != nil && ctx.Err() == nil {
			w.a.log.Warn("pod action", "namespace", w.pod.Namespace, "pod", w.pod.Name, "action", action.String(), "err", err)
			rest(ctx, pause)
		}
		return func() { w.count(action.Key(), err) }
	}
}

func rest(ctx context.Context, d time.Duration) {
	select {
	case <-ctx.Done():
	case <-time.After(d):
	}
}

// Pauses after an action that did not work.
const (
	firstPause = 100 * time.Millisecond
	lastPause  = 10 * time.Second
)

// pause returns how long to wait after one more failure of an action.
func (w *worker) pause(key string) time.Duration {
	return min(firstPause<<min(w.tries[key], 10), lastPause)
}

func (w *worker) count(key string, err error) {
	if err == nil {
		delete(w.tries, key)
		return
	}
	w.tries[key]++
}

// failure returns err as something to try again after a pause, and counts it.
func (w *worker) failure(key, reason string, err error) lifecycle.Failure {
	now := time.Now()
	f := lifecycle.Failure{Reason: reason, Message: err.Error(), At: now, Retry: now.Add(w.pause(key))}
	w.count(key, err)
	return f
}

// event records something about a container, or about the Pod when the name is empty.
func (w *worker) event(container, eventType, reason, message string) {
	w.eventOf(w.lastPod(), container, eventType, reason, message)
}

func (w *worker) eventOf(pod *corev1.Pod, container, eventType, reason, message string) {
	if pod.Name == "" {
		return // an orphan of which only the uid is known
	}
	obj := api.Object(pod)
	if container != "" {
		obj = event.Container(pod, container)
	}
	w.a.cfg.Events.Event(obj, eventType, reason, message)
}

func (w *worker) lastPod() *corev1.Pod {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.newest
}

func (w *worker) self() downward.Self {
	self := downward.Self{Pod: w.pod, IP: w.o.Sandbox.IP, Allocatable: w.a.machine.Allocatable()}
	if len(w.a.cfg.NodeIPs) > 0 {
		self.HostIP = w.a.cfg.NodeIPs[0]
	}
	return self
}

func (w *worker) setupSandbox(ctx context.Context, pod *corev1.Pod) func() {
	name, _ := recipe.Hostname(pod, w.a.cfg.Cluster.Domain)
	spec := network.Pod{ID: string(pod.UID), Hostname: name, HostNetwork: pod.Spec.HostNetwork, HostIPC: pod.Spec.HostIPC}
	if !pod.Spec.HostNetwork {
		for _, p := range admission.HostPorts(pod) {
			spec.HostPorts = append(spec.HostPorts, network.HostPort{HostIP: p.HostIP, HostPort: uint16(p.HostPort), PodPort: uint16(p.ContainerPort), Protocol: admission.Protocol(p)})
		}
	}
	sandbox, err := w.a.cfg.Network.Setup(ctx, spec)
	if err == nil {
		err = w.writeEtc(pod, sandbox.IP)
	}
	if err != nil {
		w.eventOf(pod, "", corev1.EventTypeWarning, "FailedCreatePodSandBox", "Failed to create pod sandbox: "+err.Error())
		return func() {
			w.o.Sandbox.Failure = w.failure(string(lifecycle.SetupSandbox), "FailedCreatePodSandBox", err)
		}
	}
	id := w.a.bootID
	if !pod.Spec.HostNetwork {
		id += "/" + sandbox.IP
	}
	return func() {
		w.sandbox = sandbox
		w.o.Sandbox = lifecycle.Sandbox{Presence: lifecycle.Ready, ID: id, IP: sandbox.IP}
		w.count(string(lifecycle.SetupSandbox), nil)
	}
}

// writeEtc writes the files every container finds in /etc.
func (w *worker) writeEtc(pod *corev1.Pod, ip string) error {
	dir := filepath.Join(w.podDir(), "etc")
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	node, err := dns.HostResolvConf(w.a.cfg.ResolvConf)
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("read the node's resolv.conf: %w", err)
	}
	hosts, err := os.ReadFile("/etc/hosts")
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("read the node's hosts: %w", err)
	}
	return errors.Join(
		writeChanged(filepath.Join(dir, "hosts"), recipe.Hosts(pod, ip, w.a.cfg.Cluster.Domain, hosts)),
		writeChanged(filepath.Join(dir, "resolv.conf"), recipe.ResolvConf(pod, w.a.cfg.Cluster, node)),
	)
}

// writeChanged writes a file that containers may be reading, unless it has the content already.
func writeChanged(path string, content []byte) error {
	if old, err := os.ReadFile(path); err == nil && bytes.Equal(old, content) {
		return nil
	}
	return os.WriteFile(path, content, 0o644)
}

func (w *worker) mountVolumes(ctx context.Context, self downward.Self) func() {
	next, err := w.a.volumes.Sync(ctx, self)
	if err != nil && ctx.Err() == nil {
		w.eventOf(self.Pod, "", corev1.EventTypeWarning, "FailedMount", err.Error())
	}
	return func() {
		if err != nil {
			f := w.failure(string(lifecycle.MountVolumes), "FailedMount", err)
			w.refresh = f.Retry
			if w.o.Volumes.Presence != lifecycle.Ready {
				w.o.Volumes.Failure = f
			}
			return
		}
		w.count(string(lifecycle.MountVolumes), nil)
		w.refresh = next
		w.o.Volumes.Presence, w.o.Volumes.Failure = lifecycle.Ready, lifecycle.Failure{}
	}
}

func (w *worker) teardownSandbox(ctx context.Context, pod *corev1.Pod) func() {
	w.partingWords(ctx, pod)
	err := w.a.cfg.Network.Teardown(ctx, string(w.uid))
	return func() {
		if err != nil {
			w.o.Sandbox.Failure = w.failure(string(lifecycle.TeardownSandbox), "FailedKillPod", err)
			return
		}
		w.o.Sandbox.Presence, w.o.Sandbox.Failure = lifecycle.Gone, lifecycle.Failure{}
	}
}

func (w *worker) unmountVolumes(ctx context.Context) func() {
	err := w.a.volumes.Teardown(ctx, w.uid)
	return func() {
		if err != nil {
			w.o.Volumes.Failure = w.failure(string(lifecycle.UnmountVolumes), "FailedUnmount", err)
			return
		}
		w.refresh = time.Time{}
		w.o.Volumes = lifecycle.Volumes{Presence: lifecycle.Gone}
	}
}

// writeStatus writes the Pod's status, fenced by the revision it was planned on.
func (w *worker) writeStatus(ctx context.Context, pod *corev1.Pod, status corev1.PodStatus, pause time.Duration) func() {
	next := pod.DeepCopy()
	next.Status = status
	obj, err := w.a.cfg.Client.Update(ctx, next, store.UpdateOptions{Subresource: "status", FieldManager: "slipway-agent"})
	if apierrors.IsConflict(err) {
		obj, err = w.a.cfg.Client.Get(ctx, api.Pods, pod.Namespace, pod.Name)
		if err == nil && obj.GetUID() != pod.UID {
			return func() {} // the watch will tell that this one is gone
		}
	}
	const key = string(lifecycle.WriteStatus)
	if err != nil && !apierrors.IsNotFound(err) && ctx.Err() == nil {
		w.a.log.Warn("write status", "namespace", pod.Namespace, "pod", pod.Name, "err", err)
		rest(ctx, pause)
	}
	return func() {
		w.count(key, err)
		if fresh, ok := obj.(*corev1.Pod); ok && err == nil {
			w.tell(fresh, false)
		}
	}
}

// cgroupLimit bounds the wait for a Pod's last process to be gone from its cgroup. What stays is found again with the
// orphans.
const cgroupLimit = time.Second

// removeRest removes the log files and cgroups of a Pod that is gone.
func (w *worker) removeRest() {
	folders, err := filepath.Glob(filepath.Join(w.a.cfg.LogDir, "*_"+string(w.uid)))
	for _, dir := range folders {
		err = errors.Join(err, os.RemoveAll(dir))
	}
	ctx, cancel := context.WithTimeout(context.Background(), cgroupLimit)
	defer cancel()
	groups := cgroup.At(cgroup.Mount, w.a.cfg.Cgroup)
	for _, class := range []string{"guaranteed", "burstable", "besteffort"} {
		err = errors.Join(err, groups.Remove(ctx, class+"/pod"+string(w.uid)))
	}
	if err != nil {
		w.a.log.Warn("remove what is left of a pod that is gone", "namespace", w.pod.Namespace, "pod", w.pod.Name, "err", err)
	}
}

// finish deletes the Pod object.
func (w *worker) finish(ctx context.Context, pod *corev1.Pod, pause time.Duration) func() {
	_, err := w.a.cfg.Client.Delete(ctx, api.Pods, pod.Namespace, pod.Name, store.DeleteOptions{UID: pod.UID, GracePeriodSeconds: new(int64)})
	if err == nil || apierrors.IsNotFound(err) || apierrors.IsConflict(err) {
		err = errHeld // the watch ends the worker when the object is gone; finalizers may hold it
	} else if ctx.Err() == nil {
		w.a.log.Warn("delete pod", "namespace", pod.Namespace, "pod", pod.Name, "err", err)
	}
	rest(ctx, pause)
	return func() { w.count(string(lifecycle.Finish), err) }
}

// errHeld counts a deletion after which the object is still there.
var errHeld = errors.New("the object is held")
