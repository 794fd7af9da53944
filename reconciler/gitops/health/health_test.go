package health

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/slipway-dev/slipway/apiserver/api"
)

func deploy(status appsv1.DeploymentStatus, change ...func(*appsv1.Deployment)) *appsv1.Deployment {
	replicas := int32(3)
	d := &appsv1.Deployment{ObjectMeta: metav1.ObjectMeta{Name: "web", Generation: 2}, Status: status}
	d.Spec.Replicas = &replicas
	for _, c := range change {
		c(d)
	}
	return d
}

func running(name string, status ...corev1.ContainerStatus) *corev1.Pod {
	p := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Name: name}}
	p.Spec.NodeName = "node"
	p.Status.Phase = corev1.PodRunning
	p.Status.ContainerStatuses = status
	return p
}

func backOff(reason, message string) corev1.ContainerStatus {
	return corev1.ContainerStatus{Name: "app", State: corev1.ContainerState{Waiting: &corev1.ContainerStateWaiting{Reason: reason, Message: message}}}
}

func crashed(restarts int32, last corev1.ContainerStateTerminated) corev1.ContainerStatus {
	c := backOff("CrashLoopBackOff", "back-off 10s restarting failed container")
	c.RestartCount, c.LastTerminationState.Terminated = restarts, &last
	return c
}

func unschedulable(name string) *corev1.Pod {
	p := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Name: name}}
	p.Status.Conditions = []corev1.PodCondition{{Type: corev1.PodScheduled, Status: corev1.ConditionFalse, Reason: "Unschedulable", Message: "0/2 nodes are available: 2 Insufficient cpu."}}
	return p
}

func ready(p *corev1.Pod) *corev1.Pod {
	p.Status.Conditions = []corev1.PodCondition{{Type: corev1.PodReady, Status: corev1.ConditionTrue}}
	return p
}

var now = time.Date(2030, 1, 1, 12, 0, 0, 0, time.UTC)

func TestOf(t *testing.T) {
	seen := func(replicas, updated, available int32) appsv1.DeploymentStatus {
		return appsv1.DeploymentStatus{ObservedGeneration: 2, Replicas: replicas, UpdatedReplicas: updated, AvailableReplicas: available}
	}
	deleted := metav1.Now()
	tests := []struct {
		name string
		obj  api.Object
		pods []*corev1.Pod
		want Health
	}{
		{"missing", nil, nil, Health{Status: NotFound, Message: "not found"}},
		{"being deleted", &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{DeletionTimestamp: &deleted}}, nil, Health{Status: Terminating, Message: "is being deleted"}},
		{"a kind without a state of its own", &corev1.ConfigMap{}, nil, Health{Status: Current}},
		{"deployment not yet seen", deploy(appsv1.DeploymentStatus{ObservedGeneration: 1, Replicas: 3, UpdatedReplicas: 3, AvailableReplicas: 3}), nil,
			Health{Status: InProgress, Message: "waiting for the controller to see it", Wanted: 3}},
		{"deployment half updated", deploy(seen(3, 1, 3)), nil, Health{Status: InProgress, Message: "1 of 3 updated", Wanted: 3, Ready: 1}},
		{"deployment with old replicas", deploy(seen(4, 3, 3)), nil, Health{Status: InProgress, Message: "1 old to remove", Wanted: 3, Ready: 3}},
		{"deployment not available", deploy(seen(3, 3, 2)), nil, Health{Status: InProgress, Message: "2 of 3 ready", Wanted: 3, Ready: 2}},
		{"deployment done", deploy(seen(3, 3, 3)), []*corev1.Pod{unschedulable("old")}, Health{Status: Current, Wanted: 3, Ready: 3}},
		{"deployment scaled to zero", deploy(seen(0, 0, 0), func(d *appsv1.Deployment) { *d.Spec.Replicas = 0 }), nil, Health{Status: Current}},
		{"deployment past its deadline", deploy(seen(3, 3, 0), func(d *appsv1.Deployment) {
			d.Status.Conditions = []appsv1.DeploymentCondition{{Type: appsv1.DeploymentProgressing, Reason: "ProgressDeadlineExceeded"}}
		}), []*corev1.Pod{unschedulable("web-1")}, Health{Status: Failed, Message: "progress deadline exceeded", Wanted: 3, Stuck: true, Pod: "web-1", Weight: pending,
			Cause: "Pod web-1: Unschedulable: 0/2 nodes are available: 2 Insufficient cpu."}},
		{"deployment whose Pods crash", deploy(seen(3, 3, 0)), []*corev1.Pod{
			unschedulable("web-a"), running("web-c", crashed(5, corev1.ContainerStateTerminated{ExitCode: 1, Reason: "Error", Message: "start\nno database\n"})),
			running("web-b", crashed(4, corev1.ContainerStateTerminated{ExitCode: 137, Reason: "OOMKilled"})),
		}, Health{Status: InProgress, Message: "0 of 3 ready", Wanted: 3, Stuck: true, Pod: "web-b", Weight: stuck, Cause: "Pod web-b: container app: CrashLoopBackOff: OOMKilled: exit 137"}},
		{"deployment whose Pods crashed once", deploy(seen(3, 3, 0)), []*corev1.Pod{running("web-a", crashed(1, corev1.ContainerStateTerminated{ExitCode: 1, Reason: "Error"}))},
			Health{Status: InProgress, Message: "0 of 3 ready", Wanted: 3, Pod: "web-a", Weight: backingOff, Cause: "Pod web-a: container app: CrashLoopBackOff: exit 1"}},
		{"pod ready", ready(running("p")), nil, Health{Status: Current, Wanted: 1, Ready: 1}},
		{"pod starting", running("p", backOff("ContainerCreating", "")), nil, Health{Status: InProgress, Message: "not ready", Wanted: 1}},
		{"pod without its image", running("p", backOff("ImagePullBackOff", "nginx:nope:\n not found")), nil,
			Health{Status: Failed, Message: "container app: ImagePullBackOff: nginx:nope: not found", Cause: "container app: ImagePullBackOff: nginx:nope: not found", Pod: "p", Weight: stuck, Stuck: true, Wanted: 1}},
		{"pod done", &corev1.Pod{Status: corev1.PodStatus{Phase: corev1.PodSucceeded}}, nil, Health{Status: Current}},
		{"service without an address", &corev1.Service{}, nil, Health{Status: InProgress, Message: "waiting for an address"}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			if d := cmp.Diff(tt.want, Of(tt.obj, tt.pods, now)); d != "" {
				t.Errorf("health (-want +got):\n%s", d)
			}
		})
	}
}

// The same Pods in another order have the same cause: a message must not flap.
func TestFirstDoesNotDependOnOrder(t *testing.T) {
	a, b := running("a", backOff("ImagePullBackOff", "no")), running("b", backOff("ImagePullBackOff", "nor this"))
	for _, pods := range [][]*corev1.Pod{{a, b}, {b, a}} {
		if name, _, _ := First(pods, now); name != "a" {
			t.Errorf("first = %s, want a", name)
		}
	}
}

// A crashing container waits, runs, ends and waits again: what is said of it stays.
func TestSteadyKeepsTheCause(t *testing.T) {
	d := deploy(appsv1.DeploymentStatus{ObservedGeneration: 2, Replicas: 3, UpdatedReplicas: 3})
	end := corev1.ContainerStateTerminated{ExitCode: 1, Reason: "Error"}
	ended := corev1.ContainerStatus{Name: "app", State: corev1.ContainerState{Terminated: &end}}
	again := corev1.ContainerStatus{Name: "app", LastTerminationState: corev1.ContainerState{Terminated: &end}}
	var before Health
	var causes []string
	for _, c := range []corev1.ContainerStatus{ended, crashed(1, end), again, ended, crashed(2, end), again, crashed(3, end)} {
		before = Of(d, []*corev1.Pod{running("web-a", c)}, now).Steady(before)
		if len(causes) == 0 || causes[len(causes)-1] != before.Cause {
			causes = append(causes, before.Cause)
		}
	}
	want := []string{"Pod web-a: container app: exit 1", "Pod web-a: container app: CrashLoopBackOff: exit 1"}
	if d := cmp.Diff(want, causes); d != "" || !before.Stuck {
		t.Errorf("stuck %t, causes (-want +got):\n%s", before.Stuck, d)
	}
	d.Status.AvailableReplicas = 3
	if h := Of(d, nil, now).Steady(before); h.Cause != "" {
		t.Errorf("current, with cause %q", h.Cause)
	}
}

// attempt is a container that has run from began to the present, after an attempt that lived as long as said.
func attempt(restarts int32, lived time.Duration, began time.Time) corev1.ContainerStatus {
	last := corev1.ContainerStateTerminated{ExitCode: 1, Reason: "Error", StartedAt: metav1.NewTime(began.Add(-lived - time.Second)), FinishedAt: metav1.NewTime(began.Add(-time.Second))}
	return corev1.ContainerStatus{Name: "app", Ready: true, RestartCount: restarts, LastTerminationState: corev1.ContainerState{Terminated: &last},
		State: corev1.ContainerState{Running: &corev1.ContainerStateRunning{StartedAt: metav1.NewTime(began)}}}
}

func TestProof(t *testing.T) {
	ago := func(d time.Duration) time.Time { return now.Add(-d) }
	first := attempt(0, 0, ago(0))
	first.LastTerminationState.Terminated = nil
	for name, tt := range map[string]struct {
		status corev1.ContainerStatus
		want   time.Duration
	}{
		"never crashed":                      {first, 0},
		"crashed at once":                    {attempt(1, 0, ago(0)), 5 * time.Second},
		"runs twice as long as the last did": {attempt(1, 20*time.Second, ago(40*time.Second)), 0},
		"not yet":                            {attempt(1, 20*time.Second, ago(30*time.Second)), 10 * time.Second},
		"at most five minutes":               {attempt(1, 9*time.Minute, ago(time.Minute)), 4 * time.Minute},
		"had run for long":                   {attempt(1, time.Hour, ago(0)), 0},
		"the clock was set back":             {attempt(1, 0, now.AddDate(1, 0, 0)), 0},
	} {
		if got := Proof(ready(running("p", tt.status)), now); got != tt.want {
			t.Errorf("%s: %s, want %s", name, got, tt.want)
		}
	}
	if got := Proof(running("p", attempt(1, 0, now)), now); got != 0 {
		t.Errorf("a Pod that is not ready anyway: %s", got)
	}
}

// A crash loop without a readiness probe is ready after every restart, and reads as one state until it stays up.
func TestCrashLoopIsOneState(t *testing.T) {
	type shown struct {
		Status  Status
		Ready   int32
		Stuck   bool
		Cause   string
		Message string
	}
	for name, looping := range map[string]corev1.ContainerStateTerminated{"fails": {ExitCode: 1, Reason: "Error", Message: "no database"}, "ends": {Reason: "Completed", Message: "done"}} {
		for kind, of := range map[string]func(p *corev1.Pod, now time.Time) Health{
			"Pod": func(p *corev1.Pod, now time.Time) Health { return Of(p, nil, now) },
			"Deployment": func(p *corev1.Pod, now time.Time) Health {
				d := deploy(appsv1.DeploymentStatus{ObservedGeneration: 2, Replicas: 1, UpdatedReplicas: 1}, func(d *appsv1.Deployment) { *d.Spec.Replicas = 1 })
				if podReady(p) {
					d.Status.AvailableReplicas = 1
				}
				return Of(d, []*corev1.Pod{p}, now)
			},
		} {
			t.Run(kind+" "+name, func(t *testing.T) {
				var before Health
				var got []shown
				look := func(p *corev1.Pod, at time.Time) {
					h := of(p, at).Steady(before)
					before = h
					if s := (shown{h.Status, h.Ready, h.Stuck, h.Cause, h.Message}); len(got) == 0 || got[len(got)-1] != s {
						got = append(got, s)
					}
				}
				at := now
				for restarts := range int32(8) {
					if restarts > 0 {
						at = at.Add(10 * time.Second)
						up := attempt(restarts, 2*time.Second, at)
						up.LastTerminationState.Terminated.Message = looping.Message
						up.LastTerminationState.Terminated.ExitCode = looping.ExitCode
						look(ready(running("web-a", up)), at)
						look(ready(running("web-a", up)), at.Add(2*time.Second))
					}
					ended := corev1.ContainerStatus{Name: "app", RestartCount: restarts, State: corev1.ContainerState{Terminated: &looping}}
					look(running("web-a", ended), at)
					look(running("web-a", crashed(restarts, looping)), at)
				}
				up := attempt(8, 2*time.Second, at)
				look(ready(running("web-a", up)), at.Add(4*time.Second))
				look(ready(running("web-a", up)), at.Add(5*time.Second))

				pod, failed := "", Failed
				if kind == "Deployment" {
					pod, failed = "Pod web-a: ", InProgress
				}
				end := fmt.Sprintf("exit %d: %s", looping.ExitCode, looping.Message)
				want := []shown{
					{InProgress, 0, false, pod + "container app: " + end, ""},
					{InProgress, 0, false, pod + "container app: CrashLoopBackOff: " + end, ""},
					{failed, 0, true, pod + "container app: CrashLoopBackOff: " + end, ""},
					{Current, 1, false, "", ""},
				}
				for i := range want {
					if want[i].Message = want[i].Cause; kind == "Deployment" && want[i].Status != Current {
						want[i].Message = "0 of 1 ready"
					}
				}
				if looping.ExitCode == 0 { // the first end is none to speak of
					want[0].Cause, want[0].Message = "", strings.Replace(want[0].Message, want[0].Cause, "not ready", 1)
				}
				if d := cmp.Diff(want, got); d != "" {
					t.Errorf("states (-want +got):\n%s", d)
				}
			})
		}
	}
}

func TestPodsOfThePresentTemplate(t *testing.T) {
	yes := true
	owned := func(uid, owner string) metav1.ObjectMeta {
		return metav1.ObjectMeta{Name: uid, UID: types.UID(uid), OwnerReferences: []metav1.OwnerReference{{UID: types.UID(owner), Controller: &yes}}}
	}
	template := func(image string) corev1.PodTemplateSpec {
		return corev1.PodTemplateSpec{ObjectMeta: metav1.ObjectMeta{Labels: map[string]string{"app": "web"}}, Spec: corev1.PodSpec{Containers: []corev1.Container{{Image: image}}}}
	}
	set := func(uid, image string) *appsv1.ReplicaSet {
		rs := &appsv1.ReplicaSet{ObjectMeta: owned(uid, "web"), Spec: appsv1.ReplicaSetSpec{Template: template(image)}}
		rs.Spec.Template.Labels[appsv1.DefaultDeploymentUniqueLabelKey] = uid
		return rs
	}
	pods := NewPods([]*appsv1.ReplicaSet{set("old", "web:1"), set("new", "web:2"), {ObjectMeta: owned("other", "db")}},
		[]*corev1.Pod{{ObjectMeta: owned("a", "old")}, {ObjectMeta: owned("b", "new")}, {ObjectMeta: owned("c", "other")}, {}})
	names := func(workload api.Object) (out []string) {
		for _, p := range pods.Of(workload) {
			out = append(out, p.Name)
		}
		return out
	}
	for image, want := range map[string][]string{"web:1": {"a"}, "web:2": {"b"}, "web:3": nil} {
		d := &appsv1.Deployment{ObjectMeta: metav1.ObjectMeta{UID: "web"}, Spec: appsv1.DeploymentSpec{Template: template(image)}}
		if d := cmp.Diff(want, names(d)); d != "" {
			t.Errorf("of the Deployment with %s (-want +got):\n%s", image, d)
		}
	}
	if d := cmp.Diff([]string{"a"}, names(set("old", "web:1"))); d != "" {
		t.Errorf("of a ReplicaSet (-want +got):\n%s", d)
	}
}
