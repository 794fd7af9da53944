package server

import (
	"context"
	"io"
	"log/slog"
	"os/exec"
	"strings"
	"testing"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/slipway-dev/slipway/apiserver/api"
	"github.com/slipway-dev/slipway/apiserver/event"
	"github.com/slipway-dev/slipway/apiserver/store"
	"github.com/slipway-dev/slipway/reconciler/deployment"
	"github.com/slipway-dev/slipway/reconciler/loop"
	"github.com/slipway-dev/slipway/reconciler/replicaset"
	"github.com/slipway-dev/slipway/testing/need"
)

// TestKubectlRolloutReads lets kubectl tell the history and state of a rollout, and try to undo it.
func TestKubectlRolloutReads(t *testing.T) {
	f := newFixture(t)
	f.runWorkloads(t)
	labels := map[string]string{"app": "front"}
	one := int32(1)
	d := &appsv1.Deployment{ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: "front", Annotations: map[string]string{"kubernetes.io/change-cause": "first"}},
		Spec: appsv1.DeploymentSpec{Replicas: &one, Selector: &metav1.LabelSelector{MatchLabels: labels}, Template: corev1.PodTemplateSpec{
			ObjectMeta: metav1.ObjectMeta{Labels: labels}, Spec: corev1.PodSpec{Containers: []corev1.Container{{Name: "app", Image: "front:1"}}}}}}
	f.create(t, d)
	f.rolledOut(t, "front:1")
	patch := `{"metadata":{"annotations":{"kubernetes.io/change-cause":"second"}},"spec":{"template":{"spec":{"containers":[{"name":"app","image":"front:2"}]}}}}`
	if _, err := f.admin.Patch(t.Context(), api.Deployments, "shop", "front", store.Patch{Type: "application/strategic-merge-patch+json", Data: []byte(patch)}); err != nil {
		t.Fatal(err)
	}
	f.rolledOut(t, "front:2")

	f.kubectl(t, contains("deployment \"front\" successfully rolled out"), "rollout", "status", "deployment/front")
	f.kubectl(t, contains("REVISION", "1", "first", "2", "second"), "rollout", "history", "deployment/front")
	f.kubectl(t, contains("revision #1", "front:1", "first"), "rollout", "history", "deployment/front", "--revision=1")
	f.kubectl(t, contains("Pod Template", "front:1"), "rollout", "undo", "deployment/front", "--dry-run=client")
	newest := exec.CommandContext(t.Context(), need.Kubectls(t)[0], "--kubeconfig", f.kubeconfig, "--cache-dir", t.TempDir(), "-n", "shop",
		"rollout", "undo", "deployment/front", "--dry-run=server") // older ones ask for a schema first that is not served
	if out, err := newest.CombinedOutput(); err != nil || !strings.Contains(string(out), "deployment.apps/front rolled back (server dry run)") {
		t.Errorf("a tried undo: %v\n%s", err, out)
	}
	f.kubectl(t, func(t *testing.T, out string, err error) {
		if err == nil || !strings.Contains(out, "is read-only here") {
			t.Errorf("an undo that is meant: %v\n%s", err, out)
		}
	}, "rollout", "undo", "deployment/front")
	f.kubectl(t, contains("front:2"), "get", "deployment", "front", "-o", "wide")
}

// runWorkloads runs the controllers of Deployments and ReplicaSets, and a node on which every Pod is ready.
func (f *fixture) runWorkloads(t *testing.T) {
	log := slog.New(slog.NewTextHandler(io.Discard, nil))
	group := loop.NewGroup(log)
	events := event.New(f.admin, "test", log)
	ready := func(ctx context.Context, key loop.Key) error {
		pod, err := store.Get[*corev1.Pod](ctx, f.admin, key.Namespace, key.Name)
		if err != nil || pod.Status.Phase == corev1.PodRunning {
			return nil // gone, or done
		}
		pod = pod.DeepCopy()
		pod.Status.Phase = corev1.PodRunning
		pod.Status.Conditions = []corev1.PodCondition{{Type: corev1.PodReady, Status: corev1.ConditionTrue, LastTransitionTime: metav1.Now()}}
		_, err = f.admin.Update(ctx, pod, store.UpdateOptions{Subresource: "status"})
		return err
	}
	group.Add(f.admin, deployment.New(f.admin, events.For("deployment-controller")), replicaset.New(f.admin, events.For("replicaset-controller")),
		loop.Controller{Name: "node", Inputs: []loop.Input{{Kind: api.Pods, Keys: loop.Own}}, Reconcile: ready})
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan bool)
	go func() { group.Run(ctx); close(ended) }()
	t.Cleanup(func() { cancel(); <-ended })
}

// rolledOut waits until the one Pod of front is of image and available.
func (f *fixture) rolledOut(t *testing.T, image string) {
	t.Helper()
	watch, err := f.admin.Watch(t.Context(), api.Deployments, store.WatchOptions{Namespace: "shop"})
	if err != nil {
		t.Fatal(err)
	}
	defer watch.Close()
	for {
		ev, err := watch.Next(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		d, ok := ev.Object.(*appsv1.Deployment)
		if ok && d.Spec.Template.Spec.Containers[0].Image == image && d.Status.ObservedGeneration == d.Generation &&
			d.Status.UpdatedReplicas == 1 && d.Status.AvailableReplicas == 1 && d.Status.Replicas == 1 {
			return
		}
	}
}
