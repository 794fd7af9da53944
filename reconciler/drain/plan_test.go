package drain

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/intstr"
)

var now = time.Date(2030, 1, 1, 0, 0, 0, 0, time.UTC)

const maintenance = "maintenance"

// model is a cluster: nodes with room for so many Pods, Deployments with one ReplicaSet each, and Pods.
type model struct {
	observed
	room map[string]int
	made int
}

func given(nodes ...string) *model {
	m := &model{observed: observed{now: now}, room: map[string]int{}}
	for _, n := range nodes {
		m.nodes = append(m.nodes, &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: n}})
		m.room[n] = 100
	}
	return m
}

func (m *model) node(name string) *corev1.Node {
	return m.nodes[slices.IndexFunc(m.nodes, func(n *corev1.Node) bool { return n.Name == name })]
}

func (m *model) taint(node, key string, added ...time.Time) *model {
	t := corev1.Taint{Key: key, Effect: corev1.TaintEffectNoExecute}
	for _, at := range added {
		t.TimeAdded = &metav1.Time{Time: at}
	}
	n := m.node(node)
	n.Spec.Taints = append(n.Spec.Taints, t)
	return m
}

// deploy adds a Deployment of n Pods that may lack so many, and as many ready Pods on the named nodes.
func (m *model) deploy(name string, n, unavailable int, nodes ...string) *model {
	wanted, max := int32(n), intstr.FromInt32(int32(unavailable))
	d := &appsv1.Deployment{ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: name, UID: types.UID(name)}, Spec: appsv1.DeploymentSpec{Replicas: &wanted,
		Strategy: appsv1.DeploymentStrategy{RollingUpdate: &appsv1.RollingUpdateDeployment{MaxUnavailable: &max}}}}
	rs := &appsv1.ReplicaSet{ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: name, UID: types.UID(name + "-set"),
		OwnerReferences: []metav1.OwnerReference{*metav1.NewControllerRef(d, appsv1.SchemeGroupVersion.WithKind("Deployment"))}}, Spec: appsv1.ReplicaSetSpec{Replicas: &wanted}}
	m.deployments, m.sets = append(m.deployments, d), append(m.sets, rs)
	for i := range n {
		m.pod(rs, nodes[i%len(nodes)], true)
	}
	return m
}

func (m *model) pod(rs *appsv1.ReplicaSet, node string, ready bool) *corev1.Pod {
	m.made++
	pod := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: fmt.Sprintf("bare-%d", m.made), UID: types.UID(fmt.Sprint(m.made))}, Spec: corev1.PodSpec{NodeName: node}}
	if rs != nil {
		pod.Name = fmt.Sprintf("%s-%d", rs.Name, m.made)
		pod.OwnerReferences = []metav1.OwnerReference{*metav1.NewControllerRef(rs, appsv1.SchemeGroupVersion.WithKind("ReplicaSet"))}
	}
	status := corev1.ConditionFalse
	if ready {
		status = corev1.ConditionTrue
	}
	pod.Status.Conditions = []corev1.PodCondition{{Type: corev1.PodReady, Status: status, LastTransitionTime: metav1.NewTime(m.now)}}
	m.pods = append(m.pods, pod)
	return pod
}

func (m *model) tolerate(key string, limit *int64) *model {
	for _, pod := range m.pods {
		pod.Spec.Tolerations = append(pod.Spec.Tolerations, corev1.Toleration{Key: key, Operator: corev1.TolerationOpExists, TolerationSeconds: limit})
	}
	return m
}

func (m *model) with(change func(m *model)) *model {
	change(m)
	return m
}

func lines(o observed) string {
	actions, again := plan(o)
	var out []string
	for _, a := range actions {
		if _, ok := a.(Remember); !ok {
			out = append(out, a.String())
		}
	}
	if again > 0 {
		out = append(out, "again after "+again.String())
	}
	return strings.Join(out, "\n")
}

func TestPlan(t *testing.T) {
	const a, b, c = "a", "b", "c"
	ten := int64(10)
	for name, test := range map[string]struct {
		given *model
		want  string
	}{
		"a node without taints": {given(a, b).deploy("web", 2, 1, a), ""},
		"one Pod goes, as the Deployment allows": {given(a, b).deploy("web", 4, 1, a).taint(a, maintenance),
			"evict pod shop/web-1 from a: taint maintenance:NoExecute\n" +
				"node a: Waiting: 3 Pods stay for now: 3: Deployment shop/web has 3 of 4 available and must have 3"},
		"a Deployment that may lack none lacks one, or the drain never ends": {given(a, b).deploy("web", 2, 0, a).taint(a, maintenance),
			"evict pod shop/web-1 from a: taint maintenance:NoExecute\n" +
				"node a: Waiting: 1 Pod stays for now: 1: Deployment shop/web has 1 of 2 available and must have 1"},
		"bare Pods go at once": {given(a).with(func(m *model) { m.pod(nil, a, true); m.pod(nil, a, true) }).taint(a, maintenance),
			"evict pod shop/bare-1 from a: taint maintenance:NoExecute\nevict pod shop/bare-2 from a: taint maintenance:NoExecute\n" +
				"node a: Evicting: Pods that must leave are ending"},
		"Pods that are not ready cost nothing": {given(a, b).deploy("web", 2, 1, b).taint(a, maintenance).with(func(m *model) { m.pod(m.sets[0], a, false) }),
			"evict pod shop/web-3 from a: taint maintenance:NoExecute\nnode a: Evicting: Pods that must leave are ending"},
		"the last one stays where no node would take its replacement": {given(a, b).deploy("web", 1, 1, a).taint(a, maintenance).taint(b, maintenance),
			"node a: Waiting: 1 Pod stays for now: 1: Deployment shop/web has one Pod available and there is no other node for it\n" +
				"node b: True"},
		"two nodes share what a Deployment allows": {given(a, b, c).deploy("web", 4, 1, a, b).taint(a, maintenance).taint(b, maintenance),
			"evict pod shop/web-1 from a: taint maintenance:NoExecute\n" +
				"node a: Waiting: 1 Pod stays for now: 1: Deployment shop/web has 3 of 4 available and must have 3\n" +
				"node b: Waiting: 2 Pods stay for now: 2: Deployment shop/web has 3 of 4 available and must have 3"},
		"what a ReplicaSet is about to end counts as gone": {given(a, b).deploy("web", 4, 1, a).taint(a, maintenance).with(func(m *model) { three := int32(3); m.sets[0].Spec.Replicas = &three }),
			"node a: Waiting: 4 Pods stay for now: 4: Deployment shop/web has 4 of 4 available and must have 3"},
		"a rollout goes first": {given(a, b).deploy("web", 4, 1, a).taint(a, maintenance).with(func(m *model) {
			m.deployments[0].Status = appsv1.DeploymentStatus{Replicas: 5, UpdatedReplicas: 2}
		}), "node a: Waiting: 4 Pods stay for now: 4: Deployment shop/web is being rolled out"},
		"a rollout that is stuck does not hold the drain": {given(a, b).deploy("web", 4, 1, a).taint(a, maintenance).with(func(m *model) {
			m.deployments[0].Status = appsv1.DeploymentStatus{Replicas: 5, UpdatedReplicas: 2,
				Conditions: []appsv1.DeploymentCondition{{Type: appsv1.DeploymentProgressing, Status: corev1.ConditionFalse}}}
		}), "evict pod shop/web-1 from a: taint maintenance:NoExecute\n" +
			"node a: Waiting: 3 Pods stay for now: 3: Deployment shop/web has 3 of 4 available and must have 3"},
		"who tolerates stays": {given(a).deploy("web", 2, 1, a).taint(a, maintenance).tolerate(maintenance, nil),
			"node a: NoPodsLeft: no Pod is left that does not tolerate the node's taints"},
		"who tolerates for a while stays for a while": {given(a, b).deploy("web", 2, 1, a).taint(a, maintenance, now.Add(-4*time.Second)).tolerate(maintenance, &ten),
			"node a: Tolerated: Pods that must leave tolerate the taints for a while\nagain after 6s"},
		"and leaves then": {given(a, b).deploy("web", 2, 2, a).taint(a, maintenance, now.Add(-10*time.Second)).tolerate(maintenance, &ten),
			"evict pod shop/web-1 from a: taint maintenance:NoExecute\nevict pod shop/web-2 from a: taint maintenance:NoExecute\nnode a: Evicting: Pods that must leave are ending"},
		"the shortest toleration counts": {given(a, b).deploy("web", 1, 1, a).taint(a, maintenance, now).taint(a, "other").tolerate(maintenance, &ten),
			"evict pod shop/web-1 from a: taint other:NoExecute\nnode a: Evicting: Pods that must leave are ending"},
		"silence is tolerated for five minutes": {given(a, b).deploy("web", 1, 1, a).taint(a, corev1.TaintNodeUnreachable, now.Add(-time.Minute)),
			"node a: Tolerated: Pods that must leave tolerate the taints for a while\nagain after 4m0s"},
		"a node that stays silent is emptied": {given(a, b).deploy("web", 2, 1, a).taint(a, corev1.TaintNodeUnreachable, now.Add(-5*time.Minute)).with(func(m *model) {
			for _, pod := range m.pods {
				pod.Status.Conditions[0].Status = corev1.ConditionUnknown
			}
		}), "evict pod shop/web-1 from a: taint node.kubernetes.io/unreachable:NoExecute\nevict pod shop/web-2 from a: taint node.kubernetes.io/unreachable:NoExecute\n" +
			"node a: Evicting: Pods that must leave are ending"},
		"the whole fleet silent at once is no reason": {given(a, b).deploy("web", 2, 1, a, b).taint(a, corev1.TaintNodeUnreachable, now.Add(-time.Hour)).taint(b, corev1.TaintNodeNotReady, now.Add(-time.Hour)),
			"node a: FleetSilent: too many nodes are silent at once: no Pod is moved for it\nnode b: FleetSilent: too many nodes are silent at once: no Pod is moved for it"},
	} {
		want := strings.ReplaceAll(test.want, "node b: True", "node b: NoPodsLeft: no Pod is left that does not tolerate the node's taints")
		if diff := cmp.Diff(want, lines(test.given.observed)); diff != "" {
			t.Errorf("%s (-want +got):\n%s", name, diff)
		}
	}
}

// apply does what a plan says, and then what everybody else does: Pods end, are made again, placed and become ready.
func (m *model) apply(actions []Action, r *rand.Rand) {
	for _, a := range actions {
		switch a := a.(type) {
		case Evict:
			a.Pod.DeletionTimestamp = &metav1.Time{Time: m.now}
		case Remember:
			raw := *a.Node
			raw.Annotations = map[string]string{annotationSince: sinceText(a.Since)}
			*m.node(a.Node.Name) = raw
		case Report:
			n := m.node(a.Node.Name)
			n.Status.Conditions = nil
			if a.Condition != nil {
				n.Status.Conditions = []corev1.NodeCondition{*a.Condition}
			}
		}
	}
	m.now = m.now.Add(time.Second)
	m.pods = slices.DeleteFunc(m.pods, func(p *corev1.Pod) bool { return p.DeletionTimestamp != nil && r.IntN(3) == 0 })
	for _, rs := range m.sets {
		alive := 0
		for _, p := range m.pods {
			if controllerOf(p) == rs.UID && p.DeletionTimestamp == nil {
				alive++
			}
		}
		for range int(*rs.Spec.Replicas) - alive {
			m.pod(rs, "", false)
		}
	}
	for _, p := range m.pods {
		switch {
		case p.Spec.NodeName == "":
			m.schedule(p)
		case p.DeletionTimestamp == nil && r.IntN(3) == 0:
			p.Status.Conditions[0].Status = corev1.ConditionTrue
		}
	}
}

func sinceText(since map[string]time.Time) string {
	var parts []string
	for k, v := range since {
		parts = append(parts, fmt.Sprintf("%q:%q", k, v.Format(time.RFC3339)))
	}
	return "{" + strings.Join(parts, ",") + "}"
}

func (m *model) schedule(pod *corev1.Pod) {
	for _, n := range m.nodes {
		used := 0
		for _, p := range m.pods {
			if p.Spec.NodeName == n.Name {
				used++
			}
		}
		if len(n.Spec.Taints) == 0 && used < m.room[n.Name] {
			pod.Spec.NodeName = n.Name
			return
		}
	}
}

// available counts a Deployment's ready Pods that are not ending.
func (m *model) available(name string) (n int) {
	for _, p := range m.pods {
		if controllerOf(p) == types.UID(name+"-set") && p.DeletionTimestamp == nil && p.Status.Conditions[0].Status == corev1.ConditionTrue {
			n++
		}
	}
	return n
}

// Draining random nodes of random clusters never takes a Deployment below what it allows, ends with no Pod left where
// there is room elsewhere, and then plans nothing more. A plan does not depend on the order of what is observed.
func TestPlanKeepsBoundsAndConverges(t *testing.T) {
	for seed := range uint64(100) {
		r := rand.New(rand.NewPCG(seed, 7))
		m := given("a", "b", "c")
		roomy := r.IntN(2) == 0
		m.room["c"] = 3 + r.IntN(3)
		if roomy {
			m.room["c"] = 1000
		}
		least := map[string]int{}
		for i := range 1 + r.IntN(3) {
			name, n, unavailable := fmt.Sprintf("d%d", i), 1+r.IntN(6), r.IntN(3)
			m.deploy(name, n, unavailable, "a", "b")
			least[name] = n - max(1, unavailable)
		}
		m.taint("a", maintenance)
		if r.IntN(2) == 0 {
			m.taint("b", maintenance)
		}
		for step := range 150 {
			actions, _ := plan(m.observed)
			shuffled := m.observed
			shuffled.pods, shuffled.nodes = slices.Clone(m.pods), slices.Clone(m.nodes)
			r.Shuffle(len(shuffled.pods), func(i, j int) { shuffled.pods[i], shuffled.pods[j] = shuffled.pods[j], shuffled.pods[i] })
			slices.Reverse(shuffled.nodes)
			if diff := cmp.Diff(lines(m.observed), lines(shuffled)); diff != "" {
				t.Fatalf("seed %d: the order of Pods and nodes matters:\n%s", seed, diff)
			}
			m.apply(actions, r)
			for name, n := range least {
				if got := m.available(name); got < n {
					t.Fatalf("seed %d, step %d: %s has %d available, want %d at least", seed, step, name, got, n)
				}
			}
		}
		actions, again := plan(m.observed)
		if len(actions) > 0 || again > 0 {
			t.Errorf("seed %d: after 150 steps: %v, again after %s", seed, actions, again)
		}
		for _, pod := range m.pods {
			if roomy && pod.Spec.NodeName == "a" {
				t.Errorf("seed %d: %s is still there", seed, pod.Name)
			}
		}
	}
}

// TestTolerationsGoByAClockNobodySets: once a taint is known, what a wall clock says does not matter.
func TestTolerationsGoByAClockNobodySets(t *testing.T) {
	start := time.Now()
	ten := int64(10)
	m := given("a", "b").deploy("web", 1, 1, "a").taint("a", maintenance, start.Add(-4*time.Second)).tolerate(maintenance, &ten)
	m.now = start
	m.began = anchor(nil, m.nodes, m.now)
	if _, again := plan(m.observed); again != 6*time.Second {
		t.Errorf("again after %s, want 6s", again)
	}
	later := anchor(m.began, m.nodes, start.Round(0).Add(365*24*time.Hour))
	for taint, began := range m.began {
		if !strings.Contains(began.String(), " m=") || later[taint].String() != began.String() {
			t.Errorf("began %s, and %s when the clock is set; want a reading of the process' own clock that stays", began, later[taint])
		}
	}
}
