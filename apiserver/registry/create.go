package registry

import (
	"context"
	"fmt"

	"github.com/google/uuid"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/rand"

	"github.com/slipway-dev/slipway/apiserver/api"
	"github.com/slipway-dev/slipway/apiserver/registry/access"
	"github.com/slipway-dev/slipway/apiserver/registry/ownership"
	"github.com/slipway-dev/slipway/apiserver/store"
)

// attempts bounds how often a write is tried against concurrent ones.
const attempts = 64

// Create implements store.Writer.
func (c *client) Create(ctx context.Context, obj api.Object, opts store.CreateOptions) (api.Object, error) {
	kind, err := api.KindOf(obj)
	if err != nil {
		return nil, apierrors.NewBadRequest(err.Error())
	}
	var result api.Object
	switch {
	case opts.Subresource != "" || kind.CreateOnly:
		result, err = c.act(ctx, kind, obj, opts)
	default:
		result, err = c.create(ctx, kind, obj, opts)
	}
	c.audit(Entry{Verb: "create", Kind: kind, Subresource: opts.Subresource, Namespace: obj.GetNamespace(), Name: obj.GetName(), DryRun: opts.DryRun, Err: err})
	if err != nil {
		return nil, err
	}
	return Mask(c.id, result), nil
}

func (c *client) audit(e Entry) {
	if c.r.audit != nil {
		e.Identity = c.id
		c.r.audit(e)
	}
}

func (c *client) create(ctx context.Context, kind *api.Kind, obj api.Object, opts store.CreateOptions) (api.Object, error) {
	a := attributes(kind, "create", obj.GetNamespace(), obj.GetName())
	a.DryRun = opts.DryRun
	if err := c.allow(ctx, kind, a, nil); err != nil {
		return nil, err
	}
	if err := named(kind, obj); err != nil {
		return nil, err
	}
	generated := obj.GetName() == ""
	for range attempts {
		fresh := obj.DeepCopyObject().(api.Object)
		if err := c.prepareCreate(ctx, kind, fresh); err != nil {
			return nil, err
		}
		if err := c.own(kind, nil, fresh, opts.FieldManager, ""); err != nil {
			return nil, err
		}
		result, err := c.insert(ctx, kind, fresh, opts.DryRun)
		if generated && apierrors.IsAlreadyExists(err) {
			continue // the random part was taken
		}
		return result, err
	}
	return nil, apierrors.NewGenerateNameConflict(kind.GroupResource(), obj.GetGenerateName(), 1)
}

// allow is Authorize with, for people, the sentence that says where to make the change. obj is the stored object,
// if there is one.
func (c *client) allow(ctx context.Context, kind *api.Kind, a Attributes, obj api.Object) error {
	err := c.r.Authorize(ctx, c.id, a)
	if err == nil || !apierrors.IsForbidden(err) || !c.id.In(access.GroupPeople) || a.Subresource != "" && a.Subresource != "status" {
		return err
	}
	if obj == nil && a.Verb != "create" {
		obj, _ = c.r.store.Get(ctx, kind, a.Namespace, a.Name) // without it the sentence is just less precise
	}
	return c.r.readOnly(ctx, kind, a.Name, obj)
}

// named checks what identifies a new object.
func named(kind *api.Kind, obj api.Object) error {
	switch {
	case obj.GetResourceVersion() != "":
		return apierrors.NewBadRequest("resourceVersion should not be set on objects to be created")
	case obj.GetName() == "" && obj.GetGenerateName() == "":
		return apierrors.NewBadRequest(fmt.Sprintf("%s: name or generateName is required", kind))
	case kind.Namespaced && obj.GetNamespace() == "":
		return apierrors.NewBadRequest(fmt.Sprintf("%s %q: namespace is required", kind, obj.GetName()))
	}
	return nil
}

// scope takes the namespace from an object whose kind has none, as upstream does.
func scope(kind *api.Kind, obj api.Object) {
	if !kind.Namespaced {
		obj.SetNamespace("")
	}
}

// prepareCreate turns what a client sent into what will be stored, field ownership and addresses of Services aside.
func (c *client) prepareCreate(ctx context.Context, kind *api.Kind, obj api.Object) error {
	obj.GetObjectKind().SetGroupVersionKind(kind.GroupVersionKind)
	scope(kind, obj)
	obj.SetManagedFields(nil)
	obj.SetUID(types.UID(uuid.NewString()))
	obj.SetCreationTimestamp(c.r.timestamp())
	obj.SetDeletionTimestamp(nil)
	obj.SetDeletionGracePeriodSeconds(nil)
	obj.SetSelfLink("")
	if obj.GetName() == "" {
		obj.SetName(generateName(obj.GetGenerateName()))
	}
	api.Default(obj)
	s := strategies[kind]
	obj.SetGeneration(0)
	if s.changed != nil {
		obj.SetGeneration(1)
	}
	if kind.Status && !s.keepStatus {
		part(obj, "Status").SetZero()
	}
	if s.create != nil {
		s.create(obj)
	}
	if err := c.admit(ctx, kind, nil, obj); err != nil {
		return err
	}
	if errs := api.Validate(obj); len(errs) > 0 {
		return apierrors.NewInvalid(kind.GroupVersionKind.GroupKind(), obj.GetName(), errs)
	}
	wholeSeconds(obj)
	return nil
}

// own records who set which fields.
func (c *client) own(kind *api.Kind, old, obj api.Object, manager, subresource string) error {
	by := ownership.By{Manager: c.manager(manager), Subresource: subresource, Now: c.r.timestamp()}
	if c.id.IsPart() && c.r.owners.Part(kind, old, obj, by) {
		return nil
	}
	if err := c.r.owners.Update(kind, old, obj, by); err != nil {
		return apierrors.NewInternalError(err)
	}
	return nil
}

// manager returns the name under which fields are owned.
func (c *client) manager(name string) string {
	if name == "" {
		return c.id.Name
	}
	return name
}

// insert stores a prepared object, a Service with its addresses.
func (c *client) insert(ctx context.Context, kind *api.Kind, obj api.Object, dryRun bool) (api.Object, error) {
	if kind == api.Services {
		return c.r.allocate(ctx, nil, obj, dryRun)
	}
	if dryRun {
		return c.r.tried(ctx, nil, obj)
	}
	return c.r.commit(ctx, store.Insert(obj))
}

// tried is what a dry run answers instead of storing obj in place of old.
func (r *Registry) tried(ctx context.Context, old, obj api.Object) (api.Object, error) {
	if old != nil {
		return obj, nil
	}
	kind, err := api.KindOf(obj)
	if err != nil {
		return nil, apierrors.NewInternalError(err)
	}
	_, err = r.store.Get(ctx, kind, obj.GetNamespace(), obj.GetName())
	switch {
	case err == nil:
		return nil, apierrors.NewAlreadyExists(kind.GroupResource(), obj.GetName())
	case !apierrors.IsNotFound(err):
		return nil, err
	}
	return obj, nil
}

// commit stores and returns the first op's object.
func (r *Registry) commit(ctx context.Context, ops ...store.Op) (api.Object, error) {
	objects, err := r.store.Txn(ctx, ops...)
	if err != nil {
		return nil, err
	}
	return objects[0], nil
}

// Generated names are upstream's: the prefix cut to 58 characters and five random ones.
const (
	maxGeneratedPrefix = 58
	generatedSuffix    = 5
)

func generateName(prefix string) string {
	if len(prefix) > maxGeneratedPrefix {
		prefix = prefix[:maxGeneratedPrefix]
	}
	return prefix + rand.String(generatedSuffix)
}
