package scheduler

import (
	"context"
	"io"
	"log/slog"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/slipway-dev/slipway/apiserver/api"
	"github.com/slipway-dev/slipway/apiserver/event"
	"github.com/slipway-dev/slipway/apiserver/registry"
	"github.com/slipway-dev/slipway/apiserver/store"
	"github.com/slipway-dev/slipway/apiserver/store/kv/memory"
	"github.com/slipway-dev/slipway/reconciler/loop"
)

// yard is a store with a running scheduler.
type yard struct {
	t     *testing.T
	ctx   context.Context
	admin store.Client
}

func newYard(t *testing.T, wrap func(store.Client) store.Client) *yard {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	s, err := store.New(context.WithoutCancel(ctx), memory.New(), api.StorageCodec{})
	if err != nil {
		t.Fatal(err)
	}
	reg, err := registry.New(registry.Config{Store: s})
	if err != nil {
		t.Fatal(err)
	}
	y := &yard{t: t, ctx: ctx, admin: reg.As(registry.Admin())}
	y.create(&corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: "shop"}})
	y.create(&corev1.ServiceAccount{ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: "default"}})
	client := wrap(reg.As(registry.Scheduler()))
	done := make(chan error, 1)
	go func() {
		done <- loop.Run(ctx, client, slog.New(slog.NewTextHandler(io.Discard, nil)), New(client, event.Discard, time.Now))
	}()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
		_ = s.Close()
	})
	return y
}

func asIs(c store.Client) store.Client { return c }

func (y *yard) create(obj api.Object) {
	y.t.Helper()
	if _, err := y.admin.Create(y.ctx, obj, store.CreateOptions{}); err != nil {
		y.t.Fatal(err)
	}
}

func (y *yard) pod(name, cpu string) {
	y.t.Helper()
	pod := makePod(name, cpu, "")
	pod.UID = ""
	pod.Spec.Containers[0].Image = "app:1"
	y.create(pod)
}

// until watches a Pod until is holds of it.
func (y *yard) until(name string, is func(*corev1.Pod) bool) {
	y.t.Helper()
	ctx, cancel := context.WithTimeout(y.ctx, time.Minute)
	defer cancel()
	watch, err := y.admin.Watch(ctx, api.Pods, store.WatchOptions{Namespace: "shop"})
	if err != nil {
		y.t.Fatal(err)
	}
	defer watch.Close()
	for {
		event, err := watch.Next(ctx)
		if err != nil {
			y.t.Fatalf("pod %s: %v", name, err)
		}
		if pod, ok := event.Object.(*corev1.Pod); ok && pod.Name == name && event.Type != store.Deleted && is(pod) {
			return
		}
	}
}

func boundTo(node string) func(*corev1.Pod) bool {
	return func(p *corev1.Pod) bool { return p.Spec.NodeName == node }
}

func refusedWith(message string) func(*corev1.Pod) bool {
	return func(p *corev1.Pod) bool {
		for _, c := range p.Status.Conditions {
			if c.Type == corev1.PodScheduled && c.Status == corev1.ConditionFalse && c.Reason == corev1.PodReasonUnschedulable {
				return strings.Contains(c.Message, message)
			}
		}
		return false
	}
}

func TestPodsWaitForRoomAndSayWhy(t *testing.T) {
	y := newYard(t, asIs)
	y.pod("first", "600m")
	y.until("first", refusedWith("no nodes available"))
	y.create(makeNode("n1", "1", "1Gi"))
	y.until("first", boundTo("n1"))

	y.pod("second", "600m")
	y.until("second", refusedWith("0/1 nodes are available: 1 Insufficient cpu."))
	if _, err := y.admin.Delete(y.ctx, api.Pods, "shop", "first", store.DeleteOptions{GracePeriodSeconds: new(int64(0))}); err != nil {
		t.Fatal(err)
	}
	y.until("second", boundTo("n1"))
}

func TestANodeThatGrowsTakesWhoWaited(t *testing.T) {
	y := newYard(t, asIs)
	y.create(makeNode("n1", "1", "1Gi"))
	y.pod("big", "3")
	y.until("big", refusedWith("Insufficient cpu"))
	node, err := store.Get[*corev1.Node](y.ctx, y.admin, "", "n1")
	if err != nil {
		t.Fatal(err)
	}
	node = node.DeepCopy()
	node.Status.Allocatable[corev1.ResourceCPU] = resource.MustParse("4")
	if _, err := y.admin.Update(y.ctx, node, store.UpdateOptions{Subresource: "status"}); err != nil {
		t.Fatal(err)
	}
	y.until("big", boundTo("n1"))
}

// slowBinder changes the Pod between the decision and its binding, once per Pod: the fence must see it.
type slowBinder struct {
	store.Client
	meddle func(*corev1.Binding)
}

func (s *slowBinder) Create(ctx context.Context, obj api.Object, opts store.CreateOptions) (api.Object, error) {
	if binding, ok := obj.(*corev1.Binding); ok {
		s.meddle(binding)
	}
	return s.Client.Create(ctx, obj, opts)
}

func TestABindingIsFencedAndTriedAgain(t *testing.T) {
	var y *yard
	meddled, bindings := false, 0
	y = newYard(t, func(c store.Client) store.Client {
		return &slowBinder{c, func(b *corev1.Binding) {
			bindings++
			if meddled {
				return
			}
			meddled = true
			pod, err := store.Get[*corev1.Pod](y.ctx, y.admin, b.Namespace, b.Name)
			if err != nil {
				t.Error(err)
				return
			}
			pod = pod.DeepCopy()
			pod.Labels = map[string]string{"changed": "yes"}
			if _, err := y.admin.Update(y.ctx, pod, store.UpdateOptions{}); err != nil {
				t.Error(err)
			}
		}}
	})
	y.create(makeNode("n1", "1", "1Gi"))
	y.pod("a", "100m")
	y.until("a", boundTo("n1"))
	if bindings != 2 {
		t.Errorf("%d bindings were tried, want 2: the first one was stale", bindings)
	}
}

func TestManyPodsNeverOvercommit(t *testing.T) {
	y := newYard(t, asIs)
	for _, name := range []string{"n1", "n2", "n3"} {
		y.create(makeNode(name, "1", "1Gi"))
	}
	for i := range 40 {
		y.pod("p"+string(rune('a'+i/26))+string(rune('a'+i%26)), "100m")
	}
	for i := range 40 {
		name := "p" + string(rune('a'+i/26)) + string(rune('a'+i%26))
		y.until(name, func(p *corev1.Pod) bool {
			return p.Spec.NodeName != "" || refusedWith("Insufficient cpu")(p) || refusedWith("Too many pods")(p)
		})
	}
	pods, err := store.All[*corev1.Pod](y.ctx, y.admin, store.ListOptions{})
	if err != nil {
		t.Fatal(err)
	}
	count := map[string]int{}
	for _, p := range pods {
		count[p.Spec.NodeName]++
	}
	for _, node := range []string{"n1", "n2", "n3"} {
		if count[node] != 10 {
			t.Errorf("%s has %d Pods, want 10: %v", node, count[node], count)
		}
	}
}
