package namespace

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/slipway-dev/slipway/apiserver/api"
	"github.com/slipway-dev/slipway/apiserver/event"
	"github.com/slipway-dev/slipway/apiserver/store"
	"github.com/slipway-dev/slipway/reconciler/loop"
)

const (
	name    = "namespace"
	workers = 4
	// recheck is when a namespace that is being deleted is looked at again although nothing was seen to change: a
	// deletion during a broken watch goes unnoticed.
	recheck = 30 * time.Second
)

type controller struct{ client store.Client }

// New returns the controller. It acts through client; it says nothing through events.
func New(client store.Client, _ event.Recorder) loop.Controller {
	c := &controller{client: client}
	inputs := []loop.Input{{Kind: api.Namespaces, Keys: loop.Own}}
	for _, kind := range contentKinds() {
		inputs = append(inputs, loop.Input{Kind: kind, Keys: goneKey, Stateless: true})
	}
	return loop.Controller{Name: name, Workers: workers, Reconcile: c.reconcile, Inputs: inputs}
}

// Ensure makes the namespaces of the system that do not exist. It is called before anything else writes.
func Ensure(ctx context.Context, client store.Client) error {
	for _, n := range system {
		_, err := client.Get(ctx, api.Namespaces, "", n)
		if apierrors.IsNotFound(err) {
			err = create(ctx, client, n)
		}
		if err != nil {
			return fmt.Errorf("ensure namespace %s: %w", n, err)
		}
	}
	return nil
}

func create(ctx context.Context, client store.Client, object string) error {
	_, err := client.Create(ctx, &corev1.Namespace{
		TypeMeta: metav1.TypeMeta{APIVersion: "v1", Kind: "Namespace"}, ObjectMeta: metav1.ObjectMeta{Name: object},
	}, store.CreateOptions{FieldManager: name})
	if apierrors.IsAlreadyExists(err) {
		return nil
	}
	return err
}

// contentKinds returns the stored kinds that live in namespaces.
func contentKinds() []*api.Kind {
	return slices.DeleteFunc(api.Kinds(), func(k *api.Kind) bool { return !k.Namespaced || k.CreateOnly })
}

// goneKey wakes the namespace of an object that is gone.
func goneKey(_, obj api.Object, deleted bool) []loop.Key {
	if !deleted {
		return nil
	}
	return []loop.Key{{Name: obj.GetNamespace()}}
}

func (c *controller) reconcile(ctx context.Context, key loop.Key) error {
	o, err := c.observe(ctx, key.Name)
	if err != nil {
		return err
	}
	var failed error
	for _, action := range plan(o) {
		if err := c.apply(ctx, action); err != nil {
			failed = errors.Join(failed, fmt.Errorf("%s: %w", action, err))
			o.Failures = append(o.Failures, fmt.Sprintf("%s: %v", action, err))
		}
	}
	if o.Namespace == nil || o.Namespace.DeletionTimestamp == nil || len(remaining(o.Content)) == 0 {
		return failed
	}
	if err := c.writeStatus(ctx, o); err != nil || failed != nil {
		return errors.Join(failed, err)
	}
	return loop.Wait(recheck)
}

func (c *controller) observe(ctx context.Context, object string) (observed, error) {
	o := observed{Name: object, Now: time.Now()}
	ns, err := store.Get[*corev1.Namespace](ctx, c.client, "", object)
	if apierrors.IsNotFound(err) {
		return o, nil
	}
	if err != nil {
		return o, fmt.Errorf("get namespace %s: %w", object, err)
	}
	o.Namespace = ns
	if ns.DeletionTimestamp == nil {
		return o, nil
	}
	o.Content, err = c.content(ctx, object)
	return o, err
}

func (c *controller) content(ctx context.Context, object string) ([]Content, error) {
	var all []Content
	for _, kind := range contentKinds() {
		list, err := c.client.List(ctx, kind, store.ListOptions{Namespace: object})
		if err != nil {
			return nil, fmt.Errorf("list %s of %s: %w", kind, object, err)
		}
		all = append(all, Content{kind, list.Items})
	}
	return all, nil
}

func (c *controller) apply(ctx context.Context, action Action) error {
	switch a := action.(type) {
	case Create:
		return create(ctx, c.client, a.Name)
	case Delete:
		_, err := c.client.Delete(ctx, a.Kind, a.Object.GetNamespace(), a.Object.GetName(),
			store.DeleteOptions{UID: a.Object.GetUID(), Propagation: metav1.DeletePropagationBackground})
		if apierrors.IsNotFound(err) || apierrors.IsConflict(err) {
			return nil // gone, or another one under its name: the next turn sees it
		}
		return err
	case Finalize:
		ns := a.Namespace.DeepCopy()
		ns.Spec.Finalizers = slices.DeleteFunc(ns.Spec.Finalizers, func(f corev1.FinalizerName) bool { return f == corev1.FinalizerKubernetes })
		_, err := c.client.Update(ctx, ns, store.UpdateOptions{Subresource: "finalize", FieldManager: name})
		if apierrors.IsNotFound(err) {
			return nil
		}
		return err
	}
	return nil
}

// writeStatus writes the conditions if something is still left after this turn's deletions.
func (c *controller) writeStatus(ctx context.Context, o observed) error {
	var err error
	if o.Content, err = c.content(ctx, o.Name); err != nil {
		return err
	}
	status := newStatus(o)
	if equality.Semantic.DeepEqual(o.Namespace.Status, status) {
		return nil
	}
	ns := *o.Namespace // a shallow copy: only status differs
	ns.Status = status
	if _, err = c.client.Update(ctx, &ns, store.UpdateOptions{Subresource: "status", FieldManager: name}); err != nil && !apierrors.IsNotFound(err) {
		return fmt.Errorf("update status of namespace %s: %w", o.Name, err)
	}
	return nil
}
