package registry

import (
	"testing"

	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"

	"github.com/slipway-dev/slipway/apiserver/api"
	"github.com/slipway-dev/slipway/apiserver/store"
)

// TestWorkloadsDoWhatRolesAllow goes through the client, reads and writes.
func TestWorkloadsDoWhatRolesAllow(t *testing.T) {
	f := newFixture(t)
	f.namespace(t, "shop")
	f.create(t, &rbacv1.Role{ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: "r"}, Rules: []rbacv1.PolicyRule{
		{Verbs: []string{"get", "list", "watch", "create"}, APIGroups: []string{""}, Resources: []string{"configmaps"}},
		{Verbs: []string{"create"}, APIGroups: []string{"rbac.authorization.k8s.io"}, Resources: []string{"roles", "rolebindings"}},
		{Verbs: []string{"list"}, APIGroups: []string{""}, Resources: []string{"secrets"}, ResourceNames: []string{"mine"}},
	}})
	f.create(t, &rbacv1.RoleBinding{ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: "b"}, RoleRef: rbacv1.RoleRef{APIGroup: "rbac.authorization.k8s.io", Kind: "Role", Name: "r"},
		Subjects: []rbacv1.Subject{{Kind: "ServiceAccount", Name: "web", Namespace: "shop"}}})
	web := f.As(Identity{Name: "system:serviceaccount:shop:web", Groups: []string{"system:serviceaccounts", "system:authenticated"}})
	in := func(namespace string) *corev1.ConfigMap {
		return &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: "c"}}
	}
	role := &rbacv1.Role{ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: "more"}, Rules: []rbacv1.PolicyRule{{Verbs: []string{"*"}, APIGroups: []string{"*"}, Resources: []string{"*"}}}}
	bind := &rbacv1.RoleBinding{ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: "more"}, RoleRef: rbacv1.RoleRef{APIGroup: "rbac.authorization.k8s.io", Kind: "ClusterRole", Name: "cluster-admin"}}
	tests := []struct {
		name    string
		do      func() error
		allowed bool
	}{
		{"create in its namespace", func() error { _, err := web.Create(f.ctx, in("shop"), store.CreateOptions{}); return err }, true},
		{"create elsewhere", func() error { _, err := web.Create(f.ctx, in("default"), store.CreateOptions{}); return err }, false},
		{"try to create elsewhere", func() error {
			_, err := web.Create(f.ctx, in("default"), store.CreateOptions{DryRun: true})
			return err
		}, false},
		{"get", func() error { _, err := web.Get(f.ctx, api.ConfigMaps, "shop", "c"); return err }, true},
		{"update", func() error { _, err := web.Update(f.ctx, in("shop"), store.UpdateOptions{}); return err }, false},
		{"list", func() error {
			_, err := web.List(f.ctx, api.ConfigMaps, store.ListOptions{Namespace: "shop"})
			return err
		}, true},
		{"list everywhere", func() error { _, err := web.List(f.ctx, api.ConfigMaps, store.ListOptions{}); return err }, false},
		{"watch everywhere", func() error { _, err := web.Watch(f.ctx, api.ConfigMaps, store.WatchOptions{}); return err }, false},
		{"list one Secret by name", func() error {
			_, err := web.List(f.ctx, api.Secrets, store.ListOptions{Namespace: "shop", Fields: fields.OneTermEqualSelector("metadata.name", "mine")})
			return err
		}, true},
		{"list another Secret", func() error {
			_, err := web.List(f.ctx, api.Secrets, store.ListOptions{Namespace: "shop", Fields: fields.OneTermEqualSelector("metadata.name", "other")})
			return err
		}, false},
		{"give itself a role", func() error { _, err := web.Create(f.ctx, role, store.CreateOptions{}); return err }, false},
		{"bind itself to a role", func() error { _, err := web.Create(f.ctx, bind, store.CreateOptions{}); return err }, false},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			if err := test.do(); test.allowed && err != nil || !test.allowed && !apierrors.IsForbidden(err) {
				t.Errorf("got %v, want allowed: %t", err, test.allowed)
			}
		})
	}
}
