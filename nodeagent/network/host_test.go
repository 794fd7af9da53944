package network_test

import (
	"fmt"
	"os"
	"sort"
	"strings"
	"syscall"
	"testing"

	"github.com/google/nftables"
	"github.com/vishvananda/netlink"
)

// hostState describes everything a Network may change on a host, as text.
func hostState(t testing.TB) string {
	t.Helper()
	var lines []string
	links, err := netlink.LinkList()
	check(t, err)
	for _, l := range links {
		lines = append(lines, "link "+l.Attrs().Name)
	}
	addrs, err := netlink.AddrList(nil, netlink.FAMILY_V4)
	check(t, err)
	for _, a := range addrs {
		lines = append(lines, "address "+a.IPNet.String())
	}
	routes, err := netlink.RouteList(nil, netlink.FAMILY_V4)
	check(t, err)
	for _, r := range routes {
		lines = append(lines, "route "+r.String())
	}
	conn, err := nftables.New()
	check(t, err)
	chains, err := conn.ListChains()
	check(t, err)
	for _, c := range chains {
		rules, err := conn.GetRules(c.Table, c)
		check(t, err)
		lines = append(lines, fmt.Sprintf("chain %s %s: %d rules", c.Table.Name, c.Name, len(rules)))
	}
	for _, file := range []string{"/proc/sys/net/ipv4/ip_forward", "/proc/self/mountinfo"} {
		data, err := os.ReadFile(file)
		check(t, err)
		lines = append(lines, file+" "+string(data))
	}
	sort.Strings(lines)
	return strings.Join(lines, "\n")
}

// podLink returns the name of the only link to a Pod.
func podLink(t testing.TB) string {
	t.Helper()
	links, err := netlink.LinkList()
	check(t, err)
	for _, l := range links {
		if strings.HasPrefix(l.Attrs().Name, "slw") {
			return l.Attrs().Name
		}
	}
	t.Fatal("there is no link to a Pod")
	return ""
}

func stat(t testing.TB, path string) uint64 {
	t.Helper()
	var s syscall.Stat_t
	check(t, syscall.Stat(path, &s))
	return s.Ino
}

func check(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}
