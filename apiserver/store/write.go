package store

import (
	"bytes"
	"context"
	"fmt"
	"reflect"
	"strconv"

	apierrors "k8s.io/apimachinery/pkg/api/errors"

	"github.com/slipway-dev/slipway/apiserver/api"
)

// attempts bounds how often a write without a version of its own is tried against concurrent ones.
const attempts = 64

// Create implements Writer. The raw store has no create subresources.
func (s *Store) Create(ctx context.Context, obj api.Object, opts CreateOptions) (api.Object, error) {
	k, err := s.kindOf(obj)
	if err != nil {
		return nil, err
	}
	if opts.Subresource != "" {
		return nil, noSubresource(k.kind, opts.Subresource)
	}
	if obj.GetResourceVersion() != "" {
		return nil, apierrors.NewBadRequest("resourceVersion should not be set on objects to be created")
	}
	obj = obj.DeepCopyObject().(api.Object)
	if opts.DryRun {
		it, err := s.get(ctx, k.kind, obj.GetNamespace(), obj.GetName())
		if err == nil && it != nil {
			err = apierrors.NewAlreadyExists(k.kind.GroupResource(), obj.GetName())
		}
		return obj, err
	}
	return s.one(ctx, Insert(obj))
}

// one does a transaction of one op.
func (s *Store) one(ctx context.Context, op Op) (api.Object, error) {
	objects, err := s.Txn(ctx, op)
	if err != nil {
		return nil, err
	}
	return objects[0], nil
}

// Update implements Writer. An update that changes nothing writes nothing.
func (s *Store) Update(ctx context.Context, obj api.Object, opts UpdateOptions) (api.Object, error) {
	kind, err := api.KindOf(obj)
	if err != nil {
		return nil, apierrors.NewBadRequest(err.Error())
	}
	return s.rewrite(ctx, kind, obj.GetNamespace(), obj.GetName(), rewriting{
		subresource: opts.Subresource, dryRun: opts.DryRun,
		next: func(api.Object) (api.Object, error) { return obj.DeepCopyObject().(api.Object), nil },
	})
}

// Patch implements Writer for JSON, merge and strategic merge patches.
func (s *Store) Patch(ctx context.Context, kind *api.Kind, namespace, name string, patch Patch) (api.Object, error) {
	return s.rewrite(ctx, kind, namespace, name, rewriting{
		subresource: patch.Subresource, dryRun: patch.DryRun,
		next: func(current api.Object) (api.Object, error) { return Patched(current, patch) },
	})
}

// rewriting is how one object is to become another.
type rewriting struct {
	subresource string
	dryRun      bool
	next        func(current api.Object) (api.Object, error) // returns an object of its own
}

// rewrite replaces an object by what c makes of it, again when another writer was faster. A resourceVersion in what
// c makes must be the current one.
func (s *Store) rewrite(ctx context.Context, kind *api.Kind, namespace, name string, c rewriting) (api.Object, error) {
	if c.subresource != "" && (c.subresource != "status" || !kind.Status) {
		return nil, noSubresource(kind, c.subresource)
	}
	for range attempts {
		it, err := s.get(ctx, kind, namespace, name)
		if err != nil {
			return nil, err
		}
		if it == nil {
			return nil, notFound(kind, name)
		}
		next, err := c.next(it.obj)
		if err != nil {
			return nil, err
		}
		if err := matches(kind, it, next); err != nil {
			return nil, err
		}
		next = split(kind, it.obj, next, c.subresource)
		if same, err := s.same(it.obj, next); err != nil || same {
			return it.obj, err
		}
		if c.dryRun {
			return next, nil
		}
		written, err := s.one(ctx, Replace(it.obj, next))
		if err == nil || !apierrors.IsConflict(err) {
			return written, err
		}
	}
	return nil, changedMeanwhile(kind, name)
}

// matches checks what the writer says of the object it means.
func matches(kind *api.Kind, it *item, next api.Object) error {
	if next.GetName() != it.name || next.GetNamespace() != it.namespace {
		return apierrors.NewBadRequest(fmt.Sprintf("%s %q: metadata.name and metadata.namespace cannot change", kind, it.name))
	}
	if uid := next.GetUID(); uid != "" && uid != it.obj.GetUID() {
		return conflict(kind, it.name, fmt.Sprintf("uid is %s, want %s", it.obj.GetUID(), uid))
	}
	version := next.GetResourceVersion()
	if version == "" {
		return nil
	}
	if _, err := strconv.ParseUint(version, 10, 64); err != nil {
		return apierrors.NewBadRequest(fmt.Sprintf("resourceVersion %q is not a number", version))
	}
	if version != it.obj.GetResourceVersion() {
		return changedMeanwhile(kind, it.name)
	}
	return nil
}

// split takes from next what the subresource may write and the rest from current. next is the store's own.
func split(kind *api.Kind, current, next api.Object, subresource string) api.Object {
	if subresource == "status" {
		merged := shallow(current)
		field(merged, "Status").Set(field(next, "Status"))
		merged.SetResourceVersion("")
		return merged
	}
	if kind.Status {
		field(next, "Status").Set(field(current, "Status"))
	}
	if next.GetUID() == "" {
		next.SetUID(current.GetUID())
	}
	if created := next.GetCreationTimestamp(); created.IsZero() {
		next.SetCreationTimestamp(current.GetCreationTimestamp())
	}
	next.SetResourceVersion("")
	next.GetObjectKind().SetGroupVersionKind(kind.GroupVersionKind)
	return next
}

func field(obj api.Object, name string) reflect.Value {
	return reflect.ValueOf(obj).Elem().FieldByName(name)
}

// same says whether two objects are stored alike.
func (s *Store) same(current, next api.Object) (bool, error) {
	bare := shallow(current)
	bare.SetResourceVersion("")
	before, err := s.codec.Encode(bare)
	if err != nil {
		return false, apierrors.NewInternalError(err)
	}
	after, err := s.codec.Encode(next)
	if err != nil {
		return false, apierrors.NewInternalError(err)
	}
	return bytes.Equal(before, after), nil
}

// Delete implements Writer. The raw store removes at once, whatever finalizers and grace period say.
func (s *Store) Delete(ctx context.Context, kind *api.Kind, namespace, name string, opts DeleteOptions) (api.Object, error) {
	for range attempts {
		it, err := s.get(ctx, kind, namespace, name)
		if err != nil {
			return nil, err
		}
		if it == nil {
			return nil, notFound(kind, name)
		}
		if opts.UID != "" && opts.UID != it.obj.GetUID() {
			return nil, conflict(kind, name, fmt.Sprintf("uid is %s, want %s", it.obj.GetUID(), opts.UID))
		}
		if opts.Revision != 0 && opts.Revision != it.revision {
			return nil, conflict(kind, name, fmt.Sprintf("resourceVersion is %d, want %d", it.revision, opts.Revision))
		}
		if opts.DryRun {
			return it.obj, nil
		}
		last, err := s.one(ctx, Remove(it.obj))
		if err == nil || !apierrors.IsConflict(err) {
			return last, err
		}
	}
	return nil, changedMeanwhile(kind, name)
}

func noSubresource(kind *api.Kind, subresource string) error {
	return apierrors.NewGenericServerResponse(404, "get", kind.GroupResource(), "", "no subresource "+subresource, 0, false)
}

// revisionOf returns an object's resourceVersion, 0 if it has none.
func revisionOf(obj api.Object) uint64 {
	revision, err := strconv.ParseUint(obj.GetResourceVersion(), 10, 64)
	if err != nil {
		return 0
	}
	return revision
}
