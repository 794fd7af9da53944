// Package scheduler finds a node for every Pod that has none. Place is a pure function of the Pod and a picture of
// the cluster; the loop keeps the picture up to date from watches, binds Pods without waiting for each other, and
// says for every Pod that fits nowhere how many nodes each filter refused.
//
// It writes bindings and the PodScheduled condition, nothing else.
package scheduler

import (
	"cmp"
	"slices"
	"strconv"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	"k8s.io/apimachinery/pkg/types"
	resourcehelper "k8s.io/component-helpers/resource"
)

// resources are amounts the scheduler adds up: milli-CPUs, bytes, and a count of Pods.
type resources struct {
	milliCPU, memory, ephemeral, pods int64
	extended                          map[corev1.ResourceName]int64
}

func resourcesOf(list corev1.ResourceList) resources {
	r := resources{}
	for name, quantity := range list {
		switch name {
		case corev1.ResourceCPU:
			r.milliCPU = quantity.MilliValue()
		case corev1.ResourceMemory:
			r.memory = quantity.Value()
		case corev1.ResourceEphemeralStorage:
			r.ephemeral = quantity.Value()
		case corev1.ResourcePods:
			r.pods = quantity.Value()
		default:
			if r.extended == nil {
				r.extended = map[corev1.ResourceName]int64{}
			}
			r.extended[name] = quantity.Value()
		}
	}
	return r
}

// add adds sign times other.
func (r *resources) add(other resources, sign int64) {
	r.milliCPU += sign * other.milliCPU
	r.memory += sign * other.memory
	r.ephemeral += sign * other.ephemeral
	r.pods += sign * other.pods
	for name, amount := range other.extended {
		if r.extended == nil {
			r.extended = map[corev1.ResourceName]int64{}
		}
		r.extended[name] += sign * amount
	}
}

// hostPort is a port of a node that only one Pod can have.
type hostPort struct {
	ip       string // "0.0.0.0": all
	protocol corev1.Protocol
	port     int32
}

// demand is what a Pod needs of a node, worked out once per Pod.
type demand struct {
	resources
	ports []hostPort
}

func demandOf(pod *corev1.Pod) demand {
	d := demand{resources: resourcesOf(resourcehelper.PodRequests(pod, resourcehelper.PodResourcesOptions{}))}
	d.pods = 1
	for _, container := range pod.Spec.Containers {
		for _, port := range container.Ports {
			if port.HostPort > 0 {
				d.ports = append(d.ports, hostPort{cmp.Or(port.HostIP, "0.0.0.0"), cmp.Or(port.Protocol, corev1.ProtocolTCP), port.HostPort})
			}
		}
	}
	return d
}

// node is one node and what is taken of it.
type node struct {
	*corev1.Node
	allocatable resources
	taken       resources
	ports       map[hostPort]int
}

// placed is a Pod that has a node, bound or about to be.
type placed struct {
	node    string
	demand  demand
	version uint64 // resourceVersion of the state seen; 0: assumed
}

// cluster is the picture: nodes, and the Pods on them. Its owner guards it.
type cluster struct {
	nodes  map[string]*node
	order  []*node // sorted by name
	placed map[types.UID]placed
}

func newCluster() *cluster {
	return &cluster{nodes: map[string]*node{}, placed: map[types.UID]placed{}}
}

// setNode adds or replaces a node and reports whether a Pod that fitted nowhere may fit now.
func (c *cluster) setNode(obj *corev1.Node) (matters bool) {
	if old, ok := c.nodes[obj.Name]; ok {
		matters = !equality.Semantic.DeepEqual(old.Status.Allocatable, obj.Status.Allocatable) || !equality.Semantic.DeepEqual(old.Labels, obj.Labels) ||
			!equality.Semantic.DeepEqual(old.Spec, obj.Spec)
		old.Node = obj
		old.allocatable = resourcesOf(obj.Status.Allocatable)
		return matters
	}
	n := &node{Node: obj, allocatable: resourcesOf(obj.Status.Allocatable), ports: map[hostPort]int{}}
	c.nodes[obj.Name] = n
	at, _ := slices.BinarySearchFunc(c.order, obj.Name, func(n *node, name string) int { return cmp.Compare(n.Name, name) })
	c.order = slices.Insert(c.order, at, n)
	for _, p := range c.placed {
		if p.node == obj.Name {
			n.take(p.demand, 1)
		}
	}
	return true
}

func (c *cluster) removeNode(name string) {
	delete(c.nodes, name)
	c.order = slices.DeleteFunc(c.order, func(n *node) bool { return n.Name == name })
}

// place counts a Pod on a node; placing it again moves it.
func (c *cluster) place(uid types.UID, p placed) {
	c.release(uid)
	c.placed[uid] = p
	if n, ok := c.nodes[p.node]; ok {
		n.take(p.demand, 1)
	}
}

// release gives back what a Pod took and reports whether it took anything.
func (c *cluster) release(uid types.UID) bool {
	p, ok := c.placed[uid]
	if !ok {
		return false
	}
	delete(c.placed, uid)
	if n, ok := c.nodes[p.node]; ok {
		n.take(p.demand, -1)
	}
	return true
}

func (n *node) take(d demand, sign int64) {
	n.taken.add(d.resources, sign)
	for _, port := range d.ports {
		if n.ports[port] += int(sign); n.ports[port] == 0 {
			delete(n.ports, port)
		}
	}
}

// version returns a resourceVersion as the number it is here; 0 where there is none.
func version(text string) uint64 {
	n, err := strconv.ParseUint(text, 10, 64)
	if err != nil {
		return 0
	}
	return n
}
