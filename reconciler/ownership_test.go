package reconciler

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/intstr"

	"github.com/slipway-dev/slipway/apiserver/api"
	"github.com/slipway-dev/slipway/apiserver/store"
)

func TestDeletingADeployment(t *testing.T) {
	tests := []struct {
		propagation metav1.DeletionPropagation
		want        string
	}{
		{metav1.DeletePropagationBackground, ""},
		{metav1.DeletePropagationForeground, ""},
		{metav1.DeletePropagationOrphan, "pods web:v1 Running: 3\nreplicaset web:v1 revision 1: 3 of 3 available"},
	}
	for _, tt := range tests {
		t.Run(string(tt.propagation), func(t *testing.T) {
			inWorld(t, func(w *world) {
				w.create(shop())
				w.pass(time.Second)
				w.create(web(3, "v1"))
				w.settle()
				order := w.deletions(api.Pods, api.ReplicaSets, api.Deployments)
				w.delete(api.Deployments, "shop", "web", tt.propagation)
				w.settle()
				w.want(tt.want)
				for _, rs := range all[*appsv1.ReplicaSet](w) {
					if len(rs.OwnerReferences) != 0 {
						t.Errorf("an orphan has owners: %+v", rs.OwnerReferences)
					}
				}
				if got := order(); tt.propagation == metav1.DeletePropagationForeground && got != "pods pods pods replicasets.apps deployments.apps" {
					t.Errorf("gone in the order: %s", got)
				}
				w.create(web(3, "v1")) // adopts what was orphaned
				w.settle()
				w.want("pods web:v1 Running: 3\nreplicaset web:v1 revision 1: 3 of 3 available")
			})
		})
	}
}

// deletions watches what of kinds goes, and returns the kinds in the order of their revisions.
func (w *world) deletions(kinds ...*api.Kind) func() string {
	w.t.Helper()
	type gone struct {
		revision uint64
		kind     string
	}
	all := make(chan gone, 100)
	var closers []func()
	for _, kind := range kinds {
		list, err := w.admin.List(w.ctx, kind, store.ListOptions{})
		if err != nil {
			w.t.Fatal(err)
		}
		watch, err := w.admin.Watch(w.ctx, kind, store.WatchOptions{Revision: list.Revision})
		if err != nil {
			w.t.Fatal(err)
		}
		ended := make(chan bool)
		go func() {
			defer close(ended)
			for {
				ev, err := watch.Next(w.ctx)
				if err != nil {
					return
				}
				if ev.Type == store.Deleted {
					all <- gone{ev.Revision, kind.String()}
				}
			}
		}()
		closers = append(closers, func() { watch.Close(); <-ended })
	}
	return func() string {
		for _, end := range closers {
			end()
		}
		close(all)
		var list []gone
		for g := range all {
			list = append(list, g)
		}
		slices.SortFunc(list, func(a, b gone) int { return int(a.revision) - int(b.revision) })
		var kinds []string
		for _, g := range list {
			kinds = append(kinds, g.kind)
		}
		return strings.Join(kinds, " ")
	}
}

func TestDanglingOwnersAreVerified(t *testing.T) {
	inWorld(t, func(w *world) {
		w.create(shop())
		w.pass(time.Second)
		w.create(web(1, "v1"))
		w.settle()
		d := w.deployment()
		refs := map[string][]metav1.OwnerReference{
			"alive":   {{APIVersion: "apps/v1", Kind: "Deployment", Name: d.Name, UID: d.UID}},
			"renewed": {{APIVersion: "apps/v1", Kind: "Deployment", Name: d.Name, UID: "an-earlier-one"}},
			"lost":    {{APIVersion: "v1", Kind: "Secret", Name: "nobody", UID: "nobody"}},
			"half":    {{APIVersion: "v1", Kind: "Secret", Name: "nobody", UID: "nobody"}, {APIVersion: "apps/v1", Kind: "Deployment", Name: d.Name, UID: d.UID}},
			"foreign": {{APIVersion: "example.com/v1", Kind: "Widget", Name: "x", UID: "x"}},
		}
		for name, owners := range refs {
			w.create(&corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: name, OwnerReferences: owners}})
		}
		w.settle()
		var got []string
		for _, cm := range all[*corev1.ConfigMap](w) {
			got = append(got, fmt.Sprintf("%s %d", cm.Name, len(cm.OwnerReferences)))
		}
		if diff := cmp.Diff([]string{"alive 1", "foreign 1", "half 1", "kube-root-ca.crt 0"}, got); diff != "" {
			t.Error(diff)
		}
		w.delete(api.Deployments, "shop", "web", "")
		w.settle()
		if got := all[*corev1.ConfigMap](w); len(got) != 2 {
			t.Errorf("%d configmaps are left", len(got))
		}
	})
}

func TestNamespaceGoesInOrder(t *testing.T) {
	inWorld(t, func(w *world) {
		w.create(shop())
		w.pass(time.Second)
		w.create(web(2, "v1"))
		w.create(&corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: "held", Finalizers: []string{"example.com/backup"}}})
		w.settle()
		order := w.deletions(api.Deployments, api.ReplicaSets, api.Pods, api.ConfigMaps)
		w.delete(api.Namespaces, "", "shop", "")
		w.settle()
		if got := order(); got != "deployments.apps replicasets.apps pods pods configmaps" {
			t.Errorf("gone in the order: %s", got)
		}
		ns, err := store.Get[*corev1.Namespace](w.ctx, w.admin, "", "shop")
		if err != nil {
			t.Fatal(err)
		}
		var got []string
		for _, c := range ns.Status.Conditions {
			if c.Status == corev1.ConditionTrue {
				got = append(got, c.Reason+": "+c.Message)
			}
		}
		want := []string{"SomeResourcesRemain: Some resources are remaining: configmaps. has 1 resource instances",
			"SomeFinalizersRemain: Some content in the namespace has finalizers remaining: example.com/backup in 1 resource instances (configmaps held)"}
		if diff := cmp.Diff(want, got); diff != "" || ns.Status.Phase != corev1.NamespaceTerminating || len(ns.Status.Conditions) != 5 {
			t.Errorf("phase %s, %d conditions: %s", ns.Status.Phase, len(ns.Status.Conditions), diff)
		}
		if _, err = w.admin.Patch(w.ctx, api.ConfigMaps, "shop", "held", store.Patch{Type: "application/merge-patch+json", Data: []byte(`{"metadata":{"finalizers":null}}`)}); err != nil {
			t.Fatal(err)
		}
		w.settle()
		if _, err = w.admin.Get(w.ctx, api.Namespaces, "", "shop"); !apierrors.IsNotFound(err) {
			t.Errorf("namespace is still there: %v", err)
		}
		for _, kind := range api.Kinds() {
			if kind.CreateOnly || !kind.Namespaced {
				continue
			}
			list, err := w.admin.List(w.ctx, kind, store.ListOptions{Namespace: "shop"})
			if err != nil || len(list.Items) != 0 {
				t.Errorf("%d %s are left (%v)", len(list.Items), kind, err)
			}
		}
	})
}

func TestSystemNamespacesComeBack(t *testing.T) {
	inWorld(t, func(w *world) {
		w.delete(api.Namespaces, "", "kube-node-lease", "")
		w.settle()
		for _, name := range []string{"default", "kube-system", "kube-public", "kube-node-lease"} {
			ns, err := store.Get[*corev1.Namespace](w.ctx, w.admin, "", name)
			if err != nil || ns.Status.Phase != corev1.NamespaceActive {
				t.Errorf("%s: %v", name, err)
			}
			if _, err := w.admin.Get(w.ctx, api.ServiceAccounts, name, "default"); err != nil {
				t.Error(err)
			}
		}
	})
}

func TestNamespaceFurnitureIsPutBack(t *testing.T) {
	inWorld(t, func(w *world) {
		w.create(shop())
		w.settle()
		w.delete(api.ServiceAccounts, "shop", "default", "")
		if _, err := w.admin.Patch(w.ctx, api.ConfigMaps, "shop", "kube-root-ca.crt", store.Patch{Type: "application/merge-patch+json", Data: []byte(`{"data":{"ca.crt":"forged","more":"x"}}`)}); err != nil {
			t.Fatal(err)
		}
		w.settle()
		if _, err := w.admin.Get(w.ctx, api.ServiceAccounts, "shop", "default"); err != nil {
			t.Error(err)
		}
		cm, err := store.Get[*corev1.ConfigMap](w.ctx, w.admin, "shop", "kube-root-ca.crt")
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(map[string]string{"ca.crt": "certificate"}, cm.Data); diff != "" {
			t.Error(diff)
		}
		w.delete(api.ConfigMaps, "shop", "kube-root-ca.crt", "")
		w.settle()
		if _, err := w.admin.Get(w.ctx, api.ConfigMaps, "shop", "kube-root-ca.crt"); err != nil {
			t.Error(err)
		}
	})
}

func TestEndpointsFollowPods(t *testing.T) {
	inWorld(t, func(w *world) {
		w.create(shop())
		w.pass(time.Second)
		w.create(web(3, "v1"))
		w.create(&corev1.Service{ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: "web"},
			Spec: corev1.ServiceSpec{Selector: map[string]string{"app": "web"}, Ports: []corev1.ServicePort{{Port: 80, TargetPort: intstr.FromInt32(8080)}}}})
		w.settle()
		w.published(3, 0)
		pod := all[*corev1.Pod](w)[0]
		w.delete(api.Pods, "shop", pod.Name, "")
		w.pass(10 * time.Millisecond) // told to go, still there
		w.published(2, 1)
		w.settle()
		w.published(3, 0)
		slice := all[*discoveryv1.EndpointSlice](w)[0]
		w.delete(api.EndpointSlices, "shop", slice.Name, "")
		w.settle()
		w.published(3, 0)
		w.delete(api.Services, "shop", "web", "")
		w.settle()
		if n := len(all[*discoveryv1.EndpointSlice](w)) + len(all[*corev1.Endpoints](w)); n != 0 {
			t.Errorf("%d objects are left of a service that is gone", n)
		}
	})
}

// published counts the endpoints of the Service web.
func (w *world) published(ready, terminating int) {
	w.t.Helper()
	gotReady, gotTerminating := 0, 0
	for _, s := range all[*discoveryv1.EndpointSlice](w) {
		for _, e := range s.Endpoints {
			if *e.Conditions.Ready {
				gotReady++
			}
			if *e.Conditions.Terminating {
				gotTerminating++
			}
		}
	}
	addresses := 0
	for _, e := range all[*corev1.Endpoints](w) {
		for _, s := range e.Subsets {
			addresses += len(s.Addresses)
		}
	}
	if gotReady != ready || gotTerminating != terminating || addresses != ready {
		w.t.Errorf("%d ready, %d terminating, %d addresses; want %d, %d and %d", gotReady, gotTerminating, addresses, ready, terminating, ready)
	}
}

func TestEventsTellAndExpire(t *testing.T) {
	inWorld(t, func(w *world) {
		w.create(shop())
		w.pass(time.Second)
		w.create(web(2, "v1"))
		w.settle()
		reasons := map[string]int{}
		for _, ev := range all[*corev1.Event](w) {
			reasons[ev.InvolvedObject.Kind+" "+ev.Reason+" by "+ev.Source.Component]++
		}
		want := map[string]int{"Deployment ScalingReplicaSet by deployment-controller": 1, "ReplicaSet SuccessfulCreate by replicaset-controller": 2}
		if diff := cmp.Diff(want, reasons); diff != "" {
			t.Error(diff)
		}
		w.pass(59 * time.Minute)
		if got := len(all[*corev1.Event](w)); got != 3 {
			t.Errorf("%d events after 59 minutes", got)
		}
		w.pass(2 * time.Minute)
		if got := len(all[*corev1.Event](w)); got != 0 {
			t.Errorf("%d events after 61 minutes", got)
		}
	})
}
