package agent

import (
	"context"
	"time"

	corev1 "k8s.io/api/core/v1"

	"github.com/slipway-dev/slipway/nodeagent/lifecycle"
	"github.com/slipway-dev/slipway/nodeagent/network/sockets"
)

// Bounds of a Pod's way out. A Pod whose grace period is shorter waits no longer than that.
const (
	drainLimit  = 10 * time.Second // until no Service leads to it; a control plane that is busy or away may take long
	acceptLimit = time.Second      // until its programs have accepted who is waiting at their door
)

// drain waits until no new connection is led to the Pod, and those that were are accepted, so that a program that
// stops listening when it is asked to end turns nobody away.
func (w *worker) drain(ctx context.Context, pod *corev1.Pod) func() {
	grace := lifecycle.Grace(pod)
	if w.a.cfg.Proxy != nil && grace > 0 {
		bounded, cancel := context.WithTimeout(ctx, min(drainLimit, grace))
		defer cancel()
		if err := w.a.cfg.Proxy.Settled(bounded, pod); err != nil && ctx.Err() == nil {
			w.a.log.Warn("drain pod", "namespace", pod.Namespace, "pod", pod.Name, "err", err)
		}
		w.inNetwork(ctx, pod, min(acceptLimit, grace), sockets.Accepted)
	}
	return func() { w.o.Drained = true }
}

// partingWords waits until what the Pod's programs wrote last has left its network namespace, as long as its grace
// period lasts.
func (w *worker) partingWords(ctx context.Context, pod *corev1.Pod) {
	left := lifecycle.Grace(pod)
	if pod.DeletionTimestamp != nil {
		left = min(left, time.Until(pod.DeletionTimestamp.Time)) // the clock may have been set
	}
	w.inNetwork(ctx, pod, left, sockets.Sent)
}

// inNetwork waits for something in the Pod's network namespace, for a bounded time. There may be none.
func (w *worker) inNetwork(ctx context.Context, pod *corev1.Pod, limit time.Duration, wait func(context.Context, string) error) {
	box, ok := w.a.cfg.Network.Find(string(pod.UID))
	if !ok || pod.Spec.HostNetwork || limit <= 0 {
		return
	}
	bounded, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	if err := wait(bounded, box.NetNS); err != nil && ctx.Err() == nil {
		w.a.log.Info("not waiting longer for the pod's connections", "namespace", pod.Namespace, "pod", pod.Name, "err", err)
	}
}
