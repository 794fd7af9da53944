package registry

import (
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/slipway-dev/slipway/apiserver/api"
	"github.com/slipway-dev/slipway/apiserver/store"
)

func seconds(n int64) *int64 { return &n }

func (f *fixture) delete(t testing.TB, kind *api.Kind, namespace, name string, opts store.DeleteOptions) api.Object {
	t.Helper()
	last, err := f.admin.Delete(f.ctx, kind, namespace, name, opts)
	if err != nil {
		t.Fatalf("delete %s %s: %v", kind, name, err)
	}
	return last
}

// running makes a Pod that is bound to a node and runs there.
func (f *fixture) running(t testing.TB, name string, finalizers ...string) *corev1.Pod {
	t.Helper()
	p := pod(name)
	p.Spec.NodeName = "node-1"
	p.Finalizers = finalizers
	made := f.create(t, p).(*corev1.Pod).DeepCopy()
	made.Status.Phase = corev1.PodRunning
	return f.update(t, made, "status").(*corev1.Pod)
}

func TestDeleteOfAPodWaitsForItsNode(t *testing.T) {
	f := newFixture(t)
	f.running(t, "a")
	due := func(p api.Object) time.Duration {
		return p.GetDeletionTimestamp().Sub(f.clock.now.Truncate(time.Second))
	}

	marked := f.delete(t, api.Pods, "default", "a", store.DeleteOptions{})
	if due(marked) != 30*time.Second || *marked.GetDeletionGracePeriodSeconds() != 30 || marked.GetGeneration() != 2 {
		t.Errorf("first: %+v", marked)
	}
	again := f.delete(t, api.Pods, "default", "a", store.DeleteOptions{GracePeriodSeconds: seconds(60)})
	if again.GetResourceVersion() != marked.GetResourceVersion() {
		t.Error("a longer period was written")
	}
	shorter := f.delete(t, api.Pods, "default", "a", store.DeleteOptions{GracePeriodSeconds: seconds(5)})
	if due(shorter) != 5*time.Second || *shorter.GetDeletionGracePeriodSeconds() != 5 || shorter.GetGeneration() != 2 {
		t.Errorf("shorter: %+v", shorter)
	}
	f.clock.now = f.clock.now.Add(time.Minute)
	late := f.delete(t, api.Pods, "default", "a", store.DeleteOptions{GracePeriodSeconds: seconds(2)})
	if due(late) != 0 || *late.GetDeletionGracePeriodSeconds() != 1 {
		t.Errorf("late: %+v", late)
	}
	f.delete(t, api.Pods, "default", "a", store.DeleteOptions{GracePeriodSeconds: seconds(0)})
	f.gone(t, api.Pods, "default", "a")
}

func TestDeleteOfAPodThatRunsNowhere(t *testing.T) {
	f := newFixture(t)
	f.create(t, pod("unscheduled"))
	f.delete(t, api.Pods, "default", "unscheduled", store.DeleteOptions{})
	f.gone(t, api.Pods, "default", "unscheduled")
	for _, phase := range []corev1.PodPhase{corev1.PodSucceeded, corev1.PodFailed} {
		finished := f.running(t, "finished").DeepCopy()
		finished.Status.Phase = phase
		f.update(t, finished, "status")
		f.delete(t, api.Pods, "default", "finished", store.DeleteOptions{})
		f.gone(t, api.Pods, "default", "finished")
	}
	f.running(t, "forced")
	f.delete(t, api.Pods, "default", "forced", store.DeleteOptions{GracePeriodSeconds: seconds(0)})
	f.gone(t, api.Pods, "default", "forced")
}

func TestFinalizersHold(t *testing.T) {
	f := newFixture(t)
	cm := &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: "a", Finalizers: []string{"example.com/x"}}}
	f.create(t, cm)
	held := f.delete(t, api.ConfigMaps, "default", "a", store.DeleteOptions{}).(*corev1.ConfigMap)
	if held.DeletionTimestamp == nil || *held.DeletionGracePeriodSeconds != 0 {
		t.Errorf("%+v", held.ObjectMeta)
	}
	again := f.delete(t, api.ConfigMaps, "default", "a", store.DeleteOptions{})
	if again.GetResourceVersion() != held.ResourceVersion {
		t.Error("a second deletion was written")
	}
	more := held.DeepCopy()
	more.Finalizers = append(more.Finalizers, "example.com/y")
	if _, err := f.admin.Update(f.ctx, more, store.UpdateOptions{}); !apierrors.IsInvalid(err) {
		t.Errorf("a finalizer added while deleting: got %v, want Invalid", err)
	}
	let := held.DeepCopy()
	let.Finalizers = nil
	f.update(t, let, "")
	f.gone(t, api.ConfigMaps, "default", "a")
}

func TestFinalizersHoldAPodPastItsGrace(t *testing.T) {
	f := newFixture(t)
	f.running(t, "a", "example.com/x")
	f.delete(t, api.Pods, "default", "a", store.DeleteOptions{})
	ended := f.delete(t, api.Pods, "default", "a", store.DeleteOptions{GracePeriodSeconds: seconds(0)}).(*corev1.Pod)
	if *ended.DeletionGracePeriodSeconds != 0 {
		t.Errorf("%+v", ended.ObjectMeta)
	}
	let := ended.DeepCopy()
	let.Finalizers = nil
	f.update(t, let, "")
	f.gone(t, api.Pods, "default", "a")

	// The other way round: the finalizer goes first, and the node's word is still waited for.
	f.running(t, "b", "example.com/x")
	marked := f.delete(t, api.Pods, "default", "b", store.DeleteOptions{}).(*corev1.Pod).DeepCopy()
	marked.Finalizers = nil
	f.update(t, marked, "")
	f.delete(t, api.Pods, "default", "b", store.DeleteOptions{GracePeriodSeconds: seconds(0)})
	f.gone(t, api.Pods, "default", "b")
}

func TestPropagation(t *testing.T) {
	f := newFixture(t)
	for policy, want := range map[metav1.DeletionPropagation][]string{
		metav1.DeletePropagationForeground: {metav1.FinalizerDeleteDependents},
		metav1.DeletePropagationOrphan:     {metav1.FinalizerOrphanDependents},
	} {
		name := "web-" + string(want[0][0])
		f.create(t, deployment(name))
		held := f.delete(t, api.Deployments, "default", name, store.DeleteOptions{Propagation: policy})
		if diff := cmp.Diff(want, held.GetFinalizers()); diff != "" || held.GetDeletionTimestamp() == nil {
			t.Errorf("%s: %+v\n%s", policy, held, diff)
		}
	}
	f.create(t, deployment("back"))
	f.delete(t, api.Deployments, "default", "back", store.DeleteOptions{Propagation: metav1.DeletePropagationBackground})
	f.gone(t, api.Deployments, "default", "back")
	if _, err := f.admin.Delete(f.ctx, api.Deployments, "default", "x", store.DeleteOptions{Propagation: "Sideways"}); !apierrors.IsBadRequest(err) {
		t.Errorf("an unknown policy: got %v", err)
	}
}

func TestDeletePreconditions(t *testing.T) {
	f := newFixture(t)
	f.create(t, deployment("web"))
	for name, opts := range map[string]store.DeleteOptions{"uid": {UID: "x"}, "revision": {Revision: 1}} {
		if _, err := f.admin.Delete(f.ctx, api.Deployments, "default", "web", opts); !apierrors.IsConflict(err) {
			t.Errorf("%s: got %v, want Conflict", name, err)
		}
	}
	f.delete(t, api.Deployments, "default", "web", store.DeleteOptions{DryRun: true})
	if _, err := f.admin.Get(f.ctx, api.Deployments, "default", "web"); err != nil {
		t.Errorf("after a dry run: %v", err)
	}
}

func TestNamespaceEndsInOrder(t *testing.T) {
	f := newFixture(t)
	f.namespace(t, "shop")
	going := f.delete(t, api.Namespaces, "", "shop", store.DeleteOptions{}).(*corev1.Namespace)
	if going.Status.Phase != corev1.NamespaceTerminating || going.DeletionTimestamp == nil {
		t.Errorf("%+v", going)
	}
	_, err := f.admin.Create(f.ctx, &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: "late"}}, store.CreateOptions{})
	if !apierrors.IsForbidden(err) || !apierrors.HasStatusCause(err, corev1.NamespaceTerminatingCause) {
		t.Errorf("create in a terminating namespace: got %v", err)
	}
	if _, err := f.admin.Delete(f.ctx, api.Namespaces, "", "shop", store.DeleteOptions{}); !apierrors.IsConflict(err) {
		t.Errorf("a second deletion: got %v, want Conflict", err)
	}
	kept := going.DeepCopy()
	kept.Spec.Finalizers = nil
	if got := f.update(t, kept, "").(*corev1.Namespace); len(got.Spec.Finalizers) != 1 {
		t.Error("an update took the finalizer away")
	}
	f.update(t, kept, "finalize")
	f.gone(t, api.Namespaces, "", "shop")
	if _, err := f.admin.Delete(f.ctx, api.Namespaces, "", "default", store.DeleteOptions{}); !apierrors.IsForbidden(err) {
		t.Errorf("delete default: got %v, want Forbidden", err)
	}
}
