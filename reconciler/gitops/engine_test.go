package gitops

import (
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/slipway-dev/slipway/apiserver/api"
	slipwayv1 "github.com/slipway-dev/slipway/apiserver/api/v1alpha1"
	"github.com/slipway-dev/slipway/apiserver/event"
	"github.com/slipway-dev/slipway/apiserver/store"
	"github.com/slipway-dev/slipway/apiserver/store/kv/memory"
	"github.com/slipway-dev/slipway/gitsource"
	"github.com/slipway-dev/slipway/reconciler/gitops/health"
)

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
	if src.Status.Applied != ro.Spec.Revision || src.Status.AppliedAs != ro.Spec.Revision[:7] || src.Status.Seen != ro.Spec.Revision {
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

// A tree that moves to other names makes as much as it deletes: what it made does not outnumber the question, however
// often the tree is looked at again, and whichever commit comes next.
func TestMassDeletionWaitsWhateverIsMade(t *testing.T) {
	r := newRig(t, memory.New())
	r.start(Config{})
	r.settle(manyFiles(12))
	moved := files{"ns.yaml": namespaceFile("shop")}
	for i := range 12 {
		moved[fmt.Sprintf("d%02d.yaml", i)] = configFile(fmt.Sprintf("d%02d", i), "1")
	}
	rev := r.push(moved)
	r.awaitStep(StepAwaiting, rev)
	moved["d00.yaml"] = configFile("d00", "2")
	newer := r.push(moved)
	if p := r.awaitStep(StepAwaiting, newer); p.Text != "deleting 12 of 13 objects waits for confirmation" {
		t.Errorf("question %q", p.Text)
	}
	if !has[*corev1.ConfigMap](r, "shop", "c11") {
		t.Error("c11 was deleted without confirmation")
	}
	back := manyFiles(12)
	for name, text := range moved {
		back[name] = text
	}
	r.settle(back)
	if src := r.source(); src.Status.Awaiting != "" || src.Status.AwaitingOf != 0 {
		t.Errorf("the question is still there: %+v", src.Status)
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
	r.await("the namespace leaves", func(p Progress) bool {
		return p.Step == StepWorkload && p.Ref.Name == "old" && p.Health.Status == health.Terminating
	})
	if ro := r.record(); final(ro.Status.Phase) {
		t.Errorf("the record says %s before the namespace is gone", ro.Status.Phase)
	}
	r.finalize("old")
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
