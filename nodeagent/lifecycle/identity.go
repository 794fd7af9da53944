package lifecycle

import (
	"cmp"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"slices"
	"strconv"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/slipway-dev/slipway/nodeagent/engine"
)

// Labels of a container in the engine. The first four have the kubelet's names.
const (
	LabelPodUID       = "io.kubernetes.pod.uid"
	LabelPodNamespace = "io.kubernetes.pod.namespace"
	LabelPodName      = "io.kubernetes.pod.name"
	LabelContainer    = "io.kubernetes.container.name"
	LabelAttempt      = "slipway.dev/attempt" // 0, 1, …: the restart count
	LabelBackOff      = "slipway.dev/backoff" // how long the next attempt waits after this one's end
	LabelSandbox      = "slipway.dev/sandbox" // Sandbox.ID it was made in
)

// ContainerID returns the id of one attempt of one container. The same attempt always has the same id, so creating
// it twice is noticed by the engine.
func ContainerID(pod types.UID, container string, attempt int) string {
	sum := sha256.Sum256(fmt.Appendf(nil, "%s/%s/%d", pod, container, attempt))
	return hex.EncodeToString(sum[:])
}

// Labels returns the labels with which the attempt of a Create action is made.
func Labels(pod *corev1.Pod, a Action, sandbox string) map[string]string {
	return map[string]string{
		LabelPodUID:       string(pod.UID),
		LabelPodNamespace: pod.Namespace,
		LabelPodName:      pod.Name,
		LabelContainer:    a.Container,
		LabelAttempt:      strconv.Itoa(a.Attempt),
		LabelBackOff:      a.BackOff.String(),
		LabelSandbox:      sandbox,
	}
}

// instance is one attempt of a container as the engine knows it.
type instance struct {
	engine.Status
	name    string
	attempt int
	backOff time.Duration
	sandbox string
}

// instancesOf groups the containers by name, oldest attempt first. A created container whose start failed counts as
// exited.
func instancesOf(o Observed) map[string][]instance {
	out := map[string][]instance{}
	for _, s := range o.Containers {
		attempt, err := strconv.Atoi(s.Labels[LabelAttempt])
		if err != nil {
			continue // not made by this agent
		}
		backOff, _ := time.ParseDuration(s.Labels[LabelBackOff])
		if f, ok := o.StartFails[s.ID]; ok && s.State != engine.Running {
			if s.State == engine.Created || s.FinishedAt.IsZero() {
				s.FinishedAt, s.ExitCode = f.At, exitNotStarted
			}
			s.State = engine.Exited
		}
		name := s.Labels[LabelContainer]
		if s.State == engine.Exited && s.StartedAt.IsZero() && o.starting(name, attempt) {
			s.State = engine.Created // why it did not start is not known yet
		}
		if s.State == engine.Running && o.hasPostStart(name) && (o.starting(name, attempt) || !o.hooked(name, s.ID)) {
			s.State = engine.Created // it counts as running when its hook has run
		}
		out[name] = append(out[name], instance{Status: s, name: name, attempt: attempt, backOff: backOff, sandbox: s.Labels[LabelSandbox]})
	}
	for _, list := range out {
		slices.SortFunc(list, func(a, b instance) int { return cmp.Compare(a.attempt, b.attempt) })
	}
	return out
}

// starting reports whether an attempt is being created or started right now.
func (o Observed) starting(container string, attempt int) bool {
	for _, verb := range []Verb{Create, Start} {
		if _, busy := o.Busy[Action{Verb: verb, Container: container, Attempt: attempt}.Key()]; busy {
			return true
		}
	}
	return false
}

// hooked reports whether a container's postStart hook has run: this agent saw to it, or an earlier one did before it
// wrote that the container runs. One that was cut off runs again.
func (o Observed) hooked(container, id string) bool {
	if _, ok := o.Hooked[id]; ok {
		return true
	}
	for _, s := range slices.Concat(o.Pod.Status.InitContainerStatuses, o.Pod.Status.ContainerStatuses) {
		if s.Name == container {
			return s.ContainerID == ContainerIDPrefix+id && s.State.Running != nil
		}
	}
	return false
}

// hasPostStart reports whether the container has a hook that runs before it counts as running. On the way out hooks
// do not matter.
func (o Observed) hasPostStart(container string) bool {
	if o.Gone || o.Pod.DeletionTimestamp != nil {
		return false
	}
	for _, c := range slices.Concat(o.Pod.Spec.InitContainers, o.Pod.Spec.Containers) {
		if c.Name == container {
			return c.Lifecycle != nil && c.Lifecycle.PostStart != nil
		}
	}
	return false
}
