package gitops

import (
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/slipway-dev/slipway/apiserver/store"
	"github.com/slipway-dev/slipway/apiserver/store/kv/memory"
	"github.com/slipway-dev/slipway/reconciler/gitops/plan"
)

const rack = `
apiVersion: v1
kind: Node
metadata: {name: n1, labels: {rack: r7}, annotations: {contact: ada}}
spec:
  unschedulable: true
  taints:
    - {key: maintenance, effect: NoExecute}
`

const other = `
apiVersion: v1
kind: ConfigMap
metadata: {name: other, namespace: default}
`

func joined(name string) *corev1.Node {
	return &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: name, Labels: map[string]string{"kubernetes.io/hostname": name}}}
}

// taints returns the keys of a node's taints.
func taints(r *rig, name string) (keys []string) {
	for _, t := range get[*corev1.Node](r, "", name).Spec.Taints {
		keys = append(keys, t.Key)
	}
	return keys
}

// TestGitOwnsPartOfANode: cordon and taints come and go with a manifest; the node and what others say of it stay.
func TestGitOwnsPartOfANode(t *testing.T) {
	r := newRig(t, memory.New())
	r.create(joined("n1"))
	r.start(Config{Name: "shop"})
	r.settle(files{"n1.yaml": rack, "other.yaml": other})
	n := get[*corev1.Node](r, "", "n1")
	if !n.Spec.Unschedulable || n.Labels["rack"] != "r7" || n.Labels["kubernetes.io/hostname"] != "n1" || n.Annotations["contact"] != "ada" {
		t.Errorf("spec %+v, labels %v, annotations %v", n.Spec, n.Labels, n.Annotations)
	}
	full := n.DeepCopy()
	full.Spec.Taints = append(full.Spec.Taints, corev1.Taint{Key: "node.kubernetes.io/disk-pressure", Effect: corev1.TaintEffectNoSchedule})
	if _, err := r.admin.Update(t.Context(), full, store.UpdateOptions{FieldManager: "pressure"}); err != nil {
		t.Fatal(err)
	}
	r.settle(files{"n1.yaml": rack + "    - {key: later, effect: PreferNoSchedule}\n", "other.yaml": other})
	if diff := cmp.Diff([]string{"maintenance", "later", "node.kubernetes.io/disk-pressure"}, taints(r, "n1"), cmpopts.SortSlices(func(a, b string) bool { return a < b })); diff != "" {
		t.Errorf("taints beside another's (-want +got):\n%s", diff)
	}
	r.settle(files{"other.yaml": other})
	n = get[*corev1.Node](r, "", "n1")
	if n.Spec.Unschedulable || n.Labels["rack"] != "" || n.Annotations["contact"] != "" || n.Labels["kubernetes.io/hostname"] != "n1" {
		t.Errorf("after its manifest went: spec %+v, labels %v, annotations %v", n.Spec, n.Labels, n.Annotations)
	}
	if diff := cmp.Diff([]string{"node.kubernetes.io/disk-pressure"}, taints(r, "n1")); diff != "" {
		t.Errorf("taints after the manifest went (-want +got):\n%s", diff)
	}
}

// TestANodeThatIsNotHereIsWaitedFor: Git makes no nodes.
func TestANodeThatIsNotHereIsWaitedFor(t *testing.T) {
	r := newRig(t, memory.New())
	r.start(Config{Name: "shop"})
	r.push(files{"n1.yaml": rack, "other.yaml": other})
	r.await("the plan", func(p Progress) bool {
		return p.Plan != nil && slices.Contains(p.Plan.Lines(), "… Node n1: no node of this name is here: it is applied when one joins")
	})
	if has[*corev1.Node](r, "", "n1") {
		t.Fatal("Git made a node")
	}
	r.create(joined("n1"))
	r.await("the node's own plan", func(p Progress) bool {
		return p.Action != nil && p.Action.Op == plan.Update && p.Action.Ref.Name == "n1"
	})
	if !get[*corev1.Node](r, "", "n1").Spec.Unschedulable {
		t.Error("the node joined and is not as Git has it")
	}
}

// TestANodesOwnFieldsAreRefused: addresses and the like are not Git's.
func TestANodesOwnFieldsAreRefused(t *testing.T) {
	r := newRig(t, memory.New())
	r.create(joined("n1"))
	r.start(Config{Name: "shop"})
	rev := r.push(files{"n1.yaml": rack + "  podCIDR: 10.9.0.0/24\n", "other.yaml": other})
	p := r.awaitStep(StepSettled, rev)
	const want = "n1.yaml:2: Node/n1: UnsupportedField: spec.podCIDR: is the node's own: of a Node, Git says labels, annotations, spec.unschedulable and spec.taints (line 9)"
	if len(p.Status.Errors) != 1 || p.Status.Errors[0] != want {
		t.Errorf("errors %q, want %q", p.Status.Errors, want)
	}
	if get[*corev1.Node](r, "", "n1").Spec.Unschedulable {
		t.Error("a refused manifest was applied in part")
	}
}
