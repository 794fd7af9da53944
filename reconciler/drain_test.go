package reconciler

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/intstr"

	"github.com/slipway-dev/slipway/apiserver/store"
	"github.com/slipway-dev/slipway/reconciler/drain"
)

// inFleet is inWorld with nodes of so many Pods' room each, and a scheduler.
func inFleet(t *testing.T, rooms map[string]int64, test func(w *world)) {
	t.Helper()
	inWorld(t, func(w *world) {
		for name, room := range rooms {
			node := &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: name}}
			node.Status.Allocatable = corev1.ResourceList{corev1.ResourcePods: *resource.NewQuantity(room, resource.DecimalSI),
				corev1.ResourceCPU: resource.MustParse("8"), corev1.ResourceMemory: resource.MustParse("8Gi")}
			node.Status.Capacity = node.Status.Allocatable
			w.create(node)
			current := w.fleetNode(name).DeepCopy()
			current.Status = node.Status
			if _, err := w.admin.Update(w.ctx, current, store.UpdateOptions{Subresource: "status"}); err != nil {
				t.Fatal(err)
			}
		}
		w.stop()
		w.fleet = true
		w.start()
		w.create(shop())
		w.pass(time.Second)
		test(w)
	})
}

func (w *world) fleetNode(name string) *corev1.Node {
	w.t.Helper()
	node, err := store.Get[*corev1.Node](w.ctx, w.admin, "", name)
	if err != nil {
		w.t.Fatal(err)
	}
	return node
}

func (w *world) setTaints(name string, taints ...corev1.Taint) {
	w.t.Helper()
	for {
		node := w.fleetNode(name).DeepCopy()
		node.Spec.Taints = taints
		_, err := w.admin.Update(w.ctx, node, store.UpdateOptions{})
		if err == nil {
			return
		}
		if !apierrors.IsConflict(err) {
			w.t.Fatal(err)
		}
	}
}

var maintenance = corev1.Taint{Key: "maintenance", Effect: corev1.TaintEffectNoExecute}

// where counts the Pods that are not ending by their node.
func (w *world) where() string {
	count := map[string]int{}
	for _, pod := range all[*corev1.Pod](w) {
		if pod.DeletionTimestamp == nil {
			count[pod.Spec.NodeName]++
		}
	}
	var out []string
	for node, n := range count {
		out = append(out, fmt.Sprintf("%s:%d", node, n))
	}
	slices.Sort(out)
	return strings.Join(out, " ")
}

func (w *world) isWhere(want string) {
	w.t.Helper()
	if diff := cmp.Diff(want, w.where()); diff != "" {
		w.t.Error(diff)
	}
}

func (w *world) drained(name, want string) {
	w.t.Helper()
	got := ""
	for _, c := range w.fleetNode(name).Status.Conditions {
		if c.Type == drain.Drained {
			got = c.Reason + ": " + c.Message
		}
	}
	if diff := cmp.Diff(want, got); diff != "" {
		w.t.Errorf("node %s: %s", name, diff)
	}
}

func unavailable(n int32) func(*appsv1.Deployment) {
	return func(d *appsv1.Deployment) {
		most := intstr.FromInt32(n)
		d.Spec.Strategy.RollingUpdate.MaxUnavailable = &most
	}
}

func TestDrainMovesPodsInSteps(t *testing.T) {
	inFleet(t, map[string]int64{"n1": 100, "n2": 100, "n3": 100}, func(w *world) {
		w.create(web(9, "v1", unavailable(2)))
		w.settle()
		w.isWhere("n1:3 n2:3 n3:3")
		end := w.bounds(within(7, 10))
		w.setTaints("n1", maintenance)
		w.settle()
		if left := w.where(); strings.Contains(left, "n1") {
			t.Errorf("after the drain: %s", left)
		}
		w.drained("n1", "NoPodsLeft: no Pod is left that does not tolerate the node's taints")
		end()
		// Another one while a rollout is on its way comes to the same end. The two may each take the last Pod that may
		// be missing at the same moment, so the bound is not held here.
		w.setTaints("n2", maintenance)
		w.change(version("v2"))
		w.pass(2 * time.Minute)
		w.isWhere("n3:9")
		w.setTaints("n1")
		w.setTaints("n2")
		w.settle()
		w.drained("n1", "")
		if note := w.fleetNode("n1").Annotations; len(note) > 0 {
			t.Errorf("the drain leaves %v behind", note)
		}
	})
}

func TestDrainWaitsWhereReplacementsHaveNoRoom(t *testing.T) {
	inFleet(t, map[string]int64{"n1": 10, "n2": 1}, func(w *world) {
		w.create(web(4, "v1", unavailable(1)))
		w.settle()
		end := w.bounds(within(3, 5))
		w.setTaints("n1", maintenance)
		w.pass(10 * time.Minute)
		w.isWhere(":1 n1:2 n2:1")
		w.drained("n1", "Waiting: 2 Pods stay for now: 2: Deployment shop/web has 3 of 4 available and must have 3, and a replacement has no node: "+
			"0/2 nodes are available: 1 Too many pods, 1 node(s) had untolerated taint {maintenance: }.")
		said := 0
		events, err := store.All[*corev1.Event](w.ctx, w.admin, store.ListOptions{})
		if err != nil {
			t.Fatal(err)
		}
		for _, ev := range events {
			if ev.Reason == "DrainWaits" && ev.InvolvedObject.Name == "n1" {
				said++
			}
		}
		if said == 0 {
			t.Error("no Event says that the drain waits")
		}
		steady := w.fleetNode("n1").ResourceVersion
		w.pass(10 * time.Minute)
		if w.fleetNode("n1").ResourceVersion != steady {
			t.Error("the same problem is written again and again")
		}
		w.setTaints("n1")
		w.settle()
		w.isWhere("n1:3 n2:1")
		end()
	})
}

func TestAFleetThatFallsSilentKeepsItsPods(t *testing.T) {
	inFleet(t, map[string]int64{"n1": 100, "n2": 100, "n3": 100}, func(w *world) {
		w.create(web(6, "v1", unavailable(1)))
		w.settle()
		at := metav1.Now()
		for _, name := range []string{"n1", "n2", "n3"} {
			w.setTaints(name, corev1.Taint{Key: corev1.TaintNodeUnreachable, Effect: corev1.TaintEffectNoExecute, TimeAdded: &at})
		}
		w.pass(time.Hour)
		w.isWhere("n1:2 n2:2 n3:2")
		w.drained("n1", "FleetSilent: too many nodes are silent at once: no Pod is moved for it")
		w.setTaints("n1")
		w.setTaints("n2")
		w.settle() // one node alone has been silent for an hour
		w.isWhere("n1:3 n2:3")
	})
}

func TestDrainSurvivesRestarts(t *testing.T) {
	inFleet(t, map[string]int64{"n1": 100, "n2": 100}, func(w *world) {
		w.create(web(8, "v1", unavailable(1)))
		w.settle()
		end := w.bounds(within(7, 9))
		w.setTaints("n1", maintenance)
		for n := range 8 {
			time.Sleep(time.Duration(23*n) * time.Millisecond)
			w.stop()
			w.start()
		}
		w.settle()
		end()
		w.isWhere("n2:8")
	})
}
