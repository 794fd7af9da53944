package registry

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	appsv1 "k8s.io/api/apps/v1"
	authenticationv1 "k8s.io/api/authentication/v1"
	authorizationv1 "k8s.io/api/authorization/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/slipway-dev/slipway/apiserver/api"
	"github.com/slipway-dev/slipway/apiserver/store"
)

func TestPeopleWriteNothing(t *testing.T) {
	f := newFixture(t)
	d := deployment("web")
	d.Annotations = map[string]string{api.AnnotationOrigin: "shop/web.yaml:12@3f2c1ab"}
	made := f.create(t, d).(*appsv1.Deployment)
	rs := &appsv1.ReplicaSet{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: "web-1", OwnerReferences: []metav1.OwnerReference{*metav1.NewControllerRef(made, api.Deployments.GroupVersionKind)}},
		Spec: appsv1.ReplicaSetSpec{Selector: d.Spec.Selector, Template: d.Spec.Template}}
	madeSet := f.create(t, rs).(*appsv1.ReplicaSet)
	p := pod("web-1-a")
	p.OwnerReferences = []metav1.OwnerReference{*metav1.NewControllerRef(madeSet, api.ReplicaSets.GroupVersionKind)}
	madePod := f.create(t, p).(*corev1.Pod)

	people := f.As(People("eve"))
	const fromGit = "it comes from shop/web.yaml:12 at 3f2c1ab; change it in Git"
	tests := map[string]struct {
		write func() error
		want  string
	}{
		"update": {func() error { _, err := people.Update(f.ctx, made, store.UpdateOptions{}); return err }, `deployments "web" is read-only here: ` + fromGit},
		"status": {func() error {
			_, err := people.Update(f.ctx, made, store.UpdateOptions{Subresource: "status"})
			return err
		}, `deployments "web" is read-only here: ` + fromGit},
		"patch": {func() error {
			_, err := people.Patch(f.ctx, api.Deployments, "default", "web", store.Patch{Type: types.MergePatchType, Data: []byte(`{}`)})
			return err
		}, `deployments "web" is read-only here: ` + fromGit},
		"apply": {func() error {
			_, err := people.Patch(f.ctx, api.Deployments, "default", "web", apply(webManifest, "x"))
			return err
		}, `deployments "web" is read-only here: ` + fromGit},
		"delete": {func() error {
			_, err := people.Delete(f.ctx, api.Deployments, "default", "web", store.DeleteOptions{})
			return err
		}, `deployments "web" is read-only here: ` + fromGit},
		"delete a Pod of it": {func() error {
			_, err := people.Delete(f.ctx, api.Pods, "default", madePod.Name, store.DeleteOptions{})
			return err
		}, `pods "web-1-a" is read-only here: ` + fromGit},
		"delete what is not of Git": {func() error {
			_, err := people.Delete(f.ctx, api.ServiceAccounts, "default", "default", store.DeleteOptions{})
			return err
		}, `serviceaccounts "default" is read-only here: people change the cluster in Git`},
		"delete what is not there": {func() error {
			_, err := people.Delete(f.ctx, api.Pods, "default", "none", store.DeleteOptions{})
			return err
		}, `pods "none" is read-only here: people change the cluster in Git`},
		"create": {func() error { _, err := people.Create(f.ctx, pod("new"), store.CreateOptions{}); return err }, `pods "new" is read-only here: people change the cluster in Git`},
		"bind": {func() error {
			_, err := people.Create(f.ctx, &corev1.Binding{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: madePod.Name}, Target: corev1.ObjectReference{Name: "n"}}, store.CreateOptions{Subresource: "binding"})
			return err
		}, `cannot create resource "pods/binding"`},
		"finalize": {func() error {
			_, err := people.Update(f.ctx, &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: "default"}}, store.UpdateOptions{Subresource: "finalize"})
			return err
		}, `cannot update resource "namespaces/finalize"`},
		"try to bind": {func() error {
			_, err := people.Create(f.ctx, &corev1.Binding{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: madePod.Name}, Target: corev1.ObjectReference{Name: "n"}}, store.CreateOptions{Subresource: "binding", DryRun: true})
			return err
		}, `cannot create resource "pods/binding"`},
	}
	before := f.revision(t)
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			err := test.write()
			if !apierrors.IsForbidden(err) || !strings.Contains(err.Error(), test.want) {
				t.Errorf("got  %v\nwant %s", err, test.want)
			}
		})
	}
	if after := f.revision(t); after != before {
		t.Errorf("something was written: revision %d, then %d", before, after)
	}
}

func (f *fixture) revision(t *testing.T) uint64 {
	t.Helper()
	revision, err := f.store.Revision(f.ctx)
	if err != nil {
		t.Fatal(err)
	}
	return revision
}

func TestPeopleTryWrites(t *testing.T) {
	f := newFixture(t)
	f.create(t, deployment("web"))
	people := f.As(People("eve"))
	before := f.revision(t)
	if got, err := people.Create(f.ctx, pod("new"), store.CreateOptions{DryRun: true}); err != nil || got.(*corev1.Pod).Spec.ServiceAccountName != "default" {
		t.Errorf("create: %+v, %v", got, err)
	}
	if _, err := people.Create(f.ctx, deployment("web"), store.CreateOptions{DryRun: true}); !apierrors.IsAlreadyExists(err) {
		t.Errorf("create what is there: %v", err)
	}
	if got, err := people.Patch(f.ctx, api.Deployments, "default", "web", store.Patch{Type: types.MergePatchType, Data: []byte(`{"spec":{"replicas":3}}`), DryRun: true}); err != nil || got.GetGeneration() != 2 {
		t.Errorf("patch: %+v, %v", got, err)
	}
	if _, err := people.Patch(f.ctx, api.Deployments, "default", "web", store.Patch{Type: types.MergePatchType, Data: []byte(`{"spec":{"replicas":-3}}`), DryRun: true}); !apierrors.IsInvalid(err) {
		t.Errorf("an invalid patch: %v", err)
	}
	if _, err := people.Delete(f.ctx, api.Deployments, "default", "web", store.DeleteOptions{DryRun: true}); err != nil {
		t.Errorf("delete: %v", err)
	}
	if after := f.revision(t); after != before {
		t.Errorf("a dry run was written: revision %d, then %d", before, after)
	}
}

// TestPeopleSeeNoSecrets tries every way by which a value could come out.
func TestPeopleSeeNoSecrets(t *testing.T) {
	f := newFixture(t)
	const value = "hunter2"
	f.create(t, &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: "s", Annotations: map[string]string{corev1.LastAppliedConfigAnnotation: value, "a": "b"}}, StringData: map[string]string{"password": value}})
	people := f.As(People("eve"))
	dry := func(kind types.PatchType, data string) (any, error) {
		return people.Patch(f.ctx, api.Secrets, "default", "s", store.Patch{Type: kind, Data: []byte(data), DryRun: true, FieldManager: "eve"})
	}
	tests := map[string]func() (any, error){
		"get":  func() (any, error) { return people.Get(f.ctx, api.Secrets, "default", "s") },
		"list": func() (any, error) { return people.List(f.ctx, api.Secrets, store.ListOptions{}) },
		"watch": func() (any, error) {
			w, err := people.Watch(f.ctx, api.Secrets, store.WatchOptions{})
			if err != nil {
				return nil, err
			}
			defer w.Close()
			return w.Next(f.ctx)
		},
		"an empty patch": func() (any, error) { return dry(types.MergePatchType, `{}`) },
		"a copying patch": func() (any, error) {
			return dry(types.JSONPatchType, `[{"op":"copy","from":"/data/password","path":"/metadata/annotations/x"}]`)
		},
		"an update": func() (any, error) {
			s := &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: "s"}}
			return people.Update(f.ctx, s, store.UpdateOptions{DryRun: true})
		},
		"an apply": func() (any, error) {
			return dry(types.ApplyYAMLPatchType, "apiVersion: v1\nkind: Secret\nmetadata: {labels: {a: b}}\n")
		},
		"a deletion": func() (any, error) {
			return people.Delete(f.ctx, api.Secrets, "default", "s", store.DeleteOptions{DryRun: true})
		},
		"the same, made": func() (any, error) {
			return people.Create(f.ctx, &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: "t"}, StringData: map[string]string{"a": value}}, store.CreateOptions{DryRun: true})
		},
	}
	for name, read := range tests {
		t.Run(name, func(t *testing.T) {
			got, err := read()
			if err != nil {
				t.Fatal(err)
			}
			text, err := json.Marshal(got)
			if err != nil {
				t.Fatal(err)
			}
			seen := string(text) + fmt.Sprintf("%+v", got)
			for _, leak := range []string{value, "aHVudGVyMg"} {
				if strings.Contains(seen, leak) {
					t.Errorf("shows %s: %s", leak, text)
				}
			}
		})
	}
	if s, err := store.Get[*corev1.Secret](f.ctx, f.admin, "default", "s"); err != nil || string(s.Data["password"]) != value {
		t.Errorf("the Secret itself: %+v, %v", s, err)
	}
	// A test operation must not tell right guesses from wrong ones.
	right, wrong := "aHVudGVyMg==", "aHVudGVyMw=="
	_, one := dry(types.JSONPatchType, `[{"op":"test","path":"/data/password","value":"`+right+`"}]`)
	_, other := dry(types.JSONPatchType, `[{"op":"test","path":"/data/password","value":"`+wrong+`"}]`)
	if (one == nil) != (other == nil) {
		t.Errorf("a guess is confirmed: %v, %v", one, other)
	}
}

func TestSelfReviews(t *testing.T) {
	f := newFixture(t)
	people := f.As(Identity{Name: "eve", UID: "1", Groups: []string{GroupPeople, "system:authenticated"}, Extra: map[string][]string{"a": {"b"}}})
	who, err := people.Create(f.ctx, &authenticationv1.SelfSubjectReview{}, store.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	want := authenticationv1.UserInfo{Username: "eve", UID: "1", Groups: []string{GroupPeople, "system:authenticated"}, Extra: map[string]authenticationv1.ExtraValue{"a": {"b"}}}
	if diff := cmp.Diff(want, who.(*authenticationv1.SelfSubjectReview).Status.UserInfo); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	for verb, allowed := range map[string]bool{"list": true, "create": false} {
		review := &authorizationv1.SelfSubjectAccessReview{Spec: authorizationv1.SelfSubjectAccessReviewSpec{ResourceAttributes: &authorizationv1.ResourceAttributes{Verb: verb, Resource: "pods", Namespace: "default"}}}
		got, err := people.Create(f.ctx, review, store.CreateOptions{})
		if err != nil || got.(*authorizationv1.SelfSubjectAccessReview).Status.Allowed != allowed {
			t.Errorf("%s pods: %+v, %v", verb, got, err)
		}
	}
	if _, err := people.Create(f.ctx, &authorizationv1.SelfSubjectAccessReview{}, store.CreateOptions{}); !apierrors.IsInvalid(err) {
		t.Errorf("a review of nothing: got %v, want Invalid", err)
	}
	rules, err := people.Create(f.ctx, &authorizationv1.SelfSubjectRulesReview{Spec: authorizationv1.SelfSubjectRulesReviewSpec{Namespace: "default"}}, store.CreateOptions{})
	if err != nil || len(rules.(*authorizationv1.SelfSubjectRulesReview).Status.ResourceRules) == 0 {
		t.Errorf("%+v, %v", rules, err)
	}
}

func TestAuditHearsEveryWrite(t *testing.T) {
	var heard []string
	f := newFixture(t, func(c *Config) {
		c.Audit = func(e Entry) {
			heard = append(heard, fmt.Sprintf("%s %s %s %s/%s refused=%t", e.Identity.Name, e.Verb, e.Kind, e.Namespace, e.Name, e.Err != nil))
		}
	})
	heard = nil
	f.create(t, deployment("web"))
	f.patch(t, "web", `{"spec":{"replicas":3}}`, "x")
	if _, err := f.As(People("eve")).Delete(f.ctx, api.Deployments, "default", "web", store.DeleteOptions{}); err == nil {
		t.Error("a person deleted")
	}
	f.delete(t, api.Deployments, "default", "web", store.DeleteOptions{})
	want := []string{
		"system:admin create deployments.apps default/web refused=false", "system:admin patch deployments.apps default/web refused=false",
		"eve delete deployments.apps default/web refused=true", "system:admin delete deployments.apps default/web refused=false",
	}
	if diff := cmp.Diff(want, heard); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}
