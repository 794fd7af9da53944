package plan

import (
	"fmt"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/slipway-dev/slipway/apiserver/api"
)

// replace decides about an object that is valid, but not as a change of the one that is there. Nothing else can be done
// for a bare Pod than to end it and make it again. Other objects hold what would be lost with them, or are what others
// hold on to: they are only replaced where their manifest says so.
func (o *Observed) replace(a Action, preview Preview, not func(Op, string, ...any) Action) Action {
	kind := a.Ref.Row()
	switch {
	case kind == api.Namespaces || kind == api.Nodes:
		return not(Refused, "%s", preview.Refused)
	case !MadeFrom(a.Live, o.Source):
		return not(Refused, "%s: it is there already, not made by Git, and cannot be changed to this: choose another name", preview.Refused)
	case kind != api.Pods && a.Want.Object.GetAnnotations()[api.AnnotationReplace] != "true":
		return not(Refused, "%s: this cannot be changed in place: set annotation %s: \"true\" to have the object deleted and made again", preview.Refused, api.AnnotationReplace)
	case o.Awaiting:
		return not(Wait, "is to be replaced; that waits for confirmation with the deletions")
	}
	return not(Replace, "%s", preview.Refused)
}

// Propagation is how a deletion of a's object treats what belongs to it. What is replaced takes its dependants along
// first, so that old and new never meet.
func (a Action) Propagation() metav1.DeletionPropagation {
	if a.Op == Replace && (a.Ref.Row() == api.Deployments || a.Ref.Row() == api.ReplicaSets) {
		return metav1.DeletePropagationForeground
	}
	return metav1.DeletePropagationBackground
}

// replacing says how the line of a replacement goes on.
func (a Action) replacing() string {
	if a.Held {
		return ": replacing it waits for confirmation: part of a mass deletion"
	}
	return fmt.Sprintf(": replaced (deleted, and made again when it is gone), as it cannot be changed in place: %s", a.Reason)
}
