package network

import (
	"cmp"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"github.com/slipway-dev/slipway/nodeagent/network/relay"
)

// portKey is what only one Pod can have: a host port, on one address or on all (the zero Addr).
type portKey struct {
	addr  netip.Addr
	port  uint16
	proto uint8
}

func keyOf(p HostPort) (portKey, error) {
	proto, err := protocol(p.Protocol)
	if err != nil {
		return portKey{}, fmt.Errorf("host port %d: %w", p.HostPort, err)
	}
	key := portKey{port: p.HostPort, proto: proto}
	if p.HostIP != "" && p.HostIP != "0.0.0.0" {
		if key.addr, err = netip.ParseAddr(p.HostIP); err != nil || !key.addr.Is4() {
			return portKey{}, fmt.Errorf("host port %d: %q is not an IPv4 address", p.HostPort, p.HostIP)
		}
	}
	return key, nil
}

func checkPorts(ports []HostPort) error {
	var errs []error
	for _, p := range ports {
		_, err := keyOf(p)
		errs = append(errs, err)
	}
	return errors.Join(errs...)
}

// openPorts leads a sandbox's host ports to it. A port an older sandbox still has passes to the new one.
func (n *node) openPorts(rec record) error {
	if len(rec.Pod.HostPorts) == 0 || !rec.Address.IsValid() {
		return nil
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	for _, p := range rec.Pod.HostPorts {
		key, err := keyOf(p)
		if err != nil {
			return err
		}
		if n.owners[key] != "" {
			if err := n.filter.closePorts([]lead{{key, rec.Address, p.PodPort}}); err != nil {
				return err
			}
		}
		n.owners[key] = rec.Pod.ID
	}
	if err := n.filter.openPorts(n.leads(rec)); err != nil {
		return err
	}
	n.relay(rec, true)
	return nil
}

// closePorts takes away the host ports that are still the sandbox's.
func (n *node) closePorts(rec record) error {
	if len(rec.Pod.HostPorts) == 0 || !rec.Address.IsValid() {
		return nil
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	leads := n.leads(rec)
	n.relay(rec, false)
	for _, l := range leads {
		delete(n.owners, l.key)
	}
	return n.filter.closePorts(leads)
}

// lead is where a host port leads.
type lead struct {
	key  portKey
	addr netip.Addr
	port uint16
}

// leads returns the host ports that are the sandbox's. The caller holds the lock.
func (n *node) leads(rec record) []lead {
	var leads []lead
	for _, p := range rec.Pod.HostPorts {
		if key, err := keyOf(p); err == nil && n.owners[key] == rec.Pod.ID {
			leads = append(leads, lead{key, rec.Address, p.PodPort})
		}
	}
	return leads
}

// claim makes the sandboxes' host ports theirs, and returns where all of them lead: the first of two with one port
// keeps it.
func (n *node) claim(recs []record) []lead {
	var leads []lead
	for _, rec := range recs {
		for _, p := range rec.Pod.HostPorts {
			if key, err := keyOf(p); err == nil && n.owners[key] == "" {
				n.owners[key] = rec.Pod.ID
			}
		}
		leads = append(leads, n.leads(rec)...)
	}
	return leads
}

// relay serves a sandbox's host ports on the loopback addresses, or ends that.
func (n *node) relay(rec record, serve bool) {
	for _, l := range n.leads(rec) {
		loopback := !l.key.addr.IsValid() || l.key.addr == netip.AddrFrom4([4]byte{127, 0, 0, 1})
		i := slices.IndexFunc(rec.Pod.HostPorts, func(p HostPort) bool { key, _ := keyOf(p); return key == l.key })
		network := strings.ToLower(cmp.Or(rec.Pod.HostPorts[i].Protocol, "TCP"))
		if !loopback || network == "sctp" {
			continue
		}
		var backends []netip.AddrPort
		if serve {
			backends = []netip.AddrPort{netip.AddrPortFrom(l.addr, l.port)}
		}
		if err := n.local.Serve(relay.Port{Network: network, Number: l.key.port}, backends); err != nil {
			n.cfg.Log.Warn("a host port is not to be had on 127.0.0.1", "pod", rec.Pod.ID, "error", err)
		}
	}
}
