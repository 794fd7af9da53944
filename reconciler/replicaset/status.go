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

// newStatus counts the Pods. The duration is after what time to look again because a ready Pod becomes available then;
// zero: never.
func newStatus(o observed, f *failure) (appsv1.ReplicaSetStatus, time.Duration) {
	c := claim(o)
	template := labels.SelectorFromSet(o.Set.Spec.Template.Labels)
	terminating := int32(len(c.terminating))
	s := appsv1.ReplicaSetStatus{
		Replicas: int32(len(c.active)), TerminatingReplicas: &terminating,
		ObservedGeneration: o.Set.Generation, Conditions: conditions(o, f),
	}
	var next time.Duration
	for _, pod := range c.active {
		if template.Matches(labels.Set(pod.Labels)) {
			s.FullyLabeledReplicas++
		}
		if !isReady(pod) {
			continue
		}
		s.ReadyReplicas++
		left := minReady(o.Set) - o.Ready[string(pod.UID)]
		switch {
		case minReady(o.Set) == 0 || left <= 0:
			s.AvailableReplicas++
		case next == 0 || left < next:
			next = left
		}
	}
	return s, next
}

func minReady(rs *appsv1.ReplicaSet) time.Duration {
	return time.Duration(rs.Spec.MinReadySeconds) * time.Second
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
