package replicaset

import (
	"cmp"
	"math"
	"slices"
	"strconv"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// deletionOrder sorts pods by how little is lost with each, as Kubernetes does: unassigned before assigned, Pending
// before Unknown before Running, not ready before ready, lower deletion cost first, more ready Pods on the same node
// first, ready for a shorter time first, more restarts first, newer first. Ages are compared by powers of two, so
// that among Pods of about one age the choice is arbitrary, but stable: by UID.
func deletionOrder(pods, related []*corev1.Pod, now time.Time) []*corev1.Pod {
	crowd := map[string]int{}
	for _, pod := range slices.Concat(pods, related) {
		if isReady(pod) && pod.DeletionTimestamp == nil {
			crowd[pod.Spec.NodeName]++
		}
	}
	worths := make([]worth, len(pods))
	for i, pod := range pods {
		worths[i] = worthOf(pod, crowd[pod.Spec.NodeName], now)
	}
	slices.SortFunc(worths, compareWorth)
	out := make([]*corev1.Pod, len(pods))
	for i, w := range worths {
		out[i] = w.pod
	}
	return out
}

// worth holds what the order compares: smaller goes first.
type worth struct {
	pod      *corev1.Pod
	assigned int
	phase    int
	ready    int
	cost     int
	crowd    int // ready Pods on the node, negated
	readyFor int // power of two
	restarts int32
	age      int // power of two
}

var phaseWorth = map[corev1.PodPhase]int{corev1.PodPending: 0, corev1.PodUnknown: 1, corev1.PodRunning: 2}

func worthOf(pod *corev1.Pod, crowd int, now time.Time) worth {
	w := worth{pod: pod, phase: phaseWorth[pod.Status.Phase], crowd: -crowd, restarts: -restarts(pod), age: magnitude(pod.CreationTimestamp, now)}
	if pod.Spec.NodeName != "" {
		w.assigned = 1
	}
	if c := readyCondition(pod); c != nil && c.Status == corev1.ConditionTrue {
		w.ready = 1
		w.readyFor = magnitude(c.LastTransitionTime, now)
	}
	if cost, err := strconv.ParseInt(pod.Annotations[corev1.PodDeletionCost], 10, 32); err == nil {
		w.cost = int(cost)
	}
	return w
}

func compareWorth(a, b worth) int {
	return cmp.Or(
		cmp.Compare(a.assigned, b.assigned), cmp.Compare(a.phase, b.phase), cmp.Compare(a.ready, b.ready), cmp.Compare(a.cost, b.cost),
		cmp.Compare(a.crowd, b.crowd), cmp.Compare(a.readyFor, b.readyFor), cmp.Compare(a.restarts, b.restarts), cmp.Compare(a.age, b.age),
		cmp.Compare(a.pod.UID, b.pod.UID),
	)
}

// magnitude is the power of two of the time since t; an unset t is the newest.
func magnitude(t metav1.Time, now time.Time) int {
	if d := now.Sub(t.Time); !t.IsZero() && d > 0 {
		return int(math.Log2(float64(d)))
	}
	return -1
}

// newest is the last time written down in what was observed. Ages are measured from there: it is about now, as
// something that was written made the turn, and turns that saw the same agree on who goes.
func newest(o observed) time.Time {
	last := o.Set.CreationTimestamp.Time
	see := func(t metav1.Time) {
		if t.After(last) {
			last = t.Time
		}
	}
	for _, field := range o.Set.ManagedFields {
		if field.Time != nil {
			see(*field.Time)
		}
	}
	for _, pod := range o.Pods {
		see(pod.CreationTimestamp)
		if c := readyCondition(pod); c != nil {
			see(c.LastTransitionTime)
		}
	}
	return last
}

// restarts is the highest count among the containers.
func restarts(pod *corev1.Pod) int32 {
	var most int32
	for _, s := range slices.Concat(pod.Status.InitContainerStatuses, pod.Status.ContainerStatuses) {
		most = max(most, s.RestartCount)
	}
	return most
}

func readyCondition(pod *corev1.Pod) *corev1.PodCondition {
	for i := range pod.Status.Conditions {
		if pod.Status.Conditions[i].Type == corev1.PodReady {
			return &pod.Status.Conditions[i]
		}
	}
	return nil
}

func isReady(pod *corev1.Pod) bool {
	c := readyCondition(pod)
	return c != nil && c.Status == corev1.ConditionTrue
}
