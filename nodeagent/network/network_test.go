package network_test

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/vishvananda/netlink"

	"github.com/slipway-dev/slipway/nodeagent/network"
	"github.com/slipway-dev/slipway/nodeagent/network/networktest"
	"github.com/slipway-dev/slipway/testing/need"
)

var (
	podCIDR = netip.MustParsePrefix("10.244.0.0/24")
	cluster = []netip.Prefix{netip.MustParsePrefix("10.244.0.0/16"), netip.MustParsePrefix("10.96.0.0/16")}
)

func open(t testing.TB, dir string) network.Network {
	t.Helper()
	need.Root(t)
	n, err := network.Open(t.Context(), network.Config{RunDir: dir, PodCIDR: podCIDR, ClusterCIDRs: cluster})
	if err != nil {
		t.Fatal(err)
	}
	return n
}

// closed tears down every sandbox and closes n when the test ends.
func closed(t testing.TB, n network.Network) {
	t.Helper()
	t.Cleanup(func() {
		ctx := context.Background()
		ids, err := n.List(ctx)
		if err != nil {
			t.Error(err)
		}
		for _, id := range ids {
			if err := n.Teardown(ctx, id); err != nil {
				t.Error(err)
			}
		}
		if err := n.Close(ctx); err != nil {
			t.Error(err)
		}
	})
}

func setup(t testing.TB, n network.Network, pod network.Pod) network.Sandbox {
	t.Helper()
	box, err := n.Setup(t.Context(), pod)
	if err != nil {
		t.Fatal(err)
	}
	return box
}

// serve answers every connection with the caller's address as the server sees it.
func serve(l net.Listener) {
	for {
		c, err := l.Accept()
		if err != nil {
			return
		}
		fmt.Fprint(c, c.RemoteAddr().(*net.TCPAddr).IP)
		c.Close()
	}
}

// call dials and reads all of the answer.
func call(t testing.TB, ns, address string) string {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Second)
	defer cancel()
	c, err := networktest.Dial(ctx, t, ns, "tcp4", address)
	if err != nil {
		return "error: " + err.Error()
	}
	c.SetReadDeadline(time.Now().Add(2 * time.Second))
	buf := make([]byte, 100)
	n, _ := c.Read(buf)
	return string(buf[:n])
}

const here = "/proc/self/ns/net"

func TestPodsReachEachOtherTheHostAndOutside(t *testing.T) {
	n := open(t, t.TempDir())
	closed(t, n)
	a := setup(t, n, network.Pod{ID: "a", Hostname: "alpha"})
	b := setup(t, n, network.Pod{ID: "b", Hostname: "beta", HostPorts: []network.HostPort{{HostPort: 8080, PodPort: 80, Protocol: "TCP"}}})
	if a.IP != "10.244.0.2" || b.IP != "10.244.0.3" {
		t.Errorf("addresses %s, %s; want them in order from 10.244.0.2", a.IP, b.IP)
	}
	outside := networktest.Host(t, "outside", netip.MustParsePrefix("192.0.2.0/24"))
	go serve(networktest.Listen(t, b.NetNS, ":80"))
	go serve(networktest.Listen(t, here, "10.244.0.1:53"))
	go serve(networktest.Listen(t, outside, ":80"))
	for _, c := range []struct{ name, from, to, want string }{
		{"Pod to Pod", a.NetNS, b.IP + ":80", a.IP},
		{"Pod to itself", b.NetNS, b.IP + ":80", b.IP},
		{"Pod to gateway", a.NetNS, "10.244.0.1:53", a.IP},
		{"host to Pod", here, b.IP + ":80", "10.244.0.1"},
		{"Pod to outside is masqueraded", a.NetNS, "192.0.2.2:80", "192.0.2.1"},
		{"host port from outside", outside, "192.0.2.1:8080", "192.0.2.2"},
		{"host port from the host", here, "192.0.2.1:8080", "192.0.2.1"},
		{"host port on loopback", here, "127.0.0.1:8080", "10.244.0.1"},
		{"host port from another Pod", a.NetNS, "192.0.2.1:8080", a.IP},
		{"host port from its own Pod", b.NetNS, "192.0.2.1:8080", "10.244.0.1"},
	} {
		if got := call(t, c.from, c.to); got != c.want {
			t.Errorf("%s: %s saw %q, want %q", c.name, c.to, got, c.want)
		}
	}
	if got := call(t, a.NetNS, "10.244.0.77:80"); got != "error: dial tcp4 10.244.0.77:80: connect: no route to host" {
		t.Errorf("address without a Pod: %s, want it refused at once", got)
	}
}

func TestSandboxSurvivesRestart(t *testing.T) {
	need.Root(t)
	dir := t.TempDir()
	ctx, stop := context.WithCancel(t.Context())
	first, err := network.Open(ctx, network.Config{RunDir: dir, PodCIDR: podCIDR})
	if err != nil {
		t.Fatal(err)
	}
	pod := network.Pod{ID: "a", Hostname: "alpha", HostPorts: []network.HostPort{{HostPort: 8080, PodPort: 80}}}
	before := setup(t, first, pod)
	inode := func() uint64 { return stat(t, before.NetNS) }
	was := inode()
	stop()

	second := open(t, dir)
	closed(t, second)
	if diff := cmp.Diff(before, setup(t, second, pod)); diff != "" {
		t.Errorf("sandbox after a restart (-before +after):\n%s", diff)
	}
	if inode() != was {
		t.Error("the network namespace is another one after a restart")
	}
	if b := setup(t, second, network.Pod{ID: "b"}); b.IP != "10.244.0.3" {
		t.Errorf("next address is %s, want 10.244.0.3", b.IP)
	}
	go serve(networktest.Listen(t, before.NetNS, ":80"))
	for _, at := range []string{"10.244.0.1:8080", "127.0.0.1:8080"} {
		var got string
		for deadline := time.Now().Add(10 * time.Second); got != "10.244.0.1" && time.Now().Before(deadline); {
			got = call(t, here, at) // the first one may hold the port for a moment
		}
		if got != "10.244.0.1" {
			t.Errorf("host port on %s after a restart: %s", at, got)
		}
	}
	check(t, second.Teardown(t.Context(), "a"))
	for _, at := range []string{"10.244.0.1:8080", "127.0.0.1:8080"} {
		if got := call(t, here, at); !strings.Contains(got, "refused") {
			t.Errorf("host port on %s after Teardown: %s, want refused", at, got)
		}
	}
}

func TestSetupIsMadeAgainAfterReboot(t *testing.T) {
	n := open(t, t.TempDir())
	closed(t, n)
	box := setup(t, n, network.Pod{ID: "a"})
	link, err := netlink.LinkByName(podLink(t))
	if err != nil {
		t.Fatal(err)
	}
	if err := netlink.LinkDel(link); err != nil {
		t.Fatal(err)
	}
	if again := setup(t, n, network.Pod{ID: "a"}); again != box {
		t.Errorf("sandbox made again is %+v, want %+v", again, box)
	}
	if got := call(t, box.NetNS, "10.244.0.1:1"); got != "error: dial tcp4 10.244.0.1:1: connect: connection refused" {
		t.Errorf("Pod to gateway: %s", got)
	}
}

func TestHostPortPassesToTheNewerPod(t *testing.T) {
	n := open(t, t.TempDir())
	closed(t, n)
	ports := []network.HostPort{{HostPort: 8080, PodPort: 80, Protocol: "TCP"}}
	setup(t, n, network.Pod{ID: "old", HostPorts: ports})
	box := setup(t, n, network.Pod{ID: "new", HostPorts: ports})
	check(t, n.Teardown(t.Context(), "old"))
	go serve(networktest.Listen(t, box.NetNS, ":80"))
	for _, at := range []string{"10.244.0.1:8080", "127.0.0.1:8080"} {
		if got := call(t, here, at); got != "10.244.0.1" {
			t.Errorf("host port on %s: %s", at, got)
		}
	}
}

func TestFailedSetupLeavesNothing(t *testing.T) {
	n := open(t, t.TempDir())
	closed(t, n)
	before := hostState(t)
	for name, pod := range map[string]network.Pod{
		"protocol": {ID: "a", HostPorts: []network.HostPort{{HostPort: 1, PodPort: 1, Protocol: "XYZ"}}},
		"address":  {ID: "a", HostPorts: []network.HostPort{{HostIP: "nowhere", HostPort: 1, PodPort: 1}}},
		"hostname": {ID: "a", Hostname: strings.Repeat("x", 100)},
		"id":       {ID: "../a"},
	} {
		if box, err := n.Setup(t.Context(), pod); err == nil {
			t.Errorf("%s: Setup returned %+v", name, box)
		}
	}
	if ids, err := n.List(t.Context()); err != nil || len(ids) > 0 {
		t.Errorf("sandboxes %v, %v; want none", ids, err)
	}
	deadline := time.Now().Add(10 * time.Second)
	for hostState(t) != before { // links go with their namespaces, soon
		if time.Now().After(deadline) {
			t.Fatalf("host (-before +after):\n%s", cmp.Diff(before, hostState(t)))
		}
		<-time.After(5 * time.Millisecond)
	}
	if box := setup(t, n, network.Pod{ID: "b"}); box.IP == "" {
		t.Error("no address")
	}
}

func TestHostNamespaces(t *testing.T) {
	n := open(t, t.TempDir())
	closed(t, n)
	networktest.Host(t, "outside", netip.MustParsePrefix("192.0.2.0/24"))
	box := setup(t, n, network.Pod{ID: "a", HostNetwork: true, HostIPC: true})
	want := network.Sandbox{NetNS: "host", IPC: "host", UTS: "host", IP: "192.0.2.1", Shm: "/dev/shm"}
	if diff := cmp.Diff(want, box); diff != "" {
		t.Errorf("sandbox (-want +got):\n%s", diff)
	}
}

func TestCloseLeavesTheHostAsItWas(t *testing.T) {
	need.Root(t)
	dir := t.TempDir()
	before := hostState(t)
	n := open(t, dir)
	during := hostState(t)
	setup(t, n, network.Pod{ID: "a", HostPorts: []network.HostPort{{HostPort: 1, PodPort: 2}}})
	if err := n.Close(t.Context()); err == nil {
		t.Error("Close with a Pod left succeeded")
	}
	n = open(t, dir)
	if err := n.Teardown(t.Context(), "a"); err != nil {
		t.Fatal(err)
	}
	if err := n.Teardown(t.Context(), "a"); err != nil {
		t.Errorf("second Teardown: %v", err)
	}
	if err := n.Close(t.Context()); err != nil {
		t.Fatal(err)
	}
	if during == before {
		t.Error("Open changed nothing: the test sees nothing")
	}
	if diff := cmp.Diff(before, hostState(t)); diff != "" {
		t.Errorf("host after Close (-before +after):\n%s", diff)
	}
	if left, _ := os.ReadDir(dir); len(left) > 0 {
		t.Errorf("%d files left, the first is %s", len(left), left[0].Name())
	}
}

func TestOpenRefusesRangeInUse(t *testing.T) {
	need.Root(t)
	networktest.Host(t, "lan", netip.MustParsePrefix("10.244.0.0/16"))
	_, err := network.Open(t.Context(), network.Config{RunDir: t.TempDir(), PodCIDR: podCIDR})
	if err == nil || !cmp.Equal(err.Error(), "address range is in use on this host: 10.244.0.0/24 overlaps the route to 10.244.0.0/16 by lan; choose another range") {
		t.Errorf("Open: %v", err)
	}
}

// TestOpenRefusesAnothersNetwork: a second Slipway on a host would take the first one's links for rubbish.
func TestOpenRefusesAnothersNetwork(t *testing.T) {
	need.Root(t)
	dir := t.TempDir()
	mine := network.Config{RunDir: dir, PodCIDR: podCIDR, Owner: "/data/mine"}
	n, err := network.Open(t.Context(), mine)
	if err != nil {
		t.Fatal(err)
	}
	closed(t, n)
	box := setup(t, n, network.Pod{ID: "a"})
	theirs := network.Config{RunDir: t.TempDir(), PodCIDR: podCIDR, Owner: "/data/theirs"}
	if _, err := network.Open(t.Context(), theirs); !errors.Is(err, network.ErrOwned) || !strings.Contains(err.Error(), "/data/mine") {
		t.Errorf("open by another: %v, want a refusal that names /data/mine", err)
	}
	go serve(networktest.Listen(t, box.NetNS, ":80"))
	if got := call(t, here, box.IP+":80"); got != "10.244.0.1" {
		t.Errorf("the first one's Pod after the refusal: %s", got)
	}
	if err := network.CheckOwner("", "/data/mine"); err != nil {
		t.Errorf("its own network: %v", err)
	}
}

func TestManyPodsAtOnce(t *testing.T) {
	n := open(t, t.TempDir())
	closed(t, n)
	seen := map[string]bool{}
	for _, box := range many(t, n, 50) {
		seen[box.IP] = true
	}
	if len(seen) != 50 {
		t.Errorf("50 Pods have %d addresses", len(seen))
	}
}

func many(t testing.TB, n network.Network, count int) []network.Sandbox {
	t.Helper()
	boxes := make([]network.Sandbox, count)
	var wg sync.WaitGroup
	for i := range boxes {
		wg.Go(func() {
			var err error
			if boxes[i], err = n.Setup(t.Context(), network.Pod{ID: fmt.Sprint("pod-", i), Hostname: fmt.Sprint("pod-", i)}); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	return boxes
}

func BenchmarkSetup50(b *testing.B) {
	n := open(b, b.TempDir())
	closed(b, n)
	for b.Loop() {
		many(b, n, 50)
		b.StopTimer()
		ids, _ := n.List(b.Context())
		start := time.Now()
		for _, id := range ids {
			if err := n.Teardown(b.Context(), id); err != nil {
				b.Fatal(err)
			}
		}
		b.ReportMetric(float64(time.Since(start).Milliseconds())/50, "teardown-ms/pod")
		b.StartTimer()
	}
}

func BenchmarkSetupOne(b *testing.B) {
	n := open(b, b.TempDir())
	closed(b, n)
	for i := 0; b.Loop(); i++ {
		id := fmt.Sprint("pod-", i)
		setup(b, n, network.Pod{ID: id, Hostname: id})
		b.StopTimer()
		check(b, n.Teardown(b.Context(), id))
		b.StartTimer()
	}
}
