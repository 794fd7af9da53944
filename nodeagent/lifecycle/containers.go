package lifecycle

import (
	"cmp"
	"fmt"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/slipway-dev/slipway/nodeagent/engine"
)

// Waiting and terminated reasons, as the kubelet's.
const (
	ReasonContainerCreating = "ContainerCreating"
	ReasonPodInitializing   = "PodInitializing"
	ReasonCrashLoopBackOff  = "CrashLoopBackOff"
	ReasonErrImagePull      = "ErrImagePull"
	ReasonImagePullBackOff  = "ImagePullBackOff"
	ReasonInvalidImageName  = "InvalidImageName"
	ReasonErrImageNeverPull = "ErrImageNeverPull"
	ReasonConfigError       = "CreateContainerConfigError"
	ReasonCreateError       = "CreateContainerError"
	ReasonStartError        = "StartError"
	ReasonCompleted         = "Completed"
	ReasonError             = "Error"
	ReasonOOMKilled         = "OOMKilled"
	ReasonStatusUnknown     = "ContainerStatusUnknown"
)

func (v view) containerStatuses(containers []corev1.Container, init bool) []corev1.ContainerStatus {
	if len(containers) == 0 {
		return nil
	}
	out := make([]corev1.ContainerStatus, len(containers))
	for i, c := range containers {
		out[i] = v.containerStatus(c, init)
	}
	return out
}

func (v view) containerStatus(c corev1.Container, init bool) corev1.ContainerStatus {
	inst, ok := v.latest(c.Name)
	if !ok {
		return v.unseen(c, init)
	}
	stored := v.stored[c.Name]
	out := corev1.ContainerStatus{
		Name:         c.Name,
		RestartCount: max(int32(inst.attempt), v.stored[c.Name].RestartCount),
		Image:        inst.Image,
		ImageID:      inst.ImageID,
		ContainerID:  ContainerIDPrefix + inst.ID,
		Started:      new(bool),
	}
	if stored.ContainerID == out.ContainerID {
		out.LastTerminationState = stored.LastTerminationState
	}
	if n := len(v.instances[c.Name]); n > 1 {
		if previous := v.instances[c.Name][n-2]; previous.State == engine.Exited {
			out.LastTerminationState = corev1.ContainerState{Terminated: v.terminated(previous)}
		}
	}
	switch next := v.judge(c, init); {
	case inst.State == engine.Running:
		probe := v.probe(c, inst)
		out.State.Running = &corev1.ContainerStateRunning{StartedAt: *stamp(inst.StartedAt)}
		*out.Started = probe.Started
		out.Ready = probe.Started && probe.Ready && (!init || sidecar(c))
	case inst.State == engine.Created:
		out.State.Waiting = v.waiting(c, init, next)
	case v.ends() || next.turn == turnDone:
		out.State.Terminated = v.terminated(inst)
		out.Ready = init && inst.ExitCode == 0
	default:
		v.restarting(c, init, inst, next, &out)
	}
	return out
}

// restarting fills the status of a container that ended and will run again.
func (v view) restarting(c corev1.Container, init bool, inst instance, next verdict, out *corev1.ContainerStatus) {
	ended := v.terminated(inst)
	w := v.waiting(c, init, next)
	if next.turn != turnBackOff && (w.Reason == ReasonContainerCreating || w.Reason == ReasonPodInitializing) {
		out.State.Terminated = ended // it is started again at once: nothing to wait for
		return
	}
	out.State.Waiting = w
	out.LastTerminationState = corev1.ContainerState{Terminated: ended}
}

// unseen returns the status of a container of which the engine has nothing.
func (v view) unseen(c corev1.Container, init bool) corev1.ContainerStatus {
	stored, next := v.stored[c.Name], v.judge(c, init)
	if !began(stored) {
		return corev1.ContainerStatus{Name: c.Name, Image: c.Image, Started: new(bool), RestartCount: stored.RestartCount,
			LastTerminationState: stored.LastTerminationState, State: corev1.ContainerState{Waiting: v.waiting(c, init, next)}}
	}
	out := *stored.DeepCopy()
	if out.State.Terminated != nil && (v.ends() || next.turn == turnDone) {
		return out
	}
	out.Ready, out.Started = false, new(bool)
	lost := &corev1.ContainerStateTerminated{
		ExitCode: exitLost, Reason: ReasonStatusUnknown, ContainerID: stored.ContainerID,
		Message: "The container could not be located: the engine no longer has it",
	}
	if t := stored.State.Terminated; t != nil {
		lost = t
	}
	if v.ends() || next.turn == turnDone {
		out.State = corev1.ContainerState{Terminated: lost}
		return out
	}
	if stored.State.Waiting == nil {
		out.LastTerminationState = corev1.ContainerState{Terminated: lost}
	}
	out.State = corev1.ContainerState{Waiting: v.waiting(c, init, next)}
	return out
}

// ends reports whether nothing is started any more.
func (v view) ends() bool { return v.Pod.DeletionTimestamp != nil || v.Gone || v.outcome() != "" }

// waiting says what a container that does not run waits for.
func (v view) waiting(c corev1.Container, init bool, next verdict) *corev1.ContainerStateWaiting {
	if next.turn == turnBackOff {
		inst, _ := v.latest(c.Name)
		return &corev1.ContainerStateWaiting{Reason: ReasonCrashLoopBackOff,
			Message: fmt.Sprintf("back-off %s restarting failed container=%s pod=%s_%s(%s)", inst.backOff, c.Name, v.Pod.Name, v.Pod.Namespace, v.Pod.UID)}
	}
	if image := v.Images[c.Name]; image.Attempt == next.attempt && image.Failure.failed() && !image.Present {
		return &corev1.ContainerStateWaiting{Reason: image.Failure.Reason, Message: image.Failure.Message}
	}
	if f := v.CreateFails[c.Name]; f.failed() {
		return &corev1.ContainerStateWaiting{Reason: f.Reason, Message: f.Message}
	}
	reason := ReasonContainerCreating
	if len(v.Pod.Spec.InitContainers) > 0 && (!v.initialized() || init) {
		reason = ReasonPodInitializing
	}
	w := &corev1.ContainerStateWaiting{Reason: reason}
	for _, f := range []Failure{v.Sandbox.Failure, v.Volumes.Failure} {
		if f.failed() && w.Message == "" {
			w.Message = f.Message
		}
	}
	return w
}

// terminated returns the state of an attempt that ended.
func (v view) terminated(inst instance) *corev1.ContainerStateTerminated {
	t := &corev1.ContainerStateTerminated{
		ExitCode:    int32(inst.ExitCode),
		StartedAt:   *stamp(inst.StartedAt),
		FinishedAt:  *stamp(inst.FinishedAt),
		ContainerID: ContainerIDPrefix + inst.ID,
		Message:     v.Messages[inst.ID],
		Reason:      ReasonError,
	}
	switch f := v.StartFails[inst.ID]; {
	case f.failed():
		t.Reason, t.Message = ReasonStartError, f.Message
	case inst.OOMKilled:
		t.Reason = ReasonOOMKilled
	case inst.Lost != "":
		t.Reason = ReasonStatusUnknown
	case inst.ExitCode == 0:
		t.Reason = ReasonCompleted
	}
	if t.Message == "" {
		t.Message = cmp.Or(v.storedMessage(inst), inst.Lost)
	}
	return t
}

// storedMessage returns the termination message an earlier status had of this attempt.
func (v view) storedMessage(inst instance) string {
	s := v.stored[inst.name]
	for _, t := range []*corev1.ContainerStateTerminated{s.State.Terminated, s.LastTerminationState.Terminated} {
		if t != nil && t.ContainerID == ContainerIDPrefix+inst.ID {
			return t.Message
		}
	}
	return ""
}

// stamp returns t with the API's resolution of a second.
func stamp(t time.Time) *metav1.Time {
	if t.IsZero() {
		return &metav1.Time{}
	}
	return &metav1.Time{Time: t.Truncate(time.Second)}
}
