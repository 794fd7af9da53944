package gitops

import (
	"context"
	"crypto/sha1"
	"encoding/hex"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/slipway-dev/slipway/apiserver/api"
	slipwayv1 "github.com/slipway-dev/slipway/apiserver/api/v1alpha1"
	"github.com/slipway-dev/slipway/apiserver/event"
	"github.com/slipway-dev/slipway/apiserver/registry"
	"github.com/slipway-dev/slipway/apiserver/store"
	"github.com/slipway-dev/slipway/apiserver/store/kv"
	"github.com/slipway-dev/slipway/apiserver/store/kv/etcd"
	"github.com/slipway-dev/slipway/apiserver/store/kv/memory"
	"github.com/slipway-dev/slipway/gitsource"
	"github.com/slipway-dev/slipway/reconciler/gitops/plan"
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

func TestCreateUpdatePrune(t *testing.T) {
	r := newRig(t, memory.New())
	r.start(Config{})
	rev := r.settle(shop())
	a := get[*corev1.ConfigMap](r, "shop", "a")
	want := map[string]string{api.AnnotationSource: "default", api.AnnotationOrigin: "a.yaml:1@" + rev[:7]}
	if d := cmp.Diff(want, a.Annotations); d != "" {
		t.Errorf("annotations (-want +got):\n%s", d)
	}

	second := shop()
	second["a.yaml"] = configFile("a", "2") + "  more: x\n"
	delete(second, "b.yaml")
	rev = r.push(second)
	p := r.awaitStep(StepPlanned, rev)
	if d := cmp.Diff([]string{"~ ConfigMap shop/a: data.key: 1 → 2, data.more: x (new)", "- ConfigMap shop/b"}, p.Plan.Lines()); d != "" {
		t.Errorf("plan (-want +got):\n%s", d)
	}
	r.awaitStep(StepSettled, rev)
	if has[*corev1.ConfigMap](r, "shop", "b") {
		t.Error("b is still there")
	}

	second["a.yaml"] = configFile("a", "2")
	r.settle(second)
	if d := cmp.Diff(map[string]string{"key": "2"}, get[*corev1.ConfigMap](r, "shop", "a").Data); d != "" {
		t.Errorf("a field that left the tree is still set (-want +got):\n%s", d)
	}
	ro := r.record()
	got := ro.Status
	got.StartedAt, got.EndedAt = metav1.Time{}, metav1.Time{}
	if d := cmp.Diff(slipwayv1.RolloutStatus{Phase: slipwayv1.RolloutSucceeded, Message: "1 updated, 1 unchanged", Updated: 1, Unchanged: 1,
		Plan: []string{"~ ConfigMap shop/a: data.more: removed"}}, got); d != "" {
		t.Errorf("record %s (-want +got):\n%s", ro.Name, d)
	}
	if ro.Name != "default-000003" || ro.Spec.Subject != "change" {
		t.Errorf("record is %s %+v", ro.Name, ro.Spec)
	}
	src := r.source()
	conditions := map[string]string{}
	for _, c := range src.Status.Conditions {
		conditions[c.Type] = string(c.Status)
	}
	if d := cmp.Diff(map[string]string{"Fetched": "True", "Valid": "True", "Applied": "True", "Healthy": "True"}, conditions); d != "" {
		t.Errorf("conditions (-want +got):\n%s", d)
	}
	if src.Status.Applied != ro.Spec.Revision || src.Status.Seen != ro.Spec.Revision {
		t.Errorf("source status %+v, want revision %s", src.Status, ro.Spec.Revision)
	}
}

func TestBrokenTreeChangesNothing(t *testing.T) {
	r := newRig(t, memory.New())
	r.start(Config{})
	r.settle(shop())
	broken := shop()
	delete(broken, "b.yaml")
	broken["a.yaml"] = configFile("a", "2")
	broken["c.yaml"] = "apiVersion: v1\nkind: ConfigMap\nmetadata:\n  name: c\n  namespace: shop\ndatum: {}\n"
	rev := r.push(broken)
	p := r.awaitStep(StepRefused, rev)
	if len(p.Lines) != 1 || !strings.HasPrefix(p.Lines[0], "c.yaml:6: ConfigMap/shop/c: datum:") {
		t.Errorf("problems %q", p.Lines)
	}
	if !has[*corev1.ConfigMap](r, "shop", "b") || get[*corev1.ConfigMap](r, "shop", "a").Data["key"] != "1" {
		t.Error("a broken tree changed something")
	}
	if ro := r.record(); ro.Status.Phase != slipwayv1.RolloutRefused || ro.Status.Errors[0] != p.Lines[0] || ro.Spec.Revision != rev {
		t.Errorf("record %+v", ro)
	}

	// The last good state is still held.
	r.delete(api.ConfigMaps, "shop", "b")
	r.await("b put back", func(p Progress) bool { return p.Step == StepPutBack && p.Action.Ref.Name == "b" })

	// An empty tree is a broken one.
	rev = r.push(files{"readme.yaml": "# nothing\n"})
	if p := r.awaitStep(StepRefused, rev); !strings.Contains(p.Lines[0], "nothing is pruned") {
		t.Errorf("problems %q", p.Lines)
	}
	if !has[*corev1.ConfigMap](r, "shop", "b") {
		t.Error("an empty tree pruned")
	}
	broken["c.yaml"] = configFile("c", "1")
	r.settle(broken)
}

func TestMassDeletionWaits(t *testing.T) {
	r := newRig(t, memory.New())
	stop := r.start(Config{})
	r.settle(manyFiles(12))
	few := manyFiles(2)
	few["new.yaml"] = configFile("new", "1")
	rev := r.push(few)
	p := r.awaitStep(StepAwaiting, rev)
	if p.Text != "deleting 10 of 13 objects waits for confirmation" {
		t.Errorf("question %q", p.Text)
	}
	if !has[*corev1.ConfigMap](r, "shop", "c11") || !has[*corev1.ConfigMap](r, "shop", "new") {
		t.Error("want the writes done and the deletions waiting")
	}
	if src := r.source(); src.Status.Awaiting != rev {
		t.Errorf("awaiting %q, want %s", src.Status.Awaiting, rev)
	}
	// The question survives a restart.
	stop()
	r.start(Config{})
	r.push(few)
	r.awaitStep(StepAwaiting, rev)

	// A newer commit replaces it.
	few["new.yaml"] = configFile("new", "2")
	newer := r.push(few)
	r.awaitStep(StepAwaiting, newer)
	e := New(r.admin, event.Discard, r.log, Config{})
	if err := e.Confirm(t.Context(), rev); err == nil {
		t.Error("an old question could be confirmed")
	}
	if err := e.Confirm(t.Context(), newer[:7]); err != nil {
		t.Fatal(err)
	}
	if p := r.awaitStep(StepSettled, newer); p.Status.Phase != slipwayv1.RolloutSucceeded || p.Status.Deleted != 10 {
		t.Errorf("status %+v", p.Status)
	}
	src := r.source()
	if has[*corev1.ConfigMap](r, "shop", "c11") || src.Status.Awaiting != "" || src.Annotations[AnnotationConfirm] != "" {
		t.Errorf("after confirmation: c11 or the question is still there: %+v", src)
	}
}

func TestDifferentSourceIsRefused(t *testing.T) {
	r := newRig(t, memory.New())
	stop := r.start(Config{Spec: slipwayv1.SourceSpec{URL: "https://example.com/a.git"}})
	r.settle(shop())
	stop()
	other := Config{Spec: slipwayv1.SourceSpec{URL: "https://example.com/b.git"}}
	err := New(r.gitops, event.Discard, r.log, other).Run(t.Context(), nil)
	if !errors.Is(err, ErrDifferentSource) || !strings.Contains(err.Error(), "a.git") || !strings.Contains(err.Error(), "b.git") {
		t.Errorf("error %v, want ErrDifferentSource naming both", err)
	}
	moved := Config{Spec: slipwayv1.SourceSpec{URL: "https://example.com/a.git", Path: "elsewhere"}}
	if err := New(r.gitops, event.Discard, r.log, moved).Run(t.Context(), nil); !errors.Is(err, ErrDifferentSource) {
		t.Errorf("error %v for another folder, want ErrDifferentSource", err)
	}
	other.ReplaceSource = true
	r.start(other)
	r.settle(files{"ns.yaml": namespaceFile("shop"), "a.yaml": configFile("a", "other")})
	if got := r.source().Spec.URL; got != "https://example.com/b.git" {
		t.Errorf("source is %s", got)
	}
}

func TestRenamedFolderPrunesNothing(t *testing.T) {
	r := newRig(t, memory.New())
	r.start(Config{Spec: slipwayv1.SourceSpec{Dir: "/srv", Path: "deploy"}})
	r.settle(files{"deploy/ns.yaml": namespaceFile("shop"), "deploy/a.yaml": configFile("a", "1")})
	rev := r.push(files{"deployed/ns.yaml": namespaceFile("shop"), "deployed/a.yaml": configFile("a", "1")})
	r.awaitStep(StepRefused, rev)
	if !has[*corev1.ConfigMap](r, "shop", "a") {
		t.Error("a renamed folder pruned")
	}
}

func TestNewestCommitWins(t *testing.T) {
	r := newRig(t, memory.New())
	r.start(Config{})
	f := shop()
	f["web.yaml"] = deploymentFile("web", "nginx:nope")
	stuck := r.push(f)
	r.await("web waits", func(p Progress) bool { return p.Step == StepWorkload && p.Revision.ID == stuck })
	f["web.yaml"] = deploymentFile("web", "nginx:1")
	fixed := r.push(f)
	r.awaitStep(StepSuperseded, stuck)
	r.await("fixed web waits", func(p Progress) bool { return p.Step == StepWorkload && p.Revision.ID == fixed })
	r.available("shop", "web")
	if p := r.awaitStep(StepSettled, fixed); p.Status.Phase != slipwayv1.RolloutSucceeded || p.Status.Updated != 1 {
		t.Errorf("status %+v", p.Status)
	}
	all, err := store.All[*slipwayv1.Rollout](t.Context(), r.admin, store.ListOptions{})
	if err != nil {
		t.Fatal(err)
	}
	var phases []string
	for _, ro := range all {
		phases = append(phases, ro.Status.Phase)
	}
	if d := cmp.Diff([]string{slipwayv1.RolloutSuperseded, slipwayv1.RolloutSucceeded}, phases); d != "" {
		t.Errorf("phases (-want +got):\n%s", d)
	}
}

func TestDriftIsPutBack(t *testing.T) {
	r := newRig(t, memory.New())
	r.start(Config{})
	f := shop()
	f["web.yaml"] = deploymentFile("web", "nginx:1")
	rev := r.push(f)
	r.await("web waits", func(p Progress) bool { return p.Step == StepWorkload && p.Revision.ID == rev })
	r.available("shop", "web")
	r.awaitStep(StepSettled, rev)

	r.patch(api.Deployments, "shop", "web", `{"spec":{"template":{"spec":{"containers":[{"name":"app","image":"evil:1"}]}}}}`)
	p := r.awaitStep(StepPutBack, rev)
	if p.Text != "~ Deployment shop/web: spec.template.spec.containers[0].image: evil:1 → nginx:1" {
		t.Errorf("told %q", p.Text)
	}
	if got := get[*appsv1.Deployment](r, "shop", "web").Spec.Template.Spec.Containers[0].Image; got != "nginx:1" {
		t.Errorf("image %s", got)
	}
	r.delete(api.ConfigMaps, "shop", "a")
	if p := r.awaitStep(StepPutBack, rev); p.Text != "+ ConfigMap shop/a (a.yaml:1)" {
		t.Errorf("told %q", p.Text)
	}
	// What Git does not say is nobody's drift.
	r.patch(api.ConfigMaps, "shop", "b", `{"data":{"by-hand":"yes"}}`)
	r.available("shop", "web")
	r.patch(api.ConfigMaps, "shop", "b", `{"data":{"key":"changed"}}`)
	if p := r.awaitStep(StepPutBack, rev); p.Text != "~ ConfigMap shop/b: data.key: changed → 1" {
		t.Errorf("told %q", p.Text)
	}
	if d := cmp.Diff(map[string]string{"key": "1", "by-hand": "yes"}, get[*corev1.ConfigMap](r, "shop", "b").Data); d != "" {
		t.Errorf("data (-want +got):\n%s", d)
	}
	if ro := r.record(); ro.Status.Phase != slipwayv1.RolloutSucceeded || ro.Status.Updated != 0 || ro.Status.Created != 4 {
		t.Errorf("putting back was counted as the commit's doing: %+v", ro.Status)
	}
}

func TestRestartDoesNothingButHeal(t *testing.T) {
	r := newRig(t, memory.New())
	stop := r.start(Config{})
	rev := r.settle(shop())
	stop()
	before := get[*corev1.ConfigMap](r, "shop", "a").ResourceVersion
	record := r.record()
	r.patch(api.ConfigMaps, "shop", "b", `{"data":{"key":"changed"}}`)

	r.start(Config{})
	r.push(shop())
	if p := r.awaitStep(StepPlanned, rev); !cmp.Equal(p.Plan.Lines(), []string{"~ ConfigMap shop/b: data.key: changed → 1"}) {
		t.Errorf("plan %v", p.Plan)
	}
	r.awaitStep(StepSettled, rev)
	if got := get[*corev1.ConfigMap](r, "shop", "a").ResourceVersion; got != before {
		t.Errorf("an unchanged object was written: %s, was %s", got, before)
	}
	after := r.record()
	if after.Name != record.Name || after.Status.Phase != slipwayv1.RolloutSucceeded {
		t.Errorf("record %s %+v", after.Name, after.Status)
	}
}

func TestAdoption(t *testing.T) {
	r := newRig(t, memory.New())
	r.create(&corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: "shop"}})
	r.create(&corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: "a"}, Data: map[string]string{"key": "0", "other": "kept"}})
	r.create(&corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: "b", Annotations: map[string]string{api.AnnotationSource: "elsewhere"}}})
	r.start(Config{})
	f := shop()
	f["default.yaml"] = namespaceFile("default")
	f["web.yaml"] = deploymentFile("web", "nginx:1") + "        envFrom: [{configMapRef: {name: b}}]\n"
	rev := r.push(f)
	p := r.awaitStep(StepSettled, rev)
	why := `is there already and comes from source "elsewhere" (): remove it there first`
	want := []string{"b.yaml:1: ConfigMap/shop/b: " + why, "web.yaml:1: Deployment/shop/web: needs ConfigMap shop/b, which is not applied: " + why}
	if d := cmp.Diff(want, p.Status.Errors); p.Status.Phase != slipwayv1.RolloutFailed || d != "" {
		t.Errorf("%s (-want +got):\n%s", p.Status.Phase, d)
	}
	if d := cmp.Diff(map[string]string{"key": "1", "other": "kept"}, get[*corev1.ConfigMap](r, "shop", "a").Data); d != "" {
		t.Errorf("adopted object (-want +got):\n%s", d)
	}
	// What was in the way goes, and the object comes, and what needs it.
	r.delete(api.ConfigMaps, "shop", "b")
	r.await("web waits", func(p Progress) bool { return p.Step == StepWorkload && p.Revision.ID == rev })
	r.available("shop", "web")
	if p := r.awaitStep(StepSettled, rev); p.Status.Phase != slipwayv1.RolloutSucceeded {
		t.Errorf("status %+v", p.Status)
	}
	// The system's own namespace is given back.
	delete(f, "default.yaml")
	r.settle(f)
	ns := get[*corev1.Namespace](r, "", "default")
	if ns.DeletionTimestamp != nil || ns.Annotations[api.AnnotationSource] != "" {
		t.Errorf("namespace default: %+v", ns.ObjectMeta)
	}
}

func TestFailureStopsOnlyDependants(t *testing.T) {
	r := newRig(t, memory.New())
	r.start(Config{})
	f := shop()
	f["web.yaml"] = deploymentFile("web", "nginx:1")
	rev := r.push(f)
	r.await("web waits", func(p Progress) bool { return p.Step == StepWorkload && p.Revision.ID == rev })
	r.available("shop", "web")
	r.awaitStep(StepSettled, rev)

	f["web.yaml"] = strings.ReplaceAll(deploymentFile("web", "nginx:2"), "{app: web}", "{app: other}")
	f["c.yaml"] = configFile("c", "1")
	rev = r.push(f)
	p := r.awaitStep(StepSettled, rev)
	if p.Status.Phase != slipwayv1.RolloutFailed || len(p.Status.Errors) != 1 || !strings.HasPrefix(p.Status.Errors[0], "web.yaml:1: Deployment/shop/web: spec.selector: ") || !strings.HasSuffix(p.Status.Errors[0], "(line 9)") {
		t.Errorf("status %+v", p.Status)
	}
	if !has[*corev1.ConfigMap](r, "shop", "c") || get[*appsv1.Deployment](r, "shop", "web").Spec.Template.Spec.Containers[0].Image != "nginx:1" {
		t.Error("want c made and web as it was")
	}
}

func TestSecretKeysLeave(t *testing.T) {
	r := newRig(t, memory.New())
	r.start(Config{})
	secret := "apiVersion: v1\nkind: Secret\nmetadata: {name: s, namespace: shop}\nstringData:\n  a: hunter1\n"
	f := files{"ns.yaml": namespaceFile("shop"), "s.yaml": secret + "  b: hunter2\n"}
	r.settle(f)
	f["s.yaml"] = strings.Replace(secret, "hunter1", "hunter3", 1)
	rev := r.push(f)
	p := r.awaitStep(StepPlanned, rev)
	if d := cmp.Diff([]string{"~ Secret shop/s: data.a: changed, data.b: removed"}, p.Plan.Lines()); d != "" {
		t.Errorf("plan (-want +got):\n%s", d)
	}
	r.awaitStep(StepSettled, rev)
	if d := cmp.Diff(map[string][]byte{"a": []byte("hunter3")}, get[*corev1.Secret](r, "shop", "s").Data); d != "" {
		t.Errorf("data (-want +got):\n%s", d)
	}
}

func TestRolloutsAreBounded(t *testing.T) {
	r := newRig(t, memory.New())
	r.start(Config{})
	for i := range keptRollouts + 3 {
		r.settle(files{"ns.yaml": namespaceFile("shop"), "a.yaml": configFile("a", fmt.Sprint(i))})
	}
	all, err := store.All[*slipwayv1.Rollout](t.Context(), r.admin, store.ListOptions{})
	if err != nil {
		t.Fatal(err)
	}
	if len(all) != keptRollouts || all[0].Name != "default-000004" {
		t.Errorf("%d records, the first %s", len(all), all[0].Name)
	}
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

// The whole way once on the store that is used in earnest.
func TestOnEtcd(t *testing.T) {
	r := newRig(t, etcdBackend(t))
	stop := r.start(Config{})
	f := shop()
	r.settle(f)
	delete(f, "b.yaml")
	f["a.yaml"] = configFile("a", "2")
	rev := r.settle(f)
	if has[*corev1.ConfigMap](r, "shop", "b") || get[*corev1.ConfigMap](r, "shop", "a").Data["key"] != "2" {
		t.Error("the second commit was not applied")
	}
	r.delete(api.ConfigMaps, "shop", "a")
	r.awaitStep(StepPutBack, rev)
	stop()
	r.start(Config{})
	r.push(f)
	if p := r.awaitStep(StepPlanned, rev); len(p.Plan.Lines()) != 0 {
		t.Errorf("after a restart the plan is %v", p.Plan)
	}
}

// counting counts the writes that go through it, tried ones included.
type counting struct {
	store.Client
	patches atomic.Int64
}

func (c *counting) Patch(ctx context.Context, kind *api.Kind, namespace, name string, p store.Patch) (api.Object, error) {
	c.patches.Add(1)
	return c.Client.Patch(ctx, kind, namespace, name, p)
}

func TestUnchangedObjectsCostNothing(t *testing.T) {
	r := newRig(t, memory.New())
	client := &counting{Client: r.gitops}
	r.gitops = client
	r.start(Config{})
	f := shop()
	f["web.yaml"] = deploymentFile("web", "nginx:1")
	rev := r.push(f)
	r.await("web waits", func(p Progress) bool { return p.Step == StepWorkload && p.Revision.ID == rev })
	r.available("shop", "web") // a new resourceVersion, but nothing of Git's
	r.awaitStep(StepSettled, rev)
	before := client.patches.Load()
	f["extra.yaml"] = configFile("extra", "1")
	r.settle(f)
	if got := client.patches.Load() - before; got != 1 {
		t.Errorf("%d writes for one new object, want 1", got)
	}
}

func TestDeletedNamespaceComesBack(t *testing.T) {
	r := newRig(t, memory.New())
	r.start(Config{})
	rev := r.settle(shop())
	// Somebody deletes the namespace; the namespace controller, played here, empties it and lets it go.
	r.delete(api.Namespaces, "", "shop")
	r.delete(api.ConfigMaps, "shop", "a")
	r.delete(api.ConfigMaps, "shop", "b")
	ns := get[*corev1.Namespace](r, "", "shop").DeepCopy()
	ns.Spec.Finalizers = nil
	if _, err := r.admin.Update(t.Context(), ns, store.UpdateOptions{Subresource: "finalize"}); err != nil {
		t.Fatal(err)
	}
	if _, err := r.admin.Delete(t.Context(), api.Namespaces, "", "shop", store.DeleteOptions{}); err != nil && !apierrors.IsNotFound(err) {
		t.Fatal(err)
	}
	back := map[string]bool{}
	r.await("everything back", func(p Progress) bool {
		if p.Step == StepPutBack && p.Revision.ID == rev && p.Action.Op == plan.Create {
			back[p.Action.Ref.String()] = true
		}
		return len(back) == 3
	})
	if !has[*corev1.ConfigMap](r, "shop", "a") || !has[*corev1.ConfigMap](r, "shop", "b") {
		t.Errorf("back is only %v", back)
	}
}

func TestNamespaceWithOthersObjectsWaits(t *testing.T) {
	r := newRig(t, memory.New())
	r.start(Config{})
	f := shop()
	f["old.yaml"] = namespaceFile("old")
	r.settle(f)
	r.create(&corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Namespace: "old", Name: "precious"}})
	delete(f, "old.yaml")
	rev := r.push(f)
	p := r.awaitStep(StepAwaiting, rev)
	if want := "deleting Namespace old waits for confirmation: it holds 1 object not made by Git: ConfigMap old/precious"; p.Text != want {
		t.Errorf("question %q, want %q", p.Text, want)
	}
	if err := New(r.admin, event.Discard, r.log, Config{}).Confirm(t.Context(), rev); err != nil {
		t.Fatal(err)
	}
	r.awaitStep(StepSettled, rev)
	if has[*corev1.Namespace](r, "", "old") {
		t.Error("the namespace is still there")
	}
}

func TestUnsupportedFieldRefusesItsObject(t *testing.T) {
	r := newRig(t, memory.New())
	r.start(Config{})
	f := shop()
	f["web.yaml"] = deploymentFile("web", "nginx:1") + "      runtimeClassName: gvisor\n"
	rev := r.push(f)
	p := r.awaitStep(StepSettled, rev)
	if len(p.Status.Errors) != 1 || !strings.HasPrefix(p.Status.Errors[0], "web.yaml:1: Deployment/shop/web: UnsupportedField: spec.template.spec.runtimeClassName: ") ||
		!strings.HasSuffix(p.Status.Errors[0], "(line 18)") {
		t.Errorf("errors %q", p.Status.Errors)
	}
	if has[*appsv1.Deployment](r, "shop", "web") || !has[*corev1.ConfigMap](r, "shop", "a") {
		t.Error("want web refused and the rest applied")
	}
}

func TestSourceThatCannotBeRead(t *testing.T) {
	r := newRig(t, memory.New())
	r.start(Config{})
	rev := r.settle(shop())
	broken := func() metav1.Condition {
		r.updates <- gitsource.Update{Err: errors.New("connection refused")}
		r.await("fetch error", func(p Progress) bool { return p.Step == StepFetch && p.Text == "connection refused" })
		return *meta.FindStatusCondition(r.source().Status.Conditions, ConditionFetched)
	}
	first := broken()
	version := r.source().ResourceVersion
	if first.Status != metav1.ConditionFalse || first.Message != "connection refused" {
		t.Errorf("condition %+v", first)
	}
	if second := broken(); second != first || r.source().ResourceVersion != version {
		t.Errorf("the same problem was written twice: %+v, then %+v", first, second)
	}
	r.push(shop())
	r.await("readable again", func(p Progress) bool { return p.Step == StepFetch && p.Text == "" })
	if src := r.source(); src.Status.Applied != rev || !meta.IsStatusConditionTrue(src.Status.Conditions, ConditionFetched) {
		t.Errorf("status %+v", src.Status)
	}
}
