package plan

import (
	"fmt"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/slipway-dev/slipway/apiserver/api"
)

// MadeFrom says whether obj was made from the Source of that name. The annotation alone does not decide: controllers
// copy annotations from Deployments to ReplicaSets, and anybody may copy a manifest.
func MadeFrom(obj api.Object, source string) bool {
	return obj.GetAnnotations()[api.AnnotationSource] == source && metav1.GetControllerOfNoCopy(obj) == nil && ownedFields(obj) != ""
}

// Claimed says why an object that is there may not be taken over by source; empty: it may.
func Claimed(live api.Object, source string) string {
	if owner := metav1.GetControllerOfNoCopy(live); owner != nil {
		return fmt.Sprintf("is there already and controlled by %s %s: choose another name", owner.Kind, owner.Name)
	}
	if other := live.GetAnnotations()[api.AnnotationSource]; other != "" && other != source {
		return fmt.Sprintf("is there already and comes from source %q (%s): remove it there first", other, live.GetAnnotations()[api.AnnotationOrigin])
	}
	if MadeFrom(live, source) {
		return ""
	}
	const system = "is there already and belongs to the system: choose another name"
	switch live.(type) {
	case *corev1.Service:
		if live.GetNamespace() == metav1.NamespaceDefault && live.GetName() == "kubernetes" {
			return system
		}
	case *corev1.ConfigMap:
		if live.GetName() == rootCA {
			return system
		}
	}
	if _, ok := live.GetLabels()["kubernetes.io/bootstrapping"]; ok {
		return system
	}
	return ""
}

// rootCA is the ConfigMap every namespace gets.
const rootCA = "kube-root-ca.crt"

// kept says whether an object stays when the tree no longer has it, because the system made it or makes it again.
func kept(obj api.Object) bool {
	switch obj.(type) {
	case *corev1.Namespace:
		return obj.GetName() == metav1.NamespaceDefault || strings.HasPrefix(obj.GetName(), "kube-")
	case *corev1.ServiceAccount:
		return obj.GetName() == "default"
	case *corev1.Node:
		return true
	}
	return false
}

// Derived says whether an object is made again by the system, so that losing it loses nothing.
func Derived(obj api.Object) bool {
	if len(obj.GetOwnerReferences()) > 0 {
		return true
	}
	switch obj.(type) {
	case *corev1.Endpoints, *corev1.Event:
		return true
	case *corev1.ConfigMap:
		return obj.GetName() == rootCA
	case *corev1.ServiceAccount:
		return obj.GetName() == "default"
	}
	return false
}

// prune lists what was made from the source and is no longer in the tree, in the order of deletion, and counts what
// was made from it in all.
func prune(o Observed) (deletions []Action, owned int) {
	if !o.Prune {
		return nil, 0
	}
	for ref, obj := range o.Live {
		if !MadeFrom(obj, o.Source) {
			continue
		}
		owned++
		if o.Tree[ref] || obj.GetDeletionTimestamp() != nil {
			continue
		}
		a := Action{Op: Delete, Ref: ref, Live: obj}
		if kept(obj) {
			a.Op = Release
		}
		deletions = append(deletions, a)
	}
	slices.SortFunc(deletions, func(a, b Action) int {
		if d := Level(b.Ref) - Level(a.Ref); d != 0 {
			return d
		}
		return a.Ref.Compare(b.Ref)
	})
	for i := range deletions {
		if a := &deletions[i]; a.Op == Delete && a.Ref.Row() == api.Namespaces {
			o.judgeNamespace(a)
		}
	}
	return deletions, owned
}

// judgeNamespace keeps a Namespace the tree still uses, and asks before one goes that holds what Git did not make.
func (o *Observed) judgeNamespace(a *Action) {
	inside := 0
	for ref := range o.Tree {
		if ref.Namespace == a.Ref.Name {
			inside++
		}
	}
	others := o.Namespaces[a.Ref.Name].Others
	switch {
	case inside > 0:
		a.Op, a.Reason = Refused, fmt.Sprintf("is no longer in the tree, but holds %s of the tree: it stays", count(inside, "object"))
	case len(others) > 0 && !o.Confirmed:
		a.Held, a.Reason = true, fmt.Sprintf("it holds %s not made by Git: %s", count(len(others), "object"), names(others))
	}
}

// hold marks deletions that have to wait for confirmation, and returns the question, if there is one. Once one was
// asked, what was made since then does not make a mass deletion a small one. What is replaced is deleted too.
func (o *Observed) hold(writes, deletions []Action, owned int) string {
	n, question := 0, ""
	for _, a := range slices.Concat(writes, deletions) {
		if a.Op == Delete || a.Op == Replace {
			n++
		}
		if a.Held && question == "" {
			question = fmt.Sprintf("deleting %s waits for confirmation: %s", a.Ref, a.Reason)
		}
	}
	of := owned
	if !mass(n, of) {
		of = o.Asked
	}
	if o.Confirmed || !mass(n, of) {
		return question
	}
	for i := range deletions {
		if a := &deletions[i]; a.Op == Delete && !a.Held {
			a.Held, a.Reason = true, "part of a mass deletion"
		}
	}
	for i := range writes {
		writes[i].Held = writes[i].Op == Replace
	}
	return fmt.Sprintf("deleting %d of %d objects waits for confirmation", n, of)
}

// mass says whether n of that many objects are too many to go without a word.
func mass(n, of int) bool { return of >= massDeletion && 2*n > of }

const shownNames = 3

func names(refs []Ref) string {
	parts := make([]string, 0, shownNames)
	for _, r := range refs[:min(len(refs), shownNames)] {
		parts = append(parts, r.String())
	}
	text := strings.Join(parts, ", ")
	if more := len(refs) - len(parts); more > 0 {
		text += fmt.Sprintf(" and %d more", more)
	}
	return text
}

func count(n int, noun string) string {
	if n == 1 {
		return "1 " + noun
	}
	return fmt.Sprintf("%d %ss", n, noun)
}
