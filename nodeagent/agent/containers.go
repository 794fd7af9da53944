package agent

import (
	"context"
	"fmt"
	"maps"
	"reflect"
	"slices"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/slipway-dev/slipway/nodeagent/cgroup"
	"github.com/slipway-dev/slipway/nodeagent/engine"
	"github.com/slipway-dev/slipway/nodeagent/lifecycle"
	"github.com/slipway-dev/slipway/nodeagent/logs"
)

// Periods of looking without being told.
const (
	relistPeriod = 10 * time.Second
	orphanPeriod = 30 * time.Second
	engineRetry  = 500 * time.Millisecond
)

// followEngine keeps the known containers current.
func (a *Agent) followEngine(ctx context.Context, changes <-chan engine.Event) {
	timer := time.NewTicker(relistPeriod)
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-timer.C:
		case _, open := <-changes:
			if !open {
				changes = nil
			}
			for drained := false; !drained; { // one list answers for all that waited
				select {
				case _, open := <-changes:
					drained = !open
				default:
					drained = true
				}
			}
		}
		if err := a.refresh(ctx); err != nil && ctx.Err() == nil {
			a.log.Warn("list containers, trying again", "err", err)
			timer.Reset(engineRetry)
			continue
		}
		timer.Reset(relistPeriod)
	}
}

// refresh reads the engine's containers and wakes the Pods whose containers changed.
func (a *Agent) refresh(ctx context.Context) error {
	a.listing.Lock()
	defer a.listing.Unlock()
	list, err := a.cfg.Engine.List(ctx)
	if err != nil {
		return fmt.Errorf("list containers: %w", err)
	}
	byPod := map[types.UID][]engine.Status{}
	for _, c := range list {
		if uid := types.UID(c.Labels[lifecycle.LabelPodUID]); uid != "" {
			byPod[uid] = append(byPod[uid], c)
		}
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	old := a.containers
	a.containers = byPod
	for uid, w := range a.workers {
		if !reflect.DeepEqual(old[uid], byPod[uid]) {
			w.wake()
		}
	}
	if a.podsKnown {
		a.adopt(podsOf(byPod)) // a container whose creation was cut off may show up after its Pod is gone
	}
	return nil
}

func (a *Agent) containersOf(uid types.UID) []engine.Status {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.containers[uid]
}

// writes reports whether a container may still write to its log.
func (a *Agent) writes(id string) bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	for _, list := range a.containers {
		for _, c := range list {
			if c.ID == id {
				return c.State != engine.Exited
			}
		}
	}
	return false
}

// collectOrphans looks now and then for what belongs to no Pod.
func (a *Agent) collectOrphans(ctx context.Context) {
	ticker := time.NewTicker(orphanPeriod)
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
			a.adoptOrphans(ctx)
		}
	}
}

// adoptOrphans gives a worker to every Pod that is not in the API but of which something is left on the node; being
// gone, it is taken down like any other. Nothing is done before the Pods are known.
func (a *Agent) adoptOrphans(ctx context.Context) {
	sandboxes, err := a.cfg.Network.List(ctx)
	if err != nil {
		a.log.Warn("list sandboxes", "err", err)
	}
	folders, err := a.volumes.List()
	if err != nil {
		a.log.Warn("list volumes", "err", err)
	}
	logFolders, err := logs.Owned(a.cfg.LogDir, a.cfg.DataDir)
	if err != nil {
		a.log.Warn("list logs", "err", err)
	}
	groups, err := cgroup.At(cgroup.Mount, a.cfg.Cgroup).List("pod")
	if err != nil {
		a.log.Warn("list control groups", "err", err)
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	if !a.podsKnown {
		return
	}
	left := map[types.UID]*corev1.Pod{}
	for _, id := range sandboxes {
		left[types.UID(id)] = nil
	}
	for _, uid := range folders {
		left[uid] = nil
	}
	for uid := range logFolders {
		left[uid] = nil
	}
	for _, uid := range groups {
		left[types.UID(uid)] = nil
	}
	maps.Copy(left, podsOf(a.containers))
	a.adopt(left)
}

// adopt starts a worker for each Pod of which only something on the node is left; nil: only its uid is known. The
// agent is locked.
func (a *Agent) adopt(left map[types.UID]*corev1.Pod) {
	for _, uid := range slices.Sorted(maps.Keys(left)) {
		if a.workers[uid] != nil {
			continue
		}
		pod := left[uid]
		if pod == nil {
			pod = &corev1.Pod{ObjectMeta: metav1.ObjectMeta{UID: uid}}
		}
		a.log.Info("removing what is left of a Pod that is gone", "namespace", pod.Namespace, "pod", pod.Name, "uid", uid)
		a.startWorker(pod).tell(pod, true)
	}
}

// podsOf returns what containers' labels say of their Pods.
func podsOf(containers map[types.UID][]engine.Status) map[types.UID]*corev1.Pod {
	pods := map[types.UID]*corev1.Pod{}
	for uid, list := range containers {
		pods[uid] = podOf(list[0])
	}
	return pods
}

// podOf returns what a container's labels say of its Pod.
func podOf(c engine.Status) *corev1.Pod {
	return &corev1.Pod{ObjectMeta: metav1.ObjectMeta{
		UID: types.UID(c.Labels[lifecycle.LabelPodUID]), Namespace: c.Labels[lifecycle.LabelPodNamespace], Name: c.Labels[lifecycle.LabelPodName],
	}}
}
