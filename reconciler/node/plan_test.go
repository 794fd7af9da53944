package node

import (
	"testing"
	"time"

	coordinationv1 "k8s.io/api/coordination/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

var now = time.Date(2030, 1, 1, 0, 0, 0, 0, time.UTC)

func readyNode(status corev1.ConditionStatus) *corev1.Node {
	n := &corev1.Node{}
	n.CreationTimestamp = metav1.NewTime(now.Add(-time.Hour))
	n.Status.Conditions = []corev1.NodeCondition{{Type: corev1.NodeReady, Status: status}}
	return n
}

func renewed(ago time.Duration) *coordinationv1.Lease {
	at := metav1.NewMicroTime(now.Add(-ago))
	return &coordinationv1.Lease{Spec: coordinationv1.LeaseSpec{RenewTime: &at}}
}

func TestPlan(t *testing.T) {
	young := readyNode(corev1.ConditionTrue)
	young.CreationTimestamp = metav1.NewTime(now.Add(-time.Second))
	for name, c := range map[string]struct {
		observed
		marked bool
		again  time.Duration
	}{
		"a renewed Lease is looked at when it would expire": {observed{readyNode(corev1.ConditionTrue), renewed(10 * time.Second), now}, false, 40 * time.Second},
		"an expired Lease marks the node":                   {observed{readyNode(corev1.ConditionTrue), renewed(Grace), now}, true, 0},
		"a marked node stays as it is":                      {observed{readyNode(corev1.ConditionUnknown), renewed(time.Hour), now}, false, 0},
		"a node without a Lease is given time":              {observed{young, nil, now}, false, 49 * time.Second},
		"a node that never had a Lease is marked":           {observed{readyNode(corev1.ConditionTrue), nil, now}, true, 0},
	} {
		conditions, again := plan(c.observed)
		if (conditions != nil) != c.marked || again != c.again {
			t.Errorf("%s: conditions %v, again after %s; want marked %t, %s", name, conditions, again, c.marked, c.again)
		}
		if conditions != nil && (conditions[0].Status != corev1.ConditionUnknown || conditions[0].Reason != "NodeStatusUnknown" || !conditions[0].LastTransitionTime.Time.Equal(now)) {
			t.Errorf("%s: condition %+v", name, conditions[0])
		}
	}
}
