package gitops

import (
	"fmt"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/slipway-dev/slipway/apiserver/api"
	slipwayv1 "github.com/slipway-dev/slipway/apiserver/api/v1alpha1"
	"github.com/slipway-dev/slipway/apiserver/store"
	"github.com/slipway-dev/slipway/apiserver/store/kv/memory"
	"github.com/slipway-dev/slipway/reconciler/gitops/plan"
)

func podFile(name, command string) string {
	return fmt.Sprintf("apiVersion: v1\nkind: Pod\nmetadata:\n  name: %s\n  namespace: shop\nspec:\n  automountServiceAccountToken: false\n"+
		"  containers:\n  - name: app\n    image: tool:1\n    command: [%q]\n", name, command)
}

func serviceFile(address, annotation string) string {
	return fmt.Sprintf("apiVersion: v1\nkind: Service\nmetadata:\n  name: web\n  namespace: shop\n  annotations: {%s}\nspec:\n  clusterIP: %s\n  ports: [{port: 80}]\n", annotation, address)
}

func bound(r *rig, name string) {
	r.t.Helper()
	_, err := r.admin.Create(r.t.Context(), &corev1.Binding{ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: name},
		Target: corev1.ObjectReference{Kind: "Node", Name: "n1"}}, store.CreateOptions{Subresource: "binding"})
	if err != nil {
		r.t.Fatal(err)
	}
}

// TestBarePodIsReplaced changes what a Pod cannot change: it is told to go, has its grace, and is made again after.
func TestBarePodIsReplaced(t *testing.T) {
	r := newRig(t, memory.New())
	r.start(Config{})
	f := shop()
	r.settle(f)
	r.create(&corev1.ServiceAccount{ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: "default"}})
	f["tool.yaml"] = podFile("tool", "serve")
	rev := r.push(f)
	r.await("the Pod is waited for", func(p Progress) bool { return p.Step == StepWorkload && p.Revision.ID == rev })
	bound(r, "tool")
	old := get[*corev1.Pod](r, "shop", "tool").UID

	f["tool.yaml"] = podFile("tool", "serve --faster")
	rev = r.push(f)
	p := r.awaitStep(StepPlanned, rev)
	want := []string{"± Pod shop/tool: replaced (deleted, and made again when it is gone), as it cannot be changed in place: spec: Forbidden: pod updates may not change fields other than " +
		"`spec.containers[*].image`,`spec.initContainers[*].image`,`spec.activeDeadlineSeconds`,`spec.tolerations` (only additions to existing tolerations),`spec.terminationGracePeriodSeconds` (allow it to be set to 1 if it was previously negative) (line 6)"}
	if diff := cmp.Diff(want, p.Plan.Lines()); diff != "" {
		t.Error(diff)
	}
	r.await("the Pod is told to go", func(p Progress) bool { return p.Step == StepDone && p.Action.Op == plan.Replace })
	if pod := get[*corev1.Pod](r, "shop", "tool"); pod.UID != old || pod.DeletionTimestamp == nil {
		t.Errorf("the Pod was not given its grace: %s, %v", pod.UID, pod.DeletionTimestamp)
	}
	var none int64
	if _, err := r.admin.Delete(t.Context(), api.Pods, "shop", "tool", store.DeleteOptions{GracePeriodSeconds: &none}); err != nil {
		t.Fatal(err)
	}
	r.await("the Pod is made again", func(p Progress) bool {
		return p.Step == StepDone && p.Action.Op == plan.Create && p.Action.Ref.Name == "tool"
	})
	if pod := get[*corev1.Pod](r, "shop", "tool"); pod.UID == old || pod.Spec.Containers[0].Command[0] != "serve --faster" {
		t.Errorf("%s runs %v", pod.UID, pod.Spec.Containers[0].Command)
	}
}

// TestOthersAreReplacedWhereTheirManifestSaysSo changes a Service's address.
func TestOthersAreReplacedWhereTheirManifestSaysSo(t *testing.T) {
	r := newRig(t, memory.New())
	r.start(Config{})
	f := shop()
	f["web.yaml"] = serviceFile("10.96.0.40", "")
	r.settle(f)
	f["web.yaml"] = serviceFile("10.96.0.41", "")
	rev := r.push(f)
	want := `web.yaml:1: Service/shop/web: spec.clusterIPs[0]: Invalid value: ["10.96.0.41"]: may not change once set (line 7): ` +
		`this cannot be changed in place: set annotation slipway.dev/replace: "true" to have the object deleted and made again`
	if p := r.awaitStep(StepSettled, rev); p.Status.Phase != slipwayv1.RolloutFailed || p.Status.Message != want {
		t.Errorf("%s:\n%s, want\n%s", p.Status.Phase, p.Status.Message, want)
	}
	f["other.yaml"] = strings.Replace(serviceFile("10.96.0.42", ""), "name: web", "name: other", 1)
	f["web.yaml"] = serviceFile("10.96.0.40", "")
	r.settle(f)
	f["web.yaml"] = serviceFile("10.96.0.42", `slipway.dev/replace: "true"`)
	rev = r.push(f)
	if p := r.awaitStep(StepSettled, rev); p.Status.Phase != slipwayv1.RolloutFailed || get[*corev1.Service](r, "shop", "web").Spec.ClusterIP != "10.96.0.40" {
		t.Errorf("what cannot be made is no reason to delete what is there: %s %s", p.Status.Phase, p.Status.Message)
	}
	f["web.yaml"] = serviceFile("10.96.0.41", `slipway.dev/replace: "true"`)
	rev = r.push(f)
	if p := r.awaitStep(StepSettled, rev); p.Status.Phase != slipwayv1.RolloutSucceeded {
		t.Errorf("%s: %s", p.Status.Phase, p.Status.Message)
	}
	if ip := get[*corev1.Service](r, "shop", "web").Spec.ClusterIP; ip != "10.96.0.41" {
		t.Errorf("the address is %s", ip)
	}
}

// TestManyReplacementsWaitForConfirmation: what is replaced is deleted first, and many deletions at once are asked about.
func TestManyReplacementsWaitForConfirmation(t *testing.T) {
	r := newRig(t, memory.New())
	r.start(Config{})
	f := shop()
	r.settle(f)
	r.create(&corev1.ServiceAccount{ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: "default"}})
	for n := range 10 {
		f[fmt.Sprintf("p%d.yaml", n)] = podFile(fmt.Sprint("p", n), "a")
	}
	rev := r.push(f)
	r.await("the Pods are waited for", func(p Progress) bool { return p.Step == StepWorkload && p.Revision.ID == rev })
	for n := range 10 {
		f[fmt.Sprintf("p%d.yaml", n)] = podFile(fmt.Sprint("p", n), "b")
	}
	rev = r.push(f)
	if p := r.awaitStep(StepAwaiting, rev); p.Text != "deleting 10 of 13 objects waits for confirmation" {
		t.Errorf("question %q", p.Text)
	}
	bound(r, "p3")                            // a change of a Pod makes a turn of its own, which must not replace it
	for _, name := range []string{"a", "b"} { // when the second is back, the turn that began with the Pod has ended
		r.patch(api.ConfigMaps, "shop", name, `{"data":{"key":"other"}}`)
		r.await("a turn after it", func(p Progress) bool { return p.Step == StepPutBack && p.Action.Ref.Name == name })
	}
	for n := range 10 {
		if pod := get[*corev1.Pod](r, "shop", fmt.Sprint("p", n)); pod.Spec.Containers[0].Command[0] != "a" || pod.DeletionTimestamp != nil {
			t.Errorf("%s was replaced without an answer", pod.Name)
		}
	}
}
