package plan

import (
	"encoding/json"
	"testing"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"github.com/slipway-dev/slipway/apiserver/api"
	"github.com/slipway-dev/slipway/gitsource"
	"github.com/slipway-dev/slipway/gitsource/manifest"
)

func TestNeeds(t *testing.T) {
	yes := true
	named := func(name string) corev1.LocalObjectReference { return corev1.LocalObjectReference{Name: name} }
	pod := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: "p"}}
	pod.Spec.ServiceAccountName = "account"
	pod.Spec.Volumes = []corev1.Volume{
		{VolumeSource: corev1.VolumeSource{ConfigMap: &corev1.ConfigMapVolumeSource{LocalObjectReference: named("files")}}},
		{VolumeSource: corev1.VolumeSource{Secret: &corev1.SecretVolumeSource{SecretName: "maybe", Optional: &yes}}},
		{VolumeSource: corev1.VolumeSource{Projected: &corev1.ProjectedVolumeSource{Sources: []corev1.VolumeProjection{{Secret: &corev1.SecretProjection{LocalObjectReference: named("projected")}}}}}},
	}
	pod.Spec.InitContainers = []corev1.Container{{EnvFrom: []corev1.EnvFromSource{{SecretRef: &corev1.SecretEnvSource{LocalObjectReference: named("all")}}}}}
	pod.Spec.Containers = []corev1.Container{{Env: []corev1.EnvVar{{Name: "A", Value: "1"},
		{Name: "B", ValueFrom: &corev1.EnvVarSource{ConfigMapKeyRef: &corev1.ConfigMapKeySelector{LocalObjectReference: named("one")}}}}}}
	tests := []struct {
		obj  api.Object
		want []string
	}{
		{pod, []string{"Namespace shop", "ServiceAccount shop/account", "ConfigMap shop/files", "Secret shop/projected", "Secret shop/all", "ConfigMap shop/one"}},
		{&corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: "shop"}}, nil},
		{&rbacv1.RoleBinding{ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: "b"}, RoleRef: rbacv1.RoleRef{Kind: "Role", Name: "r"}}, []string{"Namespace shop", "Role shop/r"}},
		{&rbacv1.RoleBinding{ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: "b"}, RoleRef: rbacv1.RoleRef{Kind: "ClusterRole", Name: "r"}}, []string{"Namespace shop", "ClusterRole r"}},
	}
	for _, tt := range tests {
		var got []string
		for _, r := range (&Want{Object: tt.obj}).Needs() {
			got = append(got, r.String())
		}
		if d := cmp.Diff(tt.want, got); d != "" {
			t.Errorf("%T needs (-want +got):\n%s", tt.obj, d)
		}
	}
}

func secretTree(t *testing.T) *Tree {
	t.Helper()
	tree := Read(manifest.NewReader(), &gitsource.Snapshot{Files: []gitsource.File{{Path: "s.yaml", Data: []byte(`# a comment
apiVersion: v1
kind: Secret
metadata:
  name: s
  annotations: {team: shop}
data: {a: b2xk, b: a2VwdA==}
stringData: {a: new}
`)}}}, "")
	if len(tree.Problems) > 0 || len(tree.Wants) != 1 {
		t.Fatal(tree.Problems, tree.Wants)
	}
	return tree
}

func TestTextCarriesOriginAndPlainSecrets(t *testing.T) {
	text, err := secretTree(t).Wants[0].Text("default", "3f2c1ab")
	if err != nil {
		t.Fatal(err)
	}
	var got map[string]any
	if err := json.Unmarshal(text, &got); err != nil {
		t.Fatal(err)
	}
	want := map[string]any{"apiVersion": "v1", "kind": "Secret",
		"metadata": map[string]any{"name": "s", "namespace": "default", "annotations": map[string]any{
			"team": "shop", "slipway.dev/source": "default", "slipway.dev/origin": "s.yaml:2@3f2c1ab"}},
		"data": map[string]any{"a": "bmV3", "b": "a2VwdA=="}}
	if d := cmp.Diff(want, got); d != "" {
		t.Errorf("text (-want +got):\n%s", d)
	}
}

func TestExplainIsOneLine(t *testing.T) {
	err := apierrors.NewInvalid(api.Pods.GroupVersionKind.GroupKind(), "p", field.ErrorList{field.Forbidden(field.NewPath("spec"),
		"pod updates may not change fields other than `image`\n  core.PodSpec{\n- \t\"a\",\n+ \t\"b\",\n")})
	w := Want{Ref: refTo(api.Pods, "shop", "p"), Object: &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: "p"}}}
	want := "spec: Forbidden: pod updates may not change fields other than `image`"
	if diff := cmp.Diff(want, w.Explain(err)); diff != "" {
		t.Errorf("explained (-want +got):\n%s", diff)
	}
}

func TestExplainShowsNoSecret(t *testing.T) {
	err := apierrors.NewInvalid(api.Secrets.GroupVersionKind.GroupKind(), "s", field.ErrorList{field.Invalid(field.NewPath("data").Key("a"), "hunter2", "no")})
	secret := secretTree(t).Wants[0]
	if got, want := secret.Explain(err), "is not valid: data[a]"; got != want {
		t.Errorf("explained as %q, want %q", got, want)
	}
}
