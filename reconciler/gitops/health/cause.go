package health

import (
	"fmt"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
)

// Weights of causes: the one that explains most is shown.
const (
	none       = iota
	pending    // may pass: starting, not scheduled yet, started again
	restarting // crashed or not pulled, is tried again
	backingOff // crashed before, is tried again later
	stuck      // will not pass
)

// restartsUntilStuck is how often a container may crash before a rollout counts as failed: programs that wait for
// another one by crashing come up within a few restarts.
const restartsUntilStuck = 3

// First returns the worst cause among pods, the first by name among equals, and its weight: zero when nothing is
// wrong yet.
func First(pods []*corev1.Pod, now time.Time) (name, cause string, weight int) {
	for _, p := range pods {
		text, w := weigh(p, now)
		if w > weight || w == weight && w > none && p.Name < name {
			name, cause, weight = p.Name, text, w
		}
	}
	return name, cause, weight
}

func weigh(p *corev1.Pod, now time.Time) (string, int) {
	if p.DeletionTimestamp != nil || podReady(p) && Proof(p, now) == 0 || p.Status.Phase == corev1.PodSucceeded {
		return "", none
	}
	if p.Spec.NodeName == "" {
		return unscheduled(p)
	}
	text, weight := "", none
	containers := append(append([]corev1.ContainerStatus(nil), p.Status.InitContainerStatuses...), p.Status.ContainerStatuses...)
	for i := range containers {
		if t, w := container(&containers[i], now); w > weight {
			text, weight = fmt.Sprintf("container %s: %s", containers[i].Name, t), w
		}
	}
	if weight == none && p.Status.Phase == corev1.PodFailed {
		return join(p.Status.Reason, oneLine(p.Status.Message)), stuck
	}
	return text, weight
}

func unscheduled(p *corev1.Pod) (string, int) {
	for _, c := range p.Status.Conditions {
		if c.Type == corev1.PodScheduled && c.Status == corev1.ConditionFalse && c.Message != "" {
			return join(c.Reason, oneLine(c.Message)), pending
		}
	}
	return "", none
}

// container explains one container that is waiting or has ended badly.
func container(c *corev1.ContainerStatus, now time.Time) (string, int) {
	if w := c.State.Waiting; w != nil {
		switch w.Reason {
		case "CrashLoopBackOff":
			weight := backingOff
			if c.RestartCount >= restartsUntilStuck {
				weight = stuck
			}
			return join(w.Reason, exit(c.LastTerminationState.Terminated, w.Message)), weight
		case "ErrImagePull":
			return join(w.Reason, oneLine(w.Message)), restarting
		case "ImagePullBackOff", "InvalidImageName", "ErrImageNeverPull", "CreateContainerConfigError",
			"CreateContainerError", "RunContainerError", "UnsupportedField":
			return join(w.Reason, oneLine(w.Message)), stuck
		}
		if w.Message != "" {
			return join(w.Reason, oneLine(w.Message)), pending
		}
		return "", none
	}
	if t := c.State.Terminated; t != nil && t.ExitCode != 0 {
		return exit(t, ""), restarting
	}
	if t := c.LastTerminationState.Terminated; t != nil && (!c.Ready && t.ExitCode != 0 || proof(c, now) > 0) {
		return fmt.Sprintf("restarted after %s", exit(t, "")), pending
	}
	return "", none
}

// exit says how a container ended: "exit 1", "OOMKilled: exit 137", with the last thing it said.
func exit(t *corev1.ContainerStateTerminated, otherwise string) string {
	if t == nil {
		return oneLine(otherwise)
	}
	text := fmt.Sprintf("exit %d", t.ExitCode)
	if t.Signal != 0 {
		text = fmt.Sprintf("signal %d", t.Signal)
	}
	if t.Reason != "" && t.Reason != "Error" && t.Reason != "Completed" {
		text = t.Reason + ": " + text
	}
	return join(text, lastLine(t.Message))
}

func join(parts ...string) string {
	var out []string
	for _, p := range parts {
		if p != "" {
			out = append(out, p)
		}
	}
	return strings.Join(out, ": ")
}

const maxCause = 300 // bytes of a message that is shown

func oneLine(s string) string {
	s = strings.Join(strings.Fields(s), " ")
	if len(s) > maxCause {
		s = strings.ToValidUTF8(s[:maxCause], "") + "…"
	}
	return s
}

func lastLine(s string) string {
	lines := strings.Split(strings.TrimSpace(s), "\n")
	return oneLine(lines[len(lines)-1])
}
