// Package namespace makes the namespaces the system itself needs and empties those that are being deleted: first what
// makes Pods, then Pods with their grace, then everything else, and at last the namespace.
//
// It must not delete anything in a namespace that is not being deleted, nor take other parts' finalizers away.
package namespace

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/slipway-dev/slipway/apiserver/api"
)

// system are the namespaces that always exist.
var system = []string{metav1.NamespaceDefault, metav1.NamespaceSystem, metav1.NamespacePublic, corev1.NamespaceNodeLease}

// observed is what one turn looks at.
type observed struct {
	Name      string
	Namespace *corev1.Namespace // nil: gone
	Content   []Content         // of a namespace that is being deleted
	Failures  []string          // what could not be deleted in this turn
	Now       time.Time
}

// Content is what a namespace holds of one kind.
type Content struct {
	Kind  *api.Kind
	Items []api.Object
}

// Action is one effect.
type Action interface {
	fmt.Stringer
}

type (
	// Create makes a namespace of the system.
	Create struct{ Name string }
	// Delete removes one object.
	Delete struct {
		Kind   *api.Kind
		Object api.Object
	}
	// Finalize lets the namespace go.
	Finalize struct{ Namespace *corev1.Namespace }
)

func (a Create) String() string   { return "create namespace " + a.Name }
func (a Delete) String() string   { return fmt.Sprintf("delete %s %s", a.Kind, a.Object.GetName()) }
func (a Finalize) String() string { return "finalize namespace " + a.Namespace.Name }

// plan returns the next step of a deletion: everything of the first stage that still holds something.
func plan(o observed) []Action {
	ns := o.Namespace
	switch {
	case ns == nil && slices.Contains(system, o.Name):
		return []Action{Create{o.Name}}
	case ns == nil || ns.DeletionTimestamp == nil:
		return nil
	}
	now := remaining(o.Content)
	if len(now) == 0 {
		if slices.Contains(ns.Spec.Finalizers, corev1.FinalizerKubernetes) {
			return []Action{Finalize{ns}}
		}
		return nil
	}
	var actions []Action
	for _, c := range now {
		if stage(c.Kind) != stage(now[0].Kind) {
			break
		}
		for _, obj := range c.Items {
			if obj.GetDeletionTimestamp() == nil {
				actions = append(actions, Delete{c.Kind, obj})
			}
		}
	}
	return actions
}

// remaining returns the kinds of which something is left, in order of deletion.
func remaining(all []Content) []Content {
	left := slices.DeleteFunc(slices.Clone(all), func(c Content) bool { return len(c.Items) == 0 })
	slices.SortStableFunc(left, func(a, b Content) int {
		return cmp.Or(cmp.Compare(stage(a.Kind), stage(b.Kind)), cmp.Compare(a.Kind.String(), b.Kind.String()))
	})
	return left
}

// stage orders kinds: makers of Pods go before Pods, and Pods keep their Services, configuration and identity until
// they have ended.
func stage(k *api.Kind) int {
	switch {
	case k == api.Pods:
		return 1
	case k.Group == api.Deployments.Group || k.Group == "batch":
		return 0
	}
	return 2
}

// newStatus says how far the deletion is, with upstream's conditions. It must be called with what is left.
func newStatus(o observed) corev1.NamespaceStatus {
	s := corev1.NamespaceStatus{Phase: corev1.NamespaceTerminating, Conditions: slices.Clone(o.Namespace.Status.Conditions)}
	set := func(t corev1.NamespaceConditionType, bad bool, reason, message string) {
		status := corev1.ConditionFalse
		if bad {
			status = corev1.ConditionTrue
		}
		setCondition(&s, corev1.NamespaceCondition{Type: t, Status: status, Reason: reason, Message: message, LastTransitionTime: metav1.NewTime(o.Now)})
	}
	set(corev1.NamespaceDeletionDiscoveryFailure, false, "ResourcesDiscovered", "All resources successfully discovered")
	set(corev1.NamespaceDeletionGVParsingFailure, false, "ParsedGroupVersions", "All legacy kube types successfully parsed")
	if len(o.Failures) > 0 {
		set(corev1.NamespaceDeletionContentFailure, true, "ContentDeletionFailed", "Failed to delete all resource types: "+strings.Join(o.Failures, ", "))
	} else {
		set(corev1.NamespaceDeletionContentFailure, false, "ContentDeleted", "All content successfully deleted, may be waiting on finalization")
	}
	var kinds []string
	finalizers := map[string][]string{}
	for _, c := range remaining(o.Content) {
		kinds = append(kinds, fmt.Sprintf("%s.%s has %d resource instances", c.Kind.Resource, c.Kind.Group, len(c.Items)))
		for _, obj := range c.Items {
			for _, f := range obj.GetFinalizers() {
				finalizers[f] = append(finalizers[f], c.Kind.String()+" "+obj.GetName())
			}
		}
	}
	if slices.Sort(kinds); len(kinds) > 0 {
		set(corev1.NamespaceContentRemaining, true, "SomeResourcesRemain", "Some resources are remaining: "+strings.Join(kinds, ", "))
	} else {
		set(corev1.NamespaceContentRemaining, false, "ContentRemoved", "All content successfully removed")
	}
	var holding []string
	for f, held := range finalizers {
		holding = append(holding, fmt.Sprintf("%s in %d resource instances (%s)", f, len(held), names(held)))
	}
	if slices.Sort(holding); len(holding) > 0 {
		set(corev1.NamespaceFinalizersRemaining, true, "SomeFinalizersRemain", "Some content in the namespace has finalizers remaining: "+strings.Join(holding, ", "))
	} else {
		set(corev1.NamespaceFinalizersRemaining, false, "ContentHasNoFinalizers", "All content-preserving finalizers finished")
	}
	return s
}

const shownNames = 3

// names lists the first few of all.
func names(all []string) string {
	slices.Sort(all)
	text := strings.Join(all[:min(len(all), shownNames)], ", ")
	if len(all) > shownNames {
		text += ", …"
	}
	return text
}

func setCondition(s *corev1.NamespaceStatus, c corev1.NamespaceCondition) {
	i := slices.IndexFunc(s.Conditions, func(old corev1.NamespaceCondition) bool { return old.Type == c.Type })
	if i < 0 {
		s.Conditions = append(s.Conditions, c)
		return
	}
	if s.Conditions[i].Status == c.Status {
		c.LastTransitionTime = s.Conditions[i].LastTransitionTime
	}
	s.Conditions[i] = c
}
