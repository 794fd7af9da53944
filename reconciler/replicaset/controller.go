package replicaset

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"

	"github.com/slipway-dev/slipway/apiserver/api"
	"github.com/slipway-dev/slipway/apiserver/event"
	"github.com/slipway-dev/slipway/apiserver/store"
	"github.com/slipway-dev/slipway/reconciler/loop"
)

const (
	name       = "replicaset"
	workers    = 8
	mostAtOnce = 256 // creates and deletes in flight
)

type controller struct {
	client store.Client
	events event.Recorder
	ready  *loop.Ages // since when Pods of sets with minReadySeconds are ready
}

// New returns the controller. It acts through client and speaks through events.
func New(client store.Client, events event.Recorder) loop.Controller {
	c := &controller{client: client, events: events, ready: loop.NewAges()}
	return loop.Controller{Name: name, Workers: workers, Reconcile: c.reconcile, Inputs: []loop.Input{
		{Kind: api.ReplicaSets, Keys: loop.Own},
		{Kind: api.Pods, Keys: c.podKeys},
	}}
}

// podKeys returns the sets a changed Pod concerns: its controller now and before, or the ones that may adopt it.
func (c *controller) podKeys(old, obj api.Object, deleted bool) []loop.Key {
	var keys []loop.Key
	for _, pod := range []api.Object{old, obj} {
		if pod == nil {
			continue
		}
		ref := metav1.GetControllerOfNoCopy(pod)
		if ref != nil && ref.Kind == api.ReplicaSets.Kind {
			keys = append(keys, loop.Key{Namespace: obj.GetNamespace(), Name: ref.Name})
		}
	}
	if len(keys) > 0 || deleted || metav1.GetControllerOfNoCopy(obj) != nil {
		return keys
	}
	sets, err := store.All[*appsv1.ReplicaSet](context.Background(), c.client, store.ListOptions{Namespace: obj.GetNamespace()})
	if err != nil {
		return nil // the sets get a turn when the watch is back
	}
	for _, rs := range sets {
		selector, err := metav1.LabelSelectorAsSelector(rs.Spec.Selector)
		if err == nil && !selector.Empty() && selector.Matches(labels.Set(obj.GetLabels())) {
			keys = append(keys, loop.KeyOf(rs))
		}
	}
	return keys
}

func (c *controller) reconcile(ctx context.Context, key loop.Key) error {
	o, err := c.observe(ctx, key)
	if err != nil || o.Set == nil {
		return err
	}
	actions := plan(o)
	if len(actions) > 0 {
		if err := c.confirm(ctx, o.Set); err != nil {
			return err
		}
		// What was done comes back as changes of Pods, and with them the turn that counts them.
		failed, err := c.apply(ctx, o.Set, actions)
		if err == nil || failed == nil {
			return err
		}
		_, statusErr := c.writeStatus(ctx, o, failed)
		return errors.Join(err, statusErr)
	}
	next, err := c.writeStatus(ctx, o, nil)
	if err != nil || next == 0 {
		return err
	}
	return loop.Wait(next)
}

// confirm returns a conflict when rs is not the newest version: what was planned from it must not be done then. It is
// a write that changes nothing.
func (c *controller) confirm(ctx context.Context, rs *appsv1.ReplicaSet) error {
	if _, err := c.client.Update(ctx, rs, store.UpdateOptions{Subresource: "status", FieldManager: name}); err != nil {
		return fmt.Errorf("confirm version of replicaset %s: %w", loop.KeyOf(rs), err)
	}
	return nil
}

// observe reads the set and its Pods. The set is nil when it is gone.
func (c *controller) observe(ctx context.Context, key loop.Key) (observed, error) {
	rs, err := store.Get[*appsv1.ReplicaSet](ctx, c.client, key.Namespace, key.Name)
	if apierrors.IsNotFound(err) {
		c.ready.Of(key, nil)
		return observed{}, nil
	}
	if err != nil {
		return observed{}, fmt.Errorf("get replicaset %s: %w", key, err)
	}
	all, err := store.All[*corev1.Pod](ctx, c.client, store.ListOptions{Namespace: key.Namespace})
	if err != nil {
		return observed{}, fmt.Errorf("list pods of %s: %w", key.Namespace, err)
	}
	o := observed{Set: rs, Now: time.Now(), Taken: make(map[string]bool, len(all))}
	var others []*corev1.Pod
	for _, pod := range all {
		o.Taken[pod.Name] = true
		if ref := metav1.GetControllerOfNoCopy(pod); ref == nil || ref.UID == rs.UID {
			o.Pods = append(o.Pods, pod)
		} else {
			others = append(others, pod)
		}
	}
	o.Ready = c.ready.Of(key, readySince(o))
	if len(o.Pods) > wanted(rs) {
		o.Related, err = c.related(ctx, rs, others)
	}
	return o, err
}

// readySince returns since when the Pods are ready, by UID, where it matters.
func readySince(o observed) map[string]time.Time {
	if o.Set.Spec.MinReadySeconds == 0 {
		return nil
	}
	since := map[string]time.Time{}
	for _, pod := range o.Pods {
		if isReady(pod) {
			since[string(pod.UID)] = readyCondition(pod).LastTransitionTime.Time
		}
	}
	return since
}

// related returns those of pods that belong to sets with rs' controller.
func (c *controller) related(ctx context.Context, rs *appsv1.ReplicaSet, pods []*corev1.Pod) ([]*corev1.Pod, error) {
	owner := metav1.GetControllerOfNoCopy(rs)
	if owner == nil || len(pods) == 0 {
		return nil, nil
	}
	sets, err := store.All[*appsv1.ReplicaSet](ctx, c.client, store.ListOptions{Namespace: rs.Namespace})
	if err != nil {
		return nil, fmt.Errorf("list replicasets of %s: %w", rs.Namespace, err)
	}
	sisters := map[string]bool{}
	for _, other := range sets {
		if metav1.IsControlledBy(other, &metav1.ObjectMeta{UID: owner.UID}) {
			sisters[string(other.UID)] = true
		}
	}
	var out []*corev1.Pod
	for _, pod := range pods {
		if sisters[string(metav1.GetControllerOfNoCopy(pod).UID)] {
			out = append(out, pod)
		}
	}
	return out, nil
}

// apply carries out actions. The failure says what the ReplicaFailure condition should; it is nil for a conflict.
func (c *controller) apply(ctx context.Context, rs *appsv1.ReplicaSet, actions []Action) (*failure, error) {
	var deletes []*corev1.Pod
	for _, action := range actions {
		var err error
		reason := ""
		switch a := action.(type) {
		case Adopt:
			_, err = c.client.Update(ctx, adopted(a.Pod, rs), store.UpdateOptions{FieldManager: name})
		case Release:
			_, err = c.client.Update(ctx, released(a.Pod, rs), store.UpdateOptions{FieldManager: name})
		case Create:
			reason = reasonFailedCreate
			err = inBatches(len(a.Names), 1, func(i int) error { return c.create(ctx, rs, a.Names[i]) })
		case Delete:
			deletes = append(deletes, a.Pod)
		}
		if err != nil {
			return failedWith(reason, err), fmt.Errorf("%s: %w", action, err)
		}
	}
	err := inBatches(len(deletes), mostAtOnce, func(i int) error { return c.delete(ctx, rs, deletes[i]) })
	return failedWith(reasonFailedDelete, err), err
}

func failedWith(reason string, err error) *failure {
	if err == nil || reason == "" || apierrors.IsConflict(err) || apierrors.IsAlreadyExists(err) || errors.Is(err, context.Canceled) ||
		apierrors.HasStatusCause(err, corev1.NamespaceTerminatingCause) {
		return nil
	}
	return &failure{reason: reason, message: err.Error()}
}

func (c *controller) create(ctx context.Context, rs *appsv1.ReplicaSet, pod string) error {
	_, err := c.client.Create(ctx, newPod(rs, pod), store.CreateOptions{FieldManager: name})
	switch {
	case err == nil:
		c.events.Event(rs, corev1.EventTypeNormal, reasonCreated, "Created pod: "+pod)
	case apierrors.IsAlreadyExists(err): // made by a turn whose work this one did not see: plan again
	case !apierrors.HasStatusCause(err, corev1.NamespaceTerminatingCause):
		c.events.Event(rs, corev1.EventTypeWarning, reasonFailedCreate, "Error creating: "+err.Error())
	}
	return err
}

func (c *controller) delete(ctx context.Context, rs *appsv1.ReplicaSet, pod *corev1.Pod) error {
	_, err := c.client.Delete(ctx, api.Pods, pod.Namespace, pod.Name, store.DeleteOptions{UID: pod.UID})
	switch {
	case err == nil:
		c.events.Event(rs, corev1.EventTypeNormal, reasonDeleted, "Deleted pod: "+pod.Name)
	case apierrors.IsNotFound(err):
		return nil
	case !apierrors.IsConflict(err):
		c.events.Event(rs, corev1.EventTypeWarning, reasonFailedDelete, "Error deleting: "+err.Error())
	}
	return err
}

// inBatches calls do n times, in parallel batches that start with first calls and double. A failure ends it after
// its batch: where all would fail, only few are tried.
func inBatches(n, first int, do func(i int) error) error {
	for done, size := 0, first; done < n; size = min(2*size, mostAtOnce) {
		batch := min(size, n-done)
		errs := make([]error, batch)
		var running sync.WaitGroup
		for i := range batch {
			running.Go(func() { errs[i] = do(done + i) })
		}
		running.Wait()
		for _, err := range errs {
			if err != nil {
				return err
			}
		}
		done += batch
	}
	return nil
}

// writeStatus writes the status if it changed and returns after what time a Pod becomes available next.
func (c *controller) writeStatus(ctx context.Context, o observed, f *failure) (time.Duration, error) {
	status, next := newStatus(o, f)
	if equality.Semantic.DeepEqual(o.Set.Status, status) {
		return next, nil
	}
	rs := *o.Set // a shallow copy: only status differs
	rs.Status = status
	_, err := c.client.Update(ctx, &rs, store.UpdateOptions{Subresource: "status", FieldManager: name})
	if err != nil && !apierrors.IsNotFound(err) {
		return next, fmt.Errorf("update status of replicaset %s: %w", loop.KeyOf(&rs), err)
	}
	return next, nil
}
