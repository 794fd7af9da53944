package gitops

import (
	"context"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/google/go-cmp/cmp"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/slipway-dev/slipway/apiserver/api"
	slipwayv1 "github.com/slipway-dev/slipway/apiserver/api/v1alpha1"
	"github.com/slipway-dev/slipway/apiserver/store"
	"github.com/slipway-dev/slipway/apiserver/store/kv/memory"
	"github.com/slipway-dev/slipway/reconciler/gitops/health"
	"github.com/slipway-dev/slipway/reconciler/gitops/plan"
)

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
	if p.Status.Phase != slipwayv1.RolloutFailed || len(p.Status.Errors) != 1 || !strings.HasPrefix(p.Status.Errors[0], "web.yaml:1: Deployment/shop/web: spec.selector: ") || !strings.Contains(p.Status.Errors[0], "(line 9): this cannot be changed in place") {
		t.Errorf("status %+v", p.Status)
	}
	if !has[*corev1.ConfigMap](r, "shop", "c") || get[*appsv1.Deployment](r, "shop", "web").Spec.Template.Spec.Containers[0].Image != "nginx:1" {
		t.Error("want c made and web as it was")
	}
}

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
	before := client.patches.Load()
	r.available("shop", "web") // a new resourceVersion, but nothing of Git's
	r.awaitStep(StepSettled, rev)
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
	r.finalize("shop")
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

// TestNamespaceThatGitBringsBackAtOnce removes a namespace in one commit and has it back in the next, before the first
// one has gone: what is new must not be made in what is leaving.
func TestNamespaceThatGitBringsBackAtOnce(t *testing.T) {
	r := newRig(t, memory.New())
	r.start(Config{})
	f := shop()
	f["b.yaml"] = namespaceFile("b")
	r.settle(f)
	old := get[*corev1.Namespace](r, "", "shop").UID
	rev := r.push(files{"b.yaml": namespaceFile("b")})
	r.await("shop leaves", func(p Progress) bool {
		return p.Step == StepWorkload && p.Ref.Name == "shop" && p.Health.Status == health.Terminating
	})
	if r.record().Spec.Revision != rev {
		t.Errorf("the record is of %s", r.record().Spec.Revision)
	}
	rev = r.push(f)
	p := r.awaitStep(StepPlanned, rev)
	want := []string{"… Namespace shop: is being deleted; it is made again when it is gone", "… ConfigMap shop/a: needs Namespace shop, which is not applied: is being deleted; it is made again when it is gone"}
	if diff := cmp.Diff(want, p.Plan.Lines()); diff != "" {
		t.Error(diff)
	}
	r.finalize("shop")
	if p := r.awaitStep(StepSettled, rev); p.Status.Phase != slipwayv1.RolloutSucceeded {
		t.Errorf("%s: %s", p.Status.Phase, p.Status.Message)
	}
	if get[*corev1.Namespace](r, "", "shop").UID == old || !has[*corev1.ConfigMap](r, "shop", "a") {
		t.Error("the namespace and what is in it are not new")
	}
}

// A field that Git does not set belongs to whoever sets it, such as the replicas of an autoscaler.
func TestFieldsOfOthersStay(t *testing.T) {
	r := newRig(t, memory.New())
	r.start(Config{})
	f := shop()
	f["web.yaml"] = strings.Replace(deploymentFile("web", "nginx:1"), "  replicas: 2\n", "", 1)
	rev := r.push(f)
	r.await("web waits", func(p Progress) bool { return p.Step == StepWorkload && p.Revision.ID == rev })
	r.available("shop", "web")
	r.awaitStep(StepSettled, rev)
	r.patch(api.Deployments, "shop", "web", `{"spec":{"replicas":5}}`)
	r.available("shop", "web")
	f["web.yaml"] = "# moved by one line\n" + f["web.yaml"]
	rev = r.push(f)
	if p := r.awaitStep(StepPlanned, rev); len(p.Plan.Lines()) != 0 {
		t.Errorf("plan %v", p.Plan)
	}
	r.awaitStep(StepSettled, rev)
	f["web.yaml"] = strings.Replace(f["web.yaml"], "nginx:1", "nginx:2", 1)
	rev = r.push(f)
	if p := r.awaitStep(StepPlanned, rev); !cmp.Equal(p.Plan.Lines(), []string{"~ Deployment shop/web: spec.template.spec.containers[0].image: nginx:1 → nginx:2"}) {
		t.Errorf("plan %v", p.Plan)
	}
	r.await("web waits", func(p Progress) bool { return p.Step == StepWorkload && p.Revision.ID == rev })
	d := get[*appsv1.Deployment](r, "shop", "web")
	if *d.Spec.Replicas != 5 || d.Annotations[api.AnnotationOrigin] != "web.yaml:2@"+rev[:7] {
		t.Errorf("replicas %d, origin %s", *d.Spec.Replicas, d.Annotations[api.AnnotationOrigin])
	}
}
