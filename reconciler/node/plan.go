// Package node says of a node whose agent has fallen silent that its state is not known: an agent renews a Lease
// every ten seconds, and a Lease that does not change for the grace period speaks for itself.
//
// It taints nodes by their conditions, so that the scheduler sends no Pods to one that is silent or short of memory,
// disk or process ids. It moves no Pods, and it compares no two machines' clocks.
package node

import (
	"fmt"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// Grace is how long an agent may be silent, Kubernetes' node-monitor-grace-period.
const Grace = 50 * time.Second

// observed is what a plan looks at.
type observed struct {
	node   *corev1.Node
	silent time.Duration // how long nothing was heard of its agent
	now    time.Time
}

// plan returns the node's conditions as they should be, or nil when they are, and after how long to look again; zero:
// when something changes.
func plan(o observed) (conditions []corev1.NodeCondition, again time.Duration) {
	if o.silent < Grace {
		return nil, Grace - o.silent
	}
	message := fmt.Sprintf("the node's agent has not been heard of since %s", o.now.Add(-o.silent).UTC().Format(time.RFC3339))
	changed := false
	for _, c := range o.node.Status.Conditions {
		if c.Status != corev1.ConditionUnknown {
			changed = true
			c.Status, c.Reason, c.Message = corev1.ConditionUnknown, "NodeStatusUnknown", message
			c.LastTransitionTime = metav1.NewTime(o.now)
		}
		conditions = append(conditions, c)
	}
	if !changed {
		return nil, 0
	}
	return conditions, 0
}
