package registry

import (
	"context"
	"fmt"
	"slices"
	"strconv"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/slipway-dev/slipway/apiserver/api"
	"github.com/slipway-dev/slipway/apiserver/store"
)

// Delete implements store.Writer.
func (c *client) Delete(ctx context.Context, kind *api.Kind, namespace, name string, opts store.DeleteOptions) (api.Object, error) {
	result, err := c.tryDelete(ctx, kind, namespace, name, opts)
	c.audit(Entry{Verb: "delete", Kind: kind, Namespace: namespace, Name: name, DryRun: opts.DryRun, Err: err})
	if err != nil {
		return nil, err
	}
	return Mask(c.id, result), nil
}

func (c *client) tryDelete(ctx context.Context, kind *api.Kind, namespace, name string, opts store.DeleteOptions) (api.Object, error) {
	if kind.CreateOnly {
		return nil, apierrors.NewMethodNotSupported(kind.GroupResource(), "delete")
	}
	switch opts.Propagation {
	case "", metav1.DeletePropagationBackground, metav1.DeletePropagationForeground, metav1.DeletePropagationOrphan:
	default:
		return nil, apierrors.NewBadRequest(fmt.Sprintf("propagationPolicy: got %q, want Background, Foreground or Orphan", opts.Propagation))
	}
	a := attributes(kind, "delete", namespace, name)
	a.DryRun = opts.DryRun
	if err := c.allow(ctx, kind, a, nil); err != nil {
		return nil, err
	}
	if err := undeletable(kind, name); err != nil {
		return nil, err
	}
	for range attempts {
		old, err := c.r.store.Get(ctx, kind, namespace, name)
		if err != nil {
			return nil, err
		}
		if err := matches(kind, old, opts); err != nil {
			return nil, err
		}
		result, err := c.deleteOnce(ctx, kind, old, opts)
		if err == nil || opts.Revision != 0 || !apierrors.IsConflict(err) || isEmptying(err) {
			return result, err
		}
	}
	return nil, conflict(kind, name, modified)
}

// undeletable are the namespaces upstream protects.
func undeletable(kind *api.Kind, name string) error {
	if kind == api.Namespaces && slices.Contains([]string{metav1.NamespaceDefault, metav1.NamespaceSystem, metav1.NamespacePublic}, name) {
		return apierrors.NewForbidden(kind.GroupResource(), name, fmt.Errorf("this namespace may not be deleted"))
	}
	return nil
}

func matches(kind *api.Kind, old api.Object, opts store.DeleteOptions) error {
	if opts.UID != "" && opts.UID != old.GetUID() {
		return conflict(kind, old.GetName(), fmt.Sprintf("Precondition failed: UID in precondition: %v, UID in object meta: %v", opts.UID, old.GetUID()))
	}
	if want := strconv.FormatUint(opts.Revision, 10); opts.Revision != 0 && want != old.GetResourceVersion() {
		return conflict(kind, old.GetName(), fmt.Sprintf("Precondition failed: ResourceVersion in precondition: %s, ResourceVersion in object meta: %s", want, old.GetResourceVersion()))
	}
	return nil
}

// deleteOnce removes old, or marks it when something holds it: a Pod's grace period, finalizers, a namespace's
// content.
func (c *client) deleteOnce(ctx context.Context, kind *api.Kind, old api.Object, opts store.DeleteOptions) (api.Object, error) {
	next := shallow(old)
	next.SetFinalizers(wantedFinalizers(old.GetFinalizers(), opts.Propagation))
	held := len(next.GetFinalizers()) > 0
	var grace int64
	switch obj := next.(type) {
	case *corev1.Pod:
		grace = podGrace(obj, opts.GracePeriodSeconds)
		held = held || grace > 0
	case *corev1.Namespace:
		if old.GetDeletionTimestamp() != nil && len(obj.Spec.Finalizers) > 0 {
			return nil, emptying(kind, old.GetName())
		}
		obj.Status.Phase = corev1.NamespaceTerminating
		held = held || len(obj.Spec.Finalizers) > 0
	}
	if !held {
		return c.remove(ctx, old, old, opts.DryRun)
	}
	if !c.mark(next, grace) && slices.Equal(next.GetFinalizers(), old.GetFinalizers()) {
		return old, nil // it is on its way, and not to go faster
	}
	if opts.DryRun {
		return next, nil
	}
	return c.r.commit(ctx, store.Replace(old, next))
}

// mark sets when obj is to be gone. A second deletion may only bring that forward. It returns false when nothing
// changed.
func (c *client) mark(obj api.Object, grace int64) bool {
	now := c.r.timestamp()
	at := obj.GetDeletionTimestamp()
	if at == nil {
		due := metav1.NewTime(now.Add(time.Duration(grace) * time.Second))
		obj.SetDeletionTimestamp(&due)
		obj.SetDeletionGracePeriodSeconds(&grace)
		if obj.GetGeneration() > 0 {
			obj.SetGeneration(obj.GetGeneration() + 1)
		}
		return true
	}
	before := obj.GetDeletionGracePeriodSeconds()
	if before == nil || grace >= *before {
		return false
	}
	due := metav1.NewTime(at.Add(time.Duration(grace-*before) * time.Second))
	if due.Before(&now) {
		due = now
		if grace != 0 {
			grace = 1 // the agent still has to see it
		}
	}
	obj.SetDeletionTimestamp(&due)
	obj.SetDeletionGracePeriodSeconds(&grace)
	return true
}

// podGrace is how long a Pod has to end: what was asked for, else its own period. One that runs nowhere goes at once.
func podGrace(pod *corev1.Pod, asked *int64) int64 {
	var grace int64
	switch {
	case pod.Spec.NodeName == "" || pod.Status.Phase == corev1.PodSucceeded || pod.Status.Phase == corev1.PodFailed:
		return 0
	case asked != nil:
		grace = *asked
	case pod.DeletionGracePeriodSeconds != nil:
		grace = *pod.DeletionGracePeriodSeconds
	case pod.Spec.TerminationGracePeriodSeconds != nil:
		grace = *pod.Spec.TerminationGracePeriodSeconds
	}
	if grace < 0 {
		grace = 1
	}
	return grace
}

// wantedFinalizers adds or takes away the two by which a garbage collector knows what to do with dependants.
func wantedFinalizers(finalizers []string, policy metav1.DeletionPropagation) []string {
	if policy == "" {
		return finalizers // what is there decides
	}
	var kept []string
	for _, f := range finalizers {
		if f != metav1.FinalizerOrphanDependents && f != metav1.FinalizerDeleteDependents {
			kept = append(kept, f)
		}
	}
	switch policy {
	case metav1.DeletePropagationForeground:
		kept = append(kept, metav1.FinalizerDeleteDependents)
	case metav1.DeletePropagationOrphan:
		kept = append(kept, metav1.FinalizerOrphanDependents)
	}
	return kept
}

// removable says whether an update took away the last thing that held a deleted object.
func removable(old, updated api.Object) bool {
	if old.GetDeletionTimestamp() == nil || len(updated.GetFinalizers()) > 0 {
		return false
	}
	if ns, ok := updated.(*corev1.Namespace); ok {
		return len(ns.Spec.Finalizers) == 0
	}
	grace := updated.GetDeletionGracePeriodSeconds()
	return len(old.GetFinalizers()) > 0 && (grace == nil || *grace == 0)
}

// remove deletes old; last is its final state.
func (c *client) remove(ctx context.Context, old, last api.Object, dryRun bool) (api.Object, error) {
	if dryRun {
		return last, nil
	}
	return c.r.commit(ctx, append([]store.Op{store.Remove(old)}, releases(old)...)...)
}

// emptying is upstream's answer to a second deletion of a namespace.
func emptying(kind *api.Kind, name string) error {
	err := apierrors.NewConflict(kind.GroupResource(), name, fmt.Errorf("The system is ensuring all content is removed from this namespace.  Upon completion, this namespace will automatically be purged by the system."))
	err.ErrStatus.Details.Causes = append(err.ErrStatus.Details.Causes, metav1.StatusCause{Type: causeEmptying})
	return err
}

const causeEmptying metav1.CauseType = "NamespaceIsEmptying"

func isEmptying(err error) bool { return apierrors.HasStatusCause(err, causeEmptying) }
