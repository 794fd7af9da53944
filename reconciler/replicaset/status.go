package replicaset

import (
	"slices"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
)

// Reasons of the ReplicaFailure condition and of events, named as in Kubernetes.
const (
	reasonFailedCreate = "FailedCreate"
	reasonFailedDelete = "FailedDelete"
	reasonCreated      = "SuccessfulCreate"
	reasonDeleted      = "SuccessfulDelete"
)

// failure is why the wanted number could not be reached in this turn.
type failure struct {
	reason, message string
}

// newStatus counts the Pods. The time is when to look again because a ready Pod becomes available by then; zero: never.
func newStatus(o observed, f *failure) (appsv1.ReplicaSetStatus, time.Time) {
	c := claim(o)
	template := labels.SelectorFromSet(o.Set.Spec.Template.Labels)
	terminating := int32(len(c.terminating))
	s := appsv1.ReplicaSetStatus{
		Replicas: int32(len(c.active)), TerminatingReplicas: &terminating,
		ObservedGeneration: o.Set.Generation, Conditions: conditions(o, f),
	}
	var next time.Time
	for _, pod := range c.active {
		if template.Matches(labels.Set(pod.Labels)) {
			s.FullyLabeledReplicas++
		}
		if !isReady(pod) {
			continue
		}
		s.ReadyReplicas++
		at := availableAt(pod, o.Set.Spec.MinReadySeconds)
		switch {
		case !at.After(o.Now):
			s.AvailableReplicas++
		case next.IsZero() || at.Before(next):
			next = at
		}
	}
	return s, next
}

// availableAt returns when a ready pod has been ready for the minimum time.
func availableAt(pod *corev1.Pod, minReadySeconds int32) time.Time {
	if minReadySeconds == 0 {
		return time.Time{}
	}
	return readyCondition(pod).LastTransitionTime.Add(time.Duration(minReadySeconds) * time.Second)
}

// conditions returns the set's conditions with ReplicaFailure as f says. A failure that lasts keeps its first message:
// the same problem is the same status.
func conditions(o observed, f *failure) []appsv1.ReplicaSetCondition {
	rest := slices.Clone(o.Set.Status.Conditions)
	i := slices.IndexFunc(rest, func(c appsv1.ReplicaSetCondition) bool { return c.Type == appsv1.ReplicaSetReplicaFailure })
	switch {
	case f == nil && i < 0:
		return rest
	case f == nil:
		return slices.Delete(rest, i, i+1)
	case i >= 0 && rest[i].Status == corev1.ConditionTrue && rest[i].Reason == f.reason:
		return rest
	case i >= 0:
		rest = slices.Delete(rest, i, i+1)
	}
	return append(rest, appsv1.ReplicaSetCondition{
		Type: appsv1.ReplicaSetReplicaFailure, Status: corev1.ConditionTrue, LastTransitionTime: metav1.NewTime(o.Now),
		Reason: f.reason, Message: f.message,
	})
}
