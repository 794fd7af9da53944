// Package admission says whether a node takes a Pod that was bound to it: nothing unsupported is asked for, its
// resources fit beside the others', and its host ports are free. The scheduler has looked already; a Pod bound by
// name, or by two schedulers at once, ends here.
//
// It is pure.
package admission

import (
	"fmt"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	resourcehelper "k8s.io/component-helpers/resource"
	"k8s.io/klog/v2"

	"github.com/slipway-dev/slipway/apiserver/api"
	"github.com/slipway-dev/slipway/nodeagent/lifecycle"
)

// ReasonUnsupportedField is the status reason of a Pod whose spec asks for what this version does not do.
const ReasonUnsupportedField = "UnsupportedField"

// Decide says why the node does not take a Pod beside those it runs, nil when it does.
func Decide(pod *corev1.Pod, others []*corev1.Pod, allocatable corev1.ResourceList) *lifecycle.Refusal {
	if _, refused := api.UnsupportedFields(&pod.Spec); len(refused) > 0 {
		notes := make([]string, len(refused))
		for i, n := range refused {
			notes[i] = n.String()
		}
		return &lifecycle.Refusal{Reason: ReasonUnsupportedField, Message: strings.Join(notes, "; ")}
	}
	if r := fits(pod, others, allocatable); r != nil {
		return r
	}
	return portsFree(pod, others)
}

// Pressed refuses a Pod that a node short of memory, disk or process ids does not take, as the kubelet does: the
// conditions are those the node has. What the cluster lives on is always taken, and a Pod that asked for memory also by
// a node that is short of memory alone: it is not the first to be ended.
func Pressed(pod *corev1.Pod, conditions map[corev1.NodeConditionType]string) *lifecycle.Refusal {
	if len(conditions) == 0 || pod.Spec.Priority != nil && *pod.Spec.Priority >= critical {
		return nil
	}
	if _, memory := conditions[corev1.NodeMemoryPressure]; memory && len(conditions) == 1 {
		taint := corev1.Taint{Key: corev1.TaintNodeMemoryPressure, Effect: corev1.TaintEffectNoSchedule}
		if asks(pod) || slices.ContainsFunc(pod.Spec.Tolerations, func(t corev1.Toleration) bool {
			return t.ToleratesTaint(klog.Background(), &taint, false)
		}) {
			return nil
		}
	}
	var names []string
	for c, why := range conditions {
		names = append(names, fmt.Sprintf("%s (%s)", c, why))
	}
	slices.Sort(names)
	return &lifecycle.Refusal{Reason: lifecycle.ReasonEvicted, Message: "Pod was rejected: the node has the condition " + strings.Join(names, ", ")}
}

// critical is the priority from which on Pods keep the cluster itself alive.
const critical = 2000000000

// asks reports whether a Pod requests or limits CPU or memory: it is not of the class BestEffort.
func asks(pod *corev1.Pod) bool {
	return slices.ContainsFunc(slices.Concat(pod.Spec.InitContainers, pod.Spec.Containers), func(c corev1.Container) bool {
		for _, list := range []corev1.ResourceList{c.Resources.Requests, c.Resources.Limits} {
			if !list.Cpu().IsZero() || !list.Memory().IsZero() {
				return true
			}
		}
		return false
	})
}

// fits checks the node's resources in a fixed order.
func fits(pod *corev1.Pod, others []*corev1.Pod, allocatable corev1.ResourceList) *lifecycle.Refusal {
	if limit := allocatable.Pods().Value(); int64(len(others))+1 > limit {
		return outOf(corev1.ResourcePods, 1, int64(len(others)), limit)
	}
	wants := resourcehelper.PodRequests(pod, resourcehelper.PodResourcesOptions{})
	used := corev1.ResourceList{}
	for _, o := range others {
		for name, q := range resourcehelper.PodRequests(o, resourcehelper.PodResourcesOptions{}) {
			sum := used[name]
			sum.Add(q)
			used[name] = sum
		}
	}
	for _, name := range []corev1.ResourceName{corev1.ResourceCPU, corev1.ResourceMemory, corev1.ResourceEphemeralStorage} {
		want, have, limit := wants[name], used[name], allocatable[name]
		if want.IsZero() {
			continue
		}
		sum := want.DeepCopy()
		sum.Add(have)
		if sum.Cmp(limit) <= 0 {
			continue
		}
		if name == corev1.ResourceCPU {
			return outOf(name, want.MilliValue(), have.MilliValue(), limit.MilliValue())
		}
		return outOf(name, want.Value(), have.Value(), limit.Value())
	}
	return nil
}

func outOf(name corev1.ResourceName, requested, used, capacity int64) *lifecycle.Refusal {
	return &lifecycle.Refusal{Reason: "OutOf" + string(name),
		Message: fmt.Sprintf("Pod was rejected: Node didn't have enough resource: %s, requested: %d, used: %d, capacity: %d", name, requested, used, capacity)}
}

func portsFree(pod *corev1.Pod, others []*corev1.Pod) *lifecycle.Refusal {
	for _, port := range HostPorts(pod) {
		for _, o := range others {
			for _, taken := range HostPorts(o) {
				if port.HostPort == taken.HostPort && Protocol(port) == Protocol(taken) && meet(port.HostIP, taken.HostIP) {
					return &lifecycle.Refusal{Reason: "NodePorts",
						Message: fmt.Sprintf("Pod was rejected: host port %d/%s is taken by Pod %s/%s", port.HostPort, Protocol(port), o.Namespace, o.Name)}
				}
			}
		}
	}
	return nil
}

func meet(a, b string) bool {
	every := []string{"", "0.0.0.0", "::"}
	return a == b || slices.Contains(every, a) || slices.Contains(every, b)
}

// HostPorts returns the ports of the node a Pod takes.
func HostPorts(pod *corev1.Pod) []corev1.ContainerPort {
	var out []corev1.ContainerPort
	for _, c := range slices.Concat(pod.Spec.InitContainers, pod.Spec.Containers) {
		for _, p := range c.Ports {
			if p.HostPort == 0 && pod.Spec.HostNetwork {
				p.HostPort = p.ContainerPort
			}
			if p.HostPort != 0 {
				out = append(out, p)
			}
		}
	}
	return out
}

// Protocol returns a port's protocol, TCP when none is named.
func Protocol(p corev1.ContainerPort) string {
	if p.Protocol == "" {
		return string(corev1.ProtocolTCP)
	}
	return string(p.Protocol)
}
