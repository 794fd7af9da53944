package registry

import (
	"bytes"
	"context"
	"fmt"
	"sync"

	apierrors "k8s.io/apimachinery/pkg/api/errors"

	"github.com/slipway-dev/slipway/apiserver/api"
	"github.com/slipway-dev/slipway/apiserver/registry/ownership"
	"github.com/slipway-dev/slipway/apiserver/store"
)

// apply is server-side apply: what the patch says is merged with what others own, and the object is created if it
// is not there.
func (c *client) apply(ctx context.Context, kind *api.Kind, namespace, name string, patch store.Patch) (api.Object, error) {
	read := sync.OnceValues(func() ([]byte, error) { return readApply(kind, namespace, name, patch) })
	by := ownership.By{Manager: patch.FieldManager, Subresource: patch.Subresource, Force: patch.Force, Now: c.r.timestamp()}
	// Only of a patch that means the object whatever its state can it be remembered that it changes nothing.
	memorable := patch.Subresource == "" && !bytes.Contains(patch.Data, []byte("resourceVersion"))
	for range attempts {
		if _, err := c.r.store.Get(ctx, kind, namespace, name); apierrors.IsNotFound(err) && patch.Subresource == "" {
			wanted, err := read()
			if err != nil {
				return nil, err
			}
			result, err := c.applyNew(ctx, kind, namespace, name, wanted, by, patch.DryRun)
			if !apierrors.IsAlreadyExists(err) {
				return result, err
			}
			continue // another was faster
		}
		result, err := c.change(ctx, change{
			verb: "patch", kind: kind, namespace: namespace, name: name,
			subresource: patch.Subresource, manager: patch.FieldManager, dryRun: patch.DryRun, tracked: true,
			known: func(old api.Object) bool { return memorable && c.r.memo.Unchanged(old, patch.Data, by) },
			nothing: func(old api.Object) {
				if memorable {
					c.r.memo.Remember(old, patch.Data, by)
				}
			},
			next: func(old api.Object) (api.Object, error) {
				wanted, err := read()
				if err != nil {
					return nil, err
				}
				next, err := c.r.owners.Apply(kind, old, wanted, by)
				if err == nil && next.GetResourceVersion() == old.GetResourceVersion() {
					next.SetResourceVersion("")
				}
				return next, err
			},
		})
		if !apierrors.IsNotFound(err) || patch.Subresource != "" {
			return result, err
		}
	}
	return nil, conflict(kind, name, modified)
}

// readApply checks an apply's own rules and returns it as JSON with name and namespace.
func readApply(kind *api.Kind, namespace, name string, patch store.Patch) ([]byte, error) {
	if patch.FieldManager == "" {
		return nil, apierrors.NewBadRequest("fieldManager is required for apply")
	}
	data, err := api.ToJSON(patch.Data)
	if err != nil {
		return nil, apierrors.NewBadRequest(fmt.Sprintf("apply %s %q: %v", kind, name, err))
	}
	obj, err := api.DecodeAs(data, kind.GroupVersionKind)
	if err != nil {
		return nil, apierrors.NewBadRequest(fmt.Sprintf("apply %s %q: %v", kind, name, err))
	}
	if got := obj.GetName(); got != "" && got != name {
		return nil, apierrors.NewBadRequest(fmt.Sprintf("the name of the object (%s) does not match the name of the request (%s)", got, name))
	}
	if got := obj.GetNamespace(); kind.Namespaced && got != "" && got != namespace {
		return nil, apierrors.NewBadRequest(fmt.Sprintf("the namespace of the object (%s) does not match the namespace of the request (%s)", got, namespace))
	}
	return data, nil
}

func (c *client) applyNew(ctx context.Context, kind *api.Kind, namespace, name string, wanted []byte, by ownership.By, dryRun bool) (api.Object, error) {
	result, err := c.tryApplyNew(ctx, kind, namespace, name, wanted, by, dryRun)
	c.audit(Entry{Verb: "create", Kind: kind, Namespace: namespace, Name: name, DryRun: dryRun, Err: err})
	if err != nil {
		return nil, err
	}
	return Mask(c.id, result), nil
}

func (c *client) tryApplyNew(ctx context.Context, kind *api.Kind, namespace, name string, wanted []byte, by ownership.By, dryRun bool) (api.Object, error) {
	a := attributes(kind, "create", namespace, name)
	a.DryRun = dryRun
	if err := c.allow(ctx, kind, a, nil); err != nil {
		return nil, err
	}
	obj, err := c.r.owners.Apply(kind, nil, wanted, by)
	if err != nil {
		return nil, err
	}
	if obj.GetResourceVersion() != "" || obj.GetUID() != "" {
		return nil, conflict(kind, name, "the object named by uid or resourceVersion does not exist")
	}
	obj.SetName(name)
	obj.SetNamespace(namespace)
	if err := named(kind, obj); err != nil {
		return nil, err
	}
	record := obj.GetManagedFields()
	if err := c.prepareCreate(ctx, kind, obj); err != nil {
		return nil, err
	}
	obj.SetManagedFields(record)
	return c.insert(ctx, kind, obj, dryRun)
}
