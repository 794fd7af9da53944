package node

import (
	"slices"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// mark is the taint a node has for a state of a condition.
type mark struct {
	condition corev1.NodeConditionType
	status    corev1.ConditionStatus
	taint     string
}

// marks returns all marks, which are Kubernetes' (TaintNodesByCondition).
func marks() []mark {
	return []mark{
		{corev1.NodeReady, corev1.ConditionFalse, corev1.TaintNodeNotReady},
		{corev1.NodeReady, corev1.ConditionUnknown, corev1.TaintNodeUnreachable},
		{corev1.NodeMemoryPressure, corev1.ConditionTrue, corev1.TaintNodeMemoryPressure},
		{corev1.NodeDiskPressure, corev1.ConditionTrue, corev1.TaintNodeDiskPressure},
		{corev1.NodePIDPressure, corev1.ConditionTrue, corev1.TaintNodePIDPressure},
		{corev1.NodeNetworkUnavailable, corev1.ConditionTrue, corev1.TaintNodeNetworkUnavailable},
	}
}

// taints returns the taints a node should have by its conditions, and whether it has others. Taints that stand for no
// condition are kept, those that stay with the time they were added.
func taints(node *corev1.Node, now metav1.Time) (want []corev1.Taint, changed bool) {
	holds := map[string]bool{} // by key; false: the condition it stands for does not hold
	for _, m := range marks() {
		holds[m.taint] = slices.ContainsFunc(node.Status.Conditions, func(c corev1.NodeCondition) bool {
			return c.Type == m.condition && c.Status == m.status
		})
	}
	has := map[string]bool{}
	for _, t := range node.Spec.Taints {
		stands, known := holds[t.Key]
		if known && t.Effect == corev1.TaintEffectNoSchedule && !stands {
			changed = true
			continue
		}
		if t.Effect == corev1.TaintEffectNoSchedule {
			has[t.Key] = true
		}
		want = append(want, t)
	}
	for _, m := range marks() {
		if holds[m.taint] && !has[m.taint] {
			want, changed = append(want, corev1.Taint{Key: m.taint, Effect: corev1.TaintEffectNoSchedule, TimeAdded: &now}), true
		}
	}
	return want, changed
}
