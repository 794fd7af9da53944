package lifecycle

import (
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"

	"github.com/slipway-dev/slipway/nodeagent/engine"
)

// shown is a stored status of container main.
func shown(attempt int, state, last corev1.ContainerState) func(*corev1.Pod) {
	return func(p *corev1.Pod) {
		p.Status.ContainerStatuses = []corev1.ContainerStatus{{Name: "main", RestartCount: int32(attempt), State: state, LastTerminationState: last,
			ContainerID: ContainerIDPrefix + ContainerID("u1", "main", attempt)}}
	}
}

func waiting(reason string) corev1.ContainerState {
	return corev1.ContainerState{Waiting: &corev1.ContainerStateWaiting{Reason: reason}}
}

func ended(attempt int) corev1.ContainerState {
	return corev1.ContainerState{Terminated: &corev1.ContainerStateTerminated{ExitCode: 1, ContainerID: ContainerIDPrefix + ContainerID("u1", "main", attempt)}}
}

var runs = corev1.ContainerState{Running: &corev1.ContainerStateRunning{}}

// What an agent finds that was killed while it made a container, or whose engine lost some.
func TestRestartsAreCountedAcrossCrashes(t *testing.T) {
	none := corev1.ContainerState{}
	tests := []struct {
		name   string
		pod    *corev1.Pod
		exists []engine.Status
		want   int // attempt made next
		count  int // restarts shown
	}{
		{"made and shown, never begun, gone", pod(shown(0, waiting(ReasonContainerCreating), none)), nil, 0, 0},
		{"a later one, never begun, gone with those before it", pod(shown(3, waiting(ReasonContainerCreating), ended(2))), nil, 3, 3},
		{"a later one, never begun, gone", pod(shown(3, waiting(ReasonContainerCreating), ended(2))), []engine.Status{inst("main", 2, engine.Exited)}, 3, 3},
		{"ran and gone", pod(shown(2, runs, ended(1))), nil, 3, 2},
		{"in back-off and gone", pod(shown(2, waiting(ReasonCrashLoopBackOff), ended(2))), nil, 3, 2},
		{"ran and gone, the one before it is there", pod(shown(2, runs, ended(1))), []engine.Status{inst("main", 1, engine.Exited)}, 3, 2},
		{"ended and not shown yet", pod(shown(2, runs, ended(1))), []engine.Status{inst("main", 2, engine.Exited)}, 3, 2},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			o := up(tt.pod)
			o.Now = epoch.Add(time.Hour)
			o.Containers = tt.exists
			o.Images["main"] = Image{Attempt: tt.want, Present: true}
			want := []string{Action{Verb: Create, Container: "main", Attempt: tt.want}.String()}
			if diff := cmp.Diff(want, lines(Plan(o))); diff != "" {
				t.Errorf("plan (-want +got):\n%s", diff)
			}
			if got := Status(o).ContainerStatuses[0].RestartCount; int(got) != tt.count {
				t.Errorf("%d restarts shown, want %d", got, tt.count)
			}
		})
	}
}

func TestContainerAskedToEndIsNotAskedAgain(t *testing.T) {
	asked := func(at time.Time) func(*engine.Status) { return func(s *engine.Status) { s.StopAskedAt = at } }
	o := up(pod(deleted(30)))
	o.Drained = true
	o.Containers = []engine.Status{inst("main", 0, engine.Running, asked(epoch.Add(-10*time.Second)))}
	if diff := cmp.Diff([]string{"wait 20s"}, lines(Plan(o))); diff != "" {
		t.Errorf("within its grace (-want +got):\n%s", diff)
	}
	o.Containers = []engine.Status{inst("main", 0, engine.Running, asked(epoch.Add(-30*time.Second)))}
	if diff := cmp.Diff([]string{"kill container main attempt 0"}, lines(Plan(o))); diff != "" {
		t.Errorf("after it (-want +got):\n%s", diff)
	}
}

func TestHookThatWasCutOffRunsAgain(t *testing.T) {
	hook := func(p *corev1.Pod) {
		p.Spec.Containers[0].Lifecycle = &corev1.Lifecycle{PostStart: &corev1.LifecycleHandler{Exec: &corev1.ExecAction{Command: []string{"x"}}}}
	}
	again := []string{"start container main attempt 0"}
	for name, tt := range map[string]struct {
		pod  *corev1.Pod
		mark bool
		want []string
	}{
		"nothing says that it ran": {pod(hook), false, again},
		"this agent saw it":        {pod(hook), true, nil},
		"shown as running":         {pod(hook, shown(0, runs, corev1.ContainerState{})), false, nil},
		"another one was shown":    {pod(hook, shown(1, runs, corev1.ContainerState{})), false, again},
		"on its way out":           {pod(hook, deleted(30)), false, []string{"drain"}},
	} {
		o := up(tt.pod)
		running := inst("main", 0, engine.Running)
		o.Containers = []engine.Status{running}
		if tt.mark {
			o.Hooked = map[string]struct{}{running.ID: {}}
		}
		if diff := cmp.Diff(tt.want, lines(Plan(o))); diff != "" {
			t.Errorf("%s (-want +got):\n%s", name, diff)
		}
	}
}

func TestLostContainerSaysWhy(t *testing.T) {
	o := up(pod(policy(corev1.RestartPolicyNever)))
	o.Containers = []engine.Status{inst("main", 0, engine.Exited, exit(137), func(s *engine.Status) { s.Lost = "its shim was killed" })}
	got := Status(o).ContainerStatuses[0].State.Terminated
	if got == nil || got.Reason != ReasonStatusUnknown || !strings.Contains(got.Message, "shim was killed") || got.ExitCode != 137 {
		t.Errorf("got %+v", got)
	}
}
