// Package registration keeps a node's own Node object and Lease: what the machine is, and that it lives.
//
// It must not act on Pods.
package registration

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"

	coordinationv1 "k8s.io/api/coordination/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/slipway-dev/slipway/apiserver/api"
	"github.com/slipway-dev/slipway/apiserver/store"
)

// Periods, as the kubelet's.
const (
	leasePeriod    = 10 * time.Second
	leaseSeconds   = 40
	leaseNamespace = "kube-node-lease"
	statusPeriod   = 5 * time.Minute // a status that did not change is written this often
	firstRetry     = 100 * time.Millisecond
	worthSaying    = 2 * time.Second // at first the Lease's namespace may not be there yet
)

// Config says what to register.
type Config struct {
	Client  store.Client
	Machine Machine
	PodCIDR string
	Log     *slog.Logger
	// Healthy returns why the node cannot run Pods at the moment, nil when it can.
	Healthy func(ctx context.Context) error
	// Images returns the images on the node for its status; nil: none are listed.
	Images func(ctx context.Context) []corev1.ContainerImage
	// Pressure returns which of memory, disk and process ids are short; nil: none ever is.
	Pressure func() Pressure
	// Changed makes the status be looked at now and not at the next beat; nil: it never is.
	Changed <-chan struct{}
}

// Pressure says why the conditions of a node that is short of something hold; those that do not are missing.
type Pressure map[corev1.NodeConditionType]string

// Run registers the node and keeps its Lease and status until ctx ends.
func Run(ctx context.Context, cfg Config) error {
	r := registrar{Config: cfg}
	retry := firstRetry
	for {
		pause := leasePeriod
		if err := r.beat(ctx); err != nil && ctx.Err() == nil {
			if retry >= worthSaying {
				cfg.Log.Warn("report the node", "err", err)
			}
			pause = retry
			retry = min(2*retry, leasePeriod)
		} else {
			retry = firstRetry
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-cfg.Changed:
		case <-time.After(pause):
		}
	}
}

type registrar struct {
	Config
	written time.Time // when the status was written last
	ownerID metav1.OwnerReference
}

// beat brings the Node up to date and renews the Lease. One failing does not hold back the other.
func (r *registrar) beat(ctx context.Context) error {
	return errors.Join(r.node(ctx), r.lease(ctx))
}

func (r *registrar) node(ctx context.Context) error {
	now := time.Now()
	old, err := store.Get[*corev1.Node](ctx, r.Client, "", r.Machine.Name)
	if apierrors.IsNotFound(err) {
		old, err = r.create(ctx)
	}
	if err != nil {
		return fmt.Errorf("get node %s: %w", r.Machine.Name, err)
	}
	r.ownerID = metav1.OwnerReference{APIVersion: "v1", Kind: "Node", Name: old.Name, UID: old.UID}
	if updated := r.Machine.labelled(old); updated != nil {
		obj, err := r.Client.Update(ctx, updated, store.UpdateOptions{FieldManager: "slipway-agent"})
		if err != nil {
			return fmt.Errorf("label node %s: %w", old.Name, err)
		}
		old = obj.(*corev1.Node)
	}
	var images []corev1.ContainerImage
	if r.Images != nil {
		images = r.Images(ctx)
	}
	var pressure Pressure
	if r.Pressure != nil {
		pressure = r.Pressure()
	}
	status := r.Machine.status(old, health{err: r.Healthy(ctx), pressure: pressure, images: images}, now)
	if same(old.Status, status) && now.Sub(r.written) < statusPeriod {
		return nil
	}
	next := old.DeepCopy()
	next.Status = status
	if _, err := r.Client.Update(ctx, next, store.UpdateOptions{Subresource: "status", FieldManager: "slipway-agent"}); err != nil {
		return fmt.Errorf("update status of node %s: %w", old.Name, err)
	}
	r.written = now
	return nil
}

func (r *registrar) create(ctx context.Context) (*corev1.Node, error) {
	node := r.Machine.object()
	if r.PodCIDR != "" {
		node.Spec.PodCIDR, node.Spec.PodCIDRs = r.PodCIDR, []string{r.PodCIDR}
	}
	node.Status = r.Machine.status(node, health{err: r.Healthy(ctx)}, time.Now())
	obj, err := r.Client.Create(ctx, node, store.CreateOptions{FieldManager: "slipway-agent"})
	if err != nil {
		return nil, err
	}
	return obj.(*corev1.Node), nil
}

// same compares two statuses without the heartbeat times.
func same(a, b corev1.NodeStatus) bool {
	strip := func(s corev1.NodeStatus) *corev1.NodeStatus {
		c := s.DeepCopy()
		for i := range c.Conditions {
			c.Conditions[i].LastHeartbeatTime = metav1.Time{}
		}
		return c
	}
	return equality.Semantic.DeepEqual(strip(a), strip(b))
}

func (r *registrar) lease(ctx context.Context) error {
	name, seconds, now := r.Machine.Name, int32(leaseSeconds), metav1.NowMicro()
	old, err := store.Get[*coordinationv1.Lease](ctx, r.Client, leaseNamespace, name)
	if err != nil && !apierrors.IsNotFound(err) {
		return fmt.Errorf("get lease: %w", err)
	}
	if err != nil {
		lease := api.Leases.New().(*coordinationv1.Lease)
		lease.Name, lease.Namespace = name, leaseNamespace
		if r.ownerID.UID != "" {
			lease.OwnerReferences = []metav1.OwnerReference{r.ownerID}
		}
		lease.Spec = coordinationv1.LeaseSpec{HolderIdentity: &name, LeaseDurationSeconds: &seconds, RenewTime: &now}
		if _, err := r.Client.Create(ctx, lease, store.CreateOptions{}); err != nil {
			return fmt.Errorf("create lease: %w", err)
		}
		return nil
	}
	lease := old.DeepCopy()
	lease.Spec.HolderIdentity, lease.Spec.LeaseDurationSeconds, lease.Spec.RenewTime = &name, &seconds, &now
	if _, err := r.Client.Update(ctx, lease, store.UpdateOptions{}); err != nil {
		return fmt.Errorf("renew lease: %w", err)
	}
	return nil
}
