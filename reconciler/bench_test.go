package reconciler

import (
	"context"
	"fmt"
	"log/slog"
	"testing"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/slipway-dev/slipway/apiserver/api"
	"github.com/slipway-dev/slipway/apiserver/event"
	"github.com/slipway-dev/slipway/apiserver/registry"
	"github.com/slipway-dev/slipway/apiserver/store"
	"github.com/slipway-dev/slipway/apiserver/store/kv/memory"
	"github.com/slipway-dev/slipway/reconciler/deployment"
	"github.com/slipway-dev/slipway/reconciler/endpoints"
	"github.com/slipway-dev/slipway/reconciler/garbage"
	"github.com/slipway-dev/slipway/reconciler/loop"
	"github.com/slipway-dev/slipway/reconciler/namespace"
	"github.com/slipway-dev/slipway/reconciler/replicaset"
	"github.com/slipway-dev/slipway/reconciler/serviceaccount"
)

// BenchmarkDeployment5000 is a Deployment of 5,000 Pods on a memory store until the Deployment reports them all ready;
// a stand-in for scheduler and agents marks each Pod ready as soon as it sees it.
func BenchmarkDeployment5000(b *testing.B) {
	for b.Loop() {
		deploy(b, 5000)
	}
}

// BenchmarkRollout10 is one rolling update of 10 Pods, one more and none less at a time, with Pods ready at once: what
// the controllers alone take for its twenty steps.
func BenchmarkRollout10(b *testing.B) {
	w, stop := instantWorld(b)
	defer stop()
	w.create(web(10, "v0"))
	w.until(api.Deployments, isComplete("web:v0", 10))
	n := 0
	for b.Loop() {
		n++
		w.change(version(fmt.Sprint("v", n)))
		w.until(api.Deployments, isComplete(fmt.Sprint("web:v", n), 10))
	}
}

// BenchmarkApps300 is 300 Deployments of two Pods, each with a Service, made at once in one namespace, until all are
// complete: what a turn costs that has to find its own among many.
func BenchmarkApps300(b *testing.B) {
	const apps = 300
	for b.Loop() {
		w, stop := instantWorld(b)
		for n := range apps {
			name := fmt.Sprint("app", n)
			labels := map[string]string{"app": name}
			d := web(2, "v1")
			d.Name, d.Spec.Selector.MatchLabels, d.Spec.Template.Labels = name, labels, labels
			w.create(d)
			w.create(&corev1.Service{ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: name},
				Spec: corev1.ServiceSpec{Selector: labels, Ports: []corev1.ServicePort{{Port: 80}}}})
		}
		done := map[string]bool{}
		w.until(api.Deployments, func(obj api.Object) bool {
			if isComplete("web:v1", 2)(obj) {
				done[obj.GetName()] = true
			}
			return len(done) == apps
		})
		stop()
	}
}

func isComplete(image string, n int32) func(api.Object) bool {
	return func(obj api.Object) bool {
		d := obj.(*appsv1.Deployment)
		return d.Spec.Template.Spec.Containers[0].Image == image && d.Status.ObservedGeneration >= d.Generation &&
			d.Status.UpdatedReplicas == n && d.Status.Replicas == n && d.Status.AvailableReplicas == n
	}
}

func deploy(b *testing.B, n int32) {
	w, stop := instantWorld(b)
	defer stop()
	start := time.Now()
	w.create(web(n, "v1"))
	w.until(api.Pods, func() func(api.Object) bool {
		seen := map[string]bool{}
		return func(obj api.Object) bool { seen[obj.GetName()] = true; return len(seen) == int(n) }
	}())
	b.ReportMetric(time.Since(start).Seconds(), "s-until-created")
	w.until(api.Deployments, isComplete("web:v1", n))
	b.ReportMetric(time.Since(start).Seconds(), "s-until-ready")
}

// instantWorld is a world in real time with an empty namespace shop and a node that is done at once.
func instantWorld(b *testing.B) (*world, func()) {
	b.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	s, err := store.New(ctx, memory.New(), api.StorageCodec{})
	if err != nil {
		b.Fatal(err)
	}
	r, err := registry.New(registry.Config{Store: s})
	if err != nil {
		b.Fatal(err)
	}
	admin := r.As(registry.Admin())
	w := &world{t: b, ctx: ctx, r: r, admin: admin, sick: map[string]bool{}}
	if err := namespace.Ensure(ctx, admin); err != nil {
		b.Fatal(err)
	}
	g := loop.NewGroup(slog.New(slog.DiscardHandler))
	for name, build := range map[string]func(store.Client, event.Recorder) loop.Controller{
		"deployment": deployment.New, "replicaset": replicaset.New, "endpoints": endpoints.New, "garbage": garbage.New,
		"serviceaccount": func(c store.Client, e event.Recorder) loop.Controller { return serviceaccount.New(c, e, "pem") },
	} {
		client := r.As(registry.Controller(name))
		g.Add(client, build(client, event.Discard))
	}
	g.Add(admin, loop.Controller{Name: "node", Workers: 16, Inputs: []loop.Input{{Kind: api.Pods, Keys: loop.Own, Stateless: true}}, Reconcile: w.instantNode})
	ended := make(chan bool)
	go func() { g.Run(ctx); close(ended) }()
	w.create(shop())
	w.until(api.ServiceAccounts, func(obj api.Object) bool { return obj.GetNamespace() == "shop" })
	return w, func() {
		cancel()
		<-ended
		if err := s.Close(); err != nil {
			b.Error(err)
		}
	}
}

func (w *world) instantNode(ctx context.Context, key loop.Key) error {
	pod, err := store.Get[*corev1.Pod](ctx, w.admin, key.Namespace, key.Name)
	if err != nil || pod.DeletionTimestamp != nil || pod.Status.Phase != corev1.PodPending {
		return err
	}
	return w.admitReady(ctx, pod)
}

// until waits for a state of an object.
func (w *world) until(kind *api.Kind, is func(api.Object) bool) {
	w.t.Helper()
	watch, err := w.admin.Watch(w.ctx, kind, store.WatchOptions{})
	if err != nil {
		w.t.Fatal(err)
	}
	defer watch.Close()
	for {
		ev, err := watch.Next(w.ctx)
		if err != nil {
			w.t.Fatal(err)
		}
		if ev.Object != nil && is(ev.Object) {
			return
		}
	}
}
