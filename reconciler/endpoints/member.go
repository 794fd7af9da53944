//nolint:staticcheck // Endpoints are deprecated, but clients still read and write them
package endpoints

import (
	"cmp"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/intstr"
)

// Names and limits of Kubernetes.
const (
	slicesManager      = "endpointslice-controller.k8s.io"
	mirrorManager      = "endpointslicemirroring-controller.k8s.io"
	endpointsManagedBy = "endpoints.kubernetes.io/managed-by"
	endpointsManager   = "endpoint-controller"
	overCapacity       = corev1.EndpointsOverCapacity
	maxEndpoints       = 100  // of a slice
	maxAddresses       = 1000 // of an Endpoints object
)

// member is a Pod of a Service as others see it.
type member struct {
	address                     string
	ready, serving, terminating bool
	ports                       []discoveryv1.EndpointPort
	hostname                    string
	node                        string
	target                      *corev1.ObjectReference
	unready                     bool // published although not ready
}

// membersOf returns the Pods that have an address and have not ended, sorted by name.
func membersOf(svc *corev1.Service, pods []*corev1.Pod) []member {
	var out []member
	for _, pod := range slices.SortedFunc(slices.Values(pods), func(a, b *corev1.Pod) int { return cmp.Compare(a.Name, b.Name) }) {
		address := addressOf(pod)
		if address == "" || pod.Status.Phase == corev1.PodSucceeded || pod.Status.Phase == corev1.PodFailed {
			continue
		}
		m := member{
			address: address, serving: isReady(pod), terminating: pod.DeletionTimestamp != nil, ports: portsOf(svc, pod), node: pod.Spec.NodeName,
			target: &corev1.ObjectReference{Kind: "Pod", Namespace: pod.Namespace, Name: pod.Name, UID: pod.UID},
		}
		m.unready = svc.Spec.PublishNotReadyAddresses
		m.ready = m.unready || m.serving && !m.terminating
		if pod.Spec.Hostname != "" && pod.Spec.Subdomain == svc.Name {
			m.hostname = pod.Spec.Hostname
		}
		if len(m.ports) == 0 && len(svc.Spec.Ports) > 0 {
			continue // none of the Service's named ports is a port of this Pod
		}
		out = append(out, m)
	}
	return out
}

// addressOf returns the Pod's first IPv4 address.
func addressOf(pod *corev1.Pod) string {
	all := []string{pod.Status.PodIP}
	for _, ip := range pod.Status.PodIPs {
		all = append(all, ip.IP)
	}
	for _, ip := range all {
		if a, err := netip.ParseAddr(ip); err == nil && a.Is4() {
			return ip
		}
	}
	return ""
}

func isReady(pod *corev1.Pod) bool {
	return slices.ContainsFunc(pod.Status.Conditions, func(c corev1.PodCondition) bool {
		return c.Type == corev1.PodReady && c.Status == corev1.ConditionTrue
	})
}

// portsOf resolves the Service's ports for one Pod; a named port that the Pod does not have is left out.
func portsOf(svc *corev1.Service, pod *corev1.Pod) []discoveryv1.EndpointPort {
	var out []discoveryv1.EndpointPort
	for _, p := range svc.Spec.Ports {
		protocol := cmp.Or(p.Protocol, corev1.ProtocolTCP)
		number, ok := portNumber(p, protocol, pod)
		if !ok {
			continue
		}
		out = append(out, discoveryv1.EndpointPort{Name: new(p.Name), Port: new(number), Protocol: new(protocol), AppProtocol: p.AppProtocol})
	}
	slices.SortFunc(out, func(a, b discoveryv1.EndpointPort) int {
		return cmp.Or(cmp.Compare(*a.Name, *b.Name), cmp.Compare(*a.Port, *b.Port))
	})
	return out
}

func portNumber(p corev1.ServicePort, protocol corev1.Protocol, pod *corev1.Pod) (int32, bool) {
	if p.TargetPort.Type == intstr.Int {
		return cmp.Or(p.TargetPort.IntVal, p.Port), true
	}
	containers := slices.Clone(pod.Spec.Containers)
	for _, c := range pod.Spec.InitContainers {
		if c.RestartPolicy != nil && *c.RestartPolicy == corev1.ContainerRestartPolicyAlways {
			containers = append(containers, c)
		}
	}
	for _, c := range containers {
		for _, port := range c.Ports {
			if port.Name == p.TargetPort.StrVal && cmp.Or(port.Protocol, corev1.ProtocolTCP) == protocol {
				return port.ContainerPort, true
			}
		}
	}
	return 0, false
}

// group is the endpoints that share their ports.
type group struct {
	ports     []discoveryv1.EndpointPort
	endpoints []discoveryv1.Endpoint
	members   []member
}

func groupByPorts(members []member) []group {
	groups := map[string]*group{}
	for _, m := range members {
		key := portsKey(m.ports)
		if groups[key] == nil {
			groups[key] = &group{ports: m.ports}
		}
		g := groups[key]
		g.endpoints = append(g.endpoints, m.endpoint())
		g.members = append(g.members, m)
	}
	var out []group
	for _, key := range slices.Sorted(maps.Keys(groups)) {
		out = append(out, *groups[key])
	}
	return out
}

func portsKey(ports []discoveryv1.EndpointPort) string {
	var key strings.Builder
	for _, p := range ports {
		protocol := ""
		if p.AppProtocol != nil {
			protocol = *p.AppProtocol
		}
		fmt.Fprintf(&key, "%s/%05d/%s/%s,", *p.Name, *p.Port, *p.Protocol, protocol)
	}
	return key.String()
}

func (m member) endpoint() discoveryv1.Endpoint {
	e := discoveryv1.Endpoint{
		Addresses:  []string{m.address},
		Conditions: discoveryv1.EndpointConditions{Ready: new(m.ready), Serving: new(m.serving), Terminating: new(m.terminating)},
		TargetRef:  m.target,
	}
	if m.hostname != "" {
		e.Hostname = new(m.hostname)
	}
	if m.node != "" {
		e.NodeName = new(m.node)
	}
	return e
}

// newSlice returns a slice of the Service without ports and endpoints.
func newSlice(svc *corev1.Service) *discoveryv1.EndpointSlice {
	labels := labelsOf(svc)
	labels[discoveryv1.LabelServiceName] = svc.Name
	labels[discoveryv1.LabelManagedBy] = slicesManager
	return &discoveryv1.EndpointSlice{
		TypeMeta: metav1.TypeMeta{APIVersion: discoveryv1.SchemeGroupVersion.String(), Kind: "EndpointSlice"},
		ObjectMeta: metav1.ObjectMeta{
			Namespace: svc.Namespace, GenerateName: svc.Name + "-", Labels: labels,
			OwnerReferences: []metav1.OwnerReference{*metav1.NewControllerRef(svc, corev1.SchemeGroupVersion.WithKind("Service"))},
		},
		AddressType: discoveryv1.AddressTypeIPv4,
	}
}

// labelsOf returns the labels both kinds take over from the Service.
func labelsOf(svc *corev1.Service) map[string]string {
	labels := map[string]string{}
	maps.Copy(labels, svc.Labels)
	delete(labels, corev1.IsHeadlessService)
	if svc.Spec.ClusterIP == corev1.ClusterIPNone {
		labels[corev1.IsHeadlessService] = ""
	}
	return labels
}

// newEndpoints returns the older form of the same. Pods that are being deleted are in it only where unready ones are
// published.
func newEndpoints(svc *corev1.Service, members []member) *corev1.Endpoints {
	out := &corev1.Endpoints{
		TypeMeta:   metav1.TypeMeta{APIVersion: "v1", Kind: "Endpoints"},
		ObjectMeta: metav1.ObjectMeta{Namespace: svc.Namespace, Name: svc.Name, Labels: labelsOf(svc)},
	}
	out.Labels[endpointsManagedBy] = endpointsManager
	members = slices.DeleteFunc(slices.Clone(members), func(m member) bool { return m.terminating && !m.unready })
	if len(members) > maxAddresses {
		slices.SortStableFunc(members, func(a, b member) int { return -compareBool(a.ready, b.ready) })
		members = members[:maxAddresses]
		out.Annotations = map[string]string{overCapacity: "truncated"}
	}
	for _, g := range groupByPorts(members) {
		out.Subsets = append(out.Subsets, g.subset())
	}
	return out
}

func compareBool(a, b bool) int {
	switch {
	case a == b:
		return 0
	case a:
		return 1
	}
	return -1
}

func (g group) subset() corev1.EndpointSubset {
	var s corev1.EndpointSubset
	for _, p := range g.ports {
		s.Ports = append(s.Ports, corev1.EndpointPort{Name: *p.Name, Port: *p.Port, Protocol: *p.Protocol, AppProtocol: p.AppProtocol})
	}
	for _, m := range g.members {
		a := corev1.EndpointAddress{IP: m.address, Hostname: m.hostname, TargetRef: m.target}
		if m.node != "" {
			a.NodeName = new(m.node)
		}
		if m.ready {
			s.Addresses = append(s.Addresses, a)
		} else {
			s.NotReadyAddresses = append(s.NotReadyAddresses, a)
		}
	}
	return s
}
