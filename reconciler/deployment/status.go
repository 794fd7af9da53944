package deployment

import (
	"fmt"
	"slices"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// Reasons of conditions and events, named as in Kubernetes.
const (
	reasonUpdated      = "ReplicaSetUpdated"
	reasonCreateError  = "ReplicaSetCreateError"
	reasonCreated      = "NewReplicaSetCreated"
	reasonFound        = "FoundNewReplicaSet"
	reasonComplete     = "NewReplicaSetAvailable"
	reasonTimedOut     = "ProgressDeadlineExceeded"
	reasonPaused       = "DeploymentPaused"
	reasonResumed      = "DeploymentResumed"
	reasonAvailable    = "MinimumReplicasAvailable"
	reasonUnavailable  = "MinimumReplicasUnavailable"
	reasonScaled       = "ScalingReplicaSet"
	reasonSelectingAll = "SelectingAll"
)

// newStatus counts what the sets report and judges progress. CreateError is why the set of the present template could
// not be made in this turn. The duration is after what time to look again because the deadline passes then; zero: never.
func newStatus(o observed, createError string) (appsv1.DeploymentStatus, time.Duration) {
	d := o.Deployment
	f := newFleet(d, claim(o).owned)
	s := count(f)
	s.ObservedGeneration, s.CollisionCount = d.Generation, d.Status.CollisionCount
	s.Conditions = slices.Clone(d.Status.Conditions)
	_, unavailable := bounds(d)
	if s.AvailableReplicas >= f.want-unavailable {
		setCondition(&s, condition(o.Now, appsv1.DeploymentAvailable, corev1.ConditionTrue, reasonAvailable, "Deployment has minimum availability."))
	} else {
		setCondition(&s, condition(o.Now, appsv1.DeploymentAvailable, corev1.ConditionFalse, reasonUnavailable, "Deployment does not have minimum availability."))
	}
	if f := replicaFailure(f); f != nil {
		setCondition(&s, *f)
	} else {
		removeCondition(&s, appsv1.DeploymentReplicaFailure)
	}
	deadline := d.Spec.ProgressDeadlineSeconds
	if deadline == nil || *deadline == noLimit {
		removeCondition(&s, appsv1.DeploymentProgressing)
		return s, 0
	}
	if c := progress(o, f, s, createError); c != nil {
		setProgress(&s, *c)
	}
	return s, lookAgain(o, s)
}

func count(f *fleet) appsv1.DeploymentStatus {
	var s appsv1.DeploymentStatus
	var sized, terminating int32
	known := true
	for _, set := range f.all() {
		rs := set.rs.Status
		s.Replicas += rs.Replicas
		s.ReadyReplicas += rs.ReadyReplicas
		s.AvailableReplicas += rs.AvailableReplicas
		sized += size(set.rs)
		if rs.TerminatingReplicas == nil {
			known = false
		} else {
			terminating += *rs.TerminatingReplicas
		}
	}
	if f.fresh != nil {
		s.UpdatedReplicas = f.fresh.rs.Status.Replicas
	}
	s.UnavailableReplicas = max(0, sized-s.AvailableReplicas)
	if known {
		s.TerminatingReplicas = &terminating
	}
	return s
}

// complete says that all replicas are of the present template and available.
func complete(d *appsv1.Deployment, s appsv1.DeploymentStatus) bool {
	want := replicas(d)
	return s.UpdatedReplicas == want && s.Replicas == want && s.AvailableReplicas == want && s.ObservedGeneration >= d.Generation
}

// progress returns the Progressing condition that s calls for, or nil to keep the present one. What counts as progress
// is a change of counts since the stored status.
func progress(o observed, f *fleet, s appsv1.DeploymentStatus, createError string) *appsv1.DeploymentCondition {
	d, now := o.Deployment, getCondition(o.Deployment.Status, appsv1.DeploymentProgressing)
	subject := fmt.Sprintf("Deployment %q", d.Name)
	if f.fresh != nil {
		subject = fmt.Sprintf("ReplicaSet %q", f.fresh.rs.Name)
	}
	say := func(status corev1.ConditionStatus, reason, message string) *appsv1.DeploymentCondition {
		c := condition(o.Now, appsv1.DeploymentProgressing, status, reason, message)
		return &c
	}
	done := subject + " has successfully progressed."
	switch {
	case createError != "":
		return say(corev1.ConditionFalse, reasonCreateError, createError)
	case d.Spec.Paused && reasonOf(now) == reasonTimedOut:
		return nil
	case d.Spec.Paused:
		return say(corev1.ConditionUnknown, reasonPaused, "Deployment is paused")
	case reasonOf(now) == reasonPaused:
		return say(corev1.ConditionUnknown, reasonResumed, "Deployment is resumed")
	case reasonOf(now) == reasonComplete && now.Message == done && s.Replicas == s.UpdatedReplicas:
		return nil // what happens to a complete rollout's Pods later is not progress of a rollout
	case complete(d, s):
		return say(corev1.ConditionTrue, reasonComplete, done)
	case f.fresh != nil && (now == nil || reasonOf(now) == reasonComplete && now.Message != done):
		return started(f.fresh.rs, say)
	case progressed(d.Status, s):
		return say(corev1.ConditionTrue, reasonUpdated, subject+" is progressing.")
	case timedOut(o, now):
		return say(corev1.ConditionFalse, reasonTimedOut, subject+" has timed out progressing.")
	}
	return nil
}

// started is the condition with which a rollout to rs begins. A set that has Pods when it is first looked at has
// made progress already.
func started(rs *appsv1.ReplicaSet, say func(corev1.ConditionStatus, string, string) *appsv1.DeploymentCondition) *appsv1.DeploymentCondition {
	switch {
	case rs.Status.Replicas > 0:
		return say(corev1.ConditionTrue, reasonUpdated, fmt.Sprintf("ReplicaSet %q is progressing.", rs.Name))
	case rs.Annotations[historyAnnotation] != "":
		return say(corev1.ConditionTrue, reasonFound, fmt.Sprintf("Found new replica set %q", rs.Name))
	}
	return say(corev1.ConditionTrue, reasonCreated, fmt.Sprintf("Created new replica set %q", rs.Name))
}

func progressed(before, now appsv1.DeploymentStatus) bool {
	return now.UpdatedReplicas > before.UpdatedReplicas || now.Replicas-now.UpdatedReplicas < before.Replicas-before.UpdatedReplicas ||
		now.ReadyReplicas > before.ReadyReplicas || now.AvailableReplicas > before.AvailableReplicas
}

func timedOut(o observed, c *appsv1.DeploymentCondition) bool {
	if c == nil || c.Reason == reasonComplete {
		return false
	}
	return c.Reason == reasonTimedOut || o.Quiet >= deadline(o.Deployment)
}

func deadline(d *appsv1.Deployment) time.Duration {
	return time.Duration(*d.Spec.ProgressDeadlineSeconds) * time.Second
}

// progressAt is when progress was last written down, from which the deadline counts.
func progressAt(d *appsv1.Deployment) map[string]time.Time {
	c := getCondition(d.Status, appsv1.DeploymentProgressing)
	if c == nil {
		return nil
	}
	return map[string]time.Time{c.Reason: c.LastUpdateTime.Time}
}

// lookAgain returns after what time the deadline passes of a rollout that is under way.
func lookAgain(o observed, s appsv1.DeploymentStatus) time.Duration {
	c := getCondition(s, appsv1.DeploymentProgressing)
	if c == nil || o.Deployment.Spec.Paused || complete(o.Deployment, s) || c.Reason == reasonTimedOut || c.Reason == reasonComplete {
		return 0
	}
	if old := getCondition(o.Deployment.Status, appsv1.DeploymentProgressing); old == nil || *old != *c {
		return deadline(o.Deployment) // it counts from now
	}
	return max(time.Millisecond, deadline(o.Deployment)-o.Quiet)
}

// replicaFailure passes a set's failure to create or delete Pods on, the fresh set's first.
func replicaFailure(f *fleet) *appsv1.DeploymentCondition {
	all := f.all()
	slices.Reverse(all)
	for _, s := range all {
		for _, c := range s.rs.Status.Conditions {
			if c.Type == appsv1.ReplicaSetReplicaFailure {
				return &appsv1.DeploymentCondition{Type: appsv1.DeploymentReplicaFailure, Status: c.Status, Reason: c.Reason, Message: c.Message,
					LastTransitionTime: c.LastTransitionTime, LastUpdateTime: c.LastTransitionTime}
			}
		}
	}
	return nil
}

func condition(now time.Time, t appsv1.DeploymentConditionType, status corev1.ConditionStatus, reason, message string) appsv1.DeploymentCondition {
	at := metav1.NewTime(now)
	return appsv1.DeploymentCondition{Type: t, Status: status, Reason: reason, Message: message, LastUpdateTime: at, LastTransitionTime: at}
}

func getCondition(s appsv1.DeploymentStatus, t appsv1.DeploymentConditionType) *appsv1.DeploymentCondition {
	for i := range s.Conditions {
		if s.Conditions[i].Type == t {
			return &s.Conditions[i]
		}
	}
	return nil
}

func reasonOf(c *appsv1.DeploymentCondition) string {
	if c == nil {
		return ""
	}
	return c.Reason
}

// setCondition puts c in the place of its type's old one, unless that says the same.
func setCondition(s *appsv1.DeploymentStatus, c appsv1.DeploymentCondition) {
	old := getCondition(*s, c.Type)
	switch {
	case old == nil:
		s.Conditions = append(s.Conditions, c)
	case old.Status == c.Status && old.Reason == c.Reason:
	default:
		if old.Status == c.Status {
			c.LastTransitionTime = old.LastTransitionTime
		}
		*old = c
	}
}

// setProgress is setCondition for Progressing: repeated progress renews the update time, from which the deadline
// counts.
func setProgress(s *appsv1.DeploymentStatus, c appsv1.DeploymentCondition) {
	old := getCondition(*s, c.Type)
	if old != nil && old.Status == c.Status && old.Reason == c.Reason && (c.Reason == reasonUpdated || old.Message != c.Message) {
		c.LastTransitionTime = old.LastTransitionTime
		*old = c
		return
	}
	setCondition(s, c)
}

func removeCondition(s *appsv1.DeploymentStatus, t appsv1.DeploymentConditionType) {
	s.Conditions = slices.DeleteFunc(s.Conditions, func(c appsv1.DeploymentCondition) bool { return c.Type == t })
}
