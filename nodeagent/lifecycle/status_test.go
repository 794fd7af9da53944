package lifecycle

import (
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/slipway-dev/slipway/nodeagent/engine"
)

// summary is the part of a container's status that tables compare.
type summary struct {
	State, Reason, Message string
	LastReason             string
	Exit                   int32
	Restarts               int32
	Ready, Started         bool
}

func summarize(s corev1.ContainerStatus) summary {
	out := summary{Restarts: s.RestartCount, Ready: s.Ready, Started: s.Started != nil && *s.Started}
	switch {
	case s.State.Running != nil:
		out.State = "running"
	case s.State.Waiting != nil:
		out.State, out.Reason, out.Message = "waiting", s.State.Waiting.Reason, s.State.Waiting.Message
	case s.State.Terminated != nil:
		out.State, out.Reason, out.Message, out.Exit = "terminated", s.State.Terminated.Reason, s.State.Terminated.Message, s.State.Terminated.ExitCode
	}
	if t := s.LastTerminationState.Terminated; t != nil {
		out.LastReason = t.Reason
	}
	return out
}

func TestStatusOfContainer(t *testing.T) {
	exited := func(change ...func(*engine.Status)) Observed {
		o := up(pod(policy(corev1.RestartPolicyNever)))
		o.Containers = []engine.Status{inst("main", 0, engine.Exited, change...)}
		return o
	}
	failing := func(reason, message string) Observed {
		o := up(pod())
		o.Images["main"] = Image{Failure: Failure{Reason: reason, Message: message, Retry: epoch.Add(time.Second)}}
		return o
	}
	main0 := ContainerID("u1", "main", 0)
	cases := []struct {
		name  string
		o     func() Observed
		phase corev1.PodPhase
		want  summary
	}{
		{"new", func() Observed { return up(pod()) }, corev1.PodPending, summary{State: "waiting", Reason: "ContainerCreating"}},
		{"behind init containers", func() Observed { return up(pod(inits("one"))) }, corev1.PodPending, summary{State: "waiting", Reason: "PodInitializing"}},
		{"image cannot be pulled", func() Observed { return failing("ErrImagePull", "no such host") }, corev1.PodPending,
			summary{State: "waiting", Reason: "ErrImagePull", Message: "no such host"}},
		{"image name", func() Observed { return failing("InvalidImageName", "bad") }, corev1.PodPending,
			summary{State: "waiting", Reason: "InvalidImageName", Message: "bad"}},
		{"never pulled", func() Observed { return failing("ErrImageNeverPull", "absent") }, corev1.PodPending,
			summary{State: "waiting", Reason: "ErrImageNeverPull", Message: "absent"}},
		{"configuration missing", func() Observed {
			o := up(pod())
			o.CreateFails = map[string]Failure{"main": {Reason: "CreateContainerConfigError", Message: `configmap "x" not found`}}
			return o
		}, corev1.PodPending, summary{State: "waiting", Reason: "CreateContainerConfigError", Message: `configmap "x" not found`}},
		{"volumes missing say so", func() Observed {
			o := up(pod())
			o.Volumes = Volumes{Failure: Failure{Reason: "FailedMount", Message: `MountVolume.SetUp failed for volume "v"`}}
			return o
		}, corev1.PodPending, summary{State: "waiting", Reason: "ContainerCreating", Message: `MountVolume.SetUp failed for volume "v"`}},
		{"running without probes is ready", func() Observed {
			o := up(pod())
			o.Containers = []engine.Status{inst("main", 0, engine.Running)}
			return o
		}, corev1.PodRunning, summary{State: "running", Ready: true, Started: true}},
		{"running but its postStart hook is not done", func() Observed {
			o := up(pod())
			o.Pod.Spec.Containers[0].Lifecycle = &corev1.Lifecycle{PostStart: &corev1.LifecycleHandler{}}
			o.Containers = []engine.Status{inst("main", 0, engine.Running)}
			o.Busy = map[string]struct{}{"create container main/0": {}}
			return o
		}, corev1.PodPending, summary{State: "waiting", Reason: "ContainerCreating"}},
		{"readiness not yet known", func() Observed {
			o := up(pod())
			o.Pod.Spec.Containers[0].ReadinessProbe = &corev1.Probe{}
			o.Containers = []engine.Status{inst("main", 0, engine.Running)}
			return o
		}, corev1.PodRunning, summary{State: "running", Started: true}},
		{"startup not yet done", func() Observed {
			o := up(pod())
			o.Pod.Spec.Containers[0].StartupProbe = &corev1.Probe{}
			o.Containers = []engine.Status{inst("main", 0, engine.Running)}
			return o
		}, corev1.PodRunning, summary{State: "running"}},
		{"a restarted agent keeps what was stored", func() Observed {
			o := up(pod())
			o.Pod.Spec.Containers[0].ReadinessProbe = &corev1.Probe{}
			o.Containers = []engine.Status{inst("main", 0, engine.Running)}
			started := true
			o.Pod.Status.ContainerStatuses = []corev1.ContainerStatus{{Name: "main", ContainerID: "containerd://" + main0, Ready: true, Started: &started}}
			return o
		}, corev1.PodRunning, summary{State: "running", Ready: true, Started: true}},
		{"completed", func() Observed { return exited() }, corev1.PodSucceeded, summary{State: "terminated", Reason: "Completed"}},
		{"error with message", func() Observed {
			o := exited(exit(2))
			o.Messages = map[string]string{main0: "boom"}
			return o
		}, corev1.PodFailed, summary{State: "terminated", Reason: "Error", Message: "boom", Exit: 2}},
		{"out of memory", func() Observed { return exited(exit(137), func(s *engine.Status) { s.OOMKilled = true }) }, corev1.PodFailed,
			summary{State: "terminated", Reason: "OOMKilled", Exit: 137}},
		{"command cannot start", func() Observed {
			o := exited(func(s *engine.Status) { s.State = engine.Created })
			o.StartFails = map[string]Failure{main0: {Reason: "StartError", Message: `exec: "x": not found`, At: epoch}}
			return o
		}, corev1.PodFailed, summary{State: "terminated", Reason: "StartError", Message: `exec: "x": not found`, Exit: 128}},
		{"crash loop", func() Observed {
			o := up(pod())
			o.Containers = []engine.Status{inst("main", 2, engine.Exited, exit(1))}
			return o
		}, corev1.PodRunning, summary{State: "waiting", Reason: "CrashLoopBackOff", LastReason: "Error", Restarts: 2,
			Message: "back-off 20s restarting failed container=main pod=web_shop(u1)"}},
		{"restarted", func() Observed {
			o := up(pod())
			o.Containers = []engine.Status{inst("main", 0, engine.Exited, exit(1)), inst("main", 1, engine.Running)}
			return o
		}, corev1.PodRunning, summary{State: "running", Ready: true, Started: true, LastReason: "Error", Restarts: 1}},
		{"lost by the engine under Never", func() Observed {
			o := up(pod(policy(corev1.RestartPolicyNever)))
			o.Pod.Status.ContainerStatuses = []corev1.ContainerStatus{{Name: "main", ContainerID: "containerd://x", State: corev1.ContainerState{Running: &corev1.ContainerStateRunning{}}}}
			return o
		}, corev1.PodFailed, summary{State: "terminated", Reason: "ContainerStatusUnknown", Exit: 137, Message: "The container could not be located: the engine no longer has it"}},
		{"lost by the engine under Always", func() Observed {
			o := up(pod())
			o.Pod.Status.ContainerStatuses = []corev1.ContainerStatus{{Name: "main", ContainerID: "containerd://x", RestartCount: 3, State: corev1.ContainerState{Running: &corev1.ContainerStateRunning{}}}}
			return o
		}, corev1.PodRunning, summary{State: "waiting", Reason: "ContainerCreating", LastReason: "ContainerStatusUnknown", Restarts: 3}},
		{"deleted and ended", func() Observed {
			o := up(pod(deleted(30)))
			o.Containers = []engine.Status{inst("main", 0, engine.Exited, exit(143))}
			return o
		}, corev1.PodFailed, summary{State: "terminated", Reason: "Error", Exit: 143}},
	}
	for _, tc := range cases {
		t.Run(tc.name, func(t *testing.T) {
			got := Status(tc.o())
			if got.Phase != tc.phase {
				t.Errorf("phase %s, want %s", got.Phase, tc.phase)
			}
			if diff := cmp.Diff(tc.want, summarize(got.ContainerStatuses[0])); diff != "" {
				t.Errorf("container status (-want +got):\n%s", diff)
			}
		})
	}
}

func TestStatusConditions(t *testing.T) {
	text := func(s corev1.PodStatus) map[string]string {
		out := map[string]string{}
		for _, c := range s.Conditions {
			out[string(c.Type)] = string(c.Status) + " " + c.Reason + " " + c.Message
		}
		return out
	}
	cases := []struct {
		name string
		o    func() Observed
		want map[string]string
	}{
		{"initialising", func() Observed { return up(pod(inits("one"), with("a", "b"))) }, map[string]string{
			"PodReadyToStartContainers": "True  ", "PodScheduled": "True  ",
			"Initialized":     "False ContainersNotInitialized containers with incomplete status: [one]",
			"ContainersReady": "False ContainersNotReady containers with unready status: [a b]",
			"Ready":           "False ContainersNotReady containers with unready status: [a b]"}},
		{"running", func() Observed {
			o := up(pod())
			o.Containers = []engine.Status{inst("main", 0, engine.Running)}
			return o
		}, map[string]string{"PodReadyToStartContainers": "True  ", "PodScheduled": "True  ", "Initialized": "True  ", "ContainersReady": "True  ", "Ready": "True  "}},
		{"readiness gate missing", func() Observed {
			o := up(pod())
			o.Containers = []engine.Status{inst("main", 0, engine.Running)}
			o.Pod.Spec.ReadinessGates = []corev1.PodReadinessGate{{ConditionType: "x/y"}}
			return o
		}, map[string]string{"PodReadyToStartContainers": "True  ", "PodScheduled": "True  ", "Initialized": "True  ", "ContainersReady": "True  ",
			"Ready": `False ReadinessGatesNotReady corresponding condition of pod readiness gate "x/y" does not exist.`}},
		{"completed", func() Observed {
			o := up(pod(policy(corev1.RestartPolicyNever)))
			o.Containers = []engine.Status{inst("main", 0, engine.Exited)}
			return o
		}, map[string]string{"PodReadyToStartContainers": "False  ", "PodScheduled": "True  ", "Initialized": "True PodCompleted ",
			"ContainersReady": "False PodCompleted ", "Ready": "False PodCompleted "}},
		{"refused", func() Observed {
			return Observed{Now: epoch, Pod: pod(), Refusal: &Refusal{Reason: "OutOfcpu", Message: "m"}}
		}, map[string]string{"PodReadyToStartContainers": "False  ", "PodScheduled": "True  ", "Initialized": "False OutOfcpu ",
			"ContainersReady": "False OutOfcpu ", "Ready": "False OutOfcpu "}},
	}
	for _, tc := range cases {
		t.Run(tc.name, func(t *testing.T) {
			if diff := cmp.Diff(tc.want, text(Status(tc.o()))); diff != "" {
				t.Errorf("conditions (-want +got):\n%s", diff)
			}
		})
	}
}

func TestStatusIsStable(t *testing.T) {
	o := up(pod())
	o.Containers = []engine.Status{inst("main", 0, engine.Running)}
	o.Pod.Status.Conditions = []corev1.PodCondition{{Type: "other/one", Status: corev1.ConditionTrue}}
	o.Pod.Status = Status(o)
	later := o
	later.Now = epoch.Add(time.Hour)
	if diff := cmp.Diff(o.Pod.Status, Status(later)); diff != "" {
		t.Errorf("status changed with time alone:\n%s", diff)
	}
	later.Containers = []engine.Status{inst("main", 0, engine.Exited, exit(1))}
	changed := Status(later)
	for _, c := range changed.Conditions {
		want := metav1.Time{Time: epoch}
		if c.Type == corev1.PodReady || c.Type == corev1.ContainersReady {
			want = metav1.Time{Time: later.Now}
		}
		if c.Type != "other/one" && !c.LastTransitionTime.Equal(&want) {
			t.Errorf("%s: last transition %s, want %s", c.Type, c.LastTransitionTime, want)
		}
	}
}

func TestStatusOfARefusedPodOutlivesTheAgent(t *testing.T) {
	o := Observed{Now: epoch, Pod: pod(), Refusal: &Refusal{Reason: "OutOfcpu", Message: "m"}}
	o.Pod.Status = Status(o)
	if o.Pod.Status.Phase != corev1.PodFailed || o.Pod.Status.Reason != "OutOfcpu" {
		t.Fatalf("status %+v", o.Pod.Status)
	}
	later := Observed{Now: epoch.Add(time.Hour), Pod: o.Pod, HostIPs: []string{"192.0.2.1"}} // admission is not asked again
	if diff := cmp.Diff(o.Pod.Status, Status(later)); diff != "" {
		t.Errorf("status changed:\n%s", diff)
	}
}

func TestEvictionEndsAPodAtOnceAndKeepsWhatItWas(t *testing.T) {
	o := up(pod())
	ten := int64(10)
	o.Pod.Spec.TerminationGracePeriodSeconds = &ten
	o.Containers = []engine.Status{inst("main", 0, engine.Running)}
	o.Eviction = &Eviction{Message: "The node was low on resource: memory.", Grace: time.Second}
	if s := Status(o); s.Phase != corev1.PodRunning || s.Reason != "" {
		t.Errorf("while it still runs: %s %s", s.Phase, s.Reason)
	}
	actions := Plan(o)
	if actions[0].Verb != Stop || actions[0].Grace != time.Second {
		t.Errorf("plan %v with a grace of %s", lines(actions), actions[0].Grace)
	}
	o.Containers = []engine.Status{inst("main", 0, engine.Exited, exit(137))}
	o.Sandbox.Presence, o.Volumes.Presence = Gone, Gone
	s := Status(o)
	if s.Phase != corev1.PodFailed || s.Reason != ReasonEvicted || s.Message != o.Eviction.Message {
		t.Errorf("evicted: %s %s %q", s.Phase, s.Reason, s.Message)
	}
	if c, _ := find(s.Conditions, corev1.DisruptionTarget); c.Status != corev1.ConditionTrue || c.Reason != "TerminationByKubelet" {
		t.Errorf("condition %+v", c)
	}
	if len(s.ContainerStatuses) != 1 || s.ContainerStatuses[0].State.Terminated == nil || s.ContainerStatuses[0].State.Terminated.ExitCode != 137 {
		t.Errorf("container statuses %+v", s.ContainerStatuses)
	}
	o.Pod.Status, o.Eviction = s, nil // another run of the agent does not know why
	if diff := cmp.Diff(s, Status(o)); diff != "" {
		t.Errorf("after a restart (-want +got):\n%s", diff)
	}
}

func TestShortDiskKeepsOnlyWhatTheStatusNeeds(t *testing.T) {
	o := up(pod())
	o.DiskShort = true
	o.Containers = []engine.Status{inst("main", 0, engine.Exited, exit(1)), inst("main", 1, engine.Running)}
	o.Pod.Status = Status(o)
	if diff := cmp.Diff([]string{"remove container main attempt 0"}, lines(Plan(o))); diff != "" {
		t.Errorf("plan of a Pod that runs (-want +got):\n%s", diff)
	}
	before := Status(o)
	o.Containers = o.Containers[1:]
	if diff := cmp.Diff(before, Status(o)); diff != "" {
		t.Errorf("the status forgets the attempt that was removed (-want +got):\n%s", diff)
	}

	o = up(pod(policy(corev1.RestartPolicyNever)))
	o.DiskShort = true
	o.Containers = []engine.Status{inst("main", 0, engine.Exited)}
	o.Sandbox.Presence, o.Volumes.Presence = Gone, Gone
	for _, phase := range []corev1.PodPhase{"", corev1.PodSucceeded} {
		o.Pod.Status.Phase = phase
		if got := lines(Plan(o)); len(got) != 0 {
			t.Errorf("before the status of phase %q tells how it ended: %v", phase, got)
		}
	}
	o.Pod.Status = Status(o)
	if diff := cmp.Diff([]string{"remove container main attempt 0"}, lines(Plan(o))); diff != "" {
		t.Errorf("plan of a Pod that is over (-want +got):\n%s", diff)
	}
}
