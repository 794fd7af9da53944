package gitops

import (
	"context"
	"crypto/sha1"
	"encoding/hex"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/slipway-dev/slipway/apiserver/api"
	slipwayv1 "github.com/slipway-dev/slipway/apiserver/api/v1alpha1"
	"github.com/slipway-dev/slipway/apiserver/event"
	"github.com/slipway-dev/slipway/apiserver/registry"
	"github.com/slipway-dev/slipway/apiserver/store"
	"github.com/slipway-dev/slipway/apiserver/store/kv"
	"github.com/slipway-dev/slipway/apiserver/store/kv/etcd"
	"github.com/slipway-dev/slipway/gitsource"
)

// rig is an engine over a real registry, and what it told.
type rig struct {
	t       testing.TB
	admin   store.Client
	gitops  store.Client
	log     *slog.Logger
	updates chan gitsource.Update

	mu   sync.Mutex
	told []Progress
	news chan struct{}
}

const patience = 30 * time.Second // a bound for a broken test, not a measurement

func newRig(t testing.TB, backend kv.Backend) *rig {
	t.Helper()
	s, err := store.New(t.Context(), backend, api.StorageCodec{})
	if err != nil {
		t.Fatal(err)
	}
	reg, err := registry.New(registry.Config{Store: s})
	if err != nil {
		t.Fatal(err)
	}
	r := &rig{t: t, admin: reg.As(registry.Admin()), gitops: reg.As(registry.GitOps()), log: slog.New(slog.DiscardHandler), news: make(chan struct{}, 1)}
	r.create(&corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: "default"}})
	return r
}

// start runs an engine and returns how to stop it, which the test's end does too.
func (r *rig) start(config Config) (stop func()) {
	r.t.Helper()
	config.Observe = func(p Progress) {
		r.mu.Lock()
		r.told = append(r.told, p)
		r.mu.Unlock()
		select {
		case r.news <- struct{}{}:
		default:
		}
	}
	if config.Spec == (slipwayv1.SourceSpec{}) {
		config.Spec.Dir = "/srv/shop"
	}
	r.updates = make(chan gitsource.Update, 10)
	e := New(r.gitops, event.Discard, r.log, config)
	ctx, cancel := context.WithCancel(context.WithoutCancel(r.t.Context()))
	done := make(chan error, 1)
	go func() { done <- e.Run(ctx, r.updates) }()
	stop = sync.OnceFunc(func() {
		cancel()
		if err := <-done; err != nil {
			r.t.Errorf("run: %v", err)
		}
	})
	r.t.Cleanup(stop)
	return stop
}

type files map[string]string

// push hands the engine a snapshot of files and returns its revision.
func (r *rig) push(f files) string {
	h := sha1.New()
	snap := &gitsource.Snapshot{}
	for _, path := range slices.Sorted(maps.Keys(f)) {
		fmt.Fprintf(h, "%s\x00%s\x00", path, f[path])
		snap.Files = append(snap.Files, gitsource.File{Path: path, Data: []byte(f[path])})
	}
	snap.Revision = gitsource.Revision{ID: hex.EncodeToString(h.Sum(nil)), Subject: "change", Author: "A. Person", Time: time.Unix(1700000000, 0)}
	r.updates <- gitsource.Update{Snapshot: snap}
	return snap.Revision.ID
}

// await returns the first thing told from here on that matches, and forgets everything before.
func (r *rig) await(what string, match func(Progress) bool) Progress {
	r.t.Helper()
	timeout := time.NewTimer(patience)
	defer timeout.Stop()
	var heard []string
	for {
		r.mu.Lock()
		for i, p := range r.told {
			heard = append(heard, fmt.Sprintf("%s %s %s%s", p.Step, p.Revision.Short(), p.Text, strings.Join(p.Lines, "\n")))
			if match(p) {
				r.told = r.told[i+1:]
				r.mu.Unlock()
				return p
			}
		}
		r.told = nil
		r.mu.Unlock()
		select {
		case <-r.news:
		case <-timeout.C:
			r.t.Fatalf("waiting for %s, heard only:\n%s", what, strings.Join(heard, "\n"))
		}
	}
}

func (r *rig) awaitStep(step Step, revision string) Progress {
	r.t.Helper()
	return r.await(fmt.Sprintf("%s of %.7s", step, revision), func(p Progress) bool { return p.Step == step && p.Revision.ID == revision })
}

// settle pushes files and waits until they are applied and current.
func (r *rig) settle(f files) string {
	r.t.Helper()
	rev := r.push(f)
	p := r.awaitStep(StepSettled, rev)
	if p.Status.Phase != slipwayv1.RolloutSucceeded {
		r.t.Fatalf("rollout %s: %s %v", p.Status.Phase, p.Status.Message, p.Status.Errors)
	}
	return rev
}

func (r *rig) create(obj api.Object) api.Object {
	r.t.Helper()
	out, err := r.admin.Create(r.t.Context(), obj, store.CreateOptions{})
	if err != nil {
		r.t.Fatal(err)
	}
	return out
}

func get[T api.Object](r *rig, namespace, name string) T {
	r.t.Helper()
	obj, err := store.Get[T](r.t.Context(), r.admin, namespace, name)
	if err != nil {
		r.t.Fatal(err)
	}
	return obj
}

// has says whether an object exists and is not being deleted.
func has[T api.Object](r *rig, namespace, name string) bool {
	r.t.Helper()
	obj, err := store.Get[T](r.t.Context(), r.admin, namespace, name)
	if apierrors.IsNotFound(err) {
		return false
	}
	if err != nil {
		r.t.Fatal(err)
	}
	return obj.GetDeletionTimestamp() == nil
}

func (r *rig) patch(kind *api.Kind, namespace, name, data string) {
	r.t.Helper()
	if _, err := r.admin.Patch(r.t.Context(), kind, namespace, name, store.Patch{Type: types.MergePatchType, Data: []byte(data), FieldManager: "hand"}); err != nil {
		r.t.Fatal(err)
	}
}

func (r *rig) delete(kind *api.Kind, namespace, name string) {
	r.t.Helper()
	if _, err := r.admin.Delete(r.t.Context(), kind, namespace, name, store.DeleteOptions{}); err != nil {
		r.t.Fatal(err)
	}
}

// record returns the newest Rollout.
func (r *rig) record() *slipwayv1.Rollout {
	r.t.Helper()
	all, err := store.All[*slipwayv1.Rollout](r.t.Context(), r.admin, store.ListOptions{})
	if err != nil {
		r.t.Fatal(err)
	}
	return all[len(all)-1]
}

func (r *rig) source() *slipwayv1.Source { return get[*slipwayv1.Source](r, "", "default") }

// finalize plays the namespace controller's last step.
func (r *rig) finalize(name string) {
	r.t.Helper()
	ns := get[*corev1.Namespace](r, "", name).DeepCopy()
	ns.Spec.Finalizers = nil
	if _, err := r.admin.Update(r.t.Context(), ns, store.UpdateOptions{Subresource: "finalize"}); err != nil {
		r.t.Fatal(err)
	}
	if _, err := r.admin.Delete(r.t.Context(), api.Namespaces, "", name, store.DeleteOptions{}); err != nil && !apierrors.IsNotFound(err) {
		r.t.Fatal(err)
	}
}

// available plays the Deployment controller: every replica of a Deployment is there.
func (r *rig) available(namespace, name string) {
	r.t.Helper()
	d := get[*appsv1.Deployment](r, namespace, name).DeepCopy()
	n := *d.Spec.Replicas
	d.Status = appsv1.DeploymentStatus{ObservedGeneration: d.Generation, Replicas: n, UpdatedReplicas: n, ReadyReplicas: n, AvailableReplicas: n}
	if _, err := r.admin.Update(r.t.Context(), d, store.UpdateOptions{Subresource: "status"}); err != nil {
		r.t.Fatal(err)
	}
}

func namespaceFile(name string) string {
	return fmt.Sprintf("apiVersion: v1\nkind: Namespace\nmetadata:\n  name: %s\n", name)
}

func configFile(name, value string) string {
	return fmt.Sprintf("apiVersion: v1\nkind: ConfigMap\nmetadata:\n  name: %s\n  namespace: shop\ndata:\n  key: %q\n", name, value)
}

func deploymentFile(name, image string) string {
	return fmt.Sprintf(`apiVersion: apps/v1
kind: Deployment
metadata:
  name: %[1]s
  namespace: shop
  labels: {app: %[1]s}
spec:
  replicas: 2
  selector:
    matchLabels: {app: %[1]s}
  template:
    metadata:
      labels: {app: %[1]s}
    spec:
      containers:
      - name: app
        image: %[2]s
`, name, image)
}

func shop() files {
	return files{"ns.yaml": namespaceFile("shop"), "a.yaml": configFile("a", "1"), "b.yaml": configFile("b", "1")}
}

func manyFiles(n int) files {
	f := files{"ns.yaml": namespaceFile("shop")}
	for i := range n {
		f[fmt.Sprintf("c%02d.yaml", i)] = configFile(fmt.Sprintf("c%02d", i), "1")
	}
	return f
}

func etcdBackend(t testing.TB) kv.Backend {
	t.Helper()
	b, err := etcd.Open(t.Context(), etcd.Config{Dir: t.TempDir(), Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := b.Close(); err != nil {
			t.Error(err)
		}
	})
	return b
}
