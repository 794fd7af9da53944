// Package deployment rolls a Deployment's Pods from one template to the next by sizing ReplicaSets: one for the
// present template, older ones kept for history. It keeps the promised bounds at every step, whatever fails between.
//
// It must not touch Pods: it reads them only to see whether Recreate may go on.
package deployment

import (
	"cmp"
	"fmt"
	"slices"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
)

// observed is what one turn looks at.
type observed struct {
	Deployment *appsv1.Deployment
	Sets       []*appsv1.ReplicaSet // all of the namespace
	Pods       []*corev1.Pod        // all of the namespace; only read for strategy Recreate
	Quiet      time.Duration        // since the last progress that was written down
	Now        time.Time
}

// Action is one effect.
type Action interface {
	fmt.Stringer
}

type (
	// Adopt makes the deployment the controller of a ReplicaSet without one.
	Adopt struct{ Set *appsv1.ReplicaSet }
	// Release gives up a ReplicaSet whose labels no longer match.
	Release struct{ Set *appsv1.ReplicaSet }
	// Create makes the ReplicaSet of the present template.
	Create struct{ Set *appsv1.ReplicaSet }
	// Collide counts up the collision count: the name the template hashes to belongs to another template.
	Collide struct{ Count int32 }
	// Change writes a ReplicaSet's new size, annotations and minimum ready time.
	Change struct{ Old, New *appsv1.ReplicaSet }
	// Delete removes a ReplicaSet that fell out of the history.
	Delete struct{ Set *appsv1.ReplicaSet }
	// Revise writes the revision annotation of the deployment.
	Revise struct{ Revision string }
)

func (a Adopt) String() string   { return "adopt replicaset " + a.Set.Name }
func (a Release) String() string { return "release replicaset " + a.Set.Name }
func (a Create) String() string {
	return fmt.Sprintf("create replicaset %s with %d replicas", a.Set.Name, size(a.Set))
}
func (a Collide) String() string { return fmt.Sprintf("set collision count to %d", a.Count) }
func (a Change) String() string {
	if size(a.Old) != size(a.New) {
		return fmt.Sprintf("scale replicaset %s from %d to %d", a.New.Name, size(a.Old), size(a.New))
	}
	return "update replicaset " + a.New.Name
}
func (a Delete) String() string { return "delete replicaset " + a.Set.Name }
func (a Revise) String() string { return "set revision to " + a.Revision }

// plan returns the next step of the rollout. A deployment that is being deleted is left alone.
func plan(o observed) []Action {
	d := o.Deployment
	if d.DeletionTimestamp != nil || selectsAll(d) {
		return nil
	}
	c := claim(o)
	var actions []Action
	for _, rs := range c.adopt {
		actions = append(actions, Adopt{rs})
	}
	for _, rs := range c.release {
		actions = append(actions, Release{rs})
	}
	if len(actions) > 0 {
		return actions // size them when they are ours
	}
	f := newFleet(d, c.owned)
	revision := f.revision()
	switch {
	case d.Spec.Paused, f.resized():
		f.scale()
	case d.Spec.Strategy.Type == appsv1.RecreateDeploymentStrategyType:
		f.recreate(livePods(o, f.fresh))
	default:
		f.roll()
	}
	actions = append(f.changes(revision), history(f)...)
	if missing := f.missing(o.Sets, revision); missing != nil {
		actions = append(actions, missing)
	}
	if f.fresh != nil && d.Annotations[revisionAnnotation] != revision {
		actions = append(actions, Revise{revision})
	}
	return actions
}

func selectsAll(d *appsv1.Deployment) bool {
	selector, err := metav1.LabelSelectorAsSelector(d.Spec.Selector)
	return err != nil || selector.Empty()
}

// claimed sorts the ReplicaSets by what the deployment has to do with them.
type claimed struct {
	owned, adopt, release []*appsv1.ReplicaSet
}

func claim(o observed) claimed {
	var c claimed
	selector, err := metav1.LabelSelectorAsSelector(o.Deployment.Spec.Selector)
	if err != nil || selector.Empty() {
		selector = labels.Nothing()
	}
	for _, rs := range o.Sets {
		owner := metav1.GetControllerOfNoCopy(rs)
		if owner != nil && owner.UID != o.Deployment.UID {
			continue
		}
		matches := selector.Matches(labels.Set(rs.Labels))
		switch {
		case owner == nil:
			if matches && rs.DeletionTimestamp == nil {
				c.adopt = append(c.adopt, rs)
			}
		case matches:
			c.owned = append(c.owned, rs)
		case rs.DeletionTimestamp == nil:
			c.release = append(c.release, rs)
		}
	}
	return claimed{oldestFirst(c.owned), oldestFirst(c.adopt), oldestFirst(c.release)}
}

func oldestFirst(sets []*appsv1.ReplicaSet) []*appsv1.ReplicaSet {
	return slices.SortedFunc(slices.Values(sets), func(a, b *appsv1.ReplicaSet) int {
		return cmp.Or(a.CreationTimestamp.Compare(b.CreationTimestamp.Time), cmp.Compare(a.Name, b.Name))
	})
}

// livePods says whether a Pod of the deployment that is not of the fresh set may still run.
func livePods(o observed, fresh *set) bool {
	ours := map[string]bool{}
	for _, rs := range claim(o).owned {
		ours[string(rs.UID)] = fresh == nil || rs.UID != fresh.rs.UID
	}
	return slices.ContainsFunc(o.Pods, func(pod *corev1.Pod) bool {
		ref := metav1.GetControllerOfNoCopy(pod)
		return ref != nil && ours[string(ref.UID)] && pod.Status.Phase != corev1.PodSucceeded && pod.Status.Phase != corev1.PodFailed
	})
}

// history returns the deletion of old sets beyond the limit, lowest revision first, once the rollout is complete or
// paused.
func history(f *fleet) []Action {
	limit := f.d.Spec.RevisionHistoryLimit
	if limit == nil || *limit == noLimit || !f.d.Spec.Paused && !complete(f.d, f.d.Status) {
		return nil
	}
	var idle []*appsv1.ReplicaSet
	for _, s := range f.old {
		if s.rs.DeletionTimestamp == nil {
			idle = append(idle, s.rs)
		}
	}
	slices.SortStableFunc(idle, func(a, b *appsv1.ReplicaSet) int { return cmp.Compare(revisionOf(a), revisionOf(b)) })
	var actions []Action
	for _, rs := range idle[:max(0, len(idle)-int(*limit))] {
		if rs.Status.Replicas == 0 && size(rs) == 0 && observedNow(rs) {
			actions = append(actions, Delete{rs})
		}
	}
	return actions
}
