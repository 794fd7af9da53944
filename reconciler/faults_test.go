package reconciler

import (
	"fmt"
	"log/slog"
	"math/rand/v2"
	"sync/atomic"
	"testing"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"

	"github.com/slipway-dev/slipway/apiserver/api"
	"github.com/slipway-dev/slipway/apiserver/event"
	"github.com/slipway-dev/slipway/apiserver/registry"
	"github.com/slipway-dev/slipway/apiserver/store"
	"github.com/slipway-dev/slipway/reconciler/deployment"
	"github.com/slipway-dev/slipway/reconciler/loop"
	"github.com/slipway-dev/slipway/reconciler/replicaset"
)

// rollThrough rolls through templates, also before the one before has ended, and expects five Pods at all times and
// never more than six.
func (w *world) rollThrough(rng *rand.Rand) {
	w.t.Helper()
	w.create(shop())
	w.keep(time.Second)
	w.create(web(5, "v1"))
	w.keep(time.Minute)
	end := w.bounds(within(5, 6))
	for _, v := range []string{"v2", "v3", "v1", "v4"} {
		w.change(version(v))
		w.keep(time.Duration(rng.IntN(3000)) * time.Millisecond)
	}
	w.keep(10 * time.Minute)
	end()
	w.complete(5)
}

func (w *world) complete(n int32) {
	w.t.Helper()
	if d := w.deployment(); d.Status.UpdatedReplicas != n || d.Status.Replicas != n || d.Status.AvailableReplicas != n {
		w.t.Errorf("want %d: %+v\n%s", n, d.Status, w.state())
	}
}

// TestRolloutKeepsItsBoundsWhenControllersAreKilled ends all controllers at one write of five: half of the time the
// write is done, half of the time it is not.
func TestRolloutKeepsItsBoundsWhenControllersAreKilled(t *testing.T) {
	for seed := range uint64(8) {
		inWorld(t, func(w *world) {
			w.fatal = rand.New(rand.NewPCG(seed, 5))
			w.rollThrough(rand.New(rand.NewPCG(seed, 6)))
		})
	}
}

// TestRolloutKeepsItsBoundsBehindALaggingReader runs two of each controller, as when one that was thought dead goes on,
// and lets them decide on states that are up to 400 ms old, in which they see neither their own last writes nor each
// other's.
func TestRolloutKeepsItsBoundsBehindALaggingReader(t *testing.T) {
	for seed := range uint64(8) {
		inWorld(t, func(w *world) {
			w.stop()
			w.lags = true
			w.start()
			w.rollThrough(rand.New(rand.NewPCG(seed, 9)))
		})
	}
}

// TestAStalePlanIsNotCarriedOut lets a controller decide on a state after which the object it decides for has changed.
func TestAStalePlanIsNotCarriedOut(t *testing.T) {
	inWorld(t, func(w *world) {
		w.create(shop())
		w.pass(time.Second)
		w.create(web(3, "v1"))
		w.settle()
		w.stop()
		defer w.start()
		pod := all[*corev1.Pod](w)[0]
		w.delete(api.Pods, "shop", pod.Name, "")
		w.change(version("v2"))
		read := func(name string) (*lagging, event.Recorder) {
			client := w.r.As(registry.Controller(name))
			l := &lagging{Client: client, caughtUp: make(chan bool)}
			l.catchUp(w)
			return l, event.New(client, name, slog.New(slog.DiscardHandler)).For(name)
		}
		deployments, sets := deployment.New(read("deployment")), replicaset.New(read("replicaset"))

		w.change(version("v1"))
		rs := all[*appsv1.ReplicaSet](w)[0].DeepCopy()
		*rs.Spec.Replicas = 2
		if _, err := w.admin.Update(w.ctx, rs, store.UpdateOptions{}); err != nil {
			t.Fatal(err)
		}
		if err := deployments.Reconcile(w.ctx, loop.Key{Namespace: "shop", Name: "web"}); !apierrors.IsConflict(err) {
			t.Errorf("deployment: %v", err)
		}
		if err := sets.Reconcile(w.ctx, loop.KeyOf(rs)); !apierrors.IsConflict(err) {
			t.Errorf("replicaset: %v", err)
		}
		if s, p := len(all[*appsv1.ReplicaSet](w)), len(all[*corev1.Pod](w)); s != 1 || p != 3 {
			t.Errorf("%d sets and %d pods, want 1 and 3", s, p)
		}
	})
}

// TestWorkloadsConvergeWhateverHappens changes templates and sizes, pauses and resumes, lets Pods fail and vanish,
// writes fail and controllers die, in any order. There are never more Pods than the largest size of the time allows,
// and when it ends, all is as asked.
func TestWorkloadsConvergeWhateverHappens(t *testing.T) {
	for seed := range uint64(9) {
		inWorld(t, func(w *world) {
			rng := rand.New(rand.NewPCG(seed, 13))
			if w.lags = seed%3 == 2; w.lags {
				w.stop()
				w.start()
			}
			w.create(shop())
			w.keep(time.Second)
			w.create(web(5, "v1"))
			w.keep(time.Minute)
			w.luck, w.fatal = rand.New(rand.NewPCG(seed, 14)), rand.New(rand.NewPCG(seed, 15))
			var most atomic.Int64
			most.Store(6)
			end := w.bounds(func(alive, _ int, _ map[string]int) string {
				if m := int(most.Load()); alive > m {
					return fmt.Sprintf("%d alive, want at most %d", alive, m)
				}
				return ""
			})
			for range 25 {
				w.disturb(rng, &most)
				w.keep(time.Duration(rng.IntN(1500)) * time.Millisecond)
			}
			w.change(func(d *appsv1.Deployment) { d.Spec.Paused = false })
			w.mu.Lock()
			w.luck, w.fatal = nil, nil
			w.mu.Unlock()
			w.keep(10 * time.Minute)
			end()
			w.complete(*w.deployment().Spec.Replicas)
			if t.Failed() {
				t.Logf("seed %d", seed)
			}
		})
	}
}

// disturb does one thing that happens.
func (w *world) disturb(rng *rand.Rand, most *atomic.Int64) {
	w.t.Helper()
	switch rng.IntN(6) {
	case 0, 1:
		w.change(version(fmt.Sprint("v", 1+rng.IntN(4))))
	case 2:
		n := rng.Int32N(9)
		most.Store(max(most.Load(), int64(n)+1))
		w.change(replicas(n))
	case 3:
		w.change(func(d *appsv1.Deployment) { d.Spec.Paused = !d.Spec.Paused })
	case 4, 5:
		pods := all[*corev1.Pod](w)
		if len(pods) == 0 {
			return
		}
		pod := pods[rng.IntN(len(pods))].DeepCopy()
		if rng.IntN(2) == 0 {
			_, _ = w.admin.Delete(w.ctx, api.Pods, pod.Namespace, pod.Name, store.DeleteOptions{GracePeriodSeconds: new(int64)}) // it may be gone
			return
		}
		pod.Status.Phase = corev1.PodFailed
		_, _ = w.admin.Update(w.ctx, pod, store.UpdateOptions{Subresource: "status"}) // it may have changed
	}
}
