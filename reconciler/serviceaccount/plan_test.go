package serviceaccount

import (
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

func bundle(data map[string]string) *corev1.ConfigMap {
	return &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Name: bundleName}, Data: data}
}

func TestPlan(t *testing.T) {
	active := &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: "shop"}, Status: corev1.NamespaceStatus{Phase: corev1.NamespaceActive}}
	going := active.DeepCopy()
	going.DeletionTimestamp = &metav1.Time{Time: time.Unix(1, 0)}
	account := &corev1.ServiceAccount{}
	tests := []struct {
		name string
		o    observed
		want string
	}{
		{"a new namespace gets both", observed{Namespace: active}, "create serviceaccount default\ncreate configmap kube-root-ca.crt"},
		{"a furnished one nothing", observed{Namespace: active, Account: account, Bundle: bundle(map[string]string{bundleKey: "pem"})}, ""},
		{"a forged certificate is put back", observed{Namespace: active, Account: account, Bundle: bundle(map[string]string{bundleKey: "other"})}, "update configmap kube-root-ca.crt"},
		{"additions are taken out", observed{Namespace: active, Account: account, Bundle: bundle(map[string]string{bundleKey: "pem", "x": "y"})}, "update configmap kube-root-ca.crt"},
		{"one that is going gets nothing", observed{Namespace: going}, ""},
		{"one that is gone neither", observed{}, ""},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			tt.o.RootCA = "pem"
			var lines []string
			for _, a := range plan(tt.o) {
				lines = append(lines, a.String())
				switch a := a.(type) { // what was made needs nothing more
				case CreateAccount:
					tt.o.Account = a.Account
				case CreateBundle:
					tt.o.Bundle = a.Bundle
				case UpdateBundle:
					tt.o.Bundle = a.Bundle
				}
			}
			if diff := cmp.Diff(tt.want, strings.Join(lines, "\n")); diff != "" {
				t.Error(diff)
			}
			if again := plan(tt.o); len(again) != 0 {
				t.Errorf("does not converge: %v", again)
			}
		})
	}
}
