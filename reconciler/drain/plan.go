// Package drain moves Pods off nodes whose NoExecute taints they do not tolerate, as Kubernetes' taint eviction does,
// but in steps: a Deployment or ReplicaSet never has fewer available Pods by it than it allows, so that those that stay
// serve while replacements become ready elsewhere. Where none can, the drain waits, and says so on the node.
//
// It must not taint nodes, and it deletes Pods by asking for their graceful end only. How a Pod ends without losing
// what it serves is its node's matter.
package drain

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// Drained is the type of the condition that says of a node with NoExecute taints whether it is empty of what must
// leave.
const Drained corev1.NodeConditionType = "slipway.dev/Drained"

// Reasons of the condition Drained.
const (
	reasonEmpty    = "NoPodsLeft"
	reasonEvicting = "Evicting"
	reasonWaiting  = "Waiting"
	reasonLater    = "Tolerated"
	reasonFleet    = "FleetSilent"
)

// observed is what one turn looks at.
type observed struct {
	now         time.Time
	nodes       []*corev1.Node
	pods        []*corev1.Pod
	sets        []*appsv1.ReplicaSet
	deployments []*appsv1.Deployment
	began       map[begin]time.Time // by the clock of now; what is missing began when it says
}

// Action is one effect.
type Action interface{ fmt.Stringer }

type (
	// Evict asks a Pod to end.
	Evict struct {
		Pod   *corev1.Pod
		Taint corev1.Taint
	}
	// Remember notes when taints that carry no time were seen first.
	Remember struct {
		Node  *corev1.Node
		Since map[string]time.Time // by taint
	}
	// Report writes a node's condition Drained; nil takes it away.
	Report struct {
		Node      *corev1.Node
		Condition *corev1.NodeCondition
	}
)

func (a Evict) String() string {
	return fmt.Sprintf("evict pod %s/%s from %s: taint %s", a.Pod.Namespace, a.Pod.Name, a.Pod.Spec.NodeName, named(a.Taint))
}

func (a Remember) String() string {
	return fmt.Sprintf("remember since when node %s has %d taints", a.Node.Name, len(a.Since))
}

func (a Report) String() string {
	if a.Condition == nil {
		return fmt.Sprintf("node %s is not being drained", a.Node.Name)
	}
	return fmt.Sprintf("node %s: %s: %s", a.Node.Name, a.Condition.Reason, a.Condition.Message)
}

// plan returns what to do now and after how long to look again; zero: when something changes.
func plan(o observed) (actions []Action, again time.Duration) {
	p := planner{observed: o, work: workloads(o)}
	for _, node := range sorted(o.nodes) {
		p.drain(node)
	}
	return p.actions, p.again
}

type planner struct {
	observed
	work    map[*corev1.Pod]*workload
	actions []Action
	again   time.Duration
}

func sorted(nodes []*corev1.Node) []*corev1.Node {
	return slices.SortedFunc(slices.Values(nodes), func(a, b *corev1.Node) int { return cmp.Compare(a.Name, b.Name) })
}

// leaving is a Pod that does not tolerate a taint of its node, or not for longer.
type leaving struct {
	pod   *corev1.Pod
	taint corev1.Taint
}

// drain plans for one node.
func (p *planner) drain(node *corev1.Node) {
	taints, held := p.acting(node)
	since := p.remember(node)
	if len(taints) == 0 {
		if held != "" {
			p.report(node, corev1.ConditionFalse, reasonFleet, held)
			return
		}
		p.unreport(node)
		return
	}
	var due []leaving
	later := 0
	for _, pod := range p.pods {
		if pod.Spec.NodeName != node.Name || pod.DeletionTimestamp != nil || finished(pod) {
			continue
		}
		taint, wait, leaves := p.mustLeave(pod, taints, since)
		switch {
		case !leaves:
		case wait > 0:
			later++
			p.wake(wait)
		default:
			due = append(due, leaving{pod, taint})
		}
	}
	p.step(node, due, later)
}

// step evicts what may go now of what has to, and reports the rest.
func (p *planner) step(node *corev1.Node, due []leaving, later int) {
	// Those that serve nobody go first: they cost nothing.
	slices.SortFunc(due, func(a, b leaving) int {
		return cmp.Or(p.rank(a.pod)-p.rank(b.pod), cmp.Compare(a.pod.Namespace, b.pod.Namespace), cmp.Compare(a.pod.Name, b.pod.Name))
	})
	why := map[string]int{}
	evicted := 0
	for _, l := range due {
		if reason := p.take(l.pod); reason != "" {
			why[reason]++
			continue
		}
		evicted++
		p.actions = append(p.actions, Evict{l.pod, l.taint})
	}
	switch {
	case len(why) > 0:
		p.report(node, corev1.ConditionFalse, reasonWaiting, explain(len(due)-evicted, why))
	case evicted > 0 || p.ending(node):
		p.report(node, corev1.ConditionFalse, reasonEvicting, "Pods that must leave are ending")
	case later > 0:
		p.report(node, corev1.ConditionFalse, reasonLater, "Pods that must leave tolerate the taints for a while")
	default:
		p.report(node, corev1.ConditionTrue, reasonEmpty, "no Pod is left that does not tolerate the node's taints")
	}
}

func (p *planner) rank(pod *corev1.Pod) int {
	if w := p.work[pod]; w != nil && w.counts(pod, p.now) {
		return 1
	}
	return 0
}

// ending says whether a Pod of the node is on its way out.
func (p *planner) ending(node *corev1.Node) bool {
	return slices.ContainsFunc(p.pods, func(pod *corev1.Pod) bool {
		return pod.Spec.NodeName == node.Name && pod.DeletionTimestamp != nil
	})
}

// take says why a Pod has to stay for now; empty: it may go, and is counted as gone.
func (p *planner) take(pod *corev1.Pod) string {
	w := p.work[pod]
	if w == nil || !w.counts(pod, p.now) {
		return ""
	}
	least := w.least()
	switch {
	case w.available-w.doomed <= least:
		return fmt.Sprintf("%s has %d of %d available and must have %d%s", w.name, w.available, w.desired, least, w.pending())
	case w.rolling:
		return w.name + " is being rolled out"
	case w.available-w.doomed <= 1 && !p.elsewhere(pod):
		return fmt.Sprintf("%s has one Pod available and there is no other node for it%s", w.name, w.pending())
	}
	w.available--
	return ""
}

func explain(left int, why map[string]int) string {
	var parts []string
	for reason, n := range why {
		parts = append(parts, fmt.Sprintf("%d: %s", n, reason))
	}
	slices.Sort(parts)
	noun := "Pods stay"
	if left == 1 {
		noun = "Pod stays"
	}
	return fmt.Sprintf("%d %s for now: %s", left, noun, strings.Join(parts, "; "))
}

func (p *planner) wake(after time.Duration) {
	if p.again == 0 || after < p.again {
		p.again = after
	}
}

// report plans the condition unless the node has it. What it says does not change while the problem is the same.
func (p *planner) report(node *corev1.Node, status corev1.ConditionStatus, reason, message string) {
	old, has := conditionOf(node)
	if has && old.Status == status && old.Reason == reason && old.Message == message {
		return
	}
	at := metav1.NewTime(p.now)
	if has && old.Status == status {
		at = old.LastTransitionTime
	}
	p.actions = append(p.actions, Report{node, &corev1.NodeCondition{Type: Drained, Status: status, Reason: reason, Message: message,
		LastHeartbeatTime: metav1.NewTime(p.now), LastTransitionTime: at}})
}

func (p *planner) unreport(node *corev1.Node) {
	if _, has := conditionOf(node); has {
		p.actions = append(p.actions, Report{Node: node})
	}
}

func conditionOf(node *corev1.Node) (corev1.NodeCondition, bool) {
	for _, c := range node.Status.Conditions {
		if c.Type == Drained {
			return c, true
		}
	}
	return corev1.NodeCondition{}, false
}

func finished(pod *corev1.Pod) bool {
	return pod.Status.Phase == corev1.PodSucceeded || pod.Status.Phase == corev1.PodFailed
}
