package garbage

import (
	"context"
	"fmt"
	"slices"
	"strconv"
	"sync"

	"golang.org/x/sync/errgroup"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/slipway-dev/slipway/apiserver/api"
	"github.com/slipway-dev/slipway/apiserver/event"
	"github.com/slipway-dev/slipway/apiserver/store"
	"github.com/slipway-dev/slipway/reconciler/loop"
)

const (
	name    = "garbage"
	workers = 16
	// mostAtOnce bounds the writes of one turn that are in flight, and maxLost how many lost owners are remembered.
	mostAtOnce = 64
	maxLost    = 500
)

// reasonNamespace is upstream's reason of an Event about an owner that cannot be one.
const reasonNamespace = "OwnerRefInvalidNamespace"

type controller struct {
	client store.Client
	events event.Recorder
	index  *index

	mu   sync.Mutex
	lost map[types.UID]bool // owners that are in no namespace
}

// New returns the controller. It acts through client and speaks through events.
func New(client store.Client, events event.Recorder) loop.Controller {
	c := &controller{client: client, events: events, index: newIndex(kinds()...), lost: map[types.UID]bool{}}
	var inputs []loop.Input
	for _, kind := range kinds() {
		inputs = append(inputs, loop.Input{Kind: kind, Keys: func(old, obj api.Object, deleted bool) []loop.Key {
			return c.index.changed(kind, old, obj, deleted)
		}, Known: func(all bool) { c.index.known(kind, all) }})
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
	return c.carryOut(ctx, plan(o))
}

// carryOut applies actions, those on dependants side by side. What is done to the object itself comes after all others
// have succeeded: a finalizer is what brings a turn that was cut off back.
func (c *controller) carryOut(ctx context.Context, actions []Action) error {
	var group errgroup.Group
	group.SetLimit(mostAtOnce)
	for _, action := range actions {
		if _, last := action.(Release); last {
			if err := group.Wait(); err != nil {
				return err
			}
		}
		group.Go(func() error {
			if err := c.apply(ctx, action); err != nil && !apierrors.IsNotFound(err) {
				return fmt.Errorf("%s: %w", action, err)
			}
			return nil
		})
	}
	return group.Wait()
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
	if !needsDependants(o) {
		return o, nil
	}
	list := false
	if o.Held, list = o.known(c.index); list {
		o.Dependants, err = c.dependants(ctx, obj)
	}
	return o, err
}

// known asks the index, so that an object with thousands of dependants does not list them after the end of each, and
// whether they have to be listed. What is held is looked at again when the index hears of a change. That nobody is
// there is only believed of an object that is not being deleted yet: no finalizer is taken off on the index's word.
func (o observed) known(x *index) (held, list bool) {
	perhaps, blocking := x.owns(o.Object.GetUID())
	if o.Object.GetDeletionTimestamp() == nil {
		return false, perhaps
	}
	held = blocking && inForeground(o.Object)
	return held, !held
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
			c.events.Event(obj, corev1.EventTypeWarning, reasonNamespace, fmt.Sprintf("owner %s %s lives in a namespace, this object does not", ref.Kind, ref.Name))
			return solid, nil
		}
	}
	found, err := c.client.Get(ctx, kind, namespace, ref.Name)
	switch {
	case apierrors.IsNotFound(err), err == nil && found.GetUID() != ref.UID:
		return absent, c.seek(ctx, kind, obj, ref)
	case err != nil:
		return solid, fmt.Errorf("get owner %s %s: %w", kind, ref.Name, err)
	case found.GetDeletionTimestamp() != nil && inForeground(found):
		return waiting, nil
	}
	return solid, nil
}

// seek tells where the owner is that obj's namespace does not have. An owner in another namespace is none, but
// whoever wrote the reference believed it to be one.
func (c *controller) seek(ctx context.Context, kind *api.Kind, obj api.Object, ref metav1.OwnerReference) error {
	c.mu.Lock()
	lost := c.lost[ref.UID]
	c.mu.Unlock()
	if !kind.Namespaced || lost {
		return nil
	}
	list, err := c.client.List(ctx, kind, store.ListOptions{})
	if err != nil {
		return fmt.Errorf("list %s: %w", kind, err)
	}
	for _, other := range list.Items {
		if other.GetUID() == ref.UID {
			c.events.Event(obj, corev1.EventTypeWarning, reasonNamespace, fmt.Sprintf("owner %s %s is in namespace %q, and cannot own what is in namespace %q",
				ref.Kind, ref.Name, other.GetNamespace(), obj.GetNamespace()))
			return nil
		}
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if len(c.lost) >= maxLost {
		clear(c.lost)
	}
	c.lost[ref.UID] = true // nobody gets this uid again
	return nil
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
