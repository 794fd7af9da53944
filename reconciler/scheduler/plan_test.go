package scheduler

import (
	"fmt"
	"math/rand/v2"
	"testing"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
)

func makeNode(name, cpu, memory string, change ...func(*corev1.Node)) *corev1.Node {
	n := &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: name, Labels: map[string]string{"kubernetes.io/hostname": name}}}
	n.Status.Allocatable = corev1.ResourceList{corev1.ResourceCPU: resource.MustParse(cpu), corev1.ResourceMemory: resource.MustParse(memory), corev1.ResourcePods: resource.MustParse("10")}
	for _, c := range change {
		c(n)
	}
	return n
}

func makePod(name, cpu, memory string, change ...func(*corev1.Pod)) *corev1.Pod {
	p := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: name, UID: types.UID(name)}}
	p.Spec.Containers = []corev1.Container{{Name: "app"}}
	requests := corev1.ResourceList{}
	if cpu != "" {
		requests[corev1.ResourceCPU] = resource.MustParse(cpu)
	}
	if memory != "" {
		requests[corev1.ResourceMemory] = resource.MustParse(memory)
	}
	p.Spec.Containers[0].Resources.Requests = requests
	for _, c := range change {
		c(p)
	}
	return p
}

func clusterOf(nodes []*corev1.Node, pods ...*corev1.Pod) *cluster {
	c := newCluster()
	for _, n := range nodes {
		c.setNode(n)
	}
	for _, p := range pods {
		c.place(p.UID, placed{node: p.Spec.NodeName, demand: demandOf(p)})
	}
	return c
}

func on(node string) func(*corev1.Pod) { return func(p *corev1.Pod) { p.Spec.NodeName = node } }

func hostPorts(ip string, port int32) func(*corev1.Pod) {
	return func(p *corev1.Pod) {
		p.Spec.Containers[0].Ports = []corev1.ContainerPort{{HostIP: ip, HostPort: port, ContainerPort: port}}
	}
}

func taint(key string, effect corev1.TaintEffect) func(*corev1.Node) {
	return func(n *corev1.Node) { n.Spec.Taints = append(n.Spec.Taints, corev1.Taint{Key: key, Effect: effect}) }
}

func TestPlace(t *testing.T) {
	small, big := makeNode("small", "1", "1Gi"), makeNode("big", "4", "8Gi")
	cases := map[string]struct {
		nodes []*corev1.Node
		there []*corev1.Pod
		pod   *corev1.Pod
		want  string
	}{
		"no nodes":                  {nil, nil, makePod("p", "1", ""), "no nodes available to schedule pods"},
		"the emptier node is taken": {[]*corev1.Node{small, big}, nil, makePod("p", "500m", "100Mi"), "bind to big"},
		"a full node is refused": {[]*corev1.Node{small}, []*corev1.Pod{makePod("a", "800m", "", on("small"))}, makePod("p", "500m", ""),
			"0/1 nodes are available: 1 Insufficient cpu."},
		"every resource that is short is named": {[]*corev1.Node{small, big}, nil, makePod("p", "9", "9Gi"),
			"0/2 nodes are available: 2 Insufficient cpu, 2 Insufficient memory."},
		"a node to be avoided is taken only when there is no other": {
			[]*corev1.Node{makeNode("avoided", "4", "8Gi", taint("old", corev1.TaintEffectPreferNoSchedule)), small}, nil, makePod("p", "500m", ""), "bind to small"},
		"a node to be avoided is better than none": {
			[]*corev1.Node{makeNode("avoided", "4", "8Gi", taint("old", corev1.TaintEffectPreferNoSchedule)), small}, nil, makePod("p", "2", ""), "bind to avoided"},
		"a node being drained takes nothing": {[]*corev1.Node{makeNode("n", "4", "8Gi", taint("maintenance", corev1.TaintEffectNoExecute))}, nil, makePod("p", "", ""),
			"0/1 nodes are available: 1 node(s) had untolerated taint {maintenance: }."},
		"reasons are merged, biggest first": {
			[]*corev1.Node{makeNode("a", "1", "1Gi", taint("gpu", corev1.TaintEffectNoSchedule)), small, makeNode("c", "1", "1Gi")}, nil, makePod("p", "2", ""),
			"0/3 nodes are available: 2 Insufficient cpu, 1 node(s) had untolerated taint {gpu: }."},
		"too many Pods": {[]*corev1.Node{makeNode("n", "1", "1Gi", func(n *corev1.Node) { n.Status.Allocatable[corev1.ResourcePods] = resource.MustParse("1") })},
			[]*corev1.Pod{makePod("a", "", "", on("n"))}, makePod("p", "", ""), "0/1 nodes are available: 1 Too many pods."},
		"a preferred taint does not refuse": {[]*corev1.Node{makeNode("n", "1", "1Gi", taint("busy", corev1.TaintEffectPreferNoSchedule))}, nil, makePod("p", "", ""), "bind to n"},
		"a node short of memory refuses Pods that ask for nothing": {[]*corev1.Node{makeNode("n", "1", "1Gi", taint("node.kubernetes.io/memory-pressure", corev1.TaintEffectNoSchedule))}, nil, makePod("p", "", ""),
			"0/1 nodes are available: 1 node(s) had untolerated taint {node.kubernetes.io/memory-pressure: }."},
		"but takes those that ask": {[]*corev1.Node{makeNode("n", "1", "1Gi", taint("node.kubernetes.io/memory-pressure", corev1.TaintEffectNoSchedule))}, nil, makePod("p", "", "1Mi"), "bind to n"},
		"a node short of disk takes neither": {[]*corev1.Node{makeNode("n", "1", "1Gi", taint("node.kubernetes.io/disk-pressure", corev1.TaintEffectNoSchedule))}, nil, makePod("p", "", "1Mi"),
			"0/1 nodes are available: 1 node(s) had untolerated taint {node.kubernetes.io/disk-pressure: }."},
		"a tolerated taint does not refuse": {[]*corev1.Node{makeNode("n", "1", "1Gi", taint("gpu", corev1.TaintEffectNoExecute))}, nil,
			makePod("p", "", "", func(p *corev1.Pod) {
				p.Spec.Tolerations = []corev1.Toleration{{Key: "gpu", Operator: corev1.TolerationOpExists}}
			}), "bind to n"},
		"a cordoned node is refused": {[]*corev1.Node{makeNode("n", "1", "1Gi", func(n *corev1.Node) { n.Spec.Unschedulable = true })}, nil, makePod("p", "", ""),
			"0/1 nodes are available: 1 node(s) were unschedulable."},
		"the node selector chooses": {[]*corev1.Node{big, makeNode("ssd", "1", "1Gi", func(n *corev1.Node) { n.Labels["disk"] = "ssd" })}, nil,
			makePod("p", "", "", func(p *corev1.Pod) { p.Spec.NodeSelector = map[string]string{"disk": "ssd"} }), "bind to ssd"},
		"the node selector refuses": {[]*corev1.Node{big}, nil,
			makePod("p", "", "", func(p *corev1.Pod) { p.Spec.NodeSelector = map[string]string{"disk": "ssd"} }),
			"0/1 nodes are available: 1 node(s) didn't match Pod's node affinity/selector."},
		"a host port is given once": {[]*corev1.Node{big}, []*corev1.Pod{makePod("a", "", "", on("big"), hostPorts("", 80))}, makePod("p", "", "", hostPorts("10.0.0.1", 80)),
			"0/1 nodes are available: 1 node(s) didn't have free ports for the requested pod ports."},
		"a host port on another address is free": {[]*corev1.Node{big}, []*corev1.Pod{makePod("a", "", "", on("big"), hostPorts("10.0.0.2", 80))}, makePod("p", "", "", hostPorts("10.0.0.1", 80)),
			"bind to big"},
		"Pods without requests spread": {[]*corev1.Node{makeNode("a", "1", "1Gi"), makeNode("b", "1", "1Gi")}, []*corev1.Pod{makePod("x", "", "", on("a"))}, makePod("p", "", ""), "bind to b"},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			candidate := newCandidate(c.pod)
			if diff := cmp.Diff(c.want, place(&candidate, clusterOf(c.nodes, c.there...).order).String()); diff != "" {
				t.Errorf("decision (-want +got):\n%s", diff)
			}
		})
	}
}

// TestPictureEqualsRecount drives the incremental picture with random changes and compares it with one made anew.
func TestPictureEqualsRecount(t *testing.T) {
	random := rand.New(rand.NewPCG(1, 2))
	incremental := newCluster()
	nodes := map[string]*corev1.Node{}
	pods := map[types.UID]*corev1.Pod{}
	for range 2000 {
		name := fmt.Sprint("n", random.IntN(5))
		switch random.IntN(6) {
		case 0:
			nodes[name] = makeNode(name, "4", "4Gi")
			incremental.setNode(nodes[name])
		case 1:
			delete(nodes, name)
			incremental.removeNode(name)
		case 2:
			uid := types.UID(fmt.Sprint("p", random.IntN(20)))
			delete(pods, uid)
			incremental.release(uid)
		default:
			pod := makePod(fmt.Sprint("p", random.IntN(20)), "100m", "10Mi", on(name), hostPorts("", int32(8000+random.IntN(3))))
			pods[pod.UID] = pod
			incremental.place(pod.UID, placed{node: name, demand: demandOf(pod)})
		}
		recount := newCluster()
		for _, n := range nodes {
			recount.setNode(n)
		}
		for _, p := range pods {
			recount.place(p.UID, placed{node: p.Spec.NodeName, demand: demandOf(p)})
		}
		if diff := cmp.Diff(usage(recount), usage(incremental)); diff != "" {
			t.Fatalf("picture (-recount +incremental):\n%s", diff)
		}
	}
}

func usage(c *cluster) []string {
	var lines []string
	for _, n := range c.order {
		lines = append(lines, fmt.Sprint(n.Name, " ", n.taken.milliCPU, " ", n.taken.memory, " ", n.taken.pods, " ", n.ports))
	}
	return lines
}
