package service

import (
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"strconv"
	"strings"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"github.com/slipway-dev/slipway/apiserver/store"
)

// Pool is what Services are given of: addresses of a range, and ports of every node.
type Pool struct {
	cidr        netip.Prefix
	base        uint32 // the range's first address
	size        uint32 // addresses in the range
	first, last int32  // node ports
}

// Claims, by the kind of thing.
const (
	claimIP   = "serviceips/"
	claimPort = "servicenodeports/"
)

// NewPool returns the pool of an IPv4 range and a range of node ports, the last included.
func NewPool(cidr netip.Prefix, ports [2]int32) (Pool, error) {
	if !cidr.Addr().Is4() || cidr.Bits() < 8 || cidr.Bits() > 29 {
		return Pool{}, fmt.Errorf("service CIDR %s: want an IPv4 range between /8 and /29", cidr)
	}
	if ports[0] < 1 || ports[1] > 65535 || ports[0] > ports[1] {
		return Pool{}, fmt.Errorf("node ports %d-%d: want a range within 1-65535", ports[0], ports[1])
	}
	base := cidr.Masked().Addr().As4()
	return Pool{cidr: cidr.Masked(), base: binary.BigEndian.Uint32(base[:]), size: 1 << (32 - cidr.Bits()), first: ports[0], last: ports[1]}, nil
}

// address returns the range's nth address.
func (p Pool) address(n uint32) string {
	var b [4]byte
	binary.BigEndian.PutUint32(b[:], p.base+n)
	return netip.AddrFrom4(b).String()
}

// assignable says whether an explicit address is one of the range's, its first and last excepted.
func (p Pool) assignable(ip string) bool {
	addr, err := netip.ParseAddr(ip)
	return err == nil && p.cidr.Contains(addr) && ip != p.address(0) && ip != p.address(p.size-1)
}

// band is upstream's size of the lower part of a range, which explicit choices have for themselves as long as the
// upper part has room.
func band(size, step, most uint32) uint32 {
	if size < 16 {
		return 0
	}
	return min(max(size/step, 16), most)
}

// pick returns a number in [low, high) that is free, from the upper band while that has one.
func pick(low, lower, high uint32, free func(uint32) bool) (uint32, bool) {
	if upper := high - lower; upper > 0 {
		start := rand.Uint32N(upper)
		for i := range upper {
			if n := lower + (start+i)%upper; free(n) {
				return n, true
			}
		}
	}
	for n := low; n < lower; n++ {
		if free(n) {
			return n, true
		}
	}
	return 0, false
}

// newIP chooses an address. The range's first usable one is left to the Service "kubernetes".
func (p Pool) newIP(taken map[string]bool) (string, bool) {
	n, ok := pick(2, max(band(p.size, 16, 256), 2), p.size-1, func(n uint32) bool { return !taken[claimIP+p.address(n)] })
	return p.address(n), ok
}

func (p Pool) newPort(taken map[string]bool) (int32, bool) {
	size := uint32(p.last-p.first) + 1
	n, ok := pick(0, band(size, 32, 128), size, func(n uint32) bool { return !taken[portClaim(p.first+int32(n))] })
	return p.first + int32(n), ok
}

func portClaim(port int32) string { return claimPort + strconv.Itoa(int(port)) }

// claimsOf returns what a Service holds.
func claimsOf(svc *corev1.Service) []string {
	if svc == nil {
		return nil
	}
	var names []string
	if hasClusterIP(svc) {
		for _, ip := range svc.Spec.ClusterIPs {
			if ip != "" && ip != corev1.ClusterIPNone {
				names = append(names, claimIP+ip)
			}
		}
	}
	seen := map[int32]bool{0: true}
	for _, port := range append(nodePorts(svc), svc.Spec.HealthCheckNodePort) {
		if !seen[port] { // one port may serve TCP and UDP
			seen[port] = true
			names = append(names, portClaim(port))
		}
	}
	return names
}

// Check refuses addresses, families and ports this cluster does not have.
func (p Pool) Check(svc *corev1.Service) field.ErrorList {
	return append(p.checkAddresses(svc), p.checkPorts(svc)...)
}

func (p Pool) checkAddresses(svc *corev1.Service) field.ErrorList {
	if !hasClusterIP(svc) {
		return nil
	}
	spec := field.NewPath("spec")
	var errs field.ErrorList
	for i, ip := range svc.Spec.ClusterIPs {
		if ip != "" && ip != corev1.ClusterIPNone && !p.assignable(ip) {
			errs = append(errs, field.Invalid(spec.Child("clusterIPs").Index(i), ip,
				fmt.Sprintf("failed to allocate IP %s: the provided IP is not in the valid range. The range of valid IPs is %s", ip, p.cidr)))
		}
	}
	if svc.Spec.ClusterIP == corev1.ClusterIPNone && len(svc.Spec.Selector) == 0 {
		return errs // names endpoints of any family
	}
	for i, family := range svc.Spec.IPFamilies {
		if family != corev1.IPv4Protocol {
			errs = append(errs, field.Invalid(spec.Child("ipFamilies").Index(i), family, "not configured on this cluster"))
		}
	}
	if policy := svc.Spec.IPFamilyPolicy; policy != nil && *policy == corev1.IPFamilyPolicyRequireDualStack {
		errs = append(errs, field.Invalid(spec.Child("ipFamilyPolicy"), *policy, "this cluster is not configured for dual-stack services"))
	}
	return errs
}

// checkPorts refuses node ports outside the range.
func (p Pool) checkPorts(svc *corev1.Service) field.ErrorList {
	var errs field.ErrorList
	refuse := func(path *field.Path, port int32) {
		if port != 0 && (port < p.first || port > p.last) {
			errs = append(errs, field.Invalid(path, port, fmt.Sprintf("provided port is not in the valid range. The range of valid ports is %d-%d", p.first, p.last)))
		}
	}
	for i := range svc.Spec.Ports {
		refuse(field.NewPath("spec", "ports").Index(i).Child("nodePort"), svc.Spec.Ports[i].NodePort)
	}
	refuse(field.NewPath("spec", "healthCheckNodePort"), svc.Spec.HealthCheckNodePort)
	return errs
}

// Fill chooses what svc needs and does not name, and returns what it chose by the names of their claims. What svc
// names itself must be free. Before is svc's stored state or nil, others are all Services, lost are claims that
// turned out to be taken although no Service shows them.
func (p Pool) Fill(svc, before *corev1.Service, others []*corev1.Service, lost map[string]bool) (chosen map[string]bool, err error) {
	taken, owners := takenBy(svc, others)
	held := map[string]bool{}
	for _, name := range claimsOf(before) {
		held[name] = true
	}
	for _, name := range claimsOf(svc) {
		if taken[name] && !held[name] {
			return nil, TakenError(svc, name, owners[name])
		}
		taken[name] = true
	}
	for name := range lost {
		taken[name] = true
	}
	chosen = map[string]bool{}
	if hasClusterIP(svc) && svc.Spec.ClusterIP == "" {
		ip, ok := p.newIP(taken)
		if !ok {
			return nil, fmt.Errorf("allocate an address for Service %q: the range %s is full", svc.Name, p.cidr)
		}
		svc.Spec.ClusterIP, svc.Spec.ClusterIPs = ip, []string{ip}
		chosen[claimIP+ip] = true
	}
	return chosen, p.fillPorts(svc, taken, chosen)
}

// takenBy lists what Services other than svc hold, and who.
func takenBy(svc *corev1.Service, others []*corev1.Service) (taken map[string]bool, owners map[string]string) {
	taken, owners = map[string]bool{}, map[string]string{}
	for _, other := range others {
		if other.Namespace == svc.Namespace && other.Name == svc.Name {
			continue
		}
		for _, name := range claimsOf(other) {
			taken[name], owners[name] = true, other.Namespace+"/"+other.Name
		}
	}
	return taken, owners
}

// fillPorts gives ports without a node port one; the same number serves the same port of another protocol.
func (p Pool) fillPorts(svc *corev1.Service, taken, chosen map[string]bool) error {
	choose := func() (int32, error) {
		port, ok := p.newPort(taken)
		if !ok {
			return 0, fmt.Errorf("allocate a node port for Service %q: %d-%d are all taken", svc.Name, p.first, p.last)
		}
		taken[portClaim(port)], chosen[portClaim(port)] = true, true
		return port, nil
	}
	var err error
	for i := range svc.Spec.Ports {
		port := &svc.Spec.Ports[i]
		if !hasNodePorts(svc) || port.NodePort != 0 {
			continue
		}
		for j := range svc.Spec.Ports {
			if q := &svc.Spec.Ports[j]; q.Port == port.Port && q.Protocol != port.Protocol && q.NodePort != 0 {
				port.NodePort = q.NodePort
			}
		}
		if port.NodePort != 0 {
			continue
		}
		if port.NodePort, err = choose(); err != nil {
			return err
		}
	}
	if hasHealthPort(svc) && svc.Spec.HealthCheckNodePort == 0 {
		svc.Spec.HealthCheckNodePort, err = choose()
	}
	return err
}

// ClaimOps claim what after has more than before and release what it has less.
func ClaimOps(before, after *corev1.Service) []store.Op {
	held := map[string]bool{}
	for _, name := range claimsOf(before) {
		held[name] = true
	}
	var ops []store.Op
	for _, name := range claimsOf(after) {
		if !held[name] {
			ops = append(ops, store.Claim(name, after.Namespace+"/"+after.Name))
		}
		delete(held, name)
	}
	for _, name := range claimsOf(before) {
		if held[name] {
			ops = append(ops, store.Release(name))
		}
	}
	return ops
}

// TakenError says that what svc names belongs to another Service.
func TakenError(svc *corev1.Service, name, owner string) *field.Error {
	if ip, ok := strings.CutPrefix(name, claimIP); ok {
		return field.Invalid(field.NewPath("spec", "clusterIPs"), svc.Spec.ClusterIPs,
			fmt.Sprintf("failed to allocate IP %s: provided IP is already allocated (to %s)", ip, owner))
	}
	for i, p := range svc.Spec.Ports {
		if portClaim(p.NodePort) == name {
			return field.Invalid(field.NewPath("spec", "ports").Index(i).Child("nodePort"), p.NodePort,
				fmt.Sprintf("provided port is already allocated (to %s)", owner))
		}
	}
	return field.Invalid(field.NewPath("spec", "healthCheckNodePort"), svc.Spec.HealthCheckNodePort,
		fmt.Sprintf("provided port is already allocated (to %s)", owner))
}
