package reconciler

import (
	"context"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/intstr"

	"github.com/slipway-dev/slipway/apiserver/api"
	"github.com/slipway-dev/slipway/apiserver/event"
	"github.com/slipway-dev/slipway/apiserver/registry"
	"github.com/slipway-dev/slipway/apiserver/store"
	"github.com/slipway-dev/slipway/apiserver/store/kv/memory"
	"github.com/slipway-dev/slipway/reconciler/deployment"
	"github.com/slipway-dev/slipway/reconciler/drain"
	"github.com/slipway-dev/slipway/reconciler/endpoints"
	"github.com/slipway-dev/slipway/reconciler/eventttl"
	"github.com/slipway-dev/slipway/reconciler/garbage"
	"github.com/slipway-dev/slipway/reconciler/loop"
	"github.com/slipway-dev/slipway/reconciler/namespace"
	"github.com/slipway-dev/slipway/reconciler/replicaset"
	"github.com/slipway-dev/slipway/reconciler/scheduler"
	"github.com/slipway-dev/slipway/reconciler/serviceaccount"
)

// world is a registry on an empty memory store with every controller at work, and a node that is quick but not at
// once: a Pod is ready 100 ms after it was seen and gone 100 ms after it was told to go.
type world struct {
	t       testing.TB
	ctx     context.Context
	r       *registry.Registry
	admin   store.Client
	stop    func() // ends all parts and waits for them
	log     *strings.Builder
	mu      sync.Mutex
	sick    map[string]bool // images whose Pods never become ready
	luck    *rand.Rand      // not nil: writes of controllers fail now and then
	fatal   *rand.Rand      // not nil: writes of controllers end all of them now and then
	fleet   bool            // there are nodes, and a scheduler
	kill    func()          // ends all parts without waiting for them
	dead    chan bool       // is told when they were killed
	lags    bool            // controllers of workloads are there twice, and each reads what was true a while ago
	lists   atomic.Int64    // counts what controllers list
	lagging atomic.Uint64   // counts such readers
}

// inWorld runs test in a bubble of its own time.
func inWorld(t *testing.T, test func(w *world)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancel(context.Background())
		s, err := store.New(ctx, memory.New(), api.StorageCodec{}, store.DetectMutation(func(problem string) { t.Error(problem) }))
		if err != nil {
			t.Fatal(err)
		}
		r, err := registry.New(registry.Config{Store: s})
		if err != nil {
			t.Fatal(err)
		}
		w := &world{t: t, ctx: ctx, r: r, admin: r.As(registry.Admin()), log: &strings.Builder{}, sick: map[string]bool{}, dead: make(chan bool, 1)}
		if err := namespace.Ensure(ctx, r.As(registry.Controller("namespace"))); err != nil {
			t.Fatal(err)
		}
		w.start()
		defer func() {
			w.stop()
			cancel()
			if err := s.Close(); err != nil {
				t.Error(err)
			}
			if t.Failed() {
				t.Log(w.log)
			}
		}()
		w.settle()
		test(w)
	})
}

type lockedWriter struct{ w *world }

func (l lockedWriter) Write(p []byte) (int, error) {
	l.w.mu.Lock()
	defer l.w.mu.Unlock()
	return l.w.log.Write(p)
}

// start runs all parts, each with the identity it has in the product.
func (w *world) start() {
	g := loop.NewGroup(slog.New(slog.NewTextHandler(lockedWriter{w}, nil)))
	w.add(g)
	ctx, cancel := context.WithCancel(w.ctx)
	ended := make(chan bool)
	go func() { g.Run(ctx); close(ended) }()
	w.mu.Lock()
	w.kill = cancel
	w.mu.Unlock()
	w.stop = func() { cancel(); <-ended }
}

func (w *world) add(g *loop.Group) {
	r := w.r
	events := event.New(r.As(registry.Controller("events")), "test", slog.New(slog.DiscardHandler))
	g.AddFunc("events", events.Run)
	add := func(name string, build func(store.Client) loop.Controller) {
		clients := []store.Client{unlucky{r.As(registry.Controller(name)), w}}
		if w.lags && (name == "deployment" || name == "replicaset") {
			clients = []store.Client{newLagging(clients[0], w, g), newLagging(clients[0], w, g)}
		}
		for _, client := range clients {
			c := build(client)
			if c.Name != name {
				w.t.Errorf("controller %s is called %s", name, c.Name)
			}
			g.Add(client, c)
		}
	}
	add("deployment", func(c store.Client) loop.Controller { return deployment.New(c, events.For("deployment-controller")) })
	add("replicaset", func(c store.Client) loop.Controller { return replicaset.New(c, events.For("replicaset-controller")) })
	add("endpoints", func(c store.Client) loop.Controller { return endpoints.New(c, events) })
	add("namespace", func(c store.Client) loop.Controller { return namespace.New(c, events) })
	add("serviceaccount", func(c store.Client) loop.Controller { return serviceaccount.New(c, events, "certificate") })
	add("garbage", func(c store.Client) loop.Controller { return garbage.New(c, events) })
	add("eventttl", func(c store.Client) loop.Controller { return eventttl.New(c, events) })
	if w.fleet {
		add("drain", func(c store.Client) loop.Controller { return drain.New(c, events, time.Now) })
		client := r.As(registry.Scheduler())
		g.Add(client, scheduler.New(client, events, time.Now))
	}
	g.Add(w.admin, loop.Controller{Name: "node", Workers: 4, Inputs: []loop.Input{{Kind: api.Pods, Keys: loop.Own}}, Reconcile: w.node})
}

// node is what scheduler and agent do to a Pod.
func (w *world) node(ctx context.Context, key loop.Key) error {
	pod, err := store.Get[*corev1.Pod](ctx, w.admin, key.Namespace, key.Name)
	if apierrors.IsNotFound(err) {
		return nil
	}
	if err != nil {
		return err
	}
	switch {
	case pod.Spec.NodeName == "" && w.fleet: // the scheduler's
	case pod.Spec.NodeName == "":
		_, err = w.admin.Create(ctx, &corev1.Binding{ObjectMeta: metav1.ObjectMeta{Namespace: pod.Namespace, Name: pod.Name},
			Target: corev1.ObjectReference{Kind: "Node", Name: "n1"}}, store.CreateOptions{Subresource: "binding"})
	case pod.DeletionTimestamp != nil:
		time.Sleep(100 * time.Millisecond)
		var none int64
		_, err = w.admin.Delete(ctx, api.Pods, pod.Namespace, pod.Name, store.DeleteOptions{UID: pod.UID, GracePeriodSeconds: &none})
	case pod.Status.Phase == corev1.PodPending && !w.isSick(pod):
		time.Sleep(100 * time.Millisecond)
		err = w.admitReady(ctx, pod)
	}
	if apierrors.IsNotFound(err) {
		return nil
	}
	return err
}

func (w *world) admitReady(ctx context.Context, pod *corev1.Pod) error {
	pod = pod.DeepCopy()
	ip := fmt.Sprintf("10.244.0.%d", 1+time.Now().UnixNano()/int64(time.Millisecond)%250)
	pod.Status.Phase, pod.Status.PodIP, pod.Status.PodIPs = corev1.PodRunning, ip, []corev1.PodIP{{IP: ip}}
	pod.Status.Conditions = append(pod.Status.Conditions, corev1.PodCondition{Type: corev1.PodReady, Status: corev1.ConditionTrue, LastTransitionTime: metav1.Now()})
	_, err := w.admin.Update(ctx, pod, store.UpdateOptions{Subresource: "status"})
	return err
}

func (w *world) isSick(pod *corev1.Pod) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.sick[pod.Spec.Containers[0].Image]
}

// settle lets half a minute pass, in which everybody ends what he is at.
func (w *world) settle() { w.pass(30 * time.Second) }

func (w *world) pass(d time.Duration) {
	time.Sleep(d)
	synctest.Wait()
}

func (w *world) create(obj api.Object) {
	w.t.Helper()
	if _, err := w.admin.Create(w.ctx, obj, store.CreateOptions{}); err != nil {
		w.t.Fatal(err)
	}
}

func (w *world) delete(kind *api.Kind, ns, name string, propagation metav1.DeletionPropagation) {
	w.t.Helper()
	if _, err := w.admin.Delete(w.ctx, kind, ns, name, store.DeleteOptions{Propagation: propagation}); err != nil {
		w.t.Fatal(err)
	}
}

// change reads the Deployment web, changes and writes it.
func (w *world) change(change func(d *appsv1.Deployment)) {
	w.t.Helper()
	for {
		d := w.deployment().DeepCopy()
		change(d)
		_, err := w.admin.Update(w.ctx, d, store.UpdateOptions{})
		if err == nil {
			return
		}
		if !apierrors.IsConflict(err) {
			w.t.Fatal(err)
		}
	}
}

func (w *world) deployment() *appsv1.Deployment {
	w.t.Helper()
	d, err := store.Get[*appsv1.Deployment](w.ctx, w.admin, "shop", "web")
	if err != nil {
		w.t.Fatal(err)
	}
	return d
}

// state is everything of some kinds in namespace shop, one line for each object, without generated names.
func (w *world) state() string {
	w.t.Helper()
	var lines []string
	for _, rs := range all[*appsv1.ReplicaSet](w) {
		lines = append(lines, fmt.Sprintf("replicaset %s revision %s: %d of %d available", rs.Spec.Template.Spec.Containers[0].Image,
			rs.Annotations["deployment.kubernetes.io/revision"], rs.Status.AvailableReplicas, *rs.Spec.Replicas))
	}
	pods := map[string]int{}
	for _, pod := range all[*corev1.Pod](w) {
		state := string(pod.Status.Phase)
		if pod.DeletionTimestamp != nil {
			state = "Terminating"
		}
		pods[fmt.Sprintf("pods %s %s", pod.Spec.Containers[0].Image, state)]++
	}
	for line, n := range pods {
		lines = append(lines, fmt.Sprintf("%s: %d", line, n))
	}
	slices.Sort(lines)
	return strings.Join(lines, "\n")
}

func all[T api.Object](w *world) []T {
	w.t.Helper()
	items, err := store.All[T](w.ctx, w.admin, store.ListOptions{Namespace: "shop"})
	if err != nil {
		w.t.Fatal(err)
	}
	return items
}

func shop() *corev1.Namespace {
	return &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: "shop"}}
}

// web is a Deployment of n Pods of image web:version that may have one more and never less.
func web(n int32, version string, changes ...func(*appsv1.Deployment)) *appsv1.Deployment {
	labels := map[string]string{"app": "web"}
	one, none := intstr.FromInt32(1), intstr.FromInt32(0)
	d := &appsv1.Deployment{
		ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: "web"},
		Spec: appsv1.DeploymentSpec{Replicas: &n, Selector: &metav1.LabelSelector{MatchLabels: labels},
			Strategy: appsv1.DeploymentStrategy{Type: appsv1.RollingUpdateDeploymentStrategyType, RollingUpdate: &appsv1.RollingUpdateDeployment{MaxSurge: &one, MaxUnavailable: &none}},
			Template: corev1.PodTemplateSpec{ObjectMeta: metav1.ObjectMeta{Labels: labels}, Spec: corev1.PodSpec{Containers: []corev1.Container{{Name: "app", Image: "web:" + version}}}}},
	}
	for _, c := range changes {
		c(d)
	}
	return d
}

func version(v string) func(*appsv1.Deployment) {
	return func(d *appsv1.Deployment) { d.Spec.Template.Spec.Containers[0].Image = "web:" + v }
}

func replicas(n int32) func(*appsv1.Deployment) {
	return func(d *appsv1.Deployment) { d.Spec.Replicas = &n }
}

// bounds watches every change of Pods in namespace shop, and fails the test when a number leaves its bounds. It
// returns how many changes it saw.
func (w *world) bounds(check func(alive, ready int, images map[string]int) string) func() int {
	w.t.Helper()
	list, err := w.admin.List(w.ctx, api.Pods, store.ListOptions{Namespace: "shop"})
	if err != nil {
		w.t.Fatal(err)
	}
	watch, err := w.admin.Watch(w.ctx, api.Pods, store.WatchOptions{Namespace: "shop", Revision: list.Revision})
	if err != nil {
		w.t.Fatal(err)
	}
	pods := map[string]*corev1.Pod{}
	for _, obj := range list.Items {
		pods[obj.GetName()] = obj.(*corev1.Pod)
	}
	seen, ended := 0, make(chan bool)
	go func() {
		defer close(ended)
		for {
			ev, err := watch.Next(w.ctx)
			if err != nil {
				return
			}
			if ev.Object == nil {
				continue
			}
			seen++
			pods[ev.Object.GetName()] = ev.Object.(*corev1.Pod)
			if ev.Type == store.Deleted {
				delete(pods, ev.Object.GetName())
			}
			if problem := check(tally(pods)); problem != "" {
				w.t.Errorf("change %d (%s %s): %s", seen, ev.Type, ev.Object.GetName(), problem)
			}
		}
	}()
	return func() int {
		watch.Close()
		<-ended
		return seen
	}
}

// tally counts Pods: those neither ended nor being deleted, those of them that are ready, and all by image.
func tally(pods map[string]*corev1.Pod) (alive, ready int, images map[string]int) {
	images = map[string]int{}
	for _, pod := range pods {
		images[pod.Spec.Containers[0].Image]++
		if pod.DeletionTimestamp != nil || pod.Status.Phase == corev1.PodFailed {
			continue
		}
		alive++
		if pod.Status.Phase == corev1.PodRunning {
			ready++
		}
	}
	return alive, ready, images
}
