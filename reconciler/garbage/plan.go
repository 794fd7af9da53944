// Package garbage deletes what has lost its owner. An object whose owners are all gone is deleted; one that is being
// deleted in the foreground stays until the dependants that block it are gone; one deleted with orphaning first
// hands its dependants their freedom.
//
// It must not trust what it remembers: whether an owner is gone is read from the store before anything is deleted,
// and a deletion names the uid and version that were judged.
package garbage

import (
	"fmt"
	"slices"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/slipway-dev/slipway/apiserver/api"
)

// observed is what one turn looks at.
type observed struct {
	Kind       *api.Kind
	Object     api.Object
	Owners     []owner     // of an object that is not being deleted
	Dependants []dependant // see needsDependants
	Held       bool        // dependants are known for which its deletion has to wait; they are not listed
}

// owner is an owner reference and what was found behind it.
type owner struct {
	UID   types.UID
	State state
}

// state is what was found behind a reference.
type state int

const (
	solid   state = iota // it is there, or nobody can say: then nothing is deleted
	absent               // it is gone, or another object has its name
	waiting              // it is being deleted and waits for its dependants
)

// dependant is an object that names the observed one as an owner.
type dependant struct {
	Kind   *api.Kind
	Object api.Object
}

// Action is one effect.
type Action interface {
	fmt.Stringer
}

type (
	// Delete removes the object.
	Delete struct {
		Kind        *api.Kind
		Object      api.Object
		Propagation metav1.DeletionPropagation
	}
	// Disown takes references to owners out of an object.
	Disown struct {
		Kind   *api.Kind
		Object api.Object
		Owners []types.UID
	}
	// Unblock keeps the object from holding up its owners' deletion.
	Unblock struct {
		Kind   *api.Kind
		Object api.Object
	}
	// Release takes one of the two finalizers of deletion off the object.
	Release struct {
		Kind      *api.Kind
		Object    api.Object
		Finalizer string
	}
)

func (a Delete) String() string {
	return fmt.Sprintf("delete %s (%s)", ident(a.Kind, a.Object), a.Propagation)
}
func (a Disown) String() string {
	return fmt.Sprintf("remove %d owners from %s", len(a.Owners), ident(a.Kind, a.Object))
}
func (a Unblock) String() string { return "unblock the owners of " + ident(a.Kind, a.Object) }
func (a Release) String() string {
	return fmt.Sprintf("remove finalizer %s from %s", a.Finalizer, ident(a.Kind, a.Object))
}

func ident(k *api.Kind, obj api.Object) string {
	if obj.GetNamespace() == "" {
		return k.String() + "/" + obj.GetName()
	}
	return k.String() + "/" + obj.GetNamespace() + "/" + obj.GetName()
}

// needsDependants says whether plan wants to know o's dependants.
func needsDependants(o observed) bool {
	if o.Object.GetDeletionTimestamp() != nil {
		return orphans(o.Object) || inForeground(o.Object)
	}
	return count(o.Owners, solid) == 0 && count(o.Owners, waiting) > 0
}

func plan(o observed) []Action {
	if o.Object.GetDeletionTimestamp() != nil {
		return planDeleted(o)
	}
	if len(o.Owners) == 0 {
		return nil
	}
	lost := count(o.Owners, absent) + count(o.Owners, waiting)
	switch {
	case lost == 0:
		return nil
	case lost < len(o.Owners):
		return []Action{Disown{o.Kind, o.Object, uids(o.Owners, absent, waiting)}}
	case count(o.Owners, waiting) > 0 && len(o.Dependants) > 0:
		// Its owner waits for it, so it waits for its own. In a circle somebody has to stop waiting.
		if slices.ContainsFunc(o.Dependants, waits) && blocksAny(o.Object) {
			return []Action{Unblock{o.Kind, o.Object}}
		}
		return []Action{Delete{o.Kind, o.Object, metav1.DeletePropagationForeground}}
	case orphans(o.Object):
		return []Action{Delete{o.Kind, o.Object, metav1.DeletePropagationOrphan}}
	case inForeground(o.Object):
		return []Action{Delete{o.Kind, o.Object, metav1.DeletePropagationForeground}}
	}
	return []Action{Delete{o.Kind, o.Object, metav1.DeletePropagationBackground}}
}

// planDeleted frees or awaits the dependants of an object that is being deleted.
func planDeleted(o observed) []Action {
	switch {
	case orphans(o.Object):
		var actions []Action
		for _, d := range o.Dependants {
			actions = append(actions, Disown{d.Kind, d.Object, []types.UID{o.Object.GetUID()}})
		}
		return append(actions, Release{o.Kind, o.Object, metav1.FinalizerOrphanDependents})
	case inForeground(o.Object):
		if o.Held || slices.ContainsFunc(o.Dependants, func(d dependant) bool { return blocks(d.Object, o.Object.GetUID()) }) {
			return nil // each dependant's own turn deletes it, and its end brings the next turn here
		}
		return []Action{Release{o.Kind, o.Object, metav1.FinalizerDeleteDependents}}
	}
	return nil
}

func orphans(obj api.Object) bool {
	return slices.Contains(obj.GetFinalizers(), metav1.FinalizerOrphanDependents)
}

func inForeground(obj api.Object) bool {
	return slices.Contains(obj.GetFinalizers(), metav1.FinalizerDeleteDependents)
}

// blocks says whether obj holds up the deletion of the owner uid.
func blocks(obj api.Object, uid types.UID) bool {
	return slices.ContainsFunc(obj.GetOwnerReferences(), func(ref metav1.OwnerReference) bool {
		return ref.UID == uid && isSet(ref.BlockOwnerDeletion)
	})
}

func blocksAny(obj api.Object) bool {
	return slices.ContainsFunc(obj.GetOwnerReferences(), func(ref metav1.OwnerReference) bool { return isSet(ref.BlockOwnerDeletion) })
}

func isSet(b *bool) bool { return b != nil && *b }

// waits says whether a dependant itself waits for its dependants.
func waits(d dependant) bool { return d.Object.GetDeletionTimestamp() != nil && inForeground(d.Object) }

// unblocked returns obj's references without the wish to hold up owners.
func unblocked(obj api.Object) []metav1.OwnerReference {
	refs := slices.Clone(obj.GetOwnerReferences())
	for i := range refs {
		refs[i].BlockOwnerDeletion = nil
	}
	return refs
}

func count(owners []owner, s state) int {
	n := 0
	for _, o := range owners {
		if o.State == s {
			n++
		}
	}
	return n
}

func uids(owners []owner, states ...state) []types.UID {
	var out []types.UID
	for _, o := range owners {
		if slices.Contains(states, o.State) {
			out = append(out, o.UID)
		}
	}
	return out
}
