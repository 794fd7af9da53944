package node

import (
	"context"
	"fmt"
	"time"

	coordinationv1 "k8s.io/api/coordination/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"

	"github.com/slipway-dev/slipway/apiserver/api"
	"github.com/slipway-dev/slipway/apiserver/event"
	"github.com/slipway-dev/slipway/apiserver/store"
	"github.com/slipway-dev/slipway/reconciler/loop"
)

type controller struct {
	client store.Client
	events event.Recorder
	now    func() time.Time
}

// New returns the loop. now is the clock Leases are compared with.
func New(client store.Client, events event.Recorder, now func() time.Time) loop.Controller {
	c := &controller{client: client, events: events, now: now}
	// Renewals are not watched: a turn falls due when a Lease would have expired, and reads it then.
	return loop.Controller{Name: "node", Inputs: []loop.Input{{Kind: api.Nodes, Keys: loop.Own}}, Reconcile: c.reconcile}
}

func (c *controller) reconcile(ctx context.Context, key loop.Key) error {
	node, err := store.Get[*corev1.Node](ctx, c.client, "", key.Name)
	if apierrors.IsNotFound(err) {
		return nil
	}
	if err != nil {
		return err
	}
	o := observed{node: node, now: c.now()}
	if o.lease, err = store.Get[*coordinationv1.Lease](ctx, c.client, corev1.NamespaceNodeLease, key.Name); apierrors.IsNotFound(err) {
		o.lease = nil
	} else if err != nil {
		return err
	}
	conditions, again := plan(o)
	if conditions == nil {
		if again == 0 {
			return nil
		}
		return loop.Wait(again)
	}
	updated := node.DeepCopy()
	updated.Status.Conditions = conditions
	if _, err := c.client.Update(ctx, updated, store.UpdateOptions{Subresource: "status"}); err != nil {
		return fmt.Errorf("mark node %s silent: %w", key.Name, err)
	}
	c.events.Event(node, corev1.EventTypeWarning, "NodeNotReady", conditions[0].Message)
	return nil
}
