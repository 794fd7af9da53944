package garbage

import (
	"context"
	"fmt"
	"slices"
	"strconv"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/slipway-dev/slipway/apiserver/api"
	"github.com/slipway-dev/slipway/apiserver/event"
	"github.com/slipway-dev/slipway/apiserver/store"
	"github.com/slipway-dev/slipway/reconciler/loop"
)

const (
	name    = "garbage"
	workers = 16
)

type controller struct {
	client store.Client
	events event.Recorder
	index  *index
}

// New returns the controller. It acts through client and speaks through events.
func New(client store.Client, events event.Recorder) loop.Controller {
	c := &controller{client: client, events: events, index: newIndex()}
	var inputs []loop.Input
	for _, kind := range kinds() {
		inputs = append(inputs, loop.Input{Kind: kind, Keys: func(old, obj api.Object, deleted bool) []loop.Key {
			return c.index.changed(kind, old, obj, deleted)
		}})
	}
	return loop.Controller{Name: name, Workers: workers, Inputs: inputs, Reconcile: c.reconcile}
}

// kinds returns what can own or be owned: everything stored but Events, of which there are many.
func kinds() []*api.Kind {
	return slices.DeleteFunc(api.Kinds(), func(k *api.Kind) bool { return k.CreateOnly || k == api.Events })
}

func (c *controller) reconcile(ctx context.Context, key loop.Key) error {
	o, err := c.observe(ctx, key)
	if err != nil || o.Object == nil {
		return err
	}
	for _, action := range plan(o) {
		if err := c.apply(ctx, action); err != nil && !apierrors.IsNotFound(err) {
			return fmt.Errorf("%s: %w", action, err)
		}
	}
	return nil
}

// observe reads the object and what its references lead to. The object is nil when it is gone.
func (c *controller) observe(ctx context.Context, key loop.Key) (observed, error) {
	kind, object := parse(key)
	if kind == nil {
		return observed{}, nil
	}
	obj, err := c.client.Get(ctx, kind, key.Namespace, object)
	if apierrors.IsNotFound(err) {
		return observed{}, nil
	}
	if err != nil {
		return observed{}, fmt.Errorf("get %s: %w", key, err)
	}
	o := observed{Kind: kind, Object: obj}
	if obj.GetDeletionTimestamp() == nil {
		for _, ref := range obj.GetOwnerReferences() {
			s, err := c.look(ctx, obj, ref)
			if err != nil {
				return o, err
			}
			o.Owners = append(o.Owners, owner{ref.UID, s})
		}
	}
	if needsDependants(o) {
		o.Dependants, err = c.dependants(ctx, obj)
	}
	return o, err
}

// look reads what is behind a reference of obj. What cannot be told counts as solid: an unknown kind, and an owner in
// a namespace named by an object in none.
func (c *controller) look(ctx context.Context, obj api.Object, ref metav1.OwnerReference) (state, error) {
	kind := kindOf(ref)
	if kind == nil || kind.CreateOnly {
		return solid, nil
	}
	namespace := ""
	if kind.Namespaced {
		if namespace = obj.GetNamespace(); namespace == "" {
			c.events.Event(obj, corev1.EventTypeWarning, "OwnerRefInvalidNamespace", fmt.Sprintf("owner %s %s lives in a namespace, this object does not", ref.Kind, ref.Name))
			return solid, nil
		}
	}
	found, err := c.client.Get(ctx, kind, namespace, ref.Name)
	switch {
	case apierrors.IsNotFound(err):
		return absent, nil
	case err != nil:
		return solid, fmt.Errorf("get owner %s %s: %w", kind, ref.Name, err)
	case found.GetUID() != ref.UID:
		return absent, nil
	case found.GetDeletionTimestamp() != nil && inForeground(found):
		return waiting, nil
	}
	return solid, nil
}

// dependants lists what names obj as an owner. It reads everything that could, because finalizers are taken off on
// its word.
func (c *controller) dependants(ctx context.Context, obj api.Object) ([]dependant, error) {
	var out []dependant
	for _, kind := range kinds() {
		if obj.GetNamespace() != "" && !kind.Namespaced {
			continue
		}
		list, err := c.client.List(ctx, kind, store.ListOptions{Namespace: obj.GetNamespace()})
		if err != nil {
			return nil, fmt.Errorf("list %s: %w", kind, err)
		}
		for _, item := range list.Items {
			if slices.ContainsFunc(item.GetOwnerReferences(), func(ref metav1.OwnerReference) bool { return ref.UID == obj.GetUID() }) {
				out = append(out, dependant{kind, item})
			}
		}
	}
	return out, nil
}

func (c *controller) apply(ctx context.Context, action Action) error {
	switch a := action.(type) {
	case Delete:
		revision, err := strconv.ParseUint(a.Object.GetResourceVersion(), 10, 64)
		if err != nil {
			return fmt.Errorf("read version: %w", err)
		}
		_, err = c.client.Delete(ctx, a.Kind, a.Object.GetNamespace(), a.Object.GetName(),
			store.DeleteOptions{UID: a.Object.GetUID(), Revision: revision, Propagation: a.Propagation})
		return err
	case Disown:
		obj := a.Object.DeepCopyObject().(api.Object)
		obj.SetOwnerReferences(slices.DeleteFunc(obj.GetOwnerReferences(), func(ref metav1.OwnerReference) bool { return slices.Contains(a.Owners, ref.UID) }))
		_, err := c.client.Update(ctx, obj, store.UpdateOptions{FieldManager: name})
		return err
	case Unblock:
		obj := a.Object.DeepCopyObject().(api.Object)
		obj.SetOwnerReferences(unblocked(obj))
		_, err := c.client.Update(ctx, obj, store.UpdateOptions{FieldManager: name})
		return err
	case Release:
		obj := a.Object.DeepCopyObject().(api.Object)
		obj.SetFinalizers(slices.DeleteFunc(obj.GetFinalizers(), func(f string) bool { return f == a.Finalizer }))
		_, err := c.client.Update(ctx, obj, store.UpdateOptions{FieldManager: name})
		return err
	}
	return nil
}
