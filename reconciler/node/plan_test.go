package node

import (
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
)

var now = time.Date(2030, 1, 1, 0, 0, 0, 0, time.UTC)

func readyNode(status corev1.ConditionStatus) *corev1.Node {
	n := &corev1.Node{}
	n.Name = "a"
	n.Status.Conditions = []corev1.NodeCondition{{Type: corev1.NodeReady, Status: status}}
	return n
}

func TestPlan(t *testing.T) {
	for name, c := range map[string]struct {
		observed
		marked bool
		again  time.Duration
	}{
		"a node that talks is looked at when it would be silent": {observed{readyNode(corev1.ConditionTrue), 10 * time.Second, now}, false, 40 * time.Second},
		"a silent one is marked":                                 {observed{readyNode(corev1.ConditionTrue), Grace, now}, true, 0},
		"a marked node stays as it is":                           {observed{readyNode(corev1.ConditionUnknown), time.Hour, now}, false, 0},
		"a young node is given time":                             {observed{readyNode(corev1.ConditionTrue), 0, now}, false, Grace},
		"a marked one that talks is not":                         {observed{readyNode(corev1.ConditionUnknown), time.Second, now}, false, 49 * time.Second},
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
