package registry

import (
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/slipway-dev/slipway/apiserver/api"
	slipwayv1 "github.com/slipway-dev/slipway/apiserver/api/v1alpha1"
	"github.com/slipway-dev/slipway/apiserver/store"
)

const webManifest = `
apiVersion: apps/v1
kind: Deployment
metadata: {name: web, namespace: default, labels: {team: shop}}
spec:
  replicas: 2
  selector: {matchLabels: {app: web}}
  template:
    metadata: {labels: {app: web}}
    spec: {containers: [{name: main, image: "example.com/web:1", env: [{name: A, value: "1"}]}]}
`

func apply(manifest, manager string) store.Patch {
	return store.Patch{Type: types.ApplyYAMLPatchType, Data: []byte(manifest), FieldManager: manager}
}

func (f *fixture) apply(t testing.TB, kind *api.Kind, name string, patch store.Patch) api.Object {
	t.Helper()
	namespace := ""
	if kind.Namespaced {
		namespace = "default"
	}
	obj, err := f.admin.Patch(f.ctx, kind, namespace, name, patch)
	if err != nil {
		t.Fatalf("apply %s %s: %v", kind, name, err)
	}
	return obj
}

// managers lists who has a record, as "manager operation subresource".
func managers(obj api.Object) []string {
	var all []string
	for _, e := range obj.GetManagedFields() {
		all = append(all, strings.TrimSpace(e.Manager+" "+string(e.Operation)+" "+e.Subresource))
	}
	return all
}

func TestApplyTwiceWritesOnce(t *testing.T) {
	f := newFixture(t)
	manifests := []struct {
		kind           *api.Kind
		name, manifest string
	}{
		{api.Deployments, "web", webManifest},
		{api.Services, "web", "apiVersion: v1\nkind: Service\nmetadata: {name: web}\nspec: {type: NodePort, selector: {app: web}, ports: [{port: 80}]}\n"},
		{api.Secrets, "s", "apiVersion: v1\nkind: Secret\nmetadata: {name: s}\nstringData: {a: b}\n"},
		{api.ConfigMaps, "c", "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: c}\ndata: {a: b}\n"},
		{api.Namespaces, "shop", "apiVersion: v1\nkind: Namespace\nmetadata: {name: shop, labels: {a: b}}\n"},
		{api.Pods, "p", "apiVersion: v1\nkind: Pod\nmetadata: {name: p}\nspec: {containers: [{name: a, image: b}]}\n"},
		{api.Roles, "r", "apiVersion: rbac.authorization.k8s.io/v1\nkind: Role\nmetadata: {name: r}\nrules: [{apiGroups: [\"\"], resources: [pods], verbs: [get]}]\n"},
		{api.Sources, "default", "apiVersion: slipway.dev/v1alpha1\nkind: Source\nmetadata: {name: default}\nspec: {dir: /x}\n"},
	}
	for _, m := range manifests {
		first := f.apply(t, m.kind, m.name, apply(m.manifest, api.ManagerGit))
		if diff := cmp.Diff([]string{"slipway-git Apply"}, managers(first)); diff != "" {
			t.Errorf("%s: managers (-want +got):\n%s", m.kind, diff)
		}
		f.clock.now = f.clock.now.Add(time.Minute)
		second := f.apply(t, m.kind, m.name, apply(m.manifest, api.ManagerGit))
		if first.GetResourceVersion() != second.GetResourceVersion() {
			t.Errorf("%s: the second apply was written:\n%s", m.kind, cmp.Diff(first, second))
		}
	}
}

func TestApplyRemovesWhatTheManifestDrops(t *testing.T) {
	f := newFixture(t)
	f.apply(t, api.Deployments, "web", apply(webManifest, api.ManagerGit))
	f.patch(t, "web", `{"metadata":{"annotations":{"example.com/mine":"1"}}}`, "hand")
	without := strings.Replace(strings.Replace(webManifest, `, env: [{name: A, value: "1"}]`, "", 1), ", labels: {team: shop}", "", 1)
	got := f.apply(t, api.Deployments, "web", apply(without, api.ManagerGit)).(*appsv1.Deployment)
	if got.Labels != nil || got.Spec.Template.Spec.Containers[0].Env != nil {
		t.Errorf("what the manifest dropped stayed: %v %v", got.Labels, got.Spec.Template.Spec.Containers[0].Env)
	}
	if got.Annotations["example.com/mine"] != "1" {
		t.Error("what another set is gone")
	}
	if *got.Spec.Replicas != 2 || got.Generation != 3 {
		t.Errorf("replicas %d, generation %d", *got.Spec.Replicas, got.Generation)
	}
}

func (f *fixture) patch(t testing.TB, name, data, manager string) api.Object {
	t.Helper()
	obj, err := f.admin.Patch(f.ctx, api.Deployments, "default", name, store.Patch{Type: types.MergePatchType, Data: []byte(data), FieldManager: manager})
	if err != nil {
		t.Fatal(err)
	}
	return obj
}

func TestApplyConflicts(t *testing.T) {
	f := newFixture(t)
	f.apply(t, api.Deployments, "web", apply(webManifest, api.ManagerGit))
	f.patch(t, "web", `{"spec":{"replicas":5}}`, "hand")
	_, err := f.admin.Patch(f.ctx, api.Deployments, "default", "web", apply(webManifest, api.ManagerGit))
	status, ok := err.(apierrors.APIStatus)
	if !ok || !apierrors.IsConflict(err) || len(status.Status().Details.Causes) != 1 || status.Status().Details.Causes[0].Field != ".spec.replicas" {
		t.Errorf("got %v, want a Conflict about .spec.replicas", err)
	}
	forced := apply(webManifest, api.ManagerGit)
	forced.Force = true
	got := f.apply(t, api.Deployments, "web", forced).(*appsv1.Deployment)
	if *got.Spec.Replicas != 2 {
		t.Errorf("forced: %d replicas, want 2", *got.Spec.Replicas)
	}
}

func TestApplyRefuses(t *testing.T) {
	f := newFixture(t)
	tests := map[string]struct {
		patch store.Patch
		want  string
	}{
		"no manager":        {apply(webManifest, ""), "fieldManager is required"},
		"another name":      {apply(strings.Replace(webManifest, "name: web,", "name: other,", 1), "x"), "does not match the name"},
		"another namespace": {apply(strings.Replace(webManifest, "namespace: default", "namespace: other", 1), "x"), "does not match the namespace"},
		"an unknown field":  {apply(strings.Replace(webManifest, "replicas:", "replica:", 1), "x"), `unknown field "spec.replica"`},
		"a field set twice": {apply(strings.Replace(webManifest, "replicas: 2", "replicas: 2\n  replicas: 3", 1), "x"), `"replicas" already set`},
		"another kind":      {apply(strings.Replace(webManifest, "kind: Deployment", "kind: ReplicaSet", 1), "x"), "ReplicaSet"},
		"managedFields":     {apply(strings.Replace(webManifest, "metadata: {name: web,", "metadata: {managedFields: [{manager: x}], name: web,", 1), "x"), "managedFields must be nil"},
		"what is not there": {apply(strings.Replace(webManifest, "metadata: {name: web,", "metadata: {uid: x, name: web,", 1), "x"), "does not exist"},
		"what is not valid": {apply(strings.Replace(webManifest, "matchLabels: {app: web}", "matchLabels: {app: other}", 1), "x"), "spec.template.metadata.labels"},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			_, err := f.admin.Patch(f.ctx, api.Deployments, "default", "web", test.patch)
			if err == nil || !strings.Contains(err.Error(), test.want) {
				t.Errorf("got %v, want %q", err, test.want)
			}
		})
	}
	f.gone(t, api.Deployments, "default", "web")
}

func TestDryRunApplyStoresNothing(t *testing.T) {
	f := newFixture(t)
	patch := apply(webManifest, api.ManagerGit)
	patch.DryRun = true
	if got := f.apply(t, api.Deployments, "web", patch); got.GetUID() == "" || got.GetResourceVersion() != "" {
		t.Errorf("%+v", got)
	}
	f.gone(t, api.Deployments, "default", "web")
	first := f.apply(t, api.Deployments, "web", apply(webManifest, api.ManagerGit))
	patch.Data = []byte(strings.Replace(webManifest, "replicas: 2", "replicas: 3", 1))
	if got := f.apply(t, api.Deployments, "web", patch).(*appsv1.Deployment); *got.Spec.Replicas != 3 || got.Generation != 2 {
		t.Errorf("%+v", got)
	}
	if got, _ := f.admin.Get(f.ctx, api.Deployments, "default", "web"); got.GetResourceVersion() != first.GetResourceVersion() {
		t.Error("a dry run was written")
	}
}

// TestPartsOwnWhatTheyWrite: the short record of a part means the same to the merge as a long one.
func TestPartsOwnWhatTheyWrite(t *testing.T) {
	f := newFixture(t)
	part := f.As(Controller("serviceaccount"))
	made, err := part.Create(f.ctx, &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: "c"}, Data: map[string]string{"a": "1"}}, store.CreateOptions{FieldManager: "part"})
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff([]string{"part Update"}, managers(made)); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	const manifest = "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: c}\ndata: {a: \"2\"}\n"
	if _, err := f.admin.Patch(f.ctx, api.ConfigMaps, "default", "c", apply(manifest, api.ManagerGit)); !apierrors.IsConflict(err) {
		t.Errorf("apply over a part's field: got %v, want Conflict", err)
	}
	patch := apply(manifest, api.ManagerGit)
	patch.Force = true
	f.apply(t, api.ConfigMaps, "c", patch)
	again := f.apply(t, api.ConfigMaps, "c", apply(manifest, api.ManagerGit)).(*corev1.ConfigMap)
	if again.Data["a"] != "2" {
		t.Errorf("data %v", again.Data)
	}
}

func TestStatusRecordsOfParts(t *testing.T) {
	f := newFixture(t)
	f.apply(t, api.Deployments, "web", apply(webManifest, api.ManagerGit))
	controller := f.As(Controller("deployment"))
	for i := range 3 {
		d, err := store.Get[*appsv1.Deployment](f.ctx, controller, "default", "web")
		if err != nil {
			t.Fatal(err)
		}
		d = d.DeepCopy()
		d.Status.Replicas = int32(i + 1)
		if _, err := controller.Update(f.ctx, d, store.UpdateOptions{Subresource: "status", FieldManager: "deployment-controller"}); err != nil {
			t.Fatal(err)
		}
	}
	d, err := store.Get[*appsv1.Deployment](f.ctx, f.admin, "default", "web")
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff([]string{"slipway-git Apply", "deployment-controller Update status"}, managers(d)); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	// The next apply of the same manifest still finds nothing to do.
	if got := f.apply(t, api.Deployments, "web", apply(webManifest, api.ManagerGit)); got.GetResourceVersion() != d.ResourceVersion {
		t.Errorf("apply after status was written:\n%s", cmp.Diff(d, got))
	}
	// A controller that writes beside status goes through the merge and does not take Git's fields.
	d = d.DeepCopy()
	d.Annotations = map[string]string{"deployment.kubernetes.io/revision": "1"}
	if _, err := controller.Update(f.ctx, d, store.UpdateOptions{FieldManager: "deployment-controller"}); err != nil {
		t.Fatal(err)
	}
	if got := f.apply(t, api.Deployments, "web", apply(webManifest, api.ManagerGit)); got.GetAnnotations()["deployment.kubernetes.io/revision"] != "1" {
		t.Error("apply took away the controller's annotation")
	}
}

func TestStatusOfOwnKinds(t *testing.T) {
	f := newFixture(t)
	f.apply(t, api.Sources, "default", apply("apiVersion: slipway.dev/v1alpha1\nkind: Source\nmetadata: {name: default}\nspec: {dir: /x}\n", "slipway"))
	git := f.As(GitOps())
	src, err := store.Get[*slipwayv1.Source](f.ctx, git, "", "default")
	if err != nil {
		t.Fatal(err)
	}
	next := src.DeepCopy()
	next.Status.Seen = "abc"
	got, err := git.Update(f.ctx, next, store.UpdateOptions{Subresource: "status", FieldManager: "slipway"})
	if err != nil || got.(*slipwayv1.Source).Status.Seen != "abc" {
		t.Errorf("%+v, %v", got, err)
	}
}

// TestRememberedApplies: what is known to change nothing is asked again when the object or the manifest changes.
func TestRememberedApplies(t *testing.T) {
	f := newFixture(t)
	first := f.apply(t, api.Deployments, "web", apply(webManifest, api.ManagerGit))
	for range 3 {
		if got := f.apply(t, api.Deployments, "web", apply(webManifest, api.ManagerGit)); got.GetResourceVersion() != first.GetResourceVersion() {
			t.Fatal("an equal apply was written")
		}
	}
	f.patch(t, "web", `{"metadata":{"labels":{"team":"bank"}}}`, "hand")
	forced := apply(webManifest, api.ManagerGit)
	forced.Force = true
	if got := f.apply(t, api.Deployments, "web", forced); got.GetLabels()["team"] != "shop" {
		t.Errorf("drift stayed: %v", got.GetLabels())
	}
	other := apply(strings.Replace(webManifest, "replicas: 2", "replicas: 4", 1), api.ManagerGit)
	if got := f.apply(t, api.Deployments, "web", other).(*appsv1.Deployment); *got.Spec.Replicas != 4 {
		t.Errorf("another manifest: %d replicas", *got.Spec.Replicas)
	}
	pinned := apply(strings.Replace(webManifest, "metadata: {name: web,", `metadata: {resourceVersion: "1", name: web,`, 1), api.ManagerGit)
	if _, err := f.admin.Patch(f.ctx, api.Deployments, "default", "web", pinned); !apierrors.IsConflict(err) {
		t.Errorf("an old resourceVersion: got %v, want Conflict", err)
	}
	now := f.apply(t, api.Deployments, "web", other)
	pinned = apply(strings.Replace(string(other.Data), "metadata: {name: web,", `metadata: {resourceVersion: "`+now.GetResourceVersion()+`", name: web,`, 1), api.ManagerGit)
	f.apply(t, api.Deployments, "web", pinned)
	moved := now.DeepCopyObject().(*appsv1.Deployment)
	moved.Status.Replicas = 1
	f.update(t, moved, "status")
	if _, err := f.admin.Patch(f.ctx, api.Deployments, "default", "web", pinned); !apierrors.IsConflict(err) {
		t.Errorf("a resourceVersion that was the newest: got %v, want Conflict", err)
	}
	again := apply(strings.Replace(webManifest, "metadata: {name: web,", "metadata: {uid: other, name: web,", 1), api.ManagerGit)
	if _, err := f.admin.Patch(f.ctx, api.Deployments, "default", "web", again); !apierrors.IsConflict(err) {
		t.Errorf("another uid: got %v, want Conflict", err)
	}
}
