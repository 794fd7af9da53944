package garbage

import (
	"slices"
	"strings"
	"sync"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"

	"github.com/slipway-dev/slipway/apiserver/api"
	"github.com/slipway-dev/slipway/reconciler/loop"
)

// index knows which objects name an owner. It is derived from watches and only says whom to look at: a dependant it
// has not heard of yet gets its own turn when it is heard of.
type index struct {
	mu         sync.Mutex
	dependants map[types.UID]map[loop.Key]bool // true: the owner's deletion has to wait for it
	unknown    map[*api.Kind]bool              // kinds of which not all objects have been heard of
}

func newIndex(kinds ...*api.Kind) *index {
	x := &index{dependants: map[types.UID]map[loop.Key]bool{}, unknown: map[*api.Kind]bool{}}
	for _, kind := range kinds {
		x.unknown[kind] = true
	}
	return x
}

// known notes whether all objects of kind have been heard of.
func (x *index) known(kind *api.Kind, all bool) {
	x.mu.Lock()
	defer x.mu.Unlock()
	if all {
		delete(x.unknown, kind)
	} else {
		x.unknown[kind] = true
	}
}

// owns says whether somebody may name uid as an owner, and whether somebody who does has to be waited for.
func (x *index) owns(uid types.UID) (perhaps, blocking bool) {
	x.mu.Lock()
	defer x.mu.Unlock()
	for _, blocks := range x.dependants[uid] {
		if blocks {
			return true, true
		}
	}
	return len(x.dependants[uid])+len(x.unknown) > 0, false
}

// keyOf names an object of any kind: the kind is part of the name.
func keyOf(kind *api.Kind, obj metav1.Object) loop.Key {
	return loop.Key{Namespace: obj.GetNamespace(), Name: kind.String() + "/" + obj.GetName()}
}

// parse is the reverse of keyOf; the kind is nil when it is unknown.
func parse(key loop.Key) (kind *api.Kind, name string) {
	resource, name, _ := strings.Cut(key.Name, "/")
	for _, k := range api.Kinds() {
		if k.String() == resource {
			return k, name
		}
	}
	return nil, name
}

// changed takes a change in and returns whom it concerns: the object itself where it has owners or is held by a
// finalizer of deletion, its dependants when it is gone or waits for them, and its owners when it is gone.
func (x *index) changed(kind *api.Kind, old, obj api.Object, deleted bool) []loop.Key {
	x.mu.Lock()
	defer x.mu.Unlock()
	self := keyOf(kind, obj)
	if old != nil {
		x.forget(self, old)
	}
	var keys []loop.Key
	foreground := obj.GetDeletionTimestamp() != nil && inForeground(obj)
	switch {
	case deleted:
		x.forget(self, obj)
		for _, ref := range obj.GetOwnerReferences() {
			if owner := kindOf(ref); owner != nil {
				keys = append(keys, ownerKey(owner, ref, obj))
			}
		}
	default:
		for _, ref := range obj.GetOwnerReferences() {
			if x.dependants[ref.UID] == nil {
				x.dependants[ref.UID] = map[loop.Key]bool{}
			}
			x.dependants[ref.UID][self] = isSet(ref.BlockOwnerDeletion)
		}
		held := obj.GetDeletionTimestamp() != nil && (foreground || orphans(obj))
		if held || len(obj.GetOwnerReferences()) > 0 && !sameOwners(old, obj) {
			keys = append(keys, self)
		}
		keys = append(keys, freed(old, obj)...)
	}
	if deleted || foreground {
		for key := range x.dependants[obj.GetUID()] {
			keys = append(keys, key)
		}
	}
	return keys
}

// freed returns the owners that a live object no longer names or blocks: they may be waiting for that.
func freed(old, obj api.Object) []loop.Key {
	if old == nil {
		return nil
	}
	now := map[types.UID]bool{}
	for _, ref := range obj.GetOwnerReferences() {
		now[ref.UID] = isSet(ref.BlockOwnerDeletion)
	}
	var keys []loop.Key
	for _, ref := range old.GetOwnerReferences() {
		if owner := kindOf(ref); owner != nil && !now[ref.UID] && (!named(obj, ref.UID) || isSet(ref.BlockOwnerDeletion)) {
			keys = append(keys, ownerKey(owner, ref, obj))
		}
	}
	return keys
}

func named(obj api.Object, uid types.UID) bool {
	return slices.ContainsFunc(obj.GetOwnerReferences(), func(ref metav1.OwnerReference) bool { return ref.UID == uid })
}

func (x *index) forget(self loop.Key, obj api.Object) {
	for _, ref := range obj.GetOwnerReferences() {
		delete(x.dependants[ref.UID], self)
		if len(x.dependants[ref.UID]) == 0 {
			delete(x.dependants, ref.UID)
		}
	}
}

// sameOwners says that obj is a known object whose owners did not change.
func sameOwners(old, obj api.Object) bool {
	if old == nil || old.GetUID() != obj.GetUID() || len(old.GetOwnerReferences()) != len(obj.GetOwnerReferences()) {
		return false
	}
	for i, ref := range obj.GetOwnerReferences() {
		if before := old.GetOwnerReferences()[i]; before.UID != ref.UID || before.Name != ref.Name || before.Kind != ref.Kind ||
			isSet(before.BlockOwnerDeletion) != isSet(ref.BlockOwnerDeletion) {
			return false
		}
	}
	return true
}

// kindOf returns the kind a reference names, in whichever version; nil: unknown.
func kindOf(ref metav1.OwnerReference) *api.Kind {
	gv, err := schema.ParseGroupVersion(ref.APIVersion)
	if err != nil {
		return nil
	}
	for _, k := range api.Kinds() {
		if k.Group == gv.Group && k.Kind == ref.Kind {
			return k
		}
	}
	return nil
}

func ownerKey(kind *api.Kind, ref metav1.OwnerReference, dependant api.Object) loop.Key {
	key := loop.Key{Name: kind.String() + "/" + ref.Name}
	if kind.Namespaced {
		key.Namespace = dependant.GetNamespace()
	}
	return key
}
