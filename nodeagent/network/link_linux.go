package network

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"strings"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// vethPrefix begins the name of every link to a Pod, so that one rule can name them all.
const vethPrefix = "slw"

// vethMAC is the node's end of every veth pair. Pods know it beforehand and need not ask for it.
var vethMAC = net.HardwareAddr{0x02, 's', 'l', 'w', 0, 1}

// vethName derives the name of a Pod's link on the node (at most 15 characters).
func vethName(id string) string {
	sum := sha256.Sum256([]byte(id))
	return vethPrefix + hex.EncodeToString(sum[:6])
}

// attach links a Pod's namespace to the node: a veth pair, the Pod's address on one end, a route to it on the other.
// There is no shared segment: the Pod's only neighbour is the gateway.
func (n *node) attach(rec record, nsPath string, inside *netlink.Handle) error {
	ns, err := os.Open(nsPath)
	if err != nil {
		return err
	}
	defer ns.Close()
	name := vethName(rec.Pod.ID)
	attrs := netlink.NewLinkAttrs()
	attrs.Name, attrs.MTU, attrs.HardwareAddr = name, n.cfg.MTU, vethMAC
	veth := netlink.NewVeth(attrs)
	veth.PeerName, veth.PeerNamespace, veth.PeerMTU = "eth0", netlink.NsFd(int(ns.Fd())), uint32(n.cfg.MTU)
	err = n.links.LinkAdd(veth)
	if errors.Is(err, unix.EEXIST) { // of an earlier sandbox with this id, not gone yet
		if err := n.removeLink(name); err != nil {
			return err
		}
		err = n.links.LinkAdd(veth)
	}
	if err != nil {
		return fmt.Errorf("create %s: %w", name, err)
	}
	n.cfg.did("link")
	if err := bringUp(n.links, veth); err != nil {
		return err
	}
	n.cfg.did("bring up")
	if err := configureInside(inside, rec.Address, n.gateway); err != nil {
		return err
	}
	n.cfg.did("configure inside")
	if err := n.routeTo(rec.Address, veth.Index); err != nil {
		return err
	}
	n.cfg.did("route")
	return nil
}

// routeTo leads addr to the link, replacing a route an earlier Pod's link still has.
func (n *node) routeTo(addr netip.Addr, link int) error {
	route := &netlink.Route{LinkIndex: link, Dst: host(addr), Src: n.gateway.AsSlice(), Scope: netlink.SCOPE_LINK}
	if err := n.links.RouteReplace(route); err != nil {
		return fmt.Errorf("route %s: %w", addr, err)
	}
	return nil
}

// configureInside brings up lo and eth0 of a Pod's namespace.
func configureInside(h *netlink.Handle, addr, gateway netip.Addr) error {
	lo := &netlink.Device{LinkAttrs: netlink.LinkAttrs{Name: "lo", Index: 1}}
	if err := h.LinkSetUp(lo); err != nil {
		return fmt.Errorf("bring lo up: %w", err)
	}
	eth, err := h.LinkByName("eth0")
	if err != nil {
		return fmt.Errorf("find eth0: %w", err)
	}
	if err := h.AddrAdd(eth, &netlink.Addr{IPNet: host(addr)}); err != nil {
		return fmt.Errorf("give eth0 the address %s: %w", addr, err)
	}
	if err := bringUp(h, eth); err != nil {
		return err
	}
	index := eth.Attrs().Index
	err = h.NeighAdd(&netlink.Neigh{LinkIndex: index, State: netlink.NUD_PERMANENT, IP: gateway.AsSlice(), HardwareAddr: vethMAC})
	if err != nil {
		return fmt.Errorf("add the gateway's link address: %w", err)
	}
	if err := h.RouteAdd(&netlink.Route{LinkIndex: index, Dst: host(gateway), Scope: netlink.SCOPE_LINK}); err != nil {
		return fmt.Errorf("route the gateway: %w", err)
	}
	if err := h.RouteAdd(&netlink.Route{LinkIndex: index, Gw: gateway.AsSlice()}); err != nil {
		return fmt.Errorf("route everything to the gateway: %w", err)
	}
	return nil
}

// bringUp starts a link without IPv6 addresses: nothing waits for duplicate address detection or announces itself.
func bringUp(h *netlink.Handle, link netlink.Link) error {
	const none = 1 // IN6_ADDR_GEN_MODE_NONE
	if err := h.LinkSetIP6AddrGenMode(link, none); err != nil && !errors.Is(err, unix.EAFNOSUPPORT) && !errors.Is(err, unix.EOPNOTSUPP) {
		return fmt.Errorf("keep %s without IPv6 addresses: %w", link.Attrs().Name, err)
	}
	if err := h.LinkSetUp(link); err != nil {
		return fmt.Errorf("bring %s up: %w", link.Attrs().Name, err)
	}
	return nil
}

// openDevice makes the link that holds the gateway address: a bridge without ports, because it exists on every
// kernel. The whole range is unreachable unless a Pod has the address, so that a call to a Pod that is gone fails
// at once and never leaves the node.
func (n *node) openDevice() error {
	attrs := netlink.NewLinkAttrs()
	attrs.Name, attrs.MTU = n.cfg.Device, n.cfg.MTU
	if err := n.links.LinkAdd(&netlink.Bridge{LinkAttrs: attrs}); err != nil && !errors.Is(err, unix.EEXIST) {
		return fmt.Errorf("create %s: %w", n.cfg.Device, err)
	}
	device, err := n.links.LinkByName(n.cfg.Device)
	if err != nil {
		return fmt.Errorf("find %s: %w", n.cfg.Device, err)
	}
	if err := n.own(device); err != nil {
		return err
	}
	if err := n.links.AddrReplace(device, &netlink.Addr{IPNet: host(n.gateway)}); err != nil {
		return fmt.Errorf("give %s the address %s: %w", n.cfg.Device, n.gateway, err)
	}
	if err := bringUp(n.links, device); err != nil {
		return err
	}
	if err := n.links.RouteReplace(n.unreachable()); err != nil {
		return fmt.Errorf("make %s unreachable: %w", n.cfg.PodCIDR, err)
	}
	return nil
}

func (n *node) closeDevice() error {
	if err := n.links.RouteDel(n.unreachable()); err != nil && !errors.Is(err, unix.ESRCH) {
		return fmt.Errorf("remove the route of %s: %w", n.cfg.PodCIDR, err)
	}
	return n.removeLink(n.cfg.Device)
}

func (n *node) unreachable() *netlink.Route {
	return &netlink.Route{Dst: ipNet(n.cfg.PodCIDR.Masked()), Type: unix.RTN_UNREACHABLE, Priority: 4096}
}

// removeLink deletes a link; there may be none. The other end of a veth pair goes with it.
func (n *node) removeLink(name string) error {
	link, err := n.links.LinkByName(name)
	if errors.As(err, new(netlink.LinkNotFoundError)) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("find %s: %w", name, err)
	}
	if err := n.links.LinkDel(link); err != nil && !errors.Is(err, unix.ENODEV) {
		return fmt.Errorf("remove %s: %w", name, err)
	}
	return nil
}

// podLinks returns the names of all links to Pods.
func (n *node) podLinks() ([]string, error) {
	links, err := n.links.LinkList()
	if err != nil {
		return nil, fmt.Errorf("list links: %w", err)
	}
	var names []string
	for _, link := range links {
		if strings.HasPrefix(link.Attrs().Name, vethPrefix) && link.Type() == "veth" {
			names = append(names, link.Attrs().Name)
		}
	}
	return names, nil
}

// outwardMTU is the MTU of the link that leads outside, or Ethernet's.
func (n *node) outwardMTU() int {
	routes, err := n.links.RouteList(nil, netlink.FAMILY_V4)
	if err != nil {
		return 1500
	}
	for _, route := range routes {
		if route.Dst != nil && !route.Dst.IP.IsUnspecified() {
			continue
		}
		if link, err := n.links.LinkByIndex(route.LinkIndex); err == nil {
			return link.Attrs().MTU
		}
	}
	return 1500
}

func host(addr netip.Addr) *net.IPNet { return ipNet(netip.PrefixFrom(addr, addr.BitLen())) }

func ipNet(p netip.Prefix) *net.IPNet {
	return &net.IPNet{IP: p.Addr().AsSlice(), Mask: net.CIDRMask(p.Bits(), p.Addr().BitLen())}
}
