package agent

import (
	"context"
	"slices"

	corev1 "k8s.io/api/core/v1"

	"github.com/slipway-dev/slipway/apiserver/api"
	"github.com/slipway-dev/slipway/apiserver/store"
)

// ImagesInUse returns the names and ids of images that containers were made of or Pods name that are not over. It is
// known once the Pods of this node are.
func (a *Agent) ImagesInUse() (names []string, known bool) {
	a.mu.Lock()
	defer a.mu.Unlock()
	for _, list := range a.containers {
		for _, c := range list {
			names = append(names, c.Image, c.ImageID)
		}
	}
	for _, w := range a.workers {
		pod := w.lastPod()
		if pod.Status.Phase == corev1.PodSucceeded || pod.Status.Phase == corev1.PodFailed {
			continue
		}
		for _, c := range slices.Concat(pod.Spec.InitContainers, pod.Spec.Containers) {
			names = append(names, c.Image)
		}
	}
	return names, a.podsKnown
}

// NodeEvent records an Event about this node.
func (a *Agent) NodeEvent(eventType, reason, message string) {
	node, err := store.Get[*corev1.Node](context.Background(), a.cfg.Client, "", a.cfg.NodeName)
	if err != nil {
		node = api.Nodes.New().(*corev1.Node)
		node.Name = a.cfg.NodeName
	}
	a.cfg.Events.Event(node, eventType, reason, message)
}
