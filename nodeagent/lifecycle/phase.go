package lifecycle

import (
	corev1 "k8s.io/api/core/v1"

	"github.com/slipway-dev/slipway/nodeagent/engine"
)

// Reasons a node gives for a Pod as a whole.
const (
	ReasonDeadlineExceeded = "DeadlineExceeded"
	messageDeadline        = "Pod was active on the node longer than the specified deadline"
)

// outcome returns Succeeded or Failed when nothing of the Pod is to be started any more, else "". Containers may
// still have to be stopped.
func (v view) outcome() corev1.PodPhase {
	switch {
	case terminal(v.Pod.Status.Phase):
		return v.Pod.Status.Phase
	case v.Refusal != nil, v.Eviction != nil, v.pastDeadline():
		return corev1.PodFailed
	}
	for _, c := range v.Pod.Spec.InitContainers {
		if v.initFailed(c) {
			return corev1.PodFailed
		}
	}
	deleted := v.Pod.DeletionTimestamp != nil || v.Gone
	outcome := corev1.PodSucceeded
	for _, c := range v.Pod.Spec.Containers {
		inst, ok := v.latest(c.Name)
		ended := ok && inst.State == engine.Exited
		if deleted && !ended {
			return "" // it never ran: neither succeeded nor failed
		}
		if !deleted && v.judge(c, false).turn != turnDone {
			return ""
		}
		if v.exitCode(c.Name) != 0 {
			outcome = corev1.PodFailed
		}
	}
	return outcome
}

// exitCode returns the exit code of a container that ended.
func (v view) exitCode(name string) int {
	if inst, ok := v.latest(name); ok {
		return inst.ExitCode
	}
	if t := v.stored[name].State.Terminated; t != nil {
		return int(t.ExitCode)
	}
	return exitLost
}

func (v view) pastDeadline() bool {
	d := v.Pod.Spec.ActiveDeadlineSeconds
	return d != nil && v.Pod.Status.StartTime != nil && v.Active >= seconds(*d)
}

// phase returns the Pod's phase by the kubelet's rules. It is terminal only when no container runs any more.
func (v view) phase() corev1.PodPhase {
	if outcome := v.outcome(); outcome != "" && (!v.anyAlive() || terminal(v.Pod.Status.Phase)) {
		return outcome
	}
	if !v.initialized() {
		return corev1.PodPending
	}
	for _, c := range v.Pod.Spec.Containers {
		_, exists := v.latest(c.Name)
		if !exists && v.stored[c.Name].ContainerID == "" {
			return corev1.PodPending
		}
		if inst, _ := v.latest(c.Name); exists && inst.State == engine.Created && inst.attempt == 0 {
			return corev1.PodPending
		}
	}
	return corev1.PodRunning
}

// Urgent reports whether somebody waits for the change from one status to another: another phase or readiness, a
// container that began, ended or cannot begin. Other changes may wait a moment to be written together.
func Urgent(old, updated corev1.PodStatus) bool {
	if old.Phase != updated.Phase && updated.Phase != corev1.PodPending || IsReady(old) != IsReady(updated) {
		return true
	}
	if len(old.ContainerStatuses) != len(updated.ContainerStatuses) || len(old.InitContainerStatuses) != len(updated.InitContainerStatuses) {
		return false
	}
	return urgentAny(old.ContainerStatuses, updated.ContainerStatuses) || urgentAny(old.InitContainerStatuses, updated.InitContainerStatuses)
}

func urgentAny(old, updated []corev1.ContainerStatus) bool {
	for i := range updated {
		if stateOf(old[i]) != stateOf(updated[i]) {
			return true
		}
	}
	return false
}

// stateOf names what a container does, the ways of not having begun yet taken together.
func stateOf(s corev1.ContainerStatus) string {
	switch {
	case s.State.Running != nil:
		return "running " + s.ContainerID
	case s.State.Terminated != nil:
		return "terminated " + s.ContainerID
	case s.State.Waiting != nil && s.State.Waiting.Reason != ReasonContainerCreating && s.State.Waiting.Reason != ReasonPodInitializing:
		return s.State.Waiting.Reason
	}
	return ""
}
