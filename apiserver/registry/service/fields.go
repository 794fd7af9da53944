// Package service says what a Service is given: the fields that hang together, an address of the cluster's range and
// ports of every node. It decides by values only; which addresses and ports are taken is told by the caller, and
// kept in the store as claims in the transaction of their Service.
package service

import (
	"slices"

	corev1 "k8s.io/api/core/v1"
)

// Create fills the fields of a new, defaulted Service that hang together. Its address comes with Pool.Fill.
func Create(svc *corev1.Service) { defaultFamilies(svc, nil) }

// Update completes a Service by what its old state was given, so that a manifest without addresses keeps
// them, and drops what a new type does not have.
func Update(svc, before *corev1.Service) {
	matchClusterIPs(svc, before)
	if hasClusterIP(before) && hasClusterIP(svc) {
		if svc.Spec.ClusterIP == "" {
			svc.Spec.ClusterIP = before.Spec.ClusterIP
		}
		if len(svc.Spec.ClusterIPs) == 0 {
			svc.Spec.ClusterIPs = slices.Clone(before.Spec.ClusterIPs)
		}
		if len(svc.Spec.IPFamilies) == 0 {
			svc.Spec.IPFamilies = slices.Clone(before.Spec.IPFamilies)
		}
	}
	if hasNodePorts(before) && hasNodePorts(svc) {
		keepNodePorts(svc, before)
	}
	if hasHealthPort(before) && hasHealthPort(svc) && svc.Spec.HealthCheckNodePort == 0 {
		svc.Spec.HealthCheckNodePort = before.Spec.HealthCheckNodePort
	}
	dropUnused(svc, before)
	defaultFamilies(svc, before)
}

// matchClusterIPs brings clusterIP and clusterIPs together when a client changed only the one it knows.
func matchClusterIPs(svc, before *corev1.Service) {
	same := slices.Equal(svc.Spec.ClusterIPs, before.Spec.ClusterIPs)
	switch {
	case svc.Spec.ClusterIP == before.Spec.ClusterIP:
		if len(svc.Spec.ClusterIPs) == 0 {
			svc.Spec.ClusterIPs = slices.Clone(before.Spec.ClusterIPs)
		}
	case svc.Spec.ClusterIP == "" && before.Spec.ClusterIP != "":
		if same {
			svc.Spec.ClusterIPs = nil
		}
	case same:
		svc.Spec.ClusterIPs = []string{svc.Spec.ClusterIP}
	}
}

// keepNodePorts gives ports that name none the one their namesake had, unless another port uses it now.
func keepNodePorts(svc, before *corev1.Service) {
	old, kept := map[string]int32{}, map[int32]bool{}
	for _, p := range before.Spec.Ports {
		old[p.Name] = p.NodePort
	}
	for _, p := range svc.Spec.Ports {
		kept[p.NodePort] = p.NodePort != 0
	}
	for i := range svc.Spec.Ports {
		p := &svc.Spec.Ports[i]
		if had := old[p.Name]; p.NodePort == 0 && had != 0 && !kept[had] {
			p.NodePort = had
			kept[had] = true
		}
	}
}

// dropUnused clears fields the new type does not have, where the client only carried them over.
func dropUnused(svc, before *corev1.Service) {
	if hasClusterIP(before) && !hasClusterIP(svc) {
		if slices.Equal(svc.Spec.ClusterIPs, before.Spec.ClusterIPs) {
			svc.Spec.ClusterIP, svc.Spec.ClusterIPs = "", nil
		}
		if slices.Equal(svc.Spec.IPFamilies, before.Spec.IPFamilies) {
			svc.Spec.IPFamilies = nil
		}
		if same(svc.Spec.IPFamilyPolicy, before.Spec.IPFamilyPolicy) {
			svc.Spec.IPFamilyPolicy = nil
		}
	}
	if hasNodePorts(before) && !hasNodePorts(svc) && slices.Equal(nodePorts(svc), nodePorts(before)) {
		for i := range svc.Spec.Ports {
			svc.Spec.Ports[i].NodePort = 0
		}
	}
	if hasHealthPort(before) && !hasHealthPort(svc) && svc.Spec.HealthCheckNodePort == before.Spec.HealthCheckNodePort {
		svc.Spec.HealthCheckNodePort = 0
	}
	if svc.Spec.Type != corev1.ServiceTypeLoadBalancer {
		dropLoadBalancer(svc, before)
	}
	if external(before) && !external(svc) && svc.Spec.ExternalTrafficPolicy == before.Spec.ExternalTrafficPolicy {
		svc.Spec.ExternalTrafficPolicy = ""
	}
}

func dropLoadBalancer(svc, before *corev1.Service) {
	svc.Status.LoadBalancer = corev1.LoadBalancerStatus{}
	if before.Spec.Type != corev1.ServiceTypeLoadBalancer {
		return
	}
	if same(svc.Spec.AllocateLoadBalancerNodePorts, before.Spec.AllocateLoadBalancerNodePorts) {
		svc.Spec.AllocateLoadBalancerNodePorts = nil
	}
	if same(svc.Spec.LoadBalancerClass, before.Spec.LoadBalancerClass) {
		svc.Spec.LoadBalancerClass = nil
	}
}

// defaultFamilies sets ipFamilyPolicy and ipFamilies for a cluster with IPv4 only. What does not fit is left for
// checkFamilies to refuse.
func defaultFamilies(svc, before *corev1.Service) {
	if !hasClusterIP(svc) {
		return
	}
	headlessBare := svc.Spec.ClusterIP == corev1.ClusterIPNone && len(svc.Spec.Selector) == 0
	if svc.Spec.IPFamilyPolicy == nil {
		policy := corev1.IPFamilyPolicySingleStack
		switch {
		case before != nil && before.Spec.IPFamilyPolicy != nil:
			policy = *before.Spec.IPFamilyPolicy
		case headlessBare:
			policy = corev1.IPFamilyPolicyRequireDualStack
		}
		svc.Spec.IPFamilyPolicy = &policy
	}
	if len(svc.Spec.IPFamilies) == 0 {
		svc.Spec.IPFamilies = []corev1.IPFamily{corev1.IPv4Protocol}
	}
	if headlessBare && len(svc.Spec.IPFamilies) == 1 && *svc.Spec.IPFamilyPolicy != corev1.IPFamilyPolicySingleStack {
		other := corev1.IPv6Protocol
		if svc.Spec.IPFamilies[0] == corev1.IPv6Protocol {
			other = corev1.IPv4Protocol
		}
		svc.Spec.IPFamilies = append(svc.Spec.IPFamilies, other)
	}
}

func hasClusterIP(svc *corev1.Service) bool { return svc.Spec.Type != corev1.ServiceTypeExternalName }

func hasNodePorts(svc *corev1.Service) bool {
	return svc.Spec.Type == corev1.ServiceTypeNodePort ||
		svc.Spec.Type == corev1.ServiceTypeLoadBalancer && (svc.Spec.AllocateLoadBalancerNodePorts == nil || *svc.Spec.AllocateLoadBalancerNodePorts)
}

func hasHealthPort(svc *corev1.Service) bool {
	return svc.Spec.Type == corev1.ServiceTypeLoadBalancer && svc.Spec.ExternalTrafficPolicy == corev1.ServiceExternalTrafficPolicyLocal
}

func external(svc *corev1.Service) bool {
	return svc.Spec.Type == corev1.ServiceTypeLoadBalancer || svc.Spec.Type == corev1.ServiceTypeNodePort ||
		svc.Spec.Type == corev1.ServiceTypeClusterIP && len(svc.Spec.ExternalIPs) > 0
}

func nodePorts(svc *corev1.Service) []int32 {
	ports := make([]int32, len(svc.Spec.Ports))
	for i := range svc.Spec.Ports {
		ports[i] = svc.Spec.Ports[i].NodePort
	}
	return ports
}

func same[T comparable](a, b *T) bool { return a == b || a != nil && b != nil && *a == *b }
