package registry

import (
	"context"
	"fmt"
	"slices"
	"strconv"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"github.com/slipway-dev/slipway/apiserver/api"
	"github.com/slipway-dev/slipway/apiserver/registry/ownership"
	"github.com/slipway-dev/slipway/apiserver/store"
)

// change is a wish to turn one stored object into another.
type change struct {
	verb        string // update or patch
	kind        *api.Kind
	namespace   string
	name        string
	subresource string
	manager     string
	dryRun      bool
	// next returns what old is to become, as an object of its own; it may carry a uid and resourceVersion that
	// old must have.
	next func(old api.Object) (api.Object, error)
	// tracked: next has recorded field ownership.
	tracked bool
	known   func(old api.Object) bool // says without trying that nothing would change; nil: never
	nothing func(old api.Object)      // is told that nothing changed; nil: nobody is
}

// Update implements store.Writer.
func (c *client) Update(ctx context.Context, obj api.Object, opts store.UpdateOptions) (api.Object, error) {
	kind, err := api.KindOf(obj)
	if err != nil {
		return nil, apierrors.NewBadRequest(err.Error())
	}
	return c.change(ctx, change{
		verb: "update", kind: kind, namespace: obj.GetNamespace(), name: obj.GetName(),
		subresource: opts.Subresource, manager: opts.FieldManager, dryRun: opts.DryRun,
		next: func(old api.Object) (api.Object, error) {
			if opts.Subresource == "status" && kind.Status {
				merged := withStatus(kind, old, obj)
				merged.SetUID(obj.GetUID())
				merged.SetResourceVersion(obj.GetResourceVersion())
				return merged, nil
			}
			return obj.DeepCopyObject().(api.Object), nil
		},
	})
}

// Patch implements store.Writer.
func (c *client) Patch(ctx context.Context, kind *api.Kind, namespace, name string, patch store.Patch) (api.Object, error) {
	if patch.Type == types.ApplyPatchType || patch.Type == types.ApplyYAMLPatchType {
		return c.apply(ctx, kind, namespace, name, patch)
	}
	return c.change(ctx, change{
		verb: "patch", kind: kind, namespace: namespace, name: name,
		subresource: patch.Subresource, manager: patch.FieldManager, dryRun: patch.DryRun,
		next: func(old api.Object) (api.Object, error) {
			next, err := store.Patched(old, patch)
			if err == nil && next.GetResourceVersion() == old.GetResourceVersion() {
				next.SetResourceVersion("") // the patch does not name a version: it holds for any
			}
			return next, err
		},
	})
}

// change authorises, makes and records a change.
func (c *client) change(ctx context.Context, w change) (api.Object, error) {
	result, err := c.tryChange(ctx, w)
	c.audit(Entry{Verb: w.verb, Kind: w.kind, Subresource: w.subresource, Namespace: w.namespace, Name: w.name, DryRun: w.dryRun, Err: err})
	if err != nil {
		return nil, err
	}
	return Mask(c.id, result), nil
}

func (c *client) tryChange(ctx context.Context, w change) (api.Object, error) {
	if w.kind.CreateOnly {
		return nil, apierrors.NewMethodNotSupported(w.kind.GroupResource(), w.verb)
	}
	if !writable(w.kind, w.subresource) {
		return nil, noSubresource(w.kind, w.name, w.subresource)
	}
	a := attributes(w.kind, w.verb, w.namespace, w.name)
	a.Subresource, a.DryRun = w.subresource, w.dryRun
	if err := c.allow(ctx, w.kind, a, nil); err != nil {
		return nil, err
	}
	for range attempts {
		stored, err := c.r.store.Get(ctx, w.kind, w.namespace, w.name)
		if err != nil {
			return nil, err
		}
		// People try their change on what they may see, so that no patch can carry a Secret's data elsewhere.
		old := Mask(c.id, stored)
		if w.known != nil && w.known(old) {
			return old, nil
		}
		updated, err := w.next(old)
		if err != nil {
			return nil, err
		}
		scope(w.kind, updated)
		pinned, err := expected(w.kind, old, updated)
		if err != nil {
			return nil, err
		}
		result, err := c.replace(ctx, w, old, updated)
		if err == nil && result == old && w.nothing != nil {
			w.nothing(old)
		}
		if err == nil || pinned || !apierrors.IsConflict(err) {
			return result, err
		}
	}
	return nil, conflict(w.kind, w.name, modified)
}

func writable(kind *api.Kind, subresource string) bool {
	switch subresource {
	case "":
		return true
	case "status":
		return kind.Status
	}
	return subresource == "finalize" && slices.Contains(kind.Subs, subresource)
}

// expected checks what the writer says of the object it means. Pinned: it names a version, so that a conflict is
// the writer's to solve.
func expected(kind *api.Kind, old, updated api.Object) (pinned bool, err error) {
	if updated.GetName() != old.GetName() || updated.GetNamespace() != old.GetNamespace() {
		return false, apierrors.NewBadRequest(fmt.Sprintf("%s %q: metadata.name and metadata.namespace cannot change", kind, old.GetName()))
	}
	if uid := updated.GetUID(); uid != "" && uid != old.GetUID() {
		return false, conflict(kind, old.GetName(), fmt.Sprintf("Precondition failed: UID in precondition: %v, UID in object meta: %v", uid, old.GetUID()))
	}
	version := updated.GetResourceVersion()
	if version == "" {
		return false, nil
	}
	if _, err := strconv.ParseUint(version, 10, 64); err != nil {
		invalid := field.Invalid(field.NewPath("metadata", "resourceVersion"), version, "must be a number")
		return false, apierrors.NewInvalid(kind.GroupVersionKind.GroupKind(), old.GetName(), field.ErrorList{invalid})
	}
	if version != old.GetResourceVersion() {
		return true, conflict(kind, old.GetName(), modified)
	}
	return true, nil
}

// replace takes an object through the steps of an update and stores it if it differs from old.
func (c *client) replace(ctx context.Context, w change, old, updated api.Object) (api.Object, error) {
	switch w.subresource {
	case "":
		prepareUpdate(w.kind, old, updated)
	case "status":
		updated = statusOnly(w.kind, old, updated)
		if s := strategies[w.kind]; s.status != nil {
			s.status(updated, old)
		}
	case "finalize":
		finalized := shallow(old).(*corev1.Namespace)
		finalized.Spec.Finalizers = updated.(*corev1.Namespace).Spec.Finalizers
		updated = finalized
	}
	if err := c.validateUpdate(ctx, w, old, updated); err != nil {
		return nil, err
	}
	wholeSeconds(updated)
	if sameButRecord(old, updated) && (!w.tracked || ownership.Same(old.GetManagedFields(), updated.GetManagedFields())) {
		return old, nil // nothing to write
	}
	if !w.tracked {
		updated.SetManagedFields(old.GetManagedFields())
		if err := c.own(w.kind, old, updated, w.manager, w.subresource); err != nil {
			return nil, err
		}
	}
	if removable(old, updated) {
		return c.remove(ctx, old, updated, w.dryRun)
	}
	if w.kind == api.Services && w.subresource == "" {
		return c.r.allocate(ctx, old, updated, w.dryRun)
	}
	if w.dryRun {
		return updated, nil
	}
	return c.r.commit(ctx, store.Replace(old, updated))
}

// prepareUpdate takes from old what an update cannot change, and defaults the rest.
func prepareUpdate(kind *api.Kind, old, updated api.Object) {
	updated.GetObjectKind().SetGroupVersionKind(kind.GroupVersionKind)
	updated.SetUID(old.GetUID())
	updated.SetCreationTimestamp(old.GetCreationTimestamp())
	updated.SetDeletionTimestamp(old.GetDeletionTimestamp())
	updated.SetDeletionGracePeriodSeconds(old.GetDeletionGracePeriodSeconds())
	updated.SetGeneration(old.GetGeneration())
	updated.SetResourceVersion(old.GetResourceVersion())
	updated.SetSelfLink("")
	if kind.Status {
		part(updated, "Status").Set(part(old, "Status"))
	}
	s := strategies[kind]
	if s.update != nil {
		s.update(updated, old)
	}
	api.Default(updated)
	if s.changed != nil && s.changed(updated, old) {
		updated.SetGeneration(old.GetGeneration() + 1)
	}
}

// statusOnly returns old with updated's status and record of field ownership, and with what else the kind lets a
// write of status set.
func statusOnly(kind *api.Kind, old, updated api.Object) api.Object {
	next := shallow(old)
	part(next, "Status").Set(part(updated, "Status"))
	if strategies[kind].annotates {
		next.SetAnnotations(updated.GetAnnotations())
	}
	next.SetManagedFields(updated.GetManagedFields())
	return next
}

func (c *client) validateUpdate(ctx context.Context, w change, old, updated api.Object) error {
	var errs field.ErrorList
	switch {
	case w.subresource == "finalize":
		errs = api.ValidateFinalize(updated, old)
	case w.subresource == "status" && !c.id.IsPart():
		// Status writes of Slipway's own parts stay on versioned types; the edge is validated.
		errs = api.ValidateStatusUpdate(updated, old)
	case w.subresource == "":
		if err := c.admit(ctx, w.kind, old, updated); err != nil {
			return err
		}
		errs = api.ValidateUpdate(updated, old)
	}
	if len(errs) > 0 {
		return apierrors.NewInvalid(w.kind.GroupVersionKind.GroupKind(), old.GetName(), errs)
	}
	return nil
}

// sameButRecord says whether two states differ in nothing but the record of field ownership.
func sameButRecord(old, updated api.Object) bool {
	a, b := shallow(old), shallow(updated)
	a.SetManagedFields(nil)
	b.SetManagedFields(nil)
	b.SetResourceVersion(a.GetResourceVersion())
	b.GetObjectKind().SetGroupVersionKind(a.GetObjectKind().GroupVersionKind())
	return equality.Semantic.DeepEqual(a, b)
}
