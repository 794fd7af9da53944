package dns

import (
	"cmp"
	"net/netip"
	"slices"
	"strings"
	"sync"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/slipway-dev/slipway/nodeagent/catalog"
)

// records is what one Service has in the zone. It is compiled whole and never changed.
type records struct {
	addrs    []netip.Addr            // of the Service's own name
	external string                  // ExternalName: another name, in its place
	hosts    map[string][]netip.Addr // headless: endpoints by the first label of their names
	ports    map[string][]target     // "_http._tcp": where it is served
	reverse  map[netip.Addr]string   // first label of the name each address has; "" is the Service's own name
}

// target is where a port of a Service is served: on a host of it, or with an empty host by its own name.
type target struct {
	host string
	port uint16
}

// compile returns the records of a Service, after the Kubernetes DNS specification 1.1.0.
func compile(s *catalog.Service) *records {
	r := &records{hosts: map[string][]netip.Addr{}, ports: map[string][]target{}, reverse: map[netip.Addr]string{}}
	if s.Spec.Type == corev1.ServiceTypeExternalName {
		r.external = strings.ToLower(strings.TrimSuffix(s.Spec.ExternalName, ".")) + "."
		return r
	}
	if s.Spec.ClusterIP != corev1.ClusterIPNone {
		for _, text := range append([]string{s.Spec.ClusterIP}, s.Spec.ClusterIPs...) {
			if addr, err := netip.ParseAddr(text); err == nil && addr.Is4() && !slices.Contains(r.addrs, addr) {
				r.addrs = append(r.addrs, addr)
				r.reverse[addr] = ""
			}
		}
		for _, port := range s.Spec.Ports {
			r.addPort(port.Name, string(port.Protocol), target{port: uint16(port.Port)})
		}
		return r
	}
	for _, slice := range s.Slices {
		if slice.AddressType == discoveryv1.AddressTypeIPv4 {
			r.addSlice(slice, s.Spec.PublishNotReadyAddresses)
		}
	}
	r.tidy()
	return r
}

// addSlice adds the endpoints of a headless Service.
func (r *records) addSlice(slice *discoveryv1.EndpointSlice, all bool) {
	for _, e := range slice.Endpoints {
		if len(e.Addresses) == 0 || !(all || e.Conditions.Ready == nil || *e.Conditions.Ready) {
			continue
		}
		addr, err := netip.ParseAddr(e.Addresses[0])
		if err != nil || !addr.Is4() {
			continue
		}
		host := strings.ReplaceAll(addr.String(), ".", "-")
		if e.Hostname != nil && *e.Hostname != "" {
			host = strings.ToLower(*e.Hostname)
		}
		r.addrs = append(r.addrs, addr)
		r.hosts[host] = append(r.hosts[host], addr)
		r.reverse[addr] = host
		for _, port := range slice.Ports {
			if port.Name != nil && port.Port != nil && port.Protocol != nil {
				r.addPort(*port.Name, string(*port.Protocol), target{host, uint16(*port.Port)})
			}
		}
	}
}

func (r *records) addPort(name, protocol string, to target) {
	if name == "" {
		return
	}
	key := "_" + strings.ToLower(name) + "._" + strings.ToLower(cmp.Or(protocol, "TCP"))
	r.ports[key] = append(r.ports[key], to)
}

// tidy sorts what came from several slices, each once.
func (r *records) tidy() {
	unique := func(addrs []netip.Addr) []netip.Addr {
		slices.SortFunc(addrs, netip.Addr.Compare)
		return slices.Compact(addrs)
	}
	r.addrs = unique(r.addrs)
	for host, addrs := range r.hosts {
		r.hosts[host] = unique(addrs)
	}
	for key, targets := range r.ports {
		slices.SortFunc(targets, func(a, b target) int {
			return cmp.Or(cmp.Compare(a.host, b.host), cmp.Compare(a.port, b.port))
		})
		r.ports[key] = slices.Compact(targets)
	}
}

// hasProtocol says whether some port of the Service is served by a protocol, such as "_tcp".
func (r *records) hasProtocol(label string) bool {
	for key := range r.ports {
		if strings.HasSuffix(key, "."+label) {
			return true
		}
	}
	return false
}

// zone holds the records of all Services. It is read without locks and changed one Service at a time.
type zone struct {
	services   sync.Map // types.NamespacedName -> *records
	owners     sync.Map // netip.Addr -> types.NamespacedName, for names of addresses
	namespaces sync.Map // string -> struct{}: those that have a Service
	counts     map[string]int
}

// apply takes over changed Services. One call at a time.
func (z *zone) apply(changes catalog.Changes) {
	if z.counts == nil {
		z.counts = map[string]int{}
	}
	for name, service := range changes {
		var next *records
		if service != nil {
			next = compile(service)
		}
		z.replace(name, next)
	}
}

func (z *zone) replace(name types.NamespacedName, next *records) {
	old, had := z.services.Load(name)
	if next != nil {
		for addr := range next.reverse {
			z.owners.Store(addr, name)
		}
		z.services.Store(name, next)
	} else {
		z.services.Delete(name)
	}
	if had {
		for addr := range old.(*records).reverse {
			if next == nil || !has(next.reverse, addr) {
				z.owners.CompareAndDelete(addr, name)
			}
		}
	}
	switch {
	case next != nil && !had:
		z.counts[name.Namespace]++
		z.namespaces.Store(name.Namespace, struct{}{})
	case next == nil && had:
		if z.counts[name.Namespace]--; z.counts[name.Namespace] == 0 {
			delete(z.counts, name.Namespace)
			z.namespaces.Delete(name.Namespace)
		}
	}
}

func (z *zone) service(namespace, name string) *records {
	r, ok := z.services.Load(types.NamespacedName{Namespace: namespace, Name: name})
	if !ok {
		return nil
	}
	return r.(*records)
}

func (z *zone) hasNamespace(name string) bool {
	_, ok := z.namespaces.Load(name)
	return ok
}

// nameOf returns the name of an address below the services' part of the zone: "web.shop" or "db-0.db.shop".
func (z *zone) nameOf(addr netip.Addr) string {
	owner, ok := z.owners.Load(addr)
	if !ok {
		return ""
	}
	name := owner.(types.NamespacedName)
	r := z.service(name.Namespace, name.Name)
	if r == nil {
		return ""
	}
	host, ok := r.reverse[addr]
	switch {
	case !ok:
		return ""
	case host == "":
		return name.Name + "." + name.Namespace
	}
	return host + "." + name.Name + "." + name.Namespace
}

func has[K comparable, V any](m map[K]V, key K) bool {
	_, ok := m[key]
	return ok
}
