package proxy

import (
	"fmt"
	"net/netip"
	"slices"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// stale matches tracked UDP flows to changed fronts that lead where no backend is: the kernel would go on sending a
// client's packets there as long as they come. TCP flows are let be: they end by themselves, also those to a
// terminating backend.
type stale struct {
	rules map[Front]Rule      // as they are now
	local map[netip.Addr]bool // the node's own addresses
}

// MatchConntrackFlow implements netlink.CustomConntrackFilter.
func (s stale) MatchConntrackFlow(flow *netlink.ConntrackFlow) bool {
	if flow.Forward.Protocol != unix.IPPROTO_UDP {
		return false
	}
	called, ok := netip.AddrFromSlice(flow.Forward.DstIP)
	if !ok {
		return false
	}
	called = called.Unmap()
	rule, ok := s.rules[Front{Addr: called, Port: flow.Forward.DstPort, Proto: UDP}]
	if !ok {
		rule, ok = s.rules[Front{Port: flow.Forward.DstPort, Proto: UDP}]
		if !ok || !s.local[called] {
			return false
		}
	}
	answering, ok := netip.AddrFromSlice(flow.Reverse.SrcIP)
	return ok && !slices.Contains(rule.Backends, netip.AddrPortFrom(answering.Unmap(), flow.Reverse.SrcPort))
}

// noteStale notes the UDP rules that the steps changed.
func (p *Proxy) noteStale(steps []Step) {
	for _, step := range steps {
		switch {
		case step.New != nil && step.New.Front.Proto == UDP:
			p.stale[step.New.Front] = *step.New
		case step.New == nil && step.Old.Front.Proto == UDP:
			p.stale[step.Old.Front] = Rule{Front: step.Old.Front}
		}
	}
}

// forget deletes UDP flows that changes made stale. What fails is done with the next change.
func (p *Proxy) forget() error {
	if len(p.stale) == 0 {
		return nil
	}
	s := stale{rules: p.stale, local: map[netip.Addr]bool{}}
	addrs, err := netlink.AddrList(nil, netlink.FAMILY_V4)
	if err != nil {
		return fmt.Errorf("list addresses: %w", err)
	}
	for _, a := range addrs {
		if addr, ok := netip.AddrFromSlice(a.IP); ok && !a.IP.IsLoopback() {
			s.local[addr.Unmap()] = true
		}
	}
	if _, err := netlink.ConntrackDeleteFilters(netlink.ConntrackTable, unix.AF_INET, s); err != nil {
		return fmt.Errorf("forget stale UDP flows: %w", err)
	}
	clear(p.stale)
	return nil
}
