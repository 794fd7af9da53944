package network_test

import (
	"context"
	"encoding/binary"
	"net"
	"net/netip"
	"os"
	"testing"
	"time"

	"github.com/google/nftables"
	"github.com/google/nftables/expr"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/slipway-dev/slipway/nodeagent/network"
	"github.com/slipway-dev/slipway/nodeagent/network/networktest"
	"github.com/slipway-dev/slipway/testing/need"
)

// sendFrom sends a UDP packet with any source address from the namespace ns.
func sendFrom(t *testing.T, ns string, from, to netip.AddrPort, text string) {
	t.Helper()
	networktest.In(t, ns, func() {
		fd, err := unix.Socket(unix.AF_INET, unix.SOCK_RAW, unix.IPPROTO_RAW)
		if err != nil {
			t.Error(err)
			return
		}
		defer unix.Close(fd)
		packet := make([]byte, 28, 28+len(text))
		packet[0], packet[8], packet[9] = 0x45, 64, unix.IPPROTO_UDP
		copy(packet[12:], from.Addr().AsSlice())
		copy(packet[16:], to.Addr().AsSlice())
		binary.BigEndian.PutUint16(packet[20:], from.Port())
		binary.BigEndian.PutUint16(packet[22:], to.Port())
		binary.BigEndian.PutUint16(packet[24:], uint16(8+len(text)))
		if err := unix.Sendto(fd, append(packet, text...), 0, &unix.SockaddrInet4{Addr: to.Addr().As4()}); err != nil {
			t.Error(err)
		}
	})
}

// received returns the first packet that reaches c.
func received(t *testing.T, c net.PacketConn) string {
	t.Helper()
	c.SetReadDeadline(time.Now().Add(2 * time.Second))
	buf := make([]byte, 100)
	n, _, err := c.ReadFrom(buf)
	if err != nil {
		t.Error(err)
	}
	return string(buf[:n])
}

func TestForgedSourceIsDropped(t *testing.T) {
	n := open(t, t.TempDir())
	closed(t, n)
	a, b, victim := setup(t, n, network.Pod{ID: "a"}), setup(t, n, network.Pod{ID: "b"}), setup(t, n, network.Pod{ID: "c"})
	server := networktest.ListenPacket(t, b.NetNS, ":7000")
	to := netip.AddrPortFrom(netip.MustParseAddr(b.IP), 7000)
	from := func(ip string) netip.AddrPort { return netip.AddrPortFrom(netip.MustParseAddr(ip), 7001) }
	for _, forged := range []string{victim.IP, "10.244.0.1", "10.244.0.200", "192.0.2.9", "8.8.8.8"} {
		sendFrom(t, a.NetNS, from(forged), to, "forged as "+forged)
	}
	sendFrom(t, a.NetNS, from(a.IP), to, "honest")
	if got := received(t, server); got != "honest" {
		t.Errorf("the first packet that arrived is %q", got)
	}
}

func TestLoopbackOfTheNodeIsOutOfReach(t *testing.T) {
	n := open(t, t.TempDir())
	closed(t, n)
	a := setup(t, n, network.Pod{ID: "a"})
	check(t, os.WriteFile("/proc/sys/net/ipv4/conf/all/route_localnet", []byte("1"), 0o644))
	t.Cleanup(func() { os.WriteFile("/proc/sys/net/ipv4/conf/all/route_localnet", []byte("0"), 0o644) })
	server := networktest.ListenPacket(t, here, "0.0.0.0:7000")
	networktest.In(t, a.NetNS, func() { // a Pod with every privilege
		check(t, os.WriteFile("/proc/sys/net/ipv4/conf/all/route_localnet", []byte("1"), 0o644))
		routes, err := netlink.RouteListFiltered(netlink.FAMILY_V4, &netlink.Route{Table: unix.RT_TABLE_LOCAL}, netlink.RT_FILTER_TABLE)
		check(t, err)
		for _, r := range routes {
			if r.Dst != nil && r.Dst.IP.IsLoopback() {
				check(t, netlink.RouteDel(&r))
			}
		}
		_, dst, _ := net.ParseCIDR("127.0.0.0/8")
		check(t, netlink.RouteAdd(&netlink.Route{Dst: dst, Gw: net.IPv4(10, 244, 0, 1)}))
	})
	own := netip.AddrPortFrom(netip.MustParseAddr(a.IP), 7001)
	sendFrom(t, a.NetNS, own, netip.MustParseAddrPort("127.0.0.1:7000"), "to loopback")
	sendFrom(t, a.NetNS, own, netip.MustParseAddrPort("10.244.0.1:7000"), "to the gateway")
	if got := received(t, server); got != "to the gateway" {
		t.Errorf("the first packet that arrived is %q", got)
	}
}

// closedFirewall makes what Docker, ufw and firewalld make: chains that drop or refuse what they do not know.
func closedFirewall(t *testing.T) *nftables.Conn {
	t.Helper()
	conn, err := nftables.New()
	check(t, err)
	docker := conn.AddTable(&nftables.Table{Name: "filter", Family: nftables.TableFamilyIPv4})
	drop := nftables.ChainPolicyDrop
	for name, hook := range map[string]*nftables.ChainHook{"FORWARD": nftables.ChainHookForward, "INPUT": nftables.ChainHookInput} {
		conn.AddChain(&nftables.Chain{Name: name, Table: docker, Type: nftables.ChainTypeFilter, Hooknum: hook, Priority: nftables.ChainPriorityFilter, Policy: &drop})
	}
	firewalld := conn.AddTable(&nftables.Table{Name: "firewalld", Family: nftables.TableFamilyINet})
	forward := conn.AddChain(&nftables.Chain{Name: "filter_FORWARD", Table: firewalld, Type: nftables.ChainTypeFilter, Hooknum: nftables.ChainHookForward, Priority: nftables.ChainPriorityRef(10)})
	conn.AddRule(&nftables.Rule{Table: firewalld, Chain: forward, Exprs: []expr.Any{&expr.Reject{Type: unix.NFT_REJECT_ICMPX_UNREACH, Code: unix.NFT_REJECT_ICMPX_ADMIN_PROHIBITED}}})
	check(t, conn.Flush())
	t.Cleanup(func() {
		conn.DelTable(docker)
		conn.DelTable(firewalld)
		check(t, conn.Flush())
	})
	return conn
}

func TestPodsPassForeignFirewalls(t *testing.T) {
	need.Root(t)
	conn := closedFirewall(t)
	before := hostState(t)
	n := open(t, t.TempDir())
	a, b := setup(t, n, network.Pod{ID: "a"}), setup(t, n, network.Pod{ID: "b"})
	go serve(networktest.Listen(t, b.NetNS, ":80"))
	go serve(networktest.Listen(t, here, ":80"))
	if got := call(t, a.NetNS, b.IP+":80"); got != a.IP {
		t.Errorf("Pod to Pod: %s", got)
	}
	if got := call(t, a.NetNS, "10.244.0.1:80"); got != a.IP {
		t.Errorf("Pod to the gateway: %s", got)
	}
	for _, id := range []string{"a", "b"} {
		check(t, n.Teardown(t.Context(), id))
	}
	check(t, n.Close(t.Context()))
	if after := hostState(t); after != before {
		t.Errorf("after Close:\n%s\nbefore:\n%s", after, before)
	}
	_ = conn
}

func TestRulesAreBackAfterFlush(t *testing.T) {
	n := open(t, t.TempDir())
	closed(t, n)
	setup(t, n, network.Pod{ID: "a", HostPorts: []network.HostPort{{HostPort: 8080, PodPort: 80}}})
	whole := hostState(t)
	conn, err := nftables.New()
	check(t, err)
	conn.FlushRuleset()
	check(t, conn.Flush())
	check(t, os.WriteFile("/proc/sys/net/ipv4/ip_forward", []byte("0"), 0o644))
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	for hostState(t) != whole {
		if ctx.Err() != nil {
			t.Fatalf("rules are not back:\n%s\nwant:\n%s", hostState(t), whole)
		}
		<-time.After(50 * time.Millisecond)
	}
}

func TestPodsSendNoIPv6(t *testing.T) {
	n := open(t, t.TempDir())
	closed(t, n)
	a := setup(t, n, network.Pod{ID: "a"})
	link, err := netlink.LinkByName(podLink(t))
	check(t, err)
	addr := func(text string) *netlink.Addr {
		a, err := netlink.ParseAddr(text)
		check(t, err)
		a.Flags = unix.IFA_F_NODAD
		return a
	}
	check(t, netlink.AddrAdd(link, addr("fd00::1/64")))
	networktest.In(t, a.NetNS, func() { // a Pod with every privilege
		eth, err := netlink.LinkByName("eth0")
		check(t, err)
		check(t, netlink.AddrAdd(eth, addr("fd00::2/64")))
		check(t, netlink.NeighAdd(&netlink.Neigh{LinkIndex: eth.Attrs().Index, State: netlink.NUD_PERMANENT, IP: net.ParseIP("fd00::1"), HardwareAddr: link.Attrs().HardwareAddr}))
	})
	server, err := net.ListenPacket("udp6", "[fd00::1]:7000")
	check(t, err)
	defer server.Close()
	both := networktest.ListenPacket(t, here, "10.244.0.1:7000")
	networktest.In(t, a.NetNS, func() {
		for _, to := range []string{"[fd00::1]:7000", "10.244.0.1:7000"} {
			c, err := net.Dial("udp", to)
			check(t, err)
			_, err = c.Write([]byte("hello"))
			check(t, err)
			c.Close()
		}
	})
	if got := received(t, both); got != "hello" {
		t.Errorf("by IPv4: %q", got)
	}
	server.SetReadDeadline(time.Now().Add(100 * time.Millisecond))
	if _, _, err := server.ReadFrom(make([]byte, 10)); err == nil {
		t.Error("a packet arrived by IPv6")
	}
}
