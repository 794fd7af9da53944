package main

import (
	"context"
	"io"
	"slices"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"

	"github.com/slipway-dev/slipway/apiserver/store"
	"github.com/slipway-dev/slipway/reconciler/gitops"
)

// tailLines is how much of a failing container's log is shown.
const tailLines = 8

// tail returns the last lines of the container that keeps a workload from becoming current.
func (m *machine) tail(p gitops.Progress) []string {
	if m.node == nil || p.Health.Pod == "" {
		return nil
	}
	ctx, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	pod, err := store.Get[*corev1.Pod](ctx, m.reader(), p.Ref.Namespace, p.Health.Pod)
	if err != nil {
		return nil
	}
	container := failing(pod)
	if container == "" {
		return nil
	}
	n := int64(tailLines)
	for _, previous := range []bool{false, true} { // a container that crashed may be starting again
		log, err := m.node.agent.Logs(ctx, pod, &corev1.PodLogOptions{Container: container, TailLines: &n, Previous: previous})
		if err != nil {
			continue
		}
		text, err := io.ReadAll(io.LimitReader(log, 64<<10))
		log.Close()
		if lines := strings.Split(strings.TrimRight(string(text), "\n"), "\n"); err == nil && lines[0] != "" {
			return lines
		}
	}
	return nil
}

// failing names the container that ended badly and is not back, or else one that ended badly before; empty: none did.
func failing(pod *corev1.Pod) string {
	before := ""
	for _, c := range append(slices.Clone(pod.Status.InitContainerStatuses), pod.Status.ContainerStatuses...) {
		for _, ended := range []*corev1.ContainerStateTerminated{c.State.Terminated, c.LastTerminationState.Terminated} {
			switch {
			case ended == nil || ended.ExitCode == 0:
			case c.State.Running == nil:
				return c.Name
			case before == "":
				before = c.Name
			}
		}
	}
	return before
}
