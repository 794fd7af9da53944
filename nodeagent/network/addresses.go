package network

import (
	"errors"
	"fmt"
	"net/netip"
)

// Errors of this package, wrapped. Test them with errors.Is.
var (
	// ErrOverlap: a range of the cluster is already routed elsewhere by the host.
	ErrOverlap = errors.New("address range is in use on this host")
	// ErrOwned: the network of this host is another's.
	ErrOwned = errors.New("the Pod network of this host belongs to")
	// ErrNoAddress: every address of the node's range belongs to a Pod.
	ErrNoAddress = errors.New("no free Pod address")
)

// Gateway returns the node's own address in its range of Pod addresses: the first one. Pods route through it, and
// the API and DNS listen on it.
func Gateway(podCIDR netip.Prefix) netip.Addr { return podCIDR.Masked().Addr().Next() }

// pool hands out the addresses of a node's range in order, so that a released address is the last to be used again.
type pool struct {
	cidr netip.Prefix
	used map[netip.Addr]bool
	last netip.Addr // handed out most recently; the zero Addr: none yet
}

func newPool(cidr netip.Prefix, last netip.Addr) *pool {
	if !cidr.Contains(last) {
		last = netip.Addr{}
	}
	return &pool{cidr: cidr.Masked(), used: map[netip.Addr]bool{}, last: last}
}

// take marks addr as used, as found after a restart. It reports whether addr is a free Pod address of the range.
func (p *pool) take(addr netip.Addr) bool {
	if !p.usable(addr) || p.used[addr] {
		return false
	}
	p.used[addr] = true
	return true
}

// next hands out the first free address after the last one handed out, starting over at the end of the range.
func (p *pool) next() (netip.Addr, error) {
	first := Gateway(p.cidr).Next()
	start := first
	if p.last.IsValid() && p.usable(p.last.Next()) {
		start = p.last.Next()
	}
	for addr := start; ; {
		if !p.used[addr] && p.usable(addr) {
			p.used[addr], p.last = true, addr
			return addr, nil
		}
		if addr = addr.Next(); !p.usable(addr) {
			addr = first
		}
		if addr == start {
			return netip.Addr{}, fmt.Errorf("%w in %s: %d are in use", ErrNoAddress, p.cidr, len(p.used))
		}
	}
}

func (p *pool) release(addr netip.Addr) { delete(p.used, addr) }

// usable says that addr is neither the network's, the gateway's nor the broadcast address.
func (p *pool) usable(addr netip.Addr) bool {
	return p.cidr.Contains(addr) && p.cidr.Contains(addr.Next()) && Gateway(p.cidr).Less(addr)
}
