// Package replicaset keeps as many Pods alive as a ReplicaSet asks for: it creates them from the template, adopts
// matching orphans, releases Pods that no longer match, deletes the least useful ones first and counts what is there.
//
// It must not choose nodes, look into containers or know about rollouts. Nor does it remember what it did: a turn that
// looks at an older state than it should, or comes from a controller that was thought dead, makes the same Pods under
// the same names again, and is told that they exist.
package replicaset

import (
	"fmt"
	"slices"
	"strings"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/types"
)

// observed is what one turn looks at.
type observed struct {
	Set     *appsv1.ReplicaSet
	Pods    []*corev1.Pod            // owned by the set, or without a controller in its namespace
	Related []*corev1.Pod            // of ReplicaSets with the same controller: they count when nodes are compared
	Taken   map[string]bool          // names of Pods in the namespace; only read when Pods are missing
	Ready   map[string]time.Duration // by UID, how long ready Pods have been so; only read with minReadySeconds
	Now     time.Time
}

// Action is one effect.
type Action interface {
	fmt.Stringer
}

type (
	// Adopt makes the set the controller of a Pod without one.
	Adopt struct{ Pod *corev1.Pod }
	// Release gives up a Pod whose labels no longer match.
	Release struct{ Pod *corev1.Pod }
	// Create makes Pods from the template.
	Create struct{ Names []string }
	// Delete removes a Pod.
	Delete struct{ Pod *corev1.Pod }
)

func (a Adopt) String() string   { return "adopt pod " + a.Pod.Name }
func (a Release) String() string { return "release pod " + a.Pod.Name }
func (a Create) String() string  { return fmt.Sprintf("create %d pods", len(a.Names)) }
func (a Delete) String() string  { return "delete pod " + a.Pod.Name }

// plan returns what brings the Pods to the wanted number. A set that is being deleted is left alone: its Pods belong
// to the garbage collector.
func plan(o observed) []Action {
	if o.Set.DeletionTimestamp != nil {
		return nil
	}
	c := claim(o)
	var actions []Action
	for _, pod := range c.adopt {
		actions = append(actions, Adopt{pod})
	}
	for _, pod := range c.release {
		actions = append(actions, Release{pod})
	}
	surplus := len(c.active) - wanted(o.Set)
	switch {
	case surplus < 0:
		actions = append(actions, Create{freshNames(o, -surplus)})
	case surplus > 0:
		for _, pod := range deletionOrder(c.active, o.Related, newest(o))[:surplus] {
			actions = append(actions, Delete{pod})
		}
	}
	return actions
}

// claimed sorts the Pods by what the set has to do with them.
type claimed struct {
	active      []*corev1.Pod // owned or about to be, neither finished nor being deleted
	terminating []*corev1.Pod // owned, being deleted, not finished
	adopt       []*corev1.Pod
	release     []*corev1.Pod
}

func claim(o observed) claimed {
	var c claimed
	selector, err := metav1.LabelSelectorAsSelector(o.Set.Spec.Selector)
	if err != nil || selector.Empty() {
		selector = labels.Nothing()
	}
	for _, pod := range sorted(o.Pods) {
		matches := selector.Matches(labels.Set(pod.Labels))
		owner := metav1.GetControllerOfNoCopy(pod)
		finished := pod.Status.Phase == corev1.PodSucceeded || pod.Status.Phase == corev1.PodFailed
		alive := !finished && pod.DeletionTimestamp == nil
		switch {
		case owner == nil:
			if matches && alive && o.Set.DeletionTimestamp == nil {
				c.adopt = append(c.adopt, pod)
				c.active = append(c.active, pod)
			}
		case owner.UID != o.Set.UID:
		case !matches:
			if pod.DeletionTimestamp == nil {
				c.release = append(c.release, pod)
			}
		case alive:
			c.active = append(c.active, pod)
		case !finished:
			c.terminating = append(c.terminating, pod)
		}
	}
	return c
}

func sorted(pods []*corev1.Pod) []*corev1.Pod {
	return slices.SortedFunc(slices.Values(pods), func(a, b *corev1.Pod) int { return strings.Compare(a.Name, b.Name) })
}

func wanted(rs *appsv1.ReplicaSet) int {
	if rs.Spec.Replicas == nil {
		return 1
	}
	return int(*rs.Spec.Replicas)
}

// newPod returns a Pod of the set.
func newPod(rs *appsv1.ReplicaSet, name string) *corev1.Pod {
	template := rs.Spec.Template.DeepCopy()
	return &corev1.Pod{
		TypeMeta: metav1.TypeMeta{APIVersion: "v1", Kind: "Pod"},
		ObjectMeta: metav1.ObjectMeta{
			Namespace: rs.Namespace, Name: name, GenerateName: rs.Name + "-",
			Labels: template.Labels, Annotations: template.Annotations, Finalizers: template.Finalizers,
			OwnerReferences: []metav1.OwnerReference{ownerReference(rs)},
		},
		Spec: template.Spec,
	}
}

func ownerReference(rs *appsv1.ReplicaSet) metav1.OwnerReference {
	return *metav1.NewControllerRef(rs, appsv1.SchemeGroupVersion.WithKind("ReplicaSet"))
}

// adopted returns pod with the set as its controller.
func adopted(pod *corev1.Pod, rs *appsv1.ReplicaSet) *corev1.Pod {
	pod = pod.DeepCopy()
	pod.OwnerReferences = append(withoutOwner(pod.OwnerReferences, rs.UID), ownerReference(rs))
	return pod
}

// released returns pod without the set among its owners.
func released(pod *corev1.Pod, rs *appsv1.ReplicaSet) *corev1.Pod {
	pod = pod.DeepCopy()
	pod.OwnerReferences = withoutOwner(pod.OwnerReferences, rs.UID)
	return pod
}

func withoutOwner(refs []metav1.OwnerReference, uid types.UID) []metav1.OwnerReference {
	return slices.DeleteFunc(refs, func(ref metav1.OwnerReference) bool { return ref.UID == uid })
}
