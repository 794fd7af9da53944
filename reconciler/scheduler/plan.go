package scheduler

import (
	"cmp"
	"fmt"
	"math"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	corehelpers "k8s.io/component-helpers/scheduling/corev1"
	"k8s.io/component-helpers/scheduling/corev1/nodeaffinity"
	"k8s.io/klog/v2"
)

// candidate is a Pod with what the filters need of it, worked out once.
type candidate struct {
	pod      *corev1.Pod
	demand   demand
	affinity nodeaffinity.RequiredNodeAffinity
	asks     bool // for CPU or memory: it is not of the class BestEffort
}

func newCandidate(pod *corev1.Pod) candidate {
	return candidate{pod: pod, demand: demandOf(pod), affinity: nodeaffinity.GetRequiredNodeAffinity(pod), asks: asks(pod)}
}

func asks(pod *corev1.Pod) bool {
	return slices.ContainsFunc(slices.Concat(pod.Spec.InitContainers, pod.Spec.Containers), func(c corev1.Container) bool {
		return !c.Resources.Requests.Cpu().IsZero() || !c.Resources.Requests.Memory().IsZero() ||
			!c.Resources.Limits.Cpu().IsZero() || !c.Resources.Limits.Memory().IsZero()
	})
}

// filter says why a node cannot take the Pod; none: it can. A filter may give several reasons.
type filter func(c *candidate, n *node) []string

// filters in the order they are asked; the first that refuses ends it for a node. Wordings are Kubernetes', so that
// what people know and search for is found.
var filters = []filter{unschedulable, named, tainted, selected, portsTaken, resourcesShort}

func unschedulable(c *candidate, n *node) []string {
	taint := corev1.Taint{Key: corev1.TaintNodeUnschedulable, Effect: corev1.TaintEffectNoSchedule}
	if n.Spec.Unschedulable && !corehelpers.TolerationsTolerateTaint(klog.Background(), c.pod.Spec.Tolerations, &taint, false) {
		return []string{"node(s) were unschedulable"}
	}
	return nil
}

func named(c *candidate, n *node) []string {
	if c.pod.Spec.NodeName != "" && c.pod.Spec.NodeName != n.Name {
		return []string{"node(s) didn't match the requested node name"}
	}
	return nil
}

func tainted(c *candidate, n *node) []string {
	prevents := func(t *corev1.Taint) bool {
		if t.Key == corev1.TaintNodeMemoryPressure && t.Effect == corev1.TaintEffectNoSchedule && c.asks {
			return false // as with Kubernetes' admission: such a Pod is not the first to be ended
		}
		return t.Effect == corev1.TaintEffectNoSchedule || t.Effect == corev1.TaintEffectNoExecute
	}
	taint, found := corehelpers.FindMatchingUntoleratedTaint(klog.Background(), n.Spec.Taints, c.pod.Spec.Tolerations, prevents, false)
	if found {
		return []string{fmt.Sprintf("node(s) had untolerated taint {%s: %s}", taint.Key, taint.Value)}
	}
	return nil
}

func selected(c *candidate, n *node) []string {
	if match, err := c.affinity.Match(n.Node); err != nil || !match {
		return []string{"node(s) didn't match Pod's node affinity/selector"}
	}
	return nil
}

func portsTaken(c *candidate, n *node) []string {
	for _, want := range c.demand.ports {
		for have := range n.ports {
			if have.port == want.port && have.protocol == want.protocol && (have.ip == want.ip || have.ip == "0.0.0.0" || want.ip == "0.0.0.0") {
				return []string{"node(s) didn't have free ports for the requested pod ports"}
			}
		}
	}
	return nil
}

func resourcesShort(c *candidate, n *node) []string {
	var reasons []string
	d, have := &c.demand, &n.allocatable
	if n.taken.pods+1 > have.pods {
		reasons = append(reasons, "Too many pods")
	}
	short := func(name corev1.ResourceName, need, taken, all int64) {
		if need > 0 && need > all-taken {
			reasons = append(reasons, "Insufficient "+string(name))
		}
	}
	short(corev1.ResourceCPU, d.milliCPU, n.taken.milliCPU, have.milliCPU)
	short(corev1.ResourceMemory, d.memory, n.taken.memory, have.memory)
	short(corev1.ResourceEphemeralStorage, d.ephemeral, n.taken.ephemeral, have.ephemeral)
	for name, need := range d.extended {
		short(name, need, n.taken.extended[name], have.extended[name])
	}
	return reasons
}

// decision is where a Pod goes, or why it goes nowhere.
type decision struct {
	node    string // empty: nowhere
	message string // for people, when nowhere
}

// String is the line for logs and golden tests.
func (d decision) String() string {
	if d.node != "" {
		return "bind to " + d.node
	}
	return d.message
}

// place decides for one Pod. It looks at every node, so the reasons it gives are complete.
func place(c *candidate, nodes []*node) decision {
	best, bestScore := "", int64(math.MinInt64)
	refused := map[string]int{}
	for _, n := range nodes {
		reasons := refusal(c, n)
		for _, reason := range reasons {
			refused[reason]++
		}
		if len(reasons) > 0 {
			continue
		}
		// Equal scores go to the first name: a plan does not depend on chance.
		if score := leastAllocated(c, n) - avoided(c, n)*perTaint; score > bestScore {
			best, bestScore = n.Name, score
		}
	}
	if best != "" {
		return decision{node: best}
	}
	return decision{message: explain(len(nodes), refused)}
}

func refusal(c *candidate, n *node) []string {
	for _, f := range filters {
		if reasons := f(c, n); len(reasons) > 0 {
			return reasons
		}
	}
	return nil
}

// perTaint is more than leastAllocated can give: a node that is to be avoided is taken when there is no other.
const perTaint = 10_000 * 1_000

// avoided counts the taints that ask, without insisting, to place the Pod elsewhere.
func avoided(c *candidate, n *node) (count int64) {
	for i := range n.Spec.Taints {
		taint := &n.Spec.Taints[i]
		if taint.Effect == corev1.TaintEffectPreferNoSchedule && !corehelpers.TolerationsTolerateTaint(klog.Background(), c.pod.Spec.Tolerations, taint, false) {
			count++
		}
	}
	return count
}

// Requests that a Pod without any is counted with when nodes are compared, as Kubernetes does, so that such Pods
// spread too.
const (
	assumedMilliCPU = 100
	assumedMemory   = 200 << 20
)

// leastAllocated is Kubernetes' NodeResourcesFit score with the LeastAllocated strategy: 0 (full) to 100 (empty),
// the mean of CPU and memory; on equal shares fewer Pods are better.
func leastAllocated(c *candidate, n *node) int64 {
	free := func(need, taken, all, assumed int64) int64 {
		if all == 0 {
			return 0
		}
		return max(0, all-taken-cmp.Or(need, assumed)) * 10_000 / all
	}
	score := (free(c.demand.milliCPU, n.taken.milliCPU, n.allocatable.milliCPU, assumedMilliCPU) +
		free(c.demand.memory, n.taken.memory, n.allocatable.memory, assumedMemory)) / 2
	return score*100 + max(0, 99-n.taken.pods)
}

// explain merges reasons into one line, biggest first.
func explain(nodes int, refused map[string]int) string {
	if nodes == 0 {
		return "no nodes available to schedule pods"
	}
	reasons := make([]string, 0, len(refused))
	for reason := range refused {
		reasons = append(reasons, reason)
	}
	slices.SortFunc(reasons, func(a, b string) int {
		return cmp.Or(cmp.Compare(refused[b], refused[a]), cmp.Compare(a, b))
	})
	for i, reason := range reasons {
		reasons[i] = fmt.Sprintf("%d %s", refused[reason], reason)
	}
	return fmt.Sprintf("0/%d nodes are available: %s.", nodes, strings.Join(reasons, ", "))
}
