package reconciler

import (
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/slipway-dev/slipway/apiserver/api"
	"github.com/slipway-dev/slipway/apiserver/store"
)

// TestThousandsOfDependants deletes an owner of 5,000 in each of the three ways, and counts how often anything was
// listed: each list is as long as the work that is left.
func TestThousandsOfDependants(t *testing.T) {
	const many = 5000
	for _, tt := range []struct {
		propagation metav1.DeletionPropagation
		left        int
	}{{metav1.DeletePropagationBackground, 0}, {metav1.DeletePropagationForeground, 0}, {metav1.DeletePropagationOrphan, many}} {
		t.Run(string(tt.propagation), func(t *testing.T) {
			inWorld(t, func(w *world) {
				w.create(shop())
				w.pass(time.Second)
				w.create(&corev1.Secret{ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: "owner"}})
				owner, err := w.admin.Get(w.ctx, api.Secrets, "shop", "owner")
				if err != nil {
					t.Fatal(err)
				}
				refs := []metav1.OwnerReference{{APIVersion: "v1", Kind: "Secret", Name: "owner", UID: owner.GetUID(), BlockOwnerDeletion: new(true)}}
				for n := range many {
					w.create(&corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: fmt.Sprint("c", n), OwnerReferences: refs}})
				}
				w.settle()
				before := w.lists.Load()
				w.delete(api.Secrets, "shop", "owner", tt.propagation)
				w.settle()
				if n := w.lists.Load() - before; n > 1000 {
					t.Errorf("%d lists for %d dependants", n, many)
				}
				if _, err := w.admin.Get(w.ctx, api.Secrets, "shop", "owner"); !apierrors.IsNotFound(err) {
					t.Errorf("the owner is still there: %v", err)
				}
				left := 0
				for _, cm := range all[*corev1.ConfigMap](w) {
					if strings.HasPrefix(cm.Name, "c") && len(cm.OwnerReferences) == 0 {
						left++
					}
				}
				if left != tt.left {
					t.Errorf("%d are left without an owner, want %d", left, tt.left)
				}
			})
		})
	}
}

// TestDeletionSurvivesKills ends the controllers again and again while a Deployment is deleted.
func TestDeletionSurvivesKills(t *testing.T) {
	for seed := range uint64(4) {
		for propagation, left := range map[metav1.DeletionPropagation]int{metav1.DeletePropagationForeground: 0, metav1.DeletePropagationOrphan: 6} {
			inWorld(t, func(w *world) {
				w.create(shop())
				w.pass(time.Second)
				w.create(web(6, "v1"))
				w.settle()
				order := w.deletions(api.Pods, api.ReplicaSets, api.Deployments)
				w.mu.Lock()
				w.fatal = rand.New(rand.NewPCG(seed, 21))
				w.mu.Unlock()
				w.delete(api.Deployments, "shop", "web", propagation)
				w.keep(10 * time.Minute)
				got := order()
				if !strings.HasSuffix(got, "deployments.apps") || left == 0 && got != strings.Repeat("pods ", 6)+"replicasets.apps deployments.apps" {
					t.Errorf("seed %d, %s: gone in the order: %s", seed, propagation, got)
				}
				if pods := all[*corev1.Pod](w); len(pods) != left {
					t.Errorf("seed %d, %s: %d pods are left, want %d", seed, propagation, len(pods), left)
				}
			})
		}
	}
}

// TestOwnersAcrossNamespaces: who is in no namespace may own everything; who is in one, only what is there too.
func TestOwnersAcrossNamespaces(t *testing.T) {
	inWorld(t, func(w *world) {
		w.create(shop())
		w.pass(time.Second)
		role := func(name string, owners ...metav1.OwnerReference) *rbacv1.ClusterRole {
			return &rbacv1.ClusterRole{ObjectMeta: metav1.ObjectMeta{Name: name, OwnerReferences: owners}}
		}
		config := func(name string, owners ...metav1.OwnerReference) *corev1.ConfigMap {
			return &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: name, OwnerReferences: owners}}
		}
		ref := func(kind *api.Kind, ns, name string) metav1.OwnerReference {
			obj, err := w.admin.Get(w.ctx, kind, ns, name)
			if err != nil {
				t.Fatal(err)
			}
			return metav1.OwnerReference{APIVersion: kind.GroupVersion().String(), Kind: kind.Kind, Name: name, UID: obj.GetUID()}
		}
		w.create(role("root"))
		w.create(config("below", ref(api.ClusterRoles, "", "root")))
		w.create(&corev1.Secret{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: "far"}})
		w.create(config("astray", ref(api.Secrets, "default", "far")))
		w.create(role("above", ref(api.Secrets, "default", "far")))
		w.settle()
		exists := func(kind *api.Kind, ns, name string) bool {
			_, err := w.admin.Get(w.ctx, kind, ns, name)
			return err == nil
		}
		if !exists(api.ConfigMaps, "shop", "below") || exists(api.ConfigMaps, "shop", "astray") || !exists(api.ClusterRoles, "", "above") {
			t.Error("want only what names an owner in another namespace to be gone")
		}
		var told []string
		events, err := store.All[*corev1.Event](w.ctx, w.admin, store.ListOptions{})
		if err != nil {
			t.Fatal(err)
		}
		for _, ev := range events {
			if ev.Reason == "OwnerRefInvalidNamespace" {
				told = append(told, ev.InvolvedObject.Name+": "+ev.Message)
			}
		}
		want := []string{"above: owner Secret far lives in a namespace, this object does not", `astray: owner Secret far is in namespace "default", and cannot own what is in namespace "shop"`}
		if diff := cmp.Diff(want, told); diff != "" {
			t.Error(diff)
		}
		w.delete(api.ClusterRoles, "", "root", "")
		w.settle()
		if exists(api.ConfigMaps, "shop", "below") {
			t.Error("what a cluster's object owned is still there")
		}
	})
}
