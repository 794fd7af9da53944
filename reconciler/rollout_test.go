package reconciler

import (
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/slipway-dev/slipway/apiserver/api"
	"github.com/slipway-dev/slipway/apiserver/store"
)

func (w *world) want(want string) {
	w.t.Helper()
	if diff := cmp.Diff(want, w.state()); diff != "" {
		w.t.Error(diff)
	}
}

// within is a check that n Pods are always ready and never more than most alive.
func within(n, most int) func(int, int, map[string]int) string {
	return func(alive, ready int, _ map[string]int) string {
		if ready < n || alive > most {
			return fmt.Sprintf("%d ready, %d alive; want at least %d and at most %d", ready, alive, n, most)
		}
		return ""
	}
}

func TestRolloutKeepsItsBounds(t *testing.T) {
	inWorld(t, func(w *world) {
		w.create(shop())
		w.pass(time.Second)
		w.create(web(5, "v1"))
		w.settle()
		w.want("pods web:v1 Running: 5\nreplicaset web:v1 revision 1: 5 of 5 available")

		if g := w.deployment().Generation; g != 1 {
			t.Errorf("generation %d of a deployment nobody changed: what the controller notes must not count", g)
		}

		end := w.bounds(within(5, 6))
		w.change(version("v2"))
		w.settle()
		w.want("pods web:v2 Running: 5\nreplicaset web:v1 revision 1: 0 of 0 available\nreplicaset web:v2 revision 2: 5 of 5 available")
		if seen := end(); seen < 20 {
			t.Errorf("only %d changes of Pods seen", seen)
		}
		d := w.deployment()
		if d.Status.ObservedGeneration != d.Generation || d.Status.UpdatedReplicas != 5 || d.Status.AvailableReplicas != 5 || d.Annotations["deployment.kubernetes.io/revision"] != "2" {
			t.Errorf("annotations %v, status %+v", d.Annotations, d.Status)
		}
		w.progressing("NewReplicaSetAvailable")
	})
}

func (w *world) progressing(reason string) {
	w.t.Helper()
	for _, c := range w.deployment().Status.Conditions {
		if c.Type == appsv1.DeploymentProgressing {
			if c.Reason != reason {
				w.t.Errorf("progressing because %s, want %s", c.Reason, reason)
			}
			return
		}
	}
	w.t.Errorf("no condition Progressing, want %s", reason)
}

func TestBrokenRolloutStopsAndRollsBackToTheOldSet(t *testing.T) {
	inWorld(t, func(w *world) {
		w.sick["web:v2"] = true
		w.create(shop())
		w.pass(time.Second)
		w.create(web(3, "v1"))
		w.settle()
		end := w.bounds(within(3, 4))
		w.change(version("v2"))
		w.pass(9 * time.Minute)
		w.progressing("ReplicaSetUpdated")
		w.pass(2 * time.Minute)
		w.progressing("ProgressDeadlineExceeded")
		w.want("pods web:v1 Running: 3\npods web:v2 Pending: 1\nreplicaset web:v1 revision 1: 3 of 3 available\nreplicaset web:v2 revision 2: 0 of 1 available")
		w.change(version("v1"))
		w.settle()
		w.want("pods web:v1 Running: 3\nreplicaset web:v1 revision 3: 3 of 3 available\nreplicaset web:v2 revision 2: 0 of 0 available")
		w.progressing("NewReplicaSetAvailable")
		end()
	})
}

func TestANewerTemplateOvertakesARollout(t *testing.T) {
	inWorld(t, func(w *world) {
		w.create(shop())
		w.pass(time.Second)
		w.create(web(6, "v1"))
		w.settle()
		end := w.bounds(within(6, 7))
		for _, v := range []string{"v2", "v3", "v2", "v4"} {
			w.change(version(v))
			w.pass(350 * time.Millisecond)
		}
		w.settle()
		end()
		w.want("pods web:v4 Running: 6\nreplicaset web:v1 revision 1: 0 of 0 available\nreplicaset web:v2 revision 4: 0 of 0 available\n" +
			"replicaset web:v3 revision 3: 0 of 0 available\nreplicaset web:v4 revision 5: 6 of 6 available")
	})
}

func TestRecreateNeverMixesVersions(t *testing.T) {
	inWorld(t, func(w *world) {
		w.create(shop())
		w.pass(time.Second)
		w.create(web(3, "v1", func(d *appsv1.Deployment) {
			d.Spec.Strategy = appsv1.DeploymentStrategy{Type: appsv1.RecreateDeploymentStrategyType}
		}))
		w.settle()
		end := w.bounds(func(_, _ int, images map[string]int) string {
			if len(images) > 1 {
				return fmt.Sprintf("versions side by side: %v", images)
			}
			return ""
		})
		w.change(version("v2"))
		w.settle()
		end()
		w.want("pods web:v2 Running: 3\nreplicaset web:v1 revision 1: 0 of 0 available\nreplicaset web:v2 revision 2: 3 of 3 available")
	})
}

func TestPausedDeploymentScalesButDoesNotRoll(t *testing.T) {
	inWorld(t, func(w *world) {
		w.create(shop())
		w.pass(time.Second)
		w.create(web(2, "v1"))
		w.settle()
		w.change(func(d *appsv1.Deployment) { d.Spec.Paused = true; version("v2")(d); replicas(4)(d) })
		w.settle()
		w.want("pods web:v1 Running: 4\nreplicaset web:v1 revision 1: 4 of 4 available")
		w.progressing("DeploymentPaused")
		w.change(func(d *appsv1.Deployment) { d.Spec.Paused = false })
		w.settle()
		w.want("pods web:v2 Running: 4\nreplicaset web:v1 revision 1: 0 of 0 available\nreplicaset web:v2 revision 2: 4 of 4 available")
	})
}

func TestScaleToZeroAndBack(t *testing.T) {
	inWorld(t, func(w *world) {
		w.create(shop())
		w.pass(time.Second)
		w.create(web(4, "v1"))
		w.settle()
		w.change(replicas(0))
		w.settle()
		w.want("replicaset web:v1 revision 1: 0 of 0 available")
		w.change(replicas(2))
		w.settle()
		w.want("pods web:v1 Running: 2\nreplicaset web:v1 revision 1: 2 of 2 available")
	})
}

func TestLostPodsAreReplaced(t *testing.T) {
	inWorld(t, func(w *world) {
		w.create(shop())
		w.pass(time.Second)
		w.create(web(3, "v1"))
		w.settle()
		pods := all[*corev1.Pod](w)
		w.delete(api.Pods, "shop", pods[0].Name, "")
		w.settle()
		w.want("pods web:v1 Running: 3\nreplicaset web:v1 revision 1: 3 of 3 available")
	})
}

func TestRolloutSurvivesRestarts(t *testing.T) {
	inWorld(t, func(w *world) {
		w.create(shop())
		w.pass(time.Second)
		w.create(web(5, "v1"))
		w.settle()
		end := w.bounds(within(5, 6))
		w.change(version("v2"))
		for n := range 12 {
			time.Sleep(time.Duration(17*n) * time.Millisecond) // not at rest: whatever is being written is cut off
			w.stop()
			w.start()
		}
		w.settle()
		end()
		w.want("pods web:v2 Running: 5\nreplicaset web:v1 revision 1: 0 of 0 available\nreplicaset web:v2 revision 2: 5 of 5 available")
	})
}

func TestRefusedPodsAreToldAndTriedAgain(t *testing.T) {
	inWorld(t, func(w *world) {
		w.create(shop())
		w.pass(time.Second)
		w.create(web(20, "v1", func(d *appsv1.Deployment) { d.Spec.Template.Spec.ServiceAccountName = "missing" }))
		w.settle()
		w.want("replicaset web:v1 revision 1: 0 of 20 available")
		w.failing(`error looking up service account`)
		tries := 0
		for _, ev := range all[*corev1.Event](w) {
			if ev.Reason == "FailedCreate" {
				tries += int(ev.Count)
			}
		}
		if tries == 0 || tries > 15 { // one Pod in each turn, and turns back off
			t.Errorf("%d tries in half a minute", tries)
		}
		before := w.deployment().ResourceVersion
		w.pass(10 * time.Minute)
		w.progressing("ProgressDeadlineExceeded")
		w.pass(10 * time.Minute)
		if again := w.deployment(); again.ResourceVersion == before {
			t.Error("the deadline changed nothing")
		}
		steady := w.deployment().ResourceVersion
		w.pass(10 * time.Minute)
		if w.deployment().ResourceVersion != steady {
			t.Error("the same problem changes the status again and again")
		}
		w.create(&corev1.ServiceAccount{ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: "missing"}})
		w.pass(2 * time.Minute)
		w.want("pods web:v1 Running: 20\nreplicaset web:v1 revision 1: 20 of 20 available")
		w.progressing("NewReplicaSetAvailable")
		for _, c := range w.deployment().Status.Conditions {
			if c.Type == appsv1.DeploymentReplicaFailure {
				t.Errorf("the failure is still told: %+v", c)
			}
		}
	})
}

func (w *world) failing(message string) {
	w.t.Helper()
	for _, c := range w.deployment().Status.Conditions {
		if c.Type == appsv1.DeploymentReplicaFailure {
			if c.Reason != "FailedCreate" || !strings.Contains(c.Message, message) {
				w.t.Errorf("fails because %s: %s", c.Reason, c.Message)
			}
			return
		}
	}
	w.t.Error("no condition ReplicaFailure")
}

func TestAPodIsReleasedAndAdopted(t *testing.T) {
	inWorld(t, func(w *world) {
		w.create(shop())
		w.pass(time.Second)
		w.create(web(2, "v1"))
		w.settle()
		pod := all[*corev1.Pod](w)[0]
		relabel := func(app string) {
			t.Helper()
			patch := store.Patch{Type: "application/merge-patch+json", Data: []byte(`{"metadata":{"labels":{"app":"` + app + `"}}}`)}
			if _, err := w.admin.Patch(w.ctx, api.Pods, "shop", pod.Name, patch); err != nil {
				t.Fatal(err)
			}
			w.settle()
		}
		relabel("debug")
		free, err := store.Get[*corev1.Pod](w.ctx, w.admin, "shop", pod.Name)
		if err != nil || len(free.OwnerReferences) != 0 || len(all[*corev1.Pod](w)) != 3 {
			t.Errorf("%d pods, owners %+v, %v", len(all[*corev1.Pod](w)), free.OwnerReferences, err)
		}
		relabel("web") // one too many now: one goes
		w.want("pods web:v1 Running: 2\nreplicaset web:v1 revision 1: 2 of 2 available")
	})
}

func TestMinReadySecondsHoldsTheRolloutBack(t *testing.T) {
	inWorld(t, func(w *world) {
		w.create(shop())
		w.pass(time.Second)
		w.create(web(2, "v1", func(d *appsv1.Deployment) { d.Spec.MinReadySeconds = 60 }))
		w.settle()
		w.want("pods web:v1 Running: 2\nreplicaset web:v1 revision 1: 0 of 2 available")
		w.pass(time.Minute)
		w.want("pods web:v1 Running: 2\nreplicaset web:v1 revision 1: 2 of 2 available")
		w.change(version("v2"))
		w.settle()
		w.want("pods web:v1 Running: 2\npods web:v2 Running: 1\nreplicaset web:v1 revision 1: 2 of 2 available\nreplicaset web:v2 revision 2: 0 of 1 available")
		w.pass(3 * time.Minute)
		w.want("pods web:v2 Running: 2\nreplicaset web:v1 revision 1: 0 of 0 available\nreplicaset web:v2 revision 2: 2 of 2 available")
	})
}

func TestRolloutKeepsItsBoundsWhenWritesFail(t *testing.T) {
	for seed := range uint64(10) {
		inWorld(t, func(w *world) {
			w.luck = rand.New(rand.NewPCG(seed, 11))
			w.create(shop())
			w.settle()
			w.create(web(5, "v1"))
			w.settle()
			end := w.bounds(within(5, 6))
			for _, v := range []string{"v2", "v3", "v1"} {
				w.change(version(v))
				w.pass(time.Duration(seed) * 200 * time.Millisecond)
			}
			w.pass(10 * time.Minute)
			end()
			if d := w.deployment(); d.Status.UpdatedReplicas != 5 || d.Status.Replicas != 5 || d.Status.AvailableReplicas != 5 {
				t.Errorf("seed %d: %+v\n%s", seed, d.Status, w.state())
			}
			w.delete(api.Namespaces, "", "shop", "")
			w.pass(10 * time.Minute)
			if _, err := w.admin.Get(w.ctx, api.Namespaces, "", "shop"); !apierrors.IsNotFound(err) {
				t.Errorf("seed %d: namespace is still there: %v", seed, err)
			}
		})
	}
}
