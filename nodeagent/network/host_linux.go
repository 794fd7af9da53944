package network

import (
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

const forwardSysctl = "net/ipv4/ip_forward"

// CheckFree returns ErrOverlap, naming the route, when the host already routes a part of cidr elsewhere. A default
// route is no overlap, and neither are the routes by device and by links to Pods.
func CheckFree(cidr netip.Prefix, device string) error {
	routes, err := netlink.RouteListFiltered(netlink.FAMILY_V4, &netlink.Route{}, netlink.RT_FILTER_TABLE)
	if err != nil {
		return fmt.Errorf("list routes: %w", err)
	}
	for _, route := range routes {
		if route.Dst == nil || route.Table == unix.RT_TABLE_LOCAL || route.Type == unix.RTN_UNREACHABLE {
			continue
		}
		ones, _ := route.Dst.Mask.Size()
		addr, ok := netip.AddrFromSlice(route.Dst.IP)
		if dst := netip.PrefixFrom(addr.Unmap(), ones); !ok || ones == 0 || !dst.Overlaps(cidr) {
			continue
		}
		name := "another device"
		if link, err := net.InterfaceByIndex(route.LinkIndex); err == nil {
			name = link.Name
		}
		if name == device || strings.HasPrefix(name, vethPrefix) {
			continue
		}
		return fmt.Errorf("%w: %s overlaps the route to %s by %s; choose another range", ErrOverlap, cidr, route.Dst, name)
	}
	return nil
}

// forward lets the host route between links, and remembers what was set before.
func forward(runDir string) error {
	now, err := os.ReadFile("/proc/sys/" + forwardSysctl)
	if err != nil {
		return fmt.Errorf("read %s: %w", forwardSysctl, err)
	}
	if strings.TrimSpace(string(now)) == "1" {
		return nil
	}
	if _, err := os.Stat(forwardFile(runDir)); err != nil { // else it was switched off while we run
		if err := replaceFile(forwardFile(runDir), now); err != nil {
			return err
		}
	}
	return writeSysctl(forwardSysctl, "1")
}

// forwardAsBefore puts back what forward changed, once.
func forwardAsBefore(runDir string) error {
	before, err := os.ReadFile(forwardFile(runDir))
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	if err := writeSysctl(forwardSysctl, strings.TrimSpace(string(before))); err != nil {
		return err
	}
	return os.Remove(forwardFile(runDir))
}

func forwardFile(runDir string) string { return filepath.Join(runDir, "ip_forward.before") }

// NodeAddress is the node's address as others see it: the one it would call the world from.
func NodeAddress() (netip.Addr, error) { return outwardAddress() }

// outwardAddress is the node's address: the one it would call the world from.
func outwardAddress() (netip.Addr, error) {
	links, err := netlink.RouteGet(net.IPv4(192, 0, 2, 1)) // any address outside; nothing is sent
	if err == nil && len(links) > 0 {
		if addr, ok := netip.AddrFromSlice(links[0].Src); ok {
			return addr.Unmap(), nil
		}
	}
	addrs, err := netlink.AddrList(nil, netlink.FAMILY_V4)
	if err != nil {
		return netip.Addr{}, fmt.Errorf("list addresses: %w", err)
	}
	for _, a := range addrs {
		addr, ok := netip.AddrFromSlice(a.IP)
		if ok && addr.Unmap().IsGlobalUnicast() {
			return addr.Unmap(), nil
		}
	}
	return netip.Addr{}, errors.New("this host has no IPv4 address")
}

// hasLegacyFirewall says whether this host has rules of the older kernel interface (iptables-legacy), which are beside
// nftables and which this package does not change.
func hasLegacyFirewall() bool {
	tables, err := os.ReadFile("/proc/net/ip_tables_names")
	return err == nil && slices.Contains(strings.Fields(string(tables)), "filter")
}
