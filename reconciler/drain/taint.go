package drain

import (
	"encoding/json"
	"maps"
	"slices"
	"time"

	corev1 "k8s.io/api/core/v1"
	corehelpers "k8s.io/component-helpers/scheduling/corev1"
	"k8s.io/klog/v2"
)

// DefaultSeconds is how long a Pod that says nothing of it tolerates that its node is not ready or not to be reached,
// Kubernetes' DefaultTolerationSeconds.
const DefaultSeconds = 300

// annotationSince holds when taints that carry no time were seen first, as JSON by taint.
const annotationSince = "slipway.dev/tainted-since"

// named returns a taint as people write it.
func named(t corev1.Taint) string {
	if t.Value == "" {
		return t.Key + ":" + string(t.Effect)
	}
	return t.Key + "=" + t.Value + ":" + string(t.Effect)
}

// silence says whether a taint is about a node that is not heard of or not well, rather than somebody's wish.
func silence(t corev1.Taint) bool {
	return t.Key == corev1.TaintNodeNotReady || t.Key == corev1.TaintNodeUnreachable
}

func executing(node *corev1.Node) []corev1.Taint {
	return slices.DeleteFunc(slices.Clone(node.Spec.Taints), func(t corev1.Taint) bool { return t.Effect != corev1.TaintEffectNoExecute })
}

// acting returns the taints to act on. Where so many nodes are silent that the fault is more likely between them and
// here, nobody is moved for silence: held says so. The bounds are Kubernetes' for a small zone.
func (p *planner) acting(node *corev1.Node) (taints []corev1.Taint, held string) {
	taints = executing(node)
	if !slices.ContainsFunc(taints, silence) {
		return taints, ""
	}
	silent := 0
	for _, n := range p.nodes {
		if slices.ContainsFunc(executing(n), silence) {
			silent++
		}
	}
	if silent < len(p.nodes) && (silent <= 2 || 100*silent < 55*len(p.nodes)) {
		return taints, ""
	}
	return slices.DeleteFunc(taints, silence), "too many nodes are silent at once: no Pod is moved for it"
}

// begin is when a taint began, as it is written down.
type begin struct {
	node, taint string
	at          int64 // Unix seconds
}

// begins returns when each NoExecute taint of a node began, by keyOf, and of those that do not say so what is to be
// noted.
func begins(node *corev1.Node, now time.Time) (all, note map[string]time.Time) {
	noted := readSince(node)
	all, note = map[string]time.Time{}, map[string]time.Time{}
	for _, t := range executing(node) {
		if t.TimeAdded != nil {
			all[keyOf(t)] = t.TimeAdded.Time
			continue
		}
		at, known := noted[keyOf(t)]
		if !known {
			at = now.UTC().Truncate(time.Second)
		}
		note[keyOf(t)], all[keyOf(t)] = at, at
	}
	return all, note
}

func keyOf(t corev1.Taint) string { return t.Key + ":" + string(t.Effect) }

// anchor returns the begins of all taints as times of this process' own clock, which nobody sets: a wall clock that
// jumps makes no toleration longer or shorter. What is known stays; the wall clock is believed once, for what is new.
func anchor(known map[begin]time.Time, nodes []*corev1.Node, now time.Time) map[begin]time.Time {
	anchored := map[begin]time.Time{}
	for _, node := range nodes {
		all, _ := begins(node, now)
		for taint, at := range all {
			b := begin{node.Name, taint, at.Unix()}
			began, ok := known[b]
			if !ok {
				began = now.Add(-now.Round(0).Sub(at))
			}
			anchored[b] = began
		}
	}
	return anchored
}

// remember returns when each taint began, and plans to note it for those that do not say.
func (p *planner) remember(node *corev1.Node) map[string]time.Time {
	all, note := begins(node, p.now)
	if !maps.EqualFunc(readSince(node), note, time.Time.Equal) {
		p.actions = append(p.actions, Remember{node, note})
	}
	for taint, at := range all {
		if began, ok := p.began[begin{node.Name, taint, at.Unix()}]; ok {
			all[taint] = began
		}
	}
	return all
}

func readSince(node *corev1.Node) map[string]time.Time {
	since := map[string]time.Time{}
	if text := node.Annotations[annotationSince]; text != "" {
		if err := json.Unmarshal([]byte(text), &since); err != nil {
			return map[string]time.Time{} // somebody else's: written anew
		}
	}
	return since
}

// mustLeave says whether a Pod has to leave for a taint, which one, and for how much longer it may stay: until the
// shortest toleration is over. A Pod that tolerates all of them for ever stays.
func (p *planner) mustLeave(pod *corev1.Pod, taints []corev1.Taint, since map[string]time.Time) (cause corev1.Taint, wait time.Duration, leaves bool) {
	for _, t := range taints {
		limit, tolerates := tolerated(pod, t)
		if tolerates && limit < 0 {
			continue
		}
		rest := since[keyOf(t)].Add(limit).Sub(p.now)
		if !tolerates {
			rest = 0
		}
		if !leaves || rest < wait {
			cause, wait, leaves = t, max(rest, 0), true
		}
	}
	return cause, wait, leaves
}

// tolerated returns for how long a Pod tolerates a taint; negative: for ever.
func tolerated(pod *corev1.Pod, taint corev1.Taint) (limit time.Duration, tolerates bool) {
	limit = -1
	for i := range pod.Spec.Tolerations {
		t := &pod.Spec.Tolerations[i]
		if !corehelpers.TolerationsTolerateTaint(klog.Background(), []corev1.Toleration{*t}, &taint, false) {
			continue
		}
		tolerates = true
		if t.TolerationSeconds != nil && (limit < 0 || seconds(*t.TolerationSeconds) < limit) {
			limit = seconds(max(*t.TolerationSeconds, 0))
		}
	}
	if !tolerates && silence(taint) {
		return seconds(DefaultSeconds), true
	}
	return limit, tolerates
}

func seconds(n int64) time.Duration { return time.Duration(n) * time.Second }

// elsewhere says whether another node would take the Pod, as far as taints are asked.
func (p *planner) elsewhere(pod *corev1.Pod) bool {
	return slices.ContainsFunc(p.nodes, func(n *corev1.Node) bool {
		repels := func(t *corev1.Taint) bool { return t.Effect != corev1.TaintEffectPreferNoSchedule }
		_, repelled := corehelpers.FindMatchingUntoleratedTaint(klog.Background(), n.Spec.Taints, pod.Spec.Tolerations, repels, false)
		return n.Name != pod.Spec.NodeName && !n.Spec.Unschedulable && !repelled
	})
}
