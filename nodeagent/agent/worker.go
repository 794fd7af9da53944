package agent

import (
	"context"
	"maps"
	"path/filepath"
	"slices"
	"strconv"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	"k8s.io/apimachinery/pkg/types"

	"github.com/slipway-dev/slipway/nodeagent/engine"
	"github.com/slipway-dev/slipway/nodeagent/lifecycle"
	"github.com/slipway-dev/slipway/nodeagent/network"
	"github.com/slipway-dev/slipway/nodeagent/probe"
	"github.com/slipway-dev/slipway/reconciler/loop"
)

// calm is how long a status change that nobody waits for may wait for others to be written with it.
const calm = 100 * time.Millisecond

// worker carries out the plans for one Pod. Only its own goroutine touches what is not under mu.
type worker struct {
	a       *Agent
	uid     types.UID
	signal  chan struct{}
	results chan func()
	probes  *probe.Set

	mu       sync.Mutex
	newest   *corev1.Pod
	gone     bool
	refsMark bool            // a ConfigMap or Secret changed
	own      map[string]bool // containers this process started
	eviction *lifecycle.Eviction
	evicted  chan struct{} // closed when an evicted Pod is off the node

	pod      *corev1.Pod
	o        lifecycle.Observed // what is remembered between turns
	sandbox  network.Sandbox
	busy     map[string]context.CancelFunc
	ages     *loop.Ages
	tries    map[string]int       // failures in a row, by action
	refresh  time.Time            // when volumes are due again
	stale    bool                 // volumes are to be brought up to date
	due      time.Time            // when a waiting status is written
	admitted bool                 // whether the node takes it was decided
	taken    bool                 // and it does; under Agent.mu
	asked    map[string]time.Time // containers an earlier run of the agent asked to end, and when
	told     sync.Once            // that an evicted Pod is off the node
}

func newWorker(a *Agent, pod *corev1.Pod) *worker {
	w := &worker{
		a: a, uid: pod.UID, signal: make(chan struct{}, 1), results: make(chan func(), 16),
		own: map[string]bool{}, ages: loop.NewAges(), evicted: make(chan struct{}),
		busy: map[string]context.CancelFunc{}, tries: map[string]int{}, newest: pod, pod: pod,
		o: lifecycle.Observed{
			HostIPs: a.cfg.NodeIPs, Images: map[string]lifecycle.Image{}, CreateFails: map[string]lifecycle.Failure{},
			StartFails: map[string]lifecycle.Failure{}, Signalled: map[string]time.Time{}, Messages: map[string]string{},
			Hooked: map[string]struct{}{},
		},
	}
	w.probes = probe.NewSet(w.wake)
	w.asked = w.readAsked()
	return w
}

// wake makes the worker look again.
func (w *worker) wake() {
	select {
	case w.signal <- struct{}{}:
	default:
	}
}

// tell hands over a newer state of the Pod.
func (w *worker) tell(pod *corev1.Pod, gone bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if newer(pod, w.newest) {
		w.newest = pod
	}
	w.gone = w.gone || gone
	w.wake()
}

// newer reports whether a was written after b.
func newer(a, b *corev1.Pod) bool {
	x, errX := strconv.ParseUint(a.ResourceVersion, 10, 64)
	y, errY := strconv.ParseUint(b.ResourceVersion, 10, 64)
	return errX != nil || errY != nil || x >= y
}

func (w *worker) referenceChanged() {
	w.mu.Lock()
	w.refsMark = true
	w.mu.Unlock()
	w.wake()
}

// run works until nothing of the Pod is left or ctx ends.
func (w *worker) run(ctx context.Context) {
	ctx, cancel := context.WithCancel(ctx)
	defer w.told.Do(func() { close(w.evicted) })
	defer w.probes.Close()
	defer w.settle()
	defer cancel()
	timer := time.NewTimer(time.Hour)
	defer timer.Stop()
	for ctx.Err() == nil {
		wait, done := w.turn(ctx)
		if done {
			w.removeRest()
			w.a.finished(w.uid)
			return
		}
		timer.Reset(wait)
		select {
		case <-ctx.Done():
		case <-timer.C:
		case <-w.signal:
		case apply := <-w.results:
			apply()
			w.takeResults()
		}
	}
}

// takeResults applies what else has come in.
func (w *worker) takeResults() {
	for {
		select {
		case apply := <-w.results:
			apply()
		default:
			return
		}
	}
}

// settle waits for actions under way to end.
func (w *worker) settle() {
	for len(w.busy) > 0 {
		(<-w.results)()
	}
}

// turn observes, plans and begins what is planned. It returns when to look again at the latest, and whether the
// Pod is done with.
func (w *worker) turn(ctx context.Context) (wait time.Duration, done bool) {
	w.observe()
	actions := lifecycle.Plan(w.o)
	if w.o.Gone && len(actions) == 0 && len(w.busy) == 0 && len(w.o.Containers) == 0 {
		return 0, true
	}
	if w.o.Eviction != nil && len(actions) == 0 && len(w.busy) == 0 {
		w.told.Do(func() { close(w.evicted) })
	}
	wait = time.Hour
	for _, action := range actions {
		switch action.Verb {
		case lifecycle.Wait:
			wait = min(wait, action.After)
		case lifecycle.WriteStatus:
			if pause := w.patience(); pause > 0 {
				wait = min(wait, pause)
				continue
			}
			w.due = time.Time{}
			w.begin(ctx, action)
		default:
			w.begin(ctx, action)
		}
	}
	wait = min(wait, w.refreshVolumes(ctx))
	w.probes.Sync(ctx, w.targets())
	return max(wait, time.Millisecond), false
}

// observe brings w.o up to date.
func (w *worker) observe() {
	w.mu.Lock()
	pod, gone, refs, eviction := w.newest, w.gone, w.refsMark, w.eviction
	w.refsMark = false
	w.mu.Unlock()
	if eviction != nil && w.o.Eviction == nil {
		w.abandon()
	}
	w.o.Eviction, w.o.DiskShort = eviction, w.a.short.Load()
	if !equality.Semantic.DeepEqual(pod.Labels, w.pod.Labels) || !equality.Semantic.DeepEqual(pod.Annotations, w.pod.Annotations) {
		w.stale = true
	}
	if pod.DeletionTimestamp != nil && w.pod.DeletionTimestamp == nil || gone && !w.o.Gone {
		w.abandon()
	}
	if refs {
		w.stale = true
		clear(w.o.CreateFails)
		w.o.Volumes.Failure = lifecycle.Failure{}
	}
	w.pod = pod
	w.o.Now, w.o.Pod, w.o.Gone = time.Now(), pod, gone
	w.o.Containers = w.a.containersOf(w.uid)
	if start := pod.Status.StartTime; pod.Spec.ActiveDeadlineSeconds != nil && start != nil {
		w.o.Active = w.ages.Of(loop.KeyOf(pod), map[string]time.Time{"start": start.Time})["start"]
	}
	if !w.admitted {
		w.admitted = true
		w.o.Refusal = w.a.admission(w)
	}
	w.o.Busy = map[string]struct{}{}
	for key := range w.busy {
		w.o.Busy[key] = struct{}{}
	}
	w.o.Probes = map[string]lifecycle.Probe{}
	for id, s := range w.probes.States() {
		w.o.Probes[id] = lifecycle.Probe(s)
	}
	for _, c := range w.o.Containers {
		if at, ok := w.asked[c.ID]; ok {
			w.o.Signalled[c.ID] = at
		}
	}
	w.readMessages()
	w.prune()
}

// prune forgets what concerns containers that are gone.
func (w *worker) prune() {
	exists := map[string]bool{}
	for _, c := range w.o.Containers {
		exists[c.ID] = true
	}
	forget := func(id string) bool { return !exists[id] }
	maps.DeleteFunc(w.o.StartFails, func(id string, _ lifecycle.Failure) bool { return forget(id) })
	maps.DeleteFunc(w.o.Signalled, func(id string, _ time.Time) bool { return forget(id) })
	maps.DeleteFunc(w.o.Hooked, func(id string, _ struct{}) bool { return forget(id) })
	maps.DeleteFunc(w.o.Messages, func(id string, _ string) bool { return forget(id) })
	w.mu.Lock()
	defer w.mu.Unlock()
	maps.DeleteFunc(w.own, func(id string, _ bool) bool { return forget(id) })
}

// abandon cancels what is not wanted any more once the Pod is to end.
func (w *worker) abandon() {
	for key, cancel := range w.busy {
		if isPreparation(key) {
			cancel()
		}
	}
}

// patience returns how long the planned status should still wait: not at all when somebody waits for it.
func (w *worker) patience() time.Duration {
	if lifecycle.Urgent(w.pod.Status, lifecycle.Status(w.o)) || w.pod.DeletionTimestamp != nil {
		return 0
	}
	if w.due.IsZero() {
		w.due = w.o.Now.Add(calm)
	}
	return w.due.Sub(w.o.Now)
}

// refreshVolumes keeps projected files current while the Pod runs, and returns when to look again.
func (w *worker) refreshVolumes(ctx context.Context) time.Duration {
	if w.o.Volumes.Presence != lifecycle.Ready {
		return time.Hour
	}
	late := !w.refresh.IsZero() && !w.o.Now.Before(w.refresh)
	action := lifecycle.Action{Verb: lifecycle.MountVolumes}
	if _, busy := w.busy[action.Key()]; !busy && (w.stale || late) && w.pod.DeletionTimestamp == nil {
		w.begin(ctx, action)
		return time.Hour
	}
	if w.refresh.IsZero() {
		return time.Hour
	}
	return max(w.refresh.Sub(w.o.Now), 0)
}

// targets returns the containers to probe: those that run and are not to end.
func (w *worker) targets() []probe.Target {
	if w.pod.DeletionTimestamp != nil || w.o.Gone || w.o.Sandbox.Presence != lifecycle.Ready {
		return nil
	}
	var out []probe.Target
	for _, s := range w.o.Containers {
		c, ok := containerNamed(w.pod, s.Labels[lifecycle.LabelContainer])
		_, ending := w.o.Signalled[s.ID]
		if !ok || ending || s.State != engine.Running || !s.StopAskedAt.IsZero() {
			continue
		}
		out = append(out, probe.Target{
			ID: s.ID, Container: c, IP: w.o.Sandbox.IP, StartedAt: s.StartedAt, Adopted: w.adopted(s),
			Exec:      w.a.execIn(s.ID),
			Unhealthy: func(message string) { w.event(c.Name, corev1.EventTypeWarning, "Unhealthy", message) },
		})
	}
	return out
}

// adopted returns the stored state of a container that ran before the agent did.
func (w *worker) adopted(s engine.Status) *probe.State {
	w.mu.Lock()
	own := w.own[s.ID]
	w.mu.Unlock()
	if own {
		return nil
	}
	for _, c := range slices.Concat(w.pod.Status.InitContainerStatuses, w.pod.Status.ContainerStatuses) {
		if c.ContainerID == lifecycle.ContainerIDPrefix+s.ID {
			return &probe.State{Started: c.Started != nil && *c.Started, Ready: c.Ready}
		}
	}
	return &probe.State{}
}

func containerNamed(pod *corev1.Pod, name string) (corev1.Container, bool) {
	for _, c := range slices.Concat(pod.Spec.InitContainers, pod.Spec.Containers) {
		if c.Name == name {
			return c, true
		}
	}
	return corev1.Container{}, false
}

// podDir is where the agent keeps the Pod's files.
func (w *worker) podDir() string { return w.a.volumes.PodDir(w.uid) }

// messageFile is where an attempt's termination message is, on the host.
func (w *worker) messageFile(container string, attempt int) string {
	return filepath.Join(w.podDir(), "containers", container, strconv.Itoa(attempt))
}
