package endpoints

import (
	"maps"
	"net/netip"
	"slices"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// mirror keeps slices of the Endpoints that somebody wrote for a Service without a selector. It stops where somebody
// publishes slices for the Service as well: those say more.
func mirror(o observed) []Action {
	have := o.managed(mirrorManager)
	if !mirrored(o) {
		return deleteAll(have)
	}
	return fit(have, groupByPorts(writtenMembers(o.Endpoints)), newMirror(o.Endpoints))
}

func mirrored(o observed) bool {
	if o.Service == nil || o.Service.DeletionTimestamp != nil || o.Service.Spec.Type == corev1.ServiceTypeExternalName {
		return false
	}
	if o.Endpoints == nil || isOwn(o.Endpoints) || o.Endpoints.Labels[discoveryv1.LabelSkipMirror] == "true" {
		return false
	}
	return !slices.ContainsFunc(o.Slices, func(s *discoveryv1.EndpointSlice) bool {
		manager := s.Labels[discoveryv1.LabelManagedBy]
		return manager != mirrorManager && manager != slicesManager
	})
}

// writtenMembers returns the IPv4 addresses of Endpoints. One that is given twice with the same ports counts once,
// and is ready if it is so anywhere.
func writtenMembers(e *corev1.Endpoints) []member {
	var out []member
	seen := map[string]bool{}
	for _, s := range e.Subsets {
		ports := writtenPorts(s.Ports)
		add := func(addresses []corev1.EndpointAddress, ready bool) {
			for _, a := range addresses {
				ip, err := netip.ParseAddr(a.IP)
				key := portsKey(ports) + " " + a.IP
				if err != nil || !ip.Is4() || seen[key] {
					continue
				}
				seen[key] = true
				m := member{address: a.IP, ready: ready, serving: ready, ports: ports, hostname: a.Hostname, target: a.TargetRef}
				if a.NodeName != nil {
					m.node = *a.NodeName
				}
				out = append(out, m)
			}
		}
		add(s.Addresses, true)
		add(s.NotReadyAddresses, false)
	}
	return out
}

func writtenPorts(ports []corev1.EndpointPort) []discoveryv1.EndpointPort {
	var out []discoveryv1.EndpointPort
	for _, p := range ports {
		out = append(out, discoveryv1.EndpointPort{Name: new(p.Name), Port: new(p.Port), Protocol: new(p.Protocol), AppProtocol: p.AppProtocol})
	}
	return out
}

// newMirror returns a slice of the Endpoints without ports and endpoints.
func newMirror(e *corev1.Endpoints) *discoveryv1.EndpointSlice {
	labels := map[string]string{}
	maps.Copy(labels, e.Labels)
	labels[discoveryv1.LabelServiceName] = e.Name
	labels[discoveryv1.LabelManagedBy] = mirrorManager
	return &discoveryv1.EndpointSlice{
		TypeMeta: metav1.TypeMeta{APIVersion: discoveryv1.SchemeGroupVersion.String(), Kind: "EndpointSlice"},
		ObjectMeta: metav1.ObjectMeta{
			Namespace: e.Namespace, GenerateName: e.Name + "-", Labels: labels,
			OwnerReferences: []metav1.OwnerReference{*metav1.NewControllerRef(e, corev1.SchemeGroupVersion.WithKind("Endpoints"))},
		},
		AddressType: discoveryv1.AddressTypeIPv4,
	}
}
