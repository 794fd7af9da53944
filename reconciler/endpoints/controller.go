package endpoints

import (
	"context"
	"fmt"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/labels"

	"github.com/slipway-dev/slipway/apiserver/api"
	"github.com/slipway-dev/slipway/apiserver/event"
	"github.com/slipway-dev/slipway/apiserver/store"
	"github.com/slipway-dev/slipway/reconciler/loop"
)

const (
	name    = "endpoints"
	workers = 4
)

type controller struct {
	client store.Client
	events event.Recorder
}

// New returns the controller. It acts through client and speaks through events.
func New(client store.Client, events event.Recorder) loop.Controller {
	c := &controller{client: client, events: events}
	return loop.Controller{Name: name, Workers: workers, Reconcile: c.reconcile, Inputs: []loop.Input{
		{Kind: api.Services, Keys: loop.Own},
		{Kind: api.Pods, Keys: c.podKeys},
		{Kind: api.Endpoints, Keys: loop.Own},
		{Kind: api.EndpointSlices, Keys: sliceKeys},
	}}
}

// podKeys returns the Services that select a Pod or did before, if something they publish changed.
func (c *controller) podKeys(old, obj api.Object, deleted bool) []loop.Key {
	pod, _ := obj.(*corev1.Pod)
	before, _ := old.(*corev1.Pod)
	if before != nil && !deleted && same(before, pod) {
		return nil
	}
	services, err := store.All[*corev1.Service](context.Background(), c.client, store.ListOptions{Namespace: pod.Namespace})
	if err != nil {
		return nil // the Services get a turn when the watch is back
	}
	var keys []loop.Key
	for _, svc := range services {
		if !selects(svc) {
			continue
		}
		if picks(svc, pod) || before != nil && picks(svc, before) {
			keys = append(keys, loop.KeyOf(svc))
		}
	}
	return keys
}

// picks says whether svc selects pod. It is asked for every Service and every change of a Pod.
func picks(svc *corev1.Service, pod *corev1.Pod) bool {
	for key, value := range svc.Spec.Selector {
		if got, ok := pod.Labels[key]; !ok || got != value {
			return false
		}
	}
	return len(svc.Spec.Selector) > 0
}

// same says that nothing a Service publishes differs.
func same(a, b *corev1.Pod) bool {
	return a.UID == b.UID && equality.Semantic.DeepEqual(a.Labels, b.Labels) && addressOf(a) == addressOf(b) && isReady(a) == isReady(b) &&
		(a.DeletionTimestamp == nil) == (b.DeletionTimestamp == nil) && a.Status.Phase == b.Status.Phase && a.Spec.NodeName == b.Spec.NodeName
}

func sliceKeys(old, obj api.Object, _ bool) []loop.Key {
	var keys []loop.Key
	for _, s := range []api.Object{old, obj} {
		if s != nil && s.GetLabels()[discoveryv1.LabelServiceName] != "" {
			keys = append(keys, loop.Key{Namespace: s.GetNamespace(), Name: s.GetLabels()[discoveryv1.LabelServiceName]})
		}
	}
	return keys
}

func (c *controller) reconcile(ctx context.Context, key loop.Key) error {
	o, err := c.observe(ctx, key)
	if err != nil {
		return err
	}
	for _, action := range plan(o) {
		if err := c.apply(ctx, action); err != nil {
			if o.Service != nil && !apierrors.IsConflict(err) && !apierrors.HasStatusCause(err, corev1.NamespaceTerminatingCause) {
				c.events.Event(o.Service, corev1.EventTypeWarning, "FailedToUpdateEndpoints", fmt.Sprintf("%s: %v", action, err))
			}
			return fmt.Errorf("%s: %w", action, err)
		}
	}
	return nil
}

func (c *controller) observe(ctx context.Context, key loop.Key) (observed, error) {
	var o observed
	svc, err := store.Get[*corev1.Service](ctx, c.client, key.Namespace, key.Name)
	switch {
	case err == nil:
		o.Service = svc
	case !apierrors.IsNotFound(err):
		return o, fmt.Errorf("get service %s: %w", key, err)
	}
	ep, err := store.Get[*corev1.Endpoints](ctx, c.client, key.Namespace, key.Name)
	switch {
	case err == nil:
		o.Endpoints = ep
	case !apierrors.IsNotFound(err):
		return o, fmt.Errorf("get endpoints %s: %w", key, err)
	}
	its := labels.SelectorFromSet(labels.Set{discoveryv1.LabelServiceName: key.Name})
	if o.Slices, err = store.All[*discoveryv1.EndpointSlice](ctx, c.client, store.ListOptions{Namespace: key.Namespace, Labels: its}); err != nil {
		return o, fmt.Errorf("list endpointslices of %s: %w", key, err)
	}
	if o.Service == nil || !selects(o.Service) {
		return o, nil
	}
	if o.Pods, err = store.All[*corev1.Pod](ctx, c.client, store.ListOptions{Namespace: key.Namespace, Labels: labels.SelectorFromSet(svc.Spec.Selector)}); err != nil {
		return o, fmt.Errorf("list pods of %s: %w", key, err)
	}
	return o, nil
}

func (c *controller) apply(ctx context.Context, action Action) error {
	var err error
	switch a := action.(type) {
	case CreateEndpoints:
		_, err = c.client.Create(ctx, a.Endpoints, store.CreateOptions{FieldManager: name})
	case UpdateEndpoints:
		_, err = c.client.Update(ctx, a.Endpoints, store.UpdateOptions{FieldManager: name})
	case DeleteEndpoints:
		return c.delete(ctx, a.Endpoints)
	case CreateSlice:
		_, err = c.client.Create(ctx, a.Slice, store.CreateOptions{FieldManager: name})
	case UpdateSlice:
		_, err = c.client.Update(ctx, a.Slice, store.UpdateOptions{FieldManager: name})
	case DeleteSlice:
		return c.delete(ctx, a.Slice)
	}
	return err
}

func (c *controller) delete(ctx context.Context, obj api.Object) error {
	kind, err := api.KindOf(obj)
	if err != nil {
		return err
	}
	_, err = c.client.Delete(ctx, kind, obj.GetNamespace(), obj.GetName(), store.DeleteOptions{UID: obj.GetUID()})
	if apierrors.IsNotFound(err) {
		return nil
	}
	return err
}
