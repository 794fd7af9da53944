// Package health says how an object is doing, in the words of kstatus: Current, InProgress, Failed, Terminating,
// NotFound, Unknown; and finds the first real cause why a workload is not there yet. It is pure: it reads the
// objects it is given and nothing else.
package health

import (
	"fmt"
	"strings"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"

	"github.com/slipway-dev/slipway/apiserver/api"
)

// Status is how an object is doing.
type Status string

// Statuses, named as in kstatus.
const (
	Current     Status = "Current"     // as asked for
	InProgress  Status = "InProgress"  // on the way
	Failed      Status = "Failed"      // cannot become current without a change
	Terminating Status = "Terminating" // being deleted
	NotFound    Status = "NotFound"
	Unknown     Status = "Unknown"
)

// Health is an object's status and why.
type Health struct {
	Status  Status
	Message string // one line; empty when Current
	// Ready and Wanted count replicas, for workloads.
	Ready, Wanted int32
	// Cause is the first real reason found in the object's Pods: "Pod web-abc: container app: CrashLoopBackOff: exit 1".
	Cause string
	Pod   string // the name of the Pod the cause was found in
	// Weight compares causes: a crash that is being backed off weighs more than the crash itself.
	Weight int
	// Stuck says that the cause will not pass by waiting: the image does not exist, a container keeps crashing.
	Stuck bool
}

// Of returns the health of obj. Nil is NotFound. For Deployments and ReplicaSets, pods are the Pods that belong to
// the newest state of obj: they serve to find a cause, and those that crashed just now do not count as ready.
func Of(obj api.Object, pods []*corev1.Pod, now time.Time) Health {
	if obj == nil {
		return Health{Status: NotFound, Message: "not found"}
	}
	if obj.GetDeletionTimestamp() != nil {
		return Health{Status: Terminating, Message: leaving(obj)}
	}
	switch o := obj.(type) {
	case *appsv1.Deployment:
		return withPods(deployment(o), pods, now)
	case *appsv1.ReplicaSet:
		return withPods(replicaSet(o), pods, now)
	case *corev1.Pod:
		return pod(o, now)
	case *corev1.Service:
		return service(o)
	case *corev1.Namespace:
		if o.Status.Phase == corev1.NamespaceTerminating {
			return Health{Status: Terminating, Message: leaving(o)}
		}
	}
	return Health{Status: Current}
}

// leaving says what an object that is being deleted is held by, where that is known and does not pass by itself.
func leaving(obj api.Object) string {
	const text = "is being deleted"
	ns, ok := obj.(*corev1.Namespace)
	if !ok {
		if finalizers := obj.GetFinalizers(); len(finalizers) > 0 {
			return text + ", held by finalizer " + strings.Join(finalizers, ", ")
		}
		return text
	}
	for _, t := range []corev1.NamespaceConditionType{corev1.NamespaceDeletionContentFailure, corev1.NamespaceFinalizersRemaining} {
		for _, c := range ns.Status.Conditions {
			if c.Type == t && c.Status == corev1.ConditionTrue {
				return text + ": " + c.Message
			}
		}
	}
	return text
}

func waiting(format string, args ...any) Health {
	return Health{Status: InProgress, Message: fmt.Sprintf(format, args...)}
}

// deployment follows kstatus: the controller has seen the spec, every replica is updated and available, no old one
// is left.
func deployment(d *appsv1.Deployment) Health {
	wanted := int32(1)
	if d.Spec.Replicas != nil {
		wanted = *d.Spec.Replicas
	}
	h := deploymentStatus(d, wanted)
	h.Wanted = wanted
	h.Ready = min(d.Status.AvailableReplicas, d.Status.UpdatedReplicas)
	if d.Status.ObservedGeneration < d.Generation {
		h.Ready = 0
	}
	return h
}

func deploymentStatus(d *appsv1.Deployment, wanted int32) Health {
	s := d.Status
	if s.ObservedGeneration < d.Generation {
		return waiting("waiting for the controller to see it")
	}
	for _, c := range s.Conditions {
		if c.Type == appsv1.DeploymentProgressing && c.Reason == "ProgressDeadlineExceeded" {
			return Health{Status: Failed, Message: "progress deadline exceeded", Stuck: true}
		}
	}
	switch {
	case d.Spec.Paused && s.UpdatedReplicas < wanted:
		return waiting("is paused: %d of %d updated", s.UpdatedReplicas, wanted)
	case s.UpdatedReplicas < wanted:
		return waiting("%d of %d updated", s.UpdatedReplicas, wanted)
	case s.Replicas > s.UpdatedReplicas:
		return waiting("%d old to remove", s.Replicas-s.UpdatedReplicas)
	case s.AvailableReplicas < wanted:
		return waiting("%d of %d ready", s.AvailableReplicas, wanted)
	}
	return Health{Status: Current}
}

func replicaSet(r *appsv1.ReplicaSet) Health {
	wanted := int32(1)
	if r.Spec.Replicas != nil {
		wanted = *r.Spec.Replicas
	}
	h := Health{Status: Current}
	switch s := r.Status; {
	case s.ObservedGeneration < r.Generation:
		h = waiting("waiting for the controller to see it")
	case s.Replicas > wanted:
		h = waiting("%d to remove", s.Replicas-wanted)
	case s.AvailableReplicas < wanted:
		h = waiting("%d of %d ready", s.AvailableReplicas, wanted)
	}
	h.Wanted, h.Ready = wanted, min(r.Status.AvailableReplicas, wanted)
	return h
}

func service(s *corev1.Service) Health {
	if s.Spec.Type != corev1.ServiceTypeExternalName && s.Spec.ClusterIP == "" {
		return waiting("waiting for an address")
	}
	return Health{Status: Current}
}

// pod follows kstatus: Ready or succeeded is Current, everything else is on its way unless its cause says it is not.
func pod(p *corev1.Pod, now time.Time) Health {
	h := Health{Status: InProgress, Wanted: 1}
	cause, weight := weigh(p, now)
	switch {
	case p.Status.Phase == corev1.PodSucceeded:
		return Health{Status: Current}
	case p.Status.Phase == corev1.PodFailed:
		h.Status, weight = Failed, stuck
	case podReady(p) && Proof(p, now) == 0:
		return Health{Status: Current, Wanted: 1, Ready: 1}
	}
	h.Cause, h.Weight, h.Stuck = cause, weight, weight == stuck
	if cause != "" {
		h.Pod = p.Name
	}
	h.Message = cause
	if h.Message == "" {
		h.Message = "not ready"
	}
	if h.Stuck {
		h.Status = Failed
	}
	return h
}

func podReady(p *corev1.Pod) bool {
	for _, c := range p.Status.Conditions {
		if c.Type == corev1.PodReady {
			return c.Status == corev1.ConditionTrue
		}
	}
	return false
}

// Steady returns h with the cause of before, an earlier Health of the same object, if that explains as much: a
// container that crashes in a loop has many states and one cause. Once current, what was before is forgotten.
func (h Health) Steady(before Health) Health {
	if h.Status != Current && before.Status != Current && before.Weight >= h.Weight && before.Cause != "" {
		if before.Message == before.Cause {
			h.Message = before.Message
		}
		h.Cause, h.Pod, h.Weight = before.Cause, before.Pod, before.Weight
		if before.Weight == stuck && before.Stuck {
			h.Stuck = true
			if before.Status == Failed {
				h.Status = Failed
			}
		}
	}
	return h
}

// withPods takes the Pods of a workload that crashed just now off those that are ready, and adds the first real cause
// to a workload that is not current. A workload whose Pods are stuck stays InProgress, as kstatus has it; Stuck tells
// that waiting will not help.
func withPods(h Health, pods []*corev1.Pod, now time.Time) Health {
	if n := unproven(pods, now); n > 0 {
		h.Ready = max(h.Ready-n, 0)
		if h.Status == Current {
			h.Status, h.Message = InProgress, fmt.Sprintf("%d of %d ready", h.Ready, h.Wanted)
		}
	}
	if h.Status == Current {
		return h
	}
	if name, cause, weight := First(pods, now); cause != "" {
		h.Pod, h.Cause, h.Weight = name, fmt.Sprintf("Pod %s: %s", name, cause), weight
		h.Stuck = h.Stuck || weight == stuck
	}
	return h
}
