package lifecycle

import (
	"time"

	corev1 "k8s.io/api/core/v1"

	"github.com/slipway-dev/slipway/nodeagent/engine"
)

// view is an Observed with its containers sorted by name, and the questions both Plan and Status ask.
type view struct {
	Observed
	instances map[string][]instance
	stored    map[string]corev1.ContainerStatus
}

func look(o Observed) view {
	v := view{Observed: o, instances: instancesOf(o), stored: map[string]corev1.ContainerStatus{}}
	for _, list := range [][]corev1.ContainerStatus{o.Pod.Status.InitContainerStatuses, o.Pod.Status.ContainerStatuses} {
		for _, s := range list {
			v.stored[s.Name] = s
		}
	}
	return v
}

// latest returns the newest attempt of a container.
func (v view) latest(name string) (instance, bool) {
	list := v.instances[name]
	if len(list) == 0 {
		return instance{}, false
	}
	return list[len(list)-1], true
}

// current reports whether inst belongs to the present sandbox. While that is not known, it does.
func (v view) current(inst instance) bool {
	return v.Sandbox.Presence != Ready || inst.sandbox == v.Sandbox.ID
}

// turn is what is next for a container.
type turn int

const (
	turnCreate  turn = iota // create verdict.attempt as soon as everything is ready
	turnHold                // it exists and has not ended
	turnBackOff             // create verdict.attempt at verdict.until
	turnDone                // it ended for good
)

// verdict is what is next for a container, whoever else is waiting.
type verdict struct {
	turn    turn
	attempt int           // to create
	backOff time.Duration // label of that attempt
	until   time.Time
}

// clockSlack is by how much the times of the engine may be ahead.
const clockSlack = 2 * time.Second

// judge decides what is next for container c.
func (v view) judge(c corev1.Container, init bool) verdict {
	inst, ok := v.latest(c.Name)
	if !ok {
		return v.judgeUnknown(c, init)
	}
	if inst.State != engine.Exited {
		return verdict{turn: turnHold, attempt: inst.attempt}
	}
	again := inst.neverRan() || v.restarts(c, init, inst.ExitCode) || (init && inst.ExitCode == 0 && !v.current(inst) && !v.mainsBegan())
	if !again {
		return verdict{turn: turnDone, attempt: inst.attempt}
	}
	next := verdict{turn: turnCreate, attempt: max(inst.attempt+1, v.known(c.Name))}
	pause := inst.backOff
	if inst.neverRan() || !v.current(inst) || (!inst.StartedAt.IsZero() && inst.FinishedAt.Sub(inst.StartedAt) >= BackOffReset) {
		pause = 0
	}
	next.backOff = NextBackOff(pause)
	// A container that ended in the future did so before the clock was set back: how long ago nobody knows.
	if until := inst.FinishedAt.Add(pause); pause > 0 && v.Now.Before(until) && until.Sub(v.Now) <= pause+clockSlack {
		next.turn, next.until = turnBackOff, until
	}
	return next
}

// neverRan reports whether an attempt was lost between its creation and its start, to a crash of the engine or of the
// machine. It counts against nobody: not even restartPolicy Never forbids another.
func (i instance) neverRan() bool {
	return i.State == engine.Exited && i.StartedAt.IsZero() && i.ExitCode != exitNotStarted
}

// exitNotStarted is the exit code of a container whose command could not be executed.
const exitNotStarted = 128

// judgeUnknown decides for a container of which the engine has nothing: it never was, or it was lost.
func (v view) judgeUnknown(c corev1.Container, init bool) verdict {
	stored, attempt := v.stored[c.Name], v.known(c.Name)
	next := verdict{turn: turnCreate, attempt: attempt}
	if attempt > 0 {
		next.backOff = BackOffStart
	}
	if !began(stored) {
		return next
	}
	exit := exitLost
	if t := stored.State.Terminated; t != nil {
		exit = int(t.ExitCode)
	}
	if !v.restarts(c, init, exit) {
		return verdict{turn: turnDone, attempt: int(stored.RestartCount)}
	}
	return next
}

// known returns the lowest attempt that the stored status leaves open: one after that which it shows, or the one it
// shows when that never began.
func (v view) known(name string) int {
	stored := v.stored[name]
	if began(stored) {
		return int(stored.RestartCount) + 1
	}
	return int(stored.RestartCount)
}

// began reports whether the attempt of which a status was stored ran.
func began(s corev1.ContainerStatus) bool {
	if s.State.Running != nil || s.State.Terminated != nil {
		return true
	}
	last := s.LastTerminationState.Terminated
	return last != nil && s.ContainerID != "" && last.ContainerID == s.ContainerID
}

// exitLost stands for the exit code of a container that vanished, as the kubelet's.
const exitLost = 137

// restarts says whether a container that ended is started again.
func (v view) restarts(c corev1.Container, init bool, exitCode int) bool {
	switch {
	case sidecar(c):
		return true
	case init && exitCode == 0:
		return false
	case v.Pod.Spec.RestartPolicy == corev1.RestartPolicyNever:
		return false
	case v.Pod.Spec.RestartPolicy == corev1.RestartPolicyOnFailure || init:
		return exitCode != 0
	}
	return true
}

// sidecar reports whether an init container keeps running beside the others.
func sidecar(c corev1.Container) bool {
	return c.RestartPolicy != nil && *c.RestartPolicy == corev1.ContainerRestartPolicyAlways
}

// mainsBegan reports whether a main container was created in the present sandbox: initialisation is over.
func (v view) mainsBegan() bool {
	for _, c := range v.Pod.Spec.Containers {
		if inst, ok := v.latest(c.Name); ok && v.current(inst) {
			return true
		}
	}
	return false
}

// initDone reports whether init container c no longer holds up what follows it.
func (v view) initDone(c corev1.Container) bool {
	if v.mainsBegan() {
		return true
	}
	inst, ok := v.latest(c.Name)
	if sidecar(c) {
		return ok && inst.State == engine.Running && v.probe(c, inst).Started
	}
	if !ok {
		stored := v.stored[c.Name].State.Terminated
		return stored != nil && stored.ExitCode == 0 && terminal(v.Pod.Status.Phase)
	}
	return inst.State == engine.Exited && inst.ExitCode == 0 && v.current(inst)
}

// initFailed reports whether init container c ended in a way that ends the Pod.
func (v view) initFailed(c corev1.Container) bool {
	inst, ok := v.latest(c.Name)
	return ok && !sidecar(c) && inst.State == engine.Exited && inst.ExitCode != 0 && !v.mainsBegan() &&
		v.judge(c, true).turn == turnDone
}

// initialized reports whether the main containers may run.
func (v view) initialized() bool {
	for _, c := range v.Pod.Spec.InitContainers {
		if !v.initDone(c) {
			return false
		}
	}
	return true
}

// probe returns what the probes say of a running container. Before the first result after the agent started, the
// stored status of the same container stands.
func (v view) probe(c corev1.Container, inst instance) Probe {
	if p, ok := v.Probes[inst.ID]; ok {
		return p
	}
	var stored corev1.ContainerStatus
	if s := v.stored[c.Name]; s.ContainerID == ContainerIDPrefix+inst.ID {
		stored = s
	}
	return Probe{
		Started: c.StartupProbe == nil || (stored.Started != nil && *stored.Started),
		Ready:   c.ReadinessProbe == nil || stored.Ready,
	}
}

// anyAlive reports whether some container of the Pod has a process, or is about to.
func (v view) anyAlive() bool {
	for _, c := range v.Containers {
		if c.State == engine.Running {
			return true
		}
	}
	return false
}

// terminal reports whether a phase is never left.
func terminal(p corev1.PodPhase) bool { return p == corev1.PodSucceeded || p == corev1.PodFailed }
