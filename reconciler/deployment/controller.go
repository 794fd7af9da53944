package deployment

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/types"

	"github.com/slipway-dev/slipway/apiserver/api"
	"github.com/slipway-dev/slipway/apiserver/event"
	"github.com/slipway-dev/slipway/apiserver/store"
	"github.com/slipway-dev/slipway/reconciler/loop"
)

const (
	name    = "deployment"
	workers = 8
)

type controller struct {
	client   store.Client
	events   event.Recorder
	progress *loop.Ages // since when rollouts made no progress
}

// New returns the controller. It acts through client and speaks through events.
func New(client store.Client, events event.Recorder) loop.Controller {
	c := &controller{client: client, events: events, progress: loop.NewAges()}
	return loop.Controller{Name: name, Workers: workers, Reconcile: c.reconcile, Inputs: []loop.Input{
		{Kind: api.Deployments, Keys: loop.Own},
		{Kind: api.ReplicaSets, Keys: c.setKeys},
		{Kind: api.Pods, Keys: c.podKeys},
	}}
}

// setKeys returns the deployments a changed ReplicaSet concerns: its controller now and before, or the ones that may
// adopt it.
func (c *controller) setKeys(old, obj api.Object, deleted bool) []loop.Key {
	var keys []loop.Key
	for _, rs := range []api.Object{old, obj} {
		if rs == nil {
			continue
		}
		if ref := metav1.GetControllerOfNoCopy(rs); ref != nil && ref.Kind == api.Deployments.Kind {
			keys = append(keys, loop.Key{Namespace: obj.GetNamespace(), Name: ref.Name})
		}
	}
	if len(keys) > 0 || deleted || metav1.GetControllerOfNoCopy(obj) != nil {
		return keys
	}
	all, err := store.All[*appsv1.Deployment](context.Background(), c.client, store.ListOptions{Namespace: obj.GetNamespace()})
	if err != nil {
		return nil // the deployments get a turn when the watch is back
	}
	for _, d := range all {
		selector, err := metav1.LabelSelectorAsSelector(d.Spec.Selector)
		if err == nil && !selector.Empty() && selector.Matches(labels.Set(obj.GetLabels())) {
			keys = append(keys, loop.KeyOf(d))
		}
	}
	return keys
}

// podKeys wakes a Recreate deployment when one of its Pods has ended. Other deployments hear of Pods from their sets.
func (c *controller) podKeys(_, obj api.Object, deleted bool) []loop.Key {
	pod, ok := obj.(*corev1.Pod)
	if !ok || !deleted && pod.Status.Phase != corev1.PodSucceeded && pod.Status.Phase != corev1.PodFailed {
		return nil
	}
	ref := metav1.GetControllerOfNoCopy(pod)
	if ref == nil || ref.Kind != api.ReplicaSets.Kind {
		return nil
	}
	ctx := context.Background()
	rs, err := store.Get[*appsv1.ReplicaSet](ctx, c.client, pod.Namespace, ref.Name)
	if err != nil {
		return nil
	}
	ref = metav1.GetControllerOfNoCopy(rs)
	if ref == nil || ref.Kind != api.Deployments.Kind {
		return nil
	}
	d, err := store.Get[*appsv1.Deployment](ctx, c.client, pod.Namespace, ref.Name)
	if err != nil || d.Spec.Strategy.Type != appsv1.RecreateDeploymentStrategyType {
		return nil
	}
	return []loop.Key{loop.KeyOf(d)}
}

func (c *controller) reconcile(ctx context.Context, key loop.Key) error {
	o, err := c.observe(ctx, key)
	if err != nil || o.Deployment == nil {
		return err
	}
	if selectsAll(o.Deployment) {
		c.events.Event(o.Deployment, corev1.EventTypeWarning, reasonSelectingAll, "This deployment is selecting all pods. A non-empty selector is required.")
		return nil
	}
	actions := plan(o)
	if len(actions) > 0 {
		if err := c.confirm(ctx, o.Deployment); err != nil {
			return err
		}
	}
	for _, action := range actions {
		if err := c.apply(ctx, o.Deployment, action); err != nil {
			return errors.Join(fmt.Errorf("%s: %w", action, err), c.reportCreate(ctx, o, action, err))
		}
	}
	if len(actions) > 0 {
		return nil // what was done comes back as changes, and with them the turn that counts
	}
	next, err := c.writeStatus(ctx, o, "")
	if err != nil || next == 0 {
		return err
	}
	return loop.Wait(next)
}

// confirm returns a conflict when d is not the newest version: what was planned from it must not be done then. It is a
// write that changes nothing. What the plan saw of each ReplicaSet is confirmed by the writes to it.
func (c *controller) confirm(ctx context.Context, d *appsv1.Deployment) error {
	if err := c.update(ctx, d, "status"); err != nil {
		return fmt.Errorf("confirm version of deployment %s: %w", loop.KeyOf(d), err)
	}
	return nil
}

// reportCreate says in the status why the set of the present template could not be made.
func (c *controller) reportCreate(ctx context.Context, o observed, action Action, err error) error {
	create, ok := action.(Create)
	if !ok || apierrors.IsAlreadyExists(err) || apierrors.HasStatusCause(err, corev1.NamespaceTerminatingCause) {
		return nil
	}
	message := fmt.Sprintf("Failed to create new replica set %q: %v", create.Set.Name, err)
	c.events.Event(o.Deployment, corev1.EventTypeWarning, reasonCreateError, message)
	_, err = c.writeStatus(ctx, o, message)
	return err
}

// observe reads the deployment and what it may own. The deployment is nil when it is gone.
func (c *controller) observe(ctx context.Context, key loop.Key) (observed, error) {
	d, err := store.Get[*appsv1.Deployment](ctx, c.client, key.Namespace, key.Name)
	if apierrors.IsNotFound(err) {
		c.progress.Of(key, nil)
		return observed{}, nil
	}
	if err != nil {
		return observed{}, fmt.Errorf("get deployment %s: %w", key, err)
	}
	o := observed{Deployment: d, Now: time.Now()}
	for _, quiet := range c.progress.Of(key, progressAt(d)) {
		o.Quiet = quiet
	}
	if o.Sets, err = store.All[*appsv1.ReplicaSet](ctx, c.client, store.ListOptions{Namespace: key.Namespace}); err != nil {
		return o, fmt.Errorf("list replicasets of %s: %w", key.Namespace, err)
	}
	if d.Spec.Strategy.Type == appsv1.RecreateDeploymentStrategyType {
		if o.Pods, err = store.All[*corev1.Pod](ctx, c.client, store.ListOptions{Namespace: key.Namespace}); err != nil {
			return o, fmt.Errorf("list pods of %s: %w", key.Namespace, err)
		}
	}
	return o, nil
}

func (c *controller) apply(ctx context.Context, d *appsv1.Deployment, action Action) error {
	var err error
	switch a := action.(type) {
	case Adopt:
		rs := a.Set.DeepCopy()
		rs.OwnerReferences = append(withoutOwner(rs.OwnerReferences, d.UID), ownerReference(d))
		err = c.update(ctx, rs, "")
	case Release:
		rs := a.Set.DeepCopy()
		rs.OwnerReferences = withoutOwner(rs.OwnerReferences, d.UID)
		err = c.update(ctx, rs, "")
	case Create:
		if _, err = c.client.Create(ctx, a.Set, store.CreateOptions{FieldManager: name}); err == nil {
			c.scaled(d, a.Set, 0)
		}
	case Collide:
		changed := *d // a shallow copy: only status differs
		changed.Status.CollisionCount = &a.Count
		err = c.update(ctx, &changed, "status")
	case Change:
		if err = c.update(ctx, a.New, ""); err == nil {
			c.scaled(d, a.New, size(a.Old))
		}
	case Delete:
		err = c.remove(ctx, a.Set)
	case Revise:
		changed := *d // a shallow copy: only annotations differ, and written beside status they make no new generation
		changed.Annotations = with(changed.Annotations, revisionAnnotation, a.Revision)
		err = c.update(ctx, &changed, "status")
	}
	if apierrors.IsNotFound(err) {
		return nil // gone meanwhile: the watch brings the next turn
	}
	return err
}

func (c *controller) update(ctx context.Context, obj api.Object, subresource string) error {
	_, err := c.client.Update(ctx, obj, store.UpdateOptions{Subresource: subresource, FieldManager: name})
	return err
}

// remove deletes rs in the version that was judged.
func (c *controller) remove(ctx context.Context, rs *appsv1.ReplicaSet) error {
	revision, err := strconv.ParseUint(rs.ResourceVersion, 10, 64)
	if err != nil {
		return fmt.Errorf("read version: %w", err)
	}
	_, err = c.client.Delete(ctx, api.ReplicaSets, rs.Namespace, rs.Name, store.DeleteOptions{UID: rs.UID, Revision: revision})
	return err
}

// scaled tells that rs got its size.
func (c *controller) scaled(d *appsv1.Deployment, rs *appsv1.ReplicaSet, before int32) {
	way, now := "up", size(rs)
	switch {
	case now == before:
		return
	case now < before:
		way = "down"
	}
	c.events.Event(d, corev1.EventTypeNormal, reasonScaled, fmt.Sprintf("Scaled %s replica set %s from %d to %d", way, rs.Name, before, now))
}

// writeStatus writes the status if it changed and returns after what time to look again.
func (c *controller) writeStatus(ctx context.Context, o observed, createError string) (time.Duration, error) {
	status, next := newStatus(o, createError)
	if equality.Semantic.DeepEqual(o.Deployment.Status, status) {
		return next, nil
	}
	d := *o.Deployment // a shallow copy: only status differs
	d.Status = status
	if err := c.update(ctx, &d, "status"); err != nil && !apierrors.IsNotFound(err) {
		return next, fmt.Errorf("update status of deployment %s: %w", loop.KeyOf(&d), err)
	}
	return next, nil
}

func withoutOwner(refs []metav1.OwnerReference, uid types.UID) []metav1.OwnerReference {
	var out []metav1.OwnerReference
	for _, ref := range refs {
		if ref.UID != uid {
			out = append(out, ref)
		}
	}
	return out
}
