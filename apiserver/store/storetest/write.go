package storetest

import (
	"fmt"
	"strconv"
	"testing"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sync/errgroup"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/types"

	"github.com/slipway-dev/slipway/apiserver/api"
	"github.com/slipway-dev/slipway/apiserver/store"
)

func createThenGet(t *testing.T, s suite) {
	for _, obj := range []api.Object{configMap("red", "a", "1"), pod("red", "a"), pod("blue", "a")} {
		created := s.create(t, obj)
		if revision(t, created) == 0 {
			t.Errorf("resourceVersion is %q", created.GetResourceVersion())
		}
		kind, err := api.KindOf(obj)
		if err != nil {
			t.Fatal(err)
		}
		got, err := s.Get(s.ctx, kind, obj.GetNamespace(), obj.GetName())
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(created, got); diff != "" {
			t.Errorf("Get differs from what Create returned (-created +got):\n%s", diff)
		}
		if got.GetObjectKind().GroupVersionKind() != kind.GroupVersionKind {
			t.Errorf("apiVersion and kind are %s", got.GetObjectKind().GroupVersionKind())
		}
	}
}

func createRefusesWhatExists(t *testing.T, s suite) {
	first := s.create(t, configMap("red", "a", "1"))
	_, err := s.Create(s.ctx, configMap("red", "a", "2"), store.CreateOptions{})
	if !apierrors.IsAlreadyExists(err) {
		t.Errorf("second Create: %v, want AlreadyExists", err)
	}
	s.create(t, configMap("blue", "a", "2"))
	if got := s.get(t, "red", "a"); got.ResourceVersion != first.GetResourceVersion() {
		t.Error("the refused Create changed the object")
	}
}

func getOfNothing(t *testing.T, s suite) {
	_, err := s.Get(s.ctx, api.ConfigMaps, "red", "none")
	if !apierrors.IsNotFound(err) {
		t.Errorf("Get: %v, want NotFound", err)
	}
	_, err = s.Update(s.ctx, configMap("red", "none", "1"), store.UpdateOptions{})
	if !apierrors.IsNotFound(err) {
		t.Errorf("Update: %v, want NotFound", err)
	}
	_, err = s.Patch(s.ctx, api.ConfigMaps, "red", "none", store.Patch{Type: types.MergePatchType, Data: []byte(`{}`)})
	if !apierrors.IsNotFound(err) {
		t.Errorf("Patch: %v, want NotFound", err)
	}
	_, err = s.Delete(s.ctx, api.ConfigMaps, "red", "none", store.DeleteOptions{})
	if !apierrors.IsNotFound(err) {
		t.Errorf("Delete: %v, want NotFound", err)
	}
}

func updateComparesVersions(t *testing.T, s suite) {
	created := s.create(t, configMap("red", "a", "1"))
	next := created.DeepCopyObject().(*corev1.ConfigMap)
	next.Data["value"] = "2"
	updated, err := s.Update(s.ctx, next, store.UpdateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	if revision(t, updated) <= revision(t, created) {
		t.Errorf("resourceVersion went from %s to %s", created.GetResourceVersion(), updated.GetResourceVersion())
	}
	next.Data["value"] = "3"
	if _, err := s.Update(s.ctx, next, store.UpdateOptions{}); !apierrors.IsConflict(err) {
		t.Errorf("Update of an old version: %v, want Conflict", err)
	}
	if got := s.get(t, "red", "a"); got.Data["value"] != "2" {
		t.Errorf("value is %q, want 2", got.Data["value"])
	}
}

func updateWithoutVersion(t *testing.T, s suite) {
	s.create(t, configMap("red", "a", "0"))
	var group errgroup.Group
	for i := range 8 {
		group.Go(func() error {
			_, err := s.Update(s.ctx, configMap("red", "a", strconv.Itoa(i)), store.UpdateOptions{})
			return err
		})
	}
	if err := group.Wait(); err != nil {
		t.Error(err)
	}
}

func updateOfNothing(t *testing.T, s suite) {
	created := s.create(t, configMap("red", "a", "1"))
	updated, err := s.Update(s.ctx, created, store.UpdateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	patched, err := s.Patch(s.ctx, api.ConfigMaps, "red", "a", store.Patch{Type: types.MergePatchType, Data: []byte(`{"data":{"value":"1"}}`)})
	if err != nil {
		t.Fatal(err)
	}
	for _, got := range []api.Object{updated, patched} {
		if got.GetResourceVersion() != created.GetResourceVersion() {
			t.Errorf("resourceVersion went from %s to %s", created.GetResourceVersion(), got.GetResourceVersion())
		}
	}
}

func updateChecksUID(t *testing.T, s suite) {
	s.create(t, configMap("red", "a", "1"))
	other := configMap("red", "a", "2")
	other.UID = "11111111-2222-3333-4444-555555555555"
	if _, err := s.Update(s.ctx, other, store.UpdateOptions{}); !apierrors.IsConflict(err) {
		t.Errorf("Update with another uid: %v, want Conflict", err)
	}
}

func statusApart(t *testing.T, s suite) {
	created := s.create(t, pod("red", "a"))
	next := created.DeepCopyObject().(*corev1.Pod)
	next.Status.Phase = corev1.PodRunning
	next.Labels["app"] = "changed"
	updated, err := s.Update(s.ctx, next, store.UpdateOptions{Subresource: "status"})
	if err != nil {
		t.Fatal(err)
	}
	got := updated.(*corev1.Pod)
	if got.Status.Phase != corev1.PodRunning || got.Labels["app"] != "a" {
		t.Errorf("after a write of status: phase %q, label %q; want Running, a", got.Status.Phase, got.Labels["app"])
	}
	next = got.DeepCopy()
	next.Status.Phase = corev1.PodFailed
	next.Labels["app"] = "changed"
	if updated, err = s.Update(s.ctx, next, store.UpdateOptions{}); err != nil {
		t.Fatal(err)
	}
	got = updated.(*corev1.Pod)
	if got.Status.Phase != corev1.PodRunning || got.Labels["app"] != "changed" {
		t.Errorf("after a write of the rest: phase %q, label %q; want Running, changed", got.Status.Phase, got.Labels["app"])
	}
}

func patchJSON(t *testing.T, s suite) {
	s.create(t, configMap("red", "a", "1"))
	patch := store.Patch{Type: types.JSONPatchType, Data: []byte(`[{"op":"test","path":"/data/value","value":"1"},{"op":"add","path":"/data/more","value":"x"}]`)}
	s.patched(t, patch, map[string]string{"value": "1", "more": "x"})

	patch.Data = []byte(`[{"op":"test","path":"/data/value","value":"9"},{"op":"remove","path":"/data/more"}]`)
	if _, err := s.Patch(s.ctx, api.ConfigMaps, "red", "a", patch); err == nil {
		t.Error("a patch whose test fails was accepted")
	}
	patch.Data = []byte(`{"data"`)
	if _, err := s.Patch(s.ctx, api.ConfigMaps, "red", "a", patch); !apierrors.IsBadRequest(err) {
		t.Errorf("a patch that is not JSON: %v, want BadRequest", err)
	}
}

func patchMerge(t *testing.T, s suite) {
	s.create(t, configMap("red", "a", "1"))
	s.patched(t, store.Patch{Type: types.MergePatchType, Data: []byte(`{"data":{"value":null,"more":"x"}}`)}, map[string]string{"more": "x"})
}

func patchStrategic(t *testing.T, s suite) {
	s.create(t, pod("red", "a"))
	got, err := s.Patch(s.ctx, api.Pods, "red", "a", store.Patch{Type: types.StrategicMergePatchType,
		Data: []byte(`{"spec":{"containers":[{"name":"main","image":"registry.example/app:2"}]}}`)})
	if err != nil {
		t.Fatal(err)
	}
	containers := got.(*corev1.Pod).Spec.Containers
	if len(containers) != 1 || containers[0].Image != "registry.example/app:2" {
		t.Errorf("containers are %v", containers)
	}
}

func (s suite) patched(t *testing.T, patch store.Patch, want map[string]string) {
	t.Helper()
	got, err := s.Patch(s.ctx, api.ConfigMaps, "red", "a", patch)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(want, got.(*corev1.ConfigMap).Data); diff != "" {
		t.Errorf("data (-want +got):\n%s", diff)
	}
}

func patchesConcurrent(t *testing.T, s suite) {
	s.create(t, configMap("red", "a", "1"))
	var group errgroup.Group
	for i := range 16 {
		group.Go(func() error {
			_, err := s.Patch(s.ctx, api.ConfigMaps, "red", "a", store.Patch{Type: types.MergePatchType,
				Data: fmt.Appendf(nil, `{"data":{"key-%d":"x"}}`, i)})
			return err
		})
	}
	if err := group.Wait(); err != nil {
		t.Fatal(err)
	}
	if got := s.get(t, "red", "a"); len(got.Data) != 17 {
		t.Errorf("%d keys, want 17", len(got.Data))
	}
}

func deleteReturnsLast(t *testing.T, s suite) {
	created := s.create(t, configMap("red", "a", "1"))
	deleted := s.delete(t, api.ConfigMaps, "red", "a")
	if got := deleted.(*corev1.ConfigMap).Data["value"]; got != "1" {
		t.Errorf("last value is %q", got)
	}
	if created.GetUID() != deleted.GetUID() {
		t.Errorf("uid is %q, was %q", deleted.GetUID(), created.GetUID())
	}
	if _, err := s.Get(s.ctx, api.ConfigMaps, "red", "a"); !apierrors.IsNotFound(err) {
		t.Errorf("Get after Delete: %v, want NotFound", err)
	}
	again := s.create(t, configMap("red", "a", "2"))
	if revision(t, again) <= revision(t, created) {
		t.Error("a revision was given twice")
	}
}

func deletePreconditions(t *testing.T, s suite) {
	created := s.create(t, configMap("red", "a", "1"))
	old := revision(t, created)
	current := s.set(t, configMap("red", "a", "2"))
	for name, opts := range map[string]store.DeleteOptions{
		"old revision": {Revision: old},
		"other uid":    {UID: "11111111-2222-3333-4444-555555555555"},
	} {
		if _, err := s.Delete(s.ctx, api.ConfigMaps, "red", "a", opts); !apierrors.IsConflict(err) {
			t.Errorf("%s: %v, want Conflict", name, err)
		}
	}
	opts := store.DeleteOptions{Revision: revision(t, current), UID: current.GetUID()}
	if _, err := s.Delete(s.ctx, api.ConfigMaps, "red", "a", opts); err != nil {
		t.Error(err)
	}
}

func dryRun(t *testing.T, s suite) {
	before := s.create(t, configMap("red", "a", "1"))
	if _, err := s.Create(s.ctx, configMap("red", "b", "1"), store.CreateOptions{DryRun: true}); err != nil {
		t.Error(err)
	}
	if _, err := s.Create(s.ctx, configMap("red", "a", "1"), store.CreateOptions{DryRun: true}); !apierrors.IsAlreadyExists(err) {
		t.Errorf("Create of what exists: %v, want AlreadyExists", err)
	}
	got, err := s.Update(s.ctx, configMap("red", "a", "2"), store.UpdateOptions{DryRun: true})
	if err != nil {
		t.Fatal(err)
	}
	if value := got.(*corev1.ConfigMap).Data["value"]; value != "2" {
		t.Errorf("Update would give %q, want 2", value)
	}
	if _, err := s.Delete(s.ctx, api.ConfigMaps, "red", "a", store.DeleteOptions{DryRun: true}); err != nil {
		t.Error(err)
	}
	if after := s.get(t, "red", "a"); after.ResourceVersion != before.GetResourceVersion() {
		t.Error("a dry run changed the object")
	}
	if _, err := s.Get(s.ctx, api.ConfigMaps, "red", "b"); !apierrors.IsNotFound(err) {
		t.Errorf("a dry run created the object: %v", err)
	}
}

func argumentsStay(t *testing.T, s suite) {
	mine := configMap("red", "a", "1")
	copied := mine.DeepCopy()
	created := s.create(t, mine)
	if diff := cmp.Diff(copied, mine); diff != "" {
		t.Errorf("Create changed its argument:\n%s", diff)
	}
	mine.Data["value"] = "mine"
	if got := s.get(t, "red", "a"); got.Data["value"] != "1" {
		t.Error("the store shares the argument of Create")
	}
	next := created.DeepCopyObject().(*corev1.ConfigMap)
	next.Data["value"] = "2"
	copied = next.DeepCopy()
	if _, err := s.Update(s.ctx, next, store.UpdateOptions{}); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(copied, next); diff != "" {
		t.Errorf("Update changed its argument:\n%s", diff)
	}
	next.Data["value"] = "mine"
	if got := s.get(t, "red", "a"); got.Data["value"] != "2" {
		t.Error("the store shares the argument of Update")
	}
}

func readYourWrites(t *testing.T, s suite) {
	var group errgroup.Group
	for i := range 8 {
		group.Go(func() error {
			name := fmt.Sprintf("writer-%d", i)
			written, err := s.Create(s.ctx, configMap("red", name, "0"), store.CreateOptions{})
			for n := 1; err == nil && n < 25; n++ {
				next := written.DeepCopyObject().(*corev1.ConfigMap)
				next.Data["value"] = strconv.Itoa(n)
				if written, err = s.Update(s.ctx, next, store.UpdateOptions{}); err == nil {
					err = s.reads(name, written.GetResourceVersion())
				}
			}
			return err
		})
	}
	if err := group.Wait(); err != nil {
		t.Error(err)
	}
}

// reads fails unless Get and List show an object at a version that has just been written.
func (s suite) reads(name, version string) error {
	got, err := s.Get(s.ctx, api.ConfigMaps, "red", name)
	if err != nil {
		return err
	}
	if got.GetResourceVersion() != version {
		return fmt.Errorf("wrote %s at %s, Get returned %s", name, version, got.GetResourceVersion())
	}
	list, err := s.List(s.ctx, api.ConfigMaps, store.ListOptions{Namespace: "red"})
	if err != nil {
		return err
	}
	for _, obj := range list.Items {
		if obj.GetName() == name && obj.GetResourceVersion() != version {
			return fmt.Errorf("wrote %s at %s, List at %d returned %s", name, version, list.Revision, obj.GetResourceVersion())
		}
	}
	return nil
}

func (s suite) get(t *testing.T, namespace, name string) *corev1.ConfigMap {
	t.Helper()
	obj, err := s.Get(s.ctx, api.ConfigMaps, namespace, name)
	if err != nil {
		t.Fatal(err)
	}
	return obj.(*corev1.ConfigMap)
}

func revision(t *testing.T, obj api.Object) uint64 {
	t.Helper()
	n, err := strconv.ParseUint(obj.GetResourceVersion(), 10, 64)
	if err != nil {
		t.Fatal(err)
	}
	return n
}
