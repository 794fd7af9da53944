package lifecycle

import (
	"fmt"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
)

// ContainerIDPrefix is what precedes an engine's container id in a status.
const ContainerIDPrefix = "containerd://"

// Status returns the status the Pod should have, in the kubelet's terms. What other parts own (scheduling, readiness
// gates, QoS class) is kept, and so is the time of every condition that did not change.
func Status(o Observed) corev1.PodStatus {
	v := look(o)
	out := *o.Pod.Status.DeepCopy()
	if terminal(out.Phase) && len(o.Containers) == 0 {
		return out // nothing is left that could say more than what was stored
	}
	out.Phase = v.phase()
	if out.StartTime == nil {
		out.StartTime = stamp(o.Now)
	}
	if o.Pod.Generation != 0 {
		out.ObservedGeneration = o.Pod.Generation
	}
	if o.Refusal != nil {
		out.Reason, out.Message = o.Refusal.Reason, o.Refusal.Message
		v.setConditions(&out)
		return out
	}
	if v.pastDeadline() && out.Phase == corev1.PodFailed {
		out.Reason, out.Message = ReasonDeadlineExceeded, messageDeadline
	}
	if e := v.Eviction; e != nil && out.Phase == corev1.PodFailed && !terminal(o.Pod.Status.Phase) {
		out.Reason, out.Message = ReasonEvicted, e.Message
		disrupted := condition(corev1.DisruptionTarget, true, corev1.PodReasonTerminationByKubelet, e.Message)
		disrupted.LastTransitionTime, disrupted.ObservedGeneration = *stamp(o.Now), out.ObservedGeneration
		out.Conditions = append(without(out.Conditions, corev1.DisruptionTarget), disrupted)
	}
	if len(o.HostIPs) > 0 {
		out.HostIP, out.HostIPs = o.HostIPs[0], nil
		for _, ip := range o.HostIPs {
			out.HostIPs = append(out.HostIPs, corev1.HostIP{IP: ip})
		}
	}
	if ip := o.Sandbox.IP; ip != "" {
		out.PodIP, out.PodIPs = ip, []corev1.PodIP{{IP: ip}}
	}
	out.InitContainerStatuses = v.containerStatuses(o.Pod.Spec.InitContainers, true)
	out.ContainerStatuses = v.containerStatuses(o.Pod.Spec.Containers, false)
	v.setConditions(&out)
	return out
}

// setConditions sets the kubelet's conditions, in the kubelet's order, before those of others.
func (v view) setConditions(out *corev1.PodStatus) {
	ended := terminal(out.Phase)
	ready := v.containersReady(out)
	set := []corev1.PodCondition{
		condition(corev1.PodReadyToStartContainers, v.Sandbox.Presence == Ready || (v.Sandbox.Presence == Unknown && v.isTrue(corev1.PodReadyToStartContainers)), "", ""),
		v.initializedCondition(out),
		v.readyCondition(out, ready),
		ready,
	}
	if ended {
		set[0].Status = corev1.ConditionFalse
	}
	if _, ok := find(out.Conditions, corev1.PodScheduled); !ok {
		set = append(set, condition(corev1.PodScheduled, true, "", ""))
	}
	var merged []corev1.PodCondition
	for _, c := range set {
		c.ObservedGeneration = out.ObservedGeneration
		old, ok := find(v.Pod.Status.Conditions, c.Type)
		if ok && old.Status == c.Status {
			c.LastTransitionTime, c.LastProbeTime = old.LastTransitionTime, old.LastProbeTime
		} else {
			c.LastTransitionTime = *stamp(v.Now)
		}
		merged = append(merged, c)
	}
	for _, c := range out.Conditions {
		if _, ours := find(merged, c.Type); !ours {
			merged = append(merged, c)
		}
	}
	out.Conditions = merged
}

func (v view) isTrue(t corev1.PodConditionType) bool {
	c, ok := find(v.Pod.Status.Conditions, t)
	return ok && c.Status == corev1.ConditionTrue
}

func (v view) initializedCondition(out *corev1.PodStatus) corev1.PodCondition {
	switch {
	case out.Phase == corev1.PodSucceeded:
		return condition(corev1.PodInitialized, true, "PodCompleted", "")
	case v.Refusal != nil:
		return condition(corev1.PodInitialized, false, v.Refusal.Reason, "")
	case v.initialized():
		return condition(corev1.PodInitialized, true, "", "")
	}
	var missing []string
	for _, c := range v.Pod.Spec.InitContainers {
		if !v.initDone(c) {
			missing = append(missing, c.Name)
		}
	}
	return condition(corev1.PodInitialized, false, "ContainersNotInitialized",
		fmt.Sprintf("containers with incomplete status: %s", list(missing)))
}

func (v view) containersReady(out *corev1.PodStatus) corev1.PodCondition {
	switch {
	case v.Refusal != nil:
		return condition(corev1.ContainersReady, false, v.Refusal.Reason, "")
	case out.Phase == corev1.PodSucceeded:
		return condition(corev1.ContainersReady, false, "PodCompleted", "")
	case out.Phase == corev1.PodFailed:
		return condition(corev1.ContainersReady, false, "PodFailed", "")
	}
	var unready []string
	for i, c := range v.Pod.Spec.InitContainers {
		if sidecar(c) && !out.InitContainerStatuses[i].Ready {
			unready = append(unready, c.Name)
		}
	}
	for _, s := range out.ContainerStatuses {
		if !s.Ready {
			unready = append(unready, s.Name)
		}
	}
	if len(unready) > 0 {
		return condition(corev1.ContainersReady, false, "ContainersNotReady",
			fmt.Sprintf("containers with unready status: %s", list(unready)))
	}
	return condition(corev1.ContainersReady, true, "", "")
}

// readyCondition adds the readiness gates to the containers' readiness.
func (v view) readyCondition(out *corev1.PodStatus, containers corev1.PodCondition) corev1.PodCondition {
	ready := containers
	ready.Type = corev1.PodReady
	if containers.Status != corev1.ConditionTrue {
		return ready
	}
	var missing []string
	for _, gate := range v.Pod.Spec.ReadinessGates {
		c, ok := find(out.Conditions, gate.ConditionType)
		switch {
		case !ok:
			missing = append(missing, fmt.Sprintf("corresponding condition of pod readiness gate %q does not exist.", gate.ConditionType))
		case c.Status != corev1.ConditionTrue:
			missing = append(missing, fmt.Sprintf("the status of pod readiness gate %q is not \"True\", but %v", gate.ConditionType, c.Status))
		}
	}
	if len(missing) > 0 {
		return condition(corev1.PodReady, false, "ReadinessGatesNotReady", strings.Join(missing, ", "))
	}
	return ready
}

func condition(t corev1.PodConditionType, ok bool, reason, message string) corev1.PodCondition {
	status := corev1.ConditionFalse
	if ok {
		status = corev1.ConditionTrue
	}
	return corev1.PodCondition{Type: t, Status: status, Reason: reason, Message: message}
}

func find(list []corev1.PodCondition, t corev1.PodConditionType) (corev1.PodCondition, bool) {
	for _, c := range list {
		if c.Type == t {
			return c, true
		}
	}
	return corev1.PodCondition{}, false
}

func without(list []corev1.PodCondition, t corev1.PodConditionType) []corev1.PodCondition {
	return slices.DeleteFunc(list, func(c corev1.PodCondition) bool { return c.Type == t })
}

// list prints names as the kubelet does: [a b].
func list(names []string) string { return "[" + strings.Join(names, " ") + "]" }

// IsReady reports the Pod's Ready condition.
func IsReady(s corev1.PodStatus) bool {
	c, ok := find(s.Conditions, corev1.PodReady)
	return ok && c.Status == corev1.ConditionTrue
}
