package node

import (
	"context"
	"fmt"
	"sync"
	"time"

	coordinationv1 "k8s.io/api/coordination/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/slipway-dev/slipway/apiserver/api"
	"github.com/slipway-dev/slipway/apiserver/event"
	"github.com/slipway-dev/slipway/apiserver/store"
	"github.com/slipway-dev/slipway/reconciler/loop"
)

type controller struct {
	client store.Client
	events event.Recorder

	mu    sync.Mutex
	heard map[string]sign
	awake time.Time // since when this process has been listening without a break
}

// sign is the last sign of life of a node: a Lease as it was seen, and when it was seen first.
type sign struct {
	version string
	at      time.Time // with a monotonic reading
	due     time.Time // when the next turn is to be
}

// New returns the loop. Leases are renewed by the clocks of their nodes, which are never compared with this one's: what
// counts is when this process sees that one changed.
func New(client store.Client, events event.Recorder) loop.Controller {
	c := &controller{client: client, events: events, heard: map[string]sign{}, awake: time.Now()}
	return loop.Controller{Name: "node", Reconcile: c.reconcile, Inputs: []loop.Input{
		{Kind: api.Nodes, Keys: loop.Own},
		{Kind: api.Leases, Keys: c.listen, Stateless: true, Opts: store.WatchOptions{Namespace: corev1.NamespaceNodeLease}},
	}}
}

// listen notes a Lease that changed. It asks for no turn: one is due when the node would have been silent too long.
func (c *controller) listen(_, obj api.Object, deleted bool) []loop.Key {
	c.mu.Lock()
	defer c.mu.Unlock()
	if s := c.heard[obj.GetName()]; !deleted && s.version != obj.GetResourceVersion() {
		s.version, s.at = obj.GetResourceVersion(), time.Now()
		c.heard[obj.GetName()] = s
	}
	return nil
}

func (c *controller) reconcile(ctx context.Context, key loop.Key) error {
	node, err := store.Get[*corev1.Node](ctx, c.client, "", key.Name)
	if apierrors.IsNotFound(err) {
		c.mu.Lock()
		defer c.mu.Unlock()
		delete(c.heard, key.Name)
		return nil
	}
	if err != nil {
		return err
	}
	lease, err := store.Get[*coordinationv1.Lease](ctx, c.client, corev1.NamespaceNodeLease, key.Name)
	if err == nil {
		c.listen(nil, lease, false) // its event may be on the way
	} else if !apierrors.IsNotFound(err) {
		return err
	}
	if want, changed := taints(node, metav1.Now()); changed {
		tainted := node.DeepCopy()
		tainted.Spec.Taints = want
		obj, err := c.client.Update(ctx, tainted, store.UpdateOptions{})
		if err != nil {
			return fmt.Errorf("taint node %s: %w", key.Name, err)
		}
		node = obj.(*corev1.Node)
	}
	o := observed{node: node, now: time.Now()}
	o.silent = c.silence(key.Name, o.now)
	conditions, again := plan(o)
	if conditions == nil {
		if again == 0 {
			return nil
		}
		c.expect(key.Name, o.now.Add(again))
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

// late is by how much a turn may be late before it says that this process did not run.
const late = 5 * time.Second

// silence returns how long nothing was heard of a node while this process was listening. A turn that comes far too
// late shows that the process was stopped: the nodes may have talked to nobody, and all are given time anew.
func (c *controller) silence(name string, now time.Time) time.Duration {
	c.mu.Lock()
	defer c.mu.Unlock()
	s := c.heard[name]
	if !s.due.IsZero() && now.Sub(s.due) > late {
		c.awake = now
	}
	if s.due = (time.Time{}); s.at.IsZero() {
		s.at = now // a node that never had a Lease is given time, too
	}
	c.heard[name] = s
	return min(now.Sub(s.at), now.Sub(c.awake))
}

// expect notes when the next turn of a node is to be.
func (c *controller) expect(name string, due time.Time) {
	c.mu.Lock()
	defer c.mu.Unlock()
	s := c.heard[name]
	s.due = due
	c.heard[name] = s
}
