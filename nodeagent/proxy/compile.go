package proxy

import (
	"net/netip"
	"slices"
	"time"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"

	"github.com/slipway-dev/slipway/nodeagent/catalog"
)

// maxBackends is how many backends a rule can choose from.
const maxBackends = 1<<15 - 1

// Compile returns the rules of one Service on the node of this name: one per port for the cluster address, and one
// more where the port is open on nodes. Which endpoints count follows kube-proxy: those that are ready; where there is
// none, those that still serve while they terminate (KEP-1669).
func Compile(s *catalog.Service, node string) []Rule {
	if s == nil || s.Spec.Type == corev1.ServiceTypeExternalName {
		return nil
	}
	addr, err := netip.ParseAddr(s.Spec.ClusterIP)
	if err != nil || !addr.Is4() { // headless, or not allocated yet
		return nil
	}
	inside := or(s.Spec.InternalTrafficPolicy, corev1.ServiceInternalTrafficPolicyCluster) == corev1.ServiceInternalTrafficPolicyLocal
	outside := s.Spec.ExternalTrafficPolicy == corev1.ServiceExternalTrafficPolicyLocal
	var rules []Rule
	for _, port := range s.Spec.Ports {
		rule := Rule{Front: Front{Addr: addr, Port: uint16(port.Port), Proto: protocolOf(port.Protocol)}, Name: s.Namespace + "/" + s.Name, Sticky: sticky(s.Spec)}
		if port.Name != "" {
			rule.Name += ":" + port.Name
		}
		rule.Backends, rule.Draining = backends(s, port, only(inside, node))
		rules = append(rules, rule)
		if port.NodePort != 0 {
			rule.Front = Front{Port: uint16(port.NodePort), Proto: rule.Front.Proto}
			rule.Backends, rule.Draining = backends(s, port, only(outside, node))
			rules = append(rules, rule)
		}
	}
	return rules
}

// only returns the node whose endpoints alone count; empty: all nodes' do.
func only(local bool, node string) string {
	if local {
		return node
	}
	return ""
}

func backends(s *catalog.Service, port corev1.ServicePort, node string) (chosen []netip.AddrPort, draining bool) {
	var ready, leaving []netip.AddrPort
	for _, slice := range s.Slices {
		number := portOf(slice, port)
		if slice.AddressType != discoveryv1.AddressTypeIPv4 || number == 0 {
			continue
		}
		for _, e := range slice.Endpoints {
			if len(e.Addresses) == 0 || (node != "" && or(e.NodeName, "") != node) {
				continue
			}
			addr, err := netip.ParseAddr(e.Addresses[0])
			if err != nil || !addr.Is4() {
				continue
			}
			isReady := or(e.Conditions.Ready, true)
			switch {
			case isReady:
				ready = append(ready, netip.AddrPortFrom(addr, number))
			case or(e.Conditions.Terminating, false) && or(e.Conditions.Serving, isReady):
				leaving = append(leaving, netip.AddrPortFrom(addr, number))
			}
		}
	}
	if draining = len(ready) == 0 && len(leaving) > 0; draining {
		ready = leaving
	}
	slices.SortFunc(ready, netip.AddrPort.Compare)
	ready = slices.Compact(ready)
	return ready[:min(len(ready), maxBackends)], draining
}

// portOf returns the endpoints' port for a port of the Service: the one of the same name.
func portOf(slice *discoveryv1.EndpointSlice, port corev1.ServicePort) uint16 {
	for _, p := range slice.Ports {
		if or(p.Name, "") == port.Name && protocolOf(or(p.Protocol, corev1.ProtocolTCP)) == protocolOf(port.Protocol) {
			return uint16(or(p.Port, 0))
		}
	}
	return 0
}

func sticky(spec corev1.ServiceSpec) time.Duration {
	if spec.SessionAffinity != corev1.ServiceAffinityClientIP {
		return 0
	}
	if c := spec.SessionAffinityConfig; c != nil && c.ClientIP != nil && c.ClientIP.TimeoutSeconds != nil {
		return time.Duration(*c.ClientIP.TimeoutSeconds) * time.Second
	}
	return time.Duration(corev1.DefaultClientIPServiceAffinitySeconds) * time.Second
}

func protocolOf(p corev1.Protocol) Protocol {
	switch p {
	case corev1.ProtocolUDP:
		return UDP
	case corev1.ProtocolSCTP:
		return SCTP
	}
	return TCP
}

// or returns what p points to, or otherwise where it points nowhere.
func or[T any](p *T, otherwise T) T {
	if p == nil {
		return otherwise
	}
	return *p
}
