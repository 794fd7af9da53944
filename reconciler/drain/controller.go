package drain

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"

	"github.com/slipway-dev/slipway/apiserver/api"
	"github.com/slipway-dev/slipway/apiserver/event"
	"github.com/slipway-dev/slipway/apiserver/store"
	"github.com/slipway-dev/slipway/reconciler/loop"
)

const name = "drain"

type controller struct {
	client store.Client
	events event.Recorder
	now    func() time.Time

	began map[begin]time.Time // of the last turn

	mu      sync.Mutex
	tainted map[string]bool // nodes there is something to do for: others' Pods are no reason for a turn
}

// turn is the one key of this loop: a turn looks at all nodes, as a workload's Pods may be on any.
var turn = []loop.Key{{Name: "nodes"}}

// New returns the loop. now is the clock tolerations go by.
func New(client store.Client, events event.Recorder, now func() time.Time) loop.Controller {
	c := &controller{client: client, events: events, now: now, tainted: map[string]bool{}}
	return loop.Controller{Name: name, Reconcile: c.reconcile, Inputs: []loop.Input{
		{Kind: api.Nodes, Keys: c.sawNode},
		{Kind: api.Pods, Keys: c.sawOther},
		{Kind: api.Deployments, Keys: c.sawOther},
	}}
}

func (c *controller) sawNode(_, obj api.Object, deleted bool) []loop.Key {
	node := obj.(*corev1.Node)
	_, reported := conditionOf(node)
	c.mu.Lock()
	defer c.mu.Unlock()
	was := c.tainted[node.Name]
	is := !deleted && (len(executing(node)) > 0 || reported || node.Annotations[annotationSince] != "")
	if delete(c.tainted, node.Name); is {
		c.tainted[node.Name] = true
	}
	if was || is || len(c.tainted) > 0 {
		return turn
	}
	return nil
}

func (c *controller) sawOther(_, _ api.Object, _ bool) []loop.Key {
	c.mu.Lock()
	defer c.mu.Unlock()
	if len(c.tainted) == 0 {
		return nil
	}
	return turn
}

func (c *controller) reconcile(ctx context.Context, _ loop.Key) error {
	o, err := c.observe(ctx)
	if err != nil {
		return err
	}
	o.began = anchor(c.began, o.nodes, o.now)
	c.began = o.began
	actions, again := plan(o)
	var problems []error
	for _, a := range actions {
		if err := c.apply(ctx, a); err != nil && !apierrors.IsNotFound(err) {
			problems = append(problems, fmt.Errorf("%s: %w", a, err))
		}
	}
	if err := errors.Join(problems...); err != nil || again == 0 {
		return err
	}
	return loop.Wait(again)
}

func (c *controller) observe(ctx context.Context) (o observed, err error) {
	o.now = c.now()
	if o.nodes, err = store.All[*corev1.Node](ctx, c.client, store.ListOptions{}); err != nil {
		return o, fmt.Errorf("list nodes: %w", err)
	}
	if o.pods, err = store.All[*corev1.Pod](ctx, c.client, store.ListOptions{}); err != nil {
		return o, fmt.Errorf("list pods: %w", err)
	}
	if o.sets, err = store.All[*appsv1.ReplicaSet](ctx, c.client, store.ListOptions{}); err != nil {
		return o, fmt.Errorf("list replicasets: %w", err)
	}
	if o.deployments, err = store.All[*appsv1.Deployment](ctx, c.client, store.ListOptions{}); err != nil {
		return o, fmt.Errorf("list deployments: %w", err)
	}
	return o, nil
}

func (c *controller) apply(ctx context.Context, action Action) error {
	switch a := action.(type) {
	case Evict:
		c.events.Event(a.Pod, corev1.EventTypeNormal, "TaintManagerEviction", fmt.Sprintf("Leaves node %s, which has taint %s", a.Pod.Spec.NodeName, named(a.Taint)))
		_, err := c.client.Delete(ctx, api.Pods, a.Pod.Namespace, a.Pod.Name, store.DeleteOptions{UID: a.Pod.UID})
		return err
	case Remember:
		return c.remember(ctx, a)
	case Report:
		return c.report(ctx, a)
	}
	return nil
}

func (c *controller) remember(ctx context.Context, a Remember) error {
	updated := a.Node.DeepCopy()
	if len(a.Since) == 0 {
		delete(updated.Annotations, annotationSince)
	} else {
		text, err := json.Marshal(a.Since)
		if err != nil {
			return err
		}
		if updated.Annotations == nil {
			updated.Annotations = map[string]string{}
		}
		updated.Annotations[annotationSince] = string(text)
	}
	_, err := c.client.Update(ctx, updated, store.UpdateOptions{FieldManager: name})
	return err
}

func (c *controller) report(ctx context.Context, a Report) error {
	current, err := store.Get[*corev1.Node](ctx, c.client, "", a.Node.Name) // an annotation may have been written just now
	if err != nil || current.UID != a.Node.UID {
		return err
	}
	updated := current.DeepCopy()
	updated.Status.Conditions = slices.DeleteFunc(updated.Status.Conditions, func(c corev1.NodeCondition) bool { return c.Type == Drained })
	if a.Condition != nil {
		updated.Status.Conditions = append(updated.Status.Conditions, *a.Condition)
		if a.Condition.Reason == reasonWaiting || a.Condition.Reason == reasonFleet {
			c.events.Event(a.Node, corev1.EventTypeWarning, "DrainWaits", a.Condition.Message)
		}
	}
	_, err = c.client.Update(ctx, updated, store.UpdateOptions{Subresource: "status", FieldManager: name})
	return err
}
