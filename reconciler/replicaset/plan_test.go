package replicaset

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
)

var now = time.Date(2026, 5, 1, 12, 0, 0, 0, time.UTC)

func testSet(replicas int32) *appsv1.ReplicaSet {
	labels := map[string]string{"app": "web"}
	return &appsv1.ReplicaSet{
		ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: "web", UID: "set", ResourceVersion: "7", Generation: 3,
			ManagedFields: []metav1.ManagedFieldsEntry{{Manager: "deployment", Time: &metav1.Time{Time: now}}}},
		Spec: appsv1.ReplicaSetSpec{Replicas: &replicas, Selector: &metav1.LabelSelector{MatchLabels: labels},
			Template: corev1.PodTemplateSpec{ObjectMeta: metav1.ObjectMeta{Labels: labels}}},
	}
}

type change func(*corev1.Pod)

// testPod is a Pod of the set that has been ready on node n for an hour, and what changes say.
func testPod(name string, changes ...change) *corev1.Pod {
	hour := metav1.NewTime(now.Add(-time.Hour))
	pod := newPod(testSet(0), name)
	pod.UID, pod.CreationTimestamp, pod.Spec.NodeName = types.UID(name), hour, "n-"+name
	pod.Status = corev1.PodStatus{Phase: corev1.PodRunning, Conditions: []corev1.PodCondition{{Type: corev1.PodReady, Status: corev1.ConditionTrue, LastTransitionTime: hour}}}
	for _, c := range changes {
		c(pod)
	}
	return pod
}

func phase(p corev1.PodPhase) change { return func(pod *corev1.Pod) { pod.Status.Phase = p } }
func on(node string) change          { return func(pod *corev1.Pod) { pod.Spec.NodeName = node } }
func labelled(app string) change {
	return func(pod *corev1.Pod) { pod.Labels = map[string]string{"app": app} }
}
func orphan(pod *corev1.Pod)   { pod.OwnerReferences = nil }
func unready(pod *corev1.Pod)  { pod.Status.Conditions[0].Status = corev1.ConditionFalse }
func deleting(pod *corev1.Pod) { pod.DeletionTimestamp = &metav1.Time{Time: now} }
func others(pod *corev1.Pod)   { pod.OwnerReferences[0].UID = "somebody" }
func cost(c string) change {
	return func(pod *corev1.Pod) { pod.Annotations = map[string]string{corev1.PodDeletionCost: c} }
}
func readyFor(d time.Duration) change {
	return func(pod *corev1.Pod) { pod.Status.Conditions[0].LastTransitionTime = metav1.NewTime(now.Add(-d)) }
}
func aged(d time.Duration) change {
	return func(pod *corev1.Pod) { pod.CreationTimestamp = metav1.NewTime(now.Add(-d)) }
}
func restarted(n int32) change {
	return func(pod *corev1.Pod) { pod.Status.ContainerStatuses = []corev1.ContainerStatus{{RestartCount: n}} }
}

func text(actions []Action) string {
	lines := make([]string, len(actions))
	for i, a := range actions {
		lines[i] = a.String()
	}
	return strings.Join(lines, "\n")
}

func TestPlan(t *testing.T) {
	going := testSet(3)
	going.DeletionTimestamp = &metav1.Time{Time: now}
	all := testSet(1)
	all.Spec.Selector = &metav1.LabelSelector{}
	tests := []struct {
		name string
		set  *appsv1.ReplicaSet
		pods []*corev1.Pod
		want string
	}{
		{"creates what is missing", testSet(3), []*corev1.Pod{testPod("a")}, "create 2 pods"},
		{"is content", testSet(1), []*corev1.Pod{testPod("a")}, ""},
		{"replaces failed and finished pods", testSet(2), []*corev1.Pod{testPod("a", phase(corev1.PodFailed)), testPod("b", phase(corev1.PodSucceeded))}, "create 2 pods"},
		{"does not count pods being deleted", testSet(1), []*corev1.Pod{testPod("a", deleting)}, "create 1 pods"},
		{"does not delete pods twice", testSet(0), []*corev1.Pod{testPod("a", deleting)}, ""},
		{"adopts an orphan and counts it", testSet(2), []*corev1.Pod{testPod("a"), testPod("b", orphan)}, "adopt pod b"},
		{"adopts before it deletes", testSet(1), []*corev1.Pod{testPod("a"), testPod("b", orphan, unready)}, "adopt pod b\ndelete pod b"},
		{"does not adopt a failed or vanishing orphan", testSet(0), []*corev1.Pod{testPod("a", orphan, phase(corev1.PodFailed)), testPod("b", orphan, deleting)}, ""},
		{"releases what no longer matches and replaces it", testSet(1), []*corev1.Pod{testPod("a", labelled("debug"))}, "release pod a\ncreate 1 pods"},
		{"leaves the pods of others", testSet(0), []*corev1.Pod{testPod("a", others)}, ""},
		{"leaves everything when it is being deleted", going, []*corev1.Pod{testPod("a"), testPod("b", orphan)}, ""},
		{"an empty selector selects nothing", all, []*corev1.Pod{testPod("a", orphan)}, "create 1 pods"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			if diff := cmp.Diff(tt.want, text(plan(observed{Set: tt.set, Pods: tt.pods, Now: now}))); diff != "" {
				t.Error(diff)
			}
		})
	}
}

func TestPlanDeletesTheLeastUsefulFirst(t *testing.T) {
	tests := []struct {
		fact string
		a, b *corev1.Pod // a goes first
	}{
		{"unassigned before assigned", testPod("z", on("")), testPod("a", phase(corev1.PodPending))},
		{"pending before unknown", testPod("z", phase(corev1.PodPending)), testPod("a", phase(corev1.PodUnknown))},
		{"unknown before running", testPod("z", phase(corev1.PodUnknown)), testPod("a")},
		{"not ready before ready", testPod("z", unready, cost("9")), testPod("a", cost("-9"))},
		{"cheaper before dearer", testPod("z", cost("-1")), testPod("a", readyFor(time.Second))},
		{"a cost that is no number is none", testPod("z", cost("-1")), testPod("a", cost("cheap"))},
		{"on a crowded node before alone", testPod("z", on("crowded")), testPod("a", readyFor(time.Second))},
		{"ready for a shorter time first", testPod("z", readyFor(time.Minute)), testPod("a", restarted(9))},
		{"more restarts first", testPod("z", restarted(2)), testPod("a", aged(time.Minute))},
		{"newer first", testPod("z", aged(time.Minute)), testPod("a")},
		{"among pods of about one age by uid", testPod("a", aged(61*time.Minute)), testPod("z", aged(60*time.Minute))},
	}
	for _, tt := range tests {
		t.Run(tt.fact, func(t *testing.T) {
			for _, pods := range [][]*corev1.Pod{{tt.a, tt.b}, {tt.b, tt.a}} {
				o := observed{Set: testSet(1), Pods: pods, Now: now, Related: []*corev1.Pod{testPod("sister", others, on("crowded"))}}
				if diff := cmp.Diff("delete pod "+tt.a.Name, text(plan(o))); diff != "" {
					t.Error(diff)
				}
			}
		})
	}
}

// TestPlanConverges applies plans to a model with arbitrary Pods until nothing is left to do.
func TestPlanConverges(t *testing.T) {
	for seed := range uint64(300) {
		rng := rand.New(rand.NewPCG(seed, 1))
		set := testSet(int32(rng.IntN(6)))
		o := observed{Set: set, Now: now}
		for i := range rng.IntN(12) {
			choice := []change{orphan, unready, deleting, labelled("x"), phase(corev1.PodFailed), phase(corev1.PodPending), on(""), others}
			pod := testPod(fmt.Sprint("p", i))
			for range rng.IntN(3) {
				c := choice[rng.IntN(len(choice))]
				if len(pod.OwnerReferences) > 0 {
					c(pod)
				}
			}
			o.Pods = append(o.Pods, pod)
		}
		made := 0
		for turn := 0; ; turn++ {
			actions := plan(o)
			if len(actions) == 0 {
				break
			}
			if turn == 3 {
				t.Fatalf("seed %d: still planning:\n%s", seed, text(actions))
			}
			o.Pods = perform(o, actions, &made)
			o.Taken = map[string]bool{}
			for _, pod := range o.Pods {
				o.Taken[pod.Name] = true
			}
		}
		if c := claim(o); len(c.active) != wanted(set) || len(c.adopt)+len(c.release) != 0 {
			t.Fatalf("seed %d: %d active pods, want %d", seed, len(c.active), wanted(set))
		}
	}
}

// perform is the model's apply.
func perform(o observed, actions []Action, made *int) []*corev1.Pod {
	pods := map[string]*corev1.Pod{}
	for _, pod := range o.Pods {
		pods[pod.Name] = pod
	}
	for _, action := range actions {
		switch a := action.(type) {
		case Adopt:
			pods[a.Pod.Name] = adopted(pods[a.Pod.Name], o.Set)
		case Release:
			pods[a.Pod.Name] = released(pods[a.Pod.Name], o.Set)
		case Create:
			for _, name := range a.Names {
				*made++
				if pods[name] != nil {
					panic("made twice: " + name)
				}
				pods[name] = testPod(name, phase(corev1.PodPending), unready, on(""))
			}
		case Delete:
			pod := pods[a.Pod.Name].DeepCopy()
			deleting(pod)
			pods[a.Pod.Name] = pod
		}
	}
	var out []*corev1.Pod
	for _, pod := range pods {
		out = append(out, pod)
	}
	return out
}

func TestStatusCounts(t *testing.T) {
	set := testSet(9)
	set.Spec.MinReadySeconds = 60
	set.Spec.Template.Labels = map[string]string{"app": "web", "tier": "front"}
	full := func(pod *corev1.Pod) { pod.Labels = map[string]string{"app": "web", "tier": "front"} }
	o := observed{Set: set, Now: now, Pods: []*corev1.Pod{
		testPod("available", full), testPod("fresh", readyFor(20*time.Second)), testPod("fresher", readyFor(5*time.Second)), testPod("unready", unready),
		testPod("going", deleting), testPod("failed", phase(corev1.PodFailed)), testPod("theirs", others),
	}, Ready: map[string]time.Duration{"available": time.Hour, "fresh": 20 * time.Second, "fresher": 5 * time.Second}}
	got, next := newStatus(o, nil)
	one := int32(1)
	want := appsv1.ReplicaSetStatus{Replicas: 4, FullyLabeledReplicas: 1, ReadyReplicas: 3, AvailableReplicas: 1, TerminatingReplicas: &one, ObservedGeneration: 3}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
	if next != 40*time.Second {
		t.Errorf("look again after %s, want 40s", next)
	}
}

func TestStatusKeepsAFailureSteady(t *testing.T) {
	o := observed{Set: testSet(2), Now: now}
	first, _ := newStatus(o, &failure{reasonFailedCreate, "quota exceeded: used 3"})
	o.Set.Status, o.Now = first, now.Add(time.Minute)
	again, _ := newStatus(o, &failure{reasonFailedCreate, "quota exceeded: used 4"})
	if diff := cmp.Diff(first, again); diff != "" {
		t.Errorf("the same problem changed the status: %s", diff)
	}
	other, _ := newStatus(o, &failure{reasonFailedDelete, "refused"})
	if len(other.Conditions) != 1 || other.Conditions[0].Reason != reasonFailedDelete {
		t.Errorf("conditions: %+v", other.Conditions)
	}
	if cured, _ := newStatus(o, nil); len(cured.Conditions) != 0 {
		t.Errorf("conditions: %+v", cured.Conditions)
	}
	if len(o.Set.Status.Conditions) != 1 {
		t.Error("the observed object was changed")
	}
}

func TestInBatchesTriesFewWhenAllFail(t *testing.T) {
	calls := make(chan int, 1000)
	err := inBatches(100, 1, func(i int) error { calls <- i; return fmt.Errorf("refused") })
	if err == nil || len(calls) != 1 {
		t.Errorf("%d calls, err %v", len(calls), err)
	}
	if err := inBatches(600, 1, func(i int) error { calls <- i; return nil }); err != nil || len(calls) != 601 {
		t.Errorf("%d calls, err %v", len(calls)-1, err)
	}
}

func TestTurnsThatSawTheSameSetChooseTheSameNames(t *testing.T) {
	set := testSet(5)
	first := plan(observed{Set: set, Now: now})[0].(Create).Names
	made := func(slots ...int) observed {
		o := observed{Set: set, Now: now, Taken: map[string]bool{}}
		for _, slot := range slots {
			o.Pods = append(o.Pods, testPod(first[slot]))
			o.Taken[first[slot]] = true
		}
		return o
	}
	for _, slots := range [][]int{{}, {0, 1}, {4}, {1, 3}} {
		for _, name := range plan(made(slots...))[0].(Create).Names {
			if !slices.Contains(first, name) {
				t.Errorf("a turn that saw %v of five new pods makes a sixth: %s", slots, name)
			}
		}
	}
	after := testSet(5)
	after.ResourceVersion = "8"
	if again := plan(observed{Set: after, Now: now})[0].(Create).Names; slices.ContainsFunc(again, func(n string) bool { return slices.Contains(first, n) }) {
		t.Errorf("names come again after the set has changed: %v and %v", first, again)
	}
	long := testSet(1)
	long.Name = strings.Repeat("x", 200)
	if name := plan(observed{Set: long, Now: now})[0].(Create).Names[0]; len(name) != 63 {
		t.Errorf("%s has %d characters", name, len(name))
	}
}
