package health

import (
	"time"

	corev1 "k8s.io/api/core/v1"
)

// A container that ended and runs again is not well yet only because it runs: in a crash loop it does so again and
// again, and without a readiness probe it is ready at once each time. It has to run twice as long as the attempt
// before did, within these bounds. One that had run for a long time crashes in no loop; the kubelet forgets its
// back-off after as long.
const (
	leastProof = 5 * time.Second
	mostProof  = 5 * time.Minute
	noLoop     = 10 * time.Minute
)

// proof returns how long a container has still to run before it counts as well again; zero: it does.
func proof(c *corev1.ContainerStatus, now time.Time) time.Duration {
	last, running := c.LastTerminationState.Terminated, c.State.Running
	if last == nil || running == nil || c.RestartCount == 0 {
		return 0
	}
	lived, lives := last.FinishedAt.Sub(last.StartedAt.Time), now.Sub(running.StartedAt.Time)
	if lived >= noLoop || lives < 0 { // started in the future: the clock was set back, and tells nothing
		return 0
	}
	return max(min(max(2*lived, leastProof), mostProof)-lives, 0)
}

// Proof returns how long a Pod that is ready has still to run before it counts as well again after a crash; zero: it
// does, or is not ready anyway.
func Proof(p *corev1.Pod, now time.Time) time.Duration {
	if !podReady(p) || p.DeletionTimestamp != nil {
		return 0
	}
	longest := time.Duration(0)
	for i := range p.Status.ContainerStatuses {
		longest = max(longest, proof(&p.Status.ContainerStatuses[i], now))
	}
	return longest
}

// unproven returns how many of pods are ready and not well yet.
func unproven(pods []*corev1.Pod, now time.Time) (n int32) {
	for _, p := range pods {
		if Proof(p, now) > 0 {
			n++
		}
	}
	return n
}
