package proxy_test

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/google/nftables"
	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/slipway-dev/slipway/apiserver/api"
	"github.com/slipway-dev/slipway/apiserver/store"
	"github.com/slipway-dev/slipway/apiserver/store/kv/memory"
	"github.com/slipway-dev/slipway/nodeagent/network"
	"github.com/slipway-dev/slipway/nodeagent/network/networktest"
	"github.com/slipway-dev/slipway/nodeagent/proxy"
	"github.com/slipway-dev/slipway/testing/need"
)

func TestMain(m *testing.M) { networktest.Main(m) }

const here = "/proc/self/ns/net"

var (
	podCIDR     = netip.MustParsePrefix("10.244.0.0/24")
	serviceCIDR = netip.MustParsePrefix("10.96.0.0/16")
)

// world is a node with Pods, a proxy and the API it follows.
type world struct {
	t       testing.TB
	client  *store.Store
	network network.Network
	proxy   *proxy.Proxy
}

func newWorld(t testing.TB) *world {
	t.Helper()
	need.Root(t)
	ctx, cancel := context.WithCancel(context.Background())
	client, err := store.New(ctx, memory.New(), api.StorageCodec{})
	check(t, err)
	w := &world{t: t, client: client}
	w.network, err = network.Open(ctx, network.Config{RunDir: t.TempDir(), PodCIDR: podCIDR, ClusterCIDRs: []netip.Prefix{podCIDR, serviceCIDR}})
	check(t, err)
	w.proxy, err = proxy.New(proxy.Config{Node: "n1", PodCIDR: podCIDR, ServiceCIDR: serviceCIDR, Period: 50 * time.Millisecond})
	check(t, err)
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		w.proxy.Run(ctx, client)
	}()
	t.Cleanup(func() {
		cancel()
		<-ended
		check(t, w.proxy.Close())
		ids, err := w.network.List(t.Context())
		check(t, err)
		for _, id := range ids {
			check(t, w.network.Teardown(t.Context(), id))
		}
		check(t, w.network.Close(t.Context()))
	})
	return w
}

// pod makes a Pod that answers every TCP connection and UDP packet on port 8080 with its id and the caller's address.
func (w *world) pod(id string) network.Sandbox {
	w.t.Helper()
	box, err := w.network.Setup(w.t.Context(), network.Pod{ID: id})
	check(w.t, err)
	w.answer(box.NetNS, id)
	return box
}

func (w *world) answer(ns, id string) {
	w.t.Helper()
	listener := networktest.Listen(w.t, ns, ":8080")
	go func() {
		for {
			c, err := listener.Accept()
			if err != nil {
				return
			}
			go func() {
				defer c.Close()
				fmt.Fprintf(c, "%s to %s", c.RemoteAddr().(*net.TCPAddr).IP, id)
				c.Read(make([]byte, 1)) // stays open until the caller closes
			}()
		}
	}()
	packets := networktest.ListenPacket(w.t, ns, ":8080")
	go func() {
		buf := make([]byte, 100)
		for {
			_, from, err := packets.ReadFrom(buf)
			if err != nil {
				return
			}
			packets.WriteTo(fmt.Appendf(nil, "%s to %s", from.(*net.UDPAddr).IP, id), from)
		}
	}()
}

func service(name, clusterIP string, nodePort int32) *corev1.Service {
	s := &corev1.Service{ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: name},
		Spec: corev1.ServiceSpec{ClusterIP: clusterIP, Type: corev1.ServiceTypeNodePort, Selector: map[string]string{"app": "web"}}}
	for _, p := range []corev1.Protocol{corev1.ProtocolTCP, corev1.ProtocolUDP} {
		s.Spec.Ports = append(s.Spec.Ports, corev1.ServicePort{Name: strings.ToLower(string(p)), Protocol: p, Port: 80, NodePort: nodePort})
	}
	return s
}

// endpoints names the Service's ready backends.
func endpoints(service string, ready ...network.Sandbox) *discoveryv1.EndpointSlice {
	s := &discoveryv1.EndpointSlice{ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: service + "-1", Labels: map[string]string{discoveryv1.LabelServiceName: service}}, AddressType: discoveryv1.AddressTypeIPv4}
	port := int32(8080)
	for _, p := range []corev1.Protocol{corev1.ProtocolTCP, corev1.ProtocolUDP} {
		name := strings.ToLower(string(p))
		s.Ports = append(s.Ports, discoveryv1.EndpointPort{Name: &name, Protocol: &p, Port: &port})
	}
	for _, box := range ready {
		s.Endpoints = append(s.Endpoints, discoveryv1.Endpoint{Addresses: []string{box.IP}, TargetRef: &corev1.ObjectReference{UID: types.UID(box.IP)}})
	}
	return s
}

// leaving adds a Pod that is being deleted.
func leaving(s *discoveryv1.EndpointSlice, box network.Sandbox) *discoveryv1.EndpointSlice {
	yes, no := true, false
	s.Endpoints = append(s.Endpoints, discoveryv1.Endpoint{Addresses: []string{box.IP}, TargetRef: &corev1.ObjectReference{UID: types.UID(box.IP)},
		Conditions: discoveryv1.EndpointConditions{Ready: &no, Serving: &yes, Terminating: &yes}})
	return s
}

// object is a sandbox's Pod as the API has it. Services of endpoints select it.
func object(box network.Sandbox) *corev1.Pod {
	return &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: "pod", UID: types.UID(box.IP), Labels: map[string]string{"app": "web"}},
		Status: corev1.PodStatus{Phase: corev1.PodRunning, PodIP: box.IP}}
}

// put stores an object, over an earlier one.
func (w *world) put(obj api.Object) {
	w.t.Helper()
	_, err := w.client.Create(w.t.Context(), obj, store.CreateOptions{})
	if err != nil {
		_, err = w.client.Update(w.t.Context(), obj, store.UpdateOptions{})
	}
	check(w.t, err)
}

// until waits for the rules to hold a line.
func (w *world) until(line string) {
	w.t.Helper()
	deadline := time.After(10 * time.Second)
	for {
		state := w.proxy.State().String()
		if strings.Contains("\n"+state, "\n"+line+"\n") {
			return
		}
		select {
		case <-deadline:
			w.t.Fatalf("no rule %q among:\n%s", line, state)
		case <-time.After(5 * time.Millisecond):
		}
	}
}

// call connects, or sends a packet, and returns the answer.
func (w *world) call(ns, network, address string) string {
	w.t.Helper()
	ctx, cancel := context.WithTimeout(w.t.Context(), 3*time.Second)
	defer cancel()
	c, err := networktest.Dial(ctx, w.t, ns, network, address)
	if err != nil {
		return err.Error()
	}
	defer c.Close()
	return exchange(c)
}

func exchange(c net.Conn) string {
	c.SetDeadline(time.Now().Add(3 * time.Second))
	if _, err := c.Write([]byte("?")); err != nil {
		return err.Error()
	}
	buf := make([]byte, 100)
	n, err := c.Read(buf)
	if err != nil {
		return err.Error()
	}
	return string(buf[:n])
}

func check(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func TestServicesAreReached(t *testing.T) {
	w := newWorld(t)
	a, b := w.pod("a"), w.pod("b")
	outside := networktest.Host(t, "outside", netip.MustParsePrefix("192.0.2.0/24"))
	w.put(service("web", "10.96.0.20", 30080))
	w.put(endpoints("web", b))
	w.until("10.96.0.20:80/TCP shop/web:tcp -> 10.244.0.3:8080")
	for _, c := range []struct{ name, from, to, want string }{
		{"Pod to cluster address", a.NetNS, "10.96.0.20:80", a.IP + " to b"},
		{"Pod to itself by its Service", b.NetNS, "10.96.0.20:80", "10.244.0.1 to b"},
		{"host to cluster address", here, "10.96.0.20:80", "10.244.0.1 to b"},
		{"outside to node port", outside, "192.0.2.1:30080", "192.0.2.2 to b"},
		{"host to node port", here, "192.0.2.1:30080", "192.0.2.1 to b"},
		{"host to node port on loopback", here, "127.0.0.1:30080", "10.244.0.1 to b"},
		{"Pod to node port", a.NetNS, "192.0.2.1:30080", a.IP + " to b"},
		{"Pod to node port of the gateway", a.NetNS, "10.244.0.1:30080", a.IP + " to b"},
		{"Pod to itself by node port", b.NetNS, "10.244.0.1:30080", "10.244.0.1 to b"},
	} {
		for _, network := range []string{"tcp4", "udp4"} {
			if got := w.call(c.from, network, c.to); got != c.want {
				t.Errorf("%s by %s: %q, want %q", c.name, network, got, c.want)
			}
		}
	}
	w.put(endpoints("web", a, b))
	w.until("10.96.0.20:80/TCP shop/web:tcp -> 10.244.0.2:8080 10.244.0.3:8080")
	for _, to := range []string{"10.96.0.20:80", "127.0.0.1:30080"} {
		seen := map[string]bool{}
		for range 64 {
			seen[w.call(here, "tcp4", to)] = true
		}
		if len(seen) != 2 {
			t.Errorf("64 calls of %s are spread over %v, want two Pods", to, seen)
		}
	}
}

func TestBackendOutsideTheNodeAnswersThroughIt(t *testing.T) {
	w := newWorld(t)
	a := w.pod("a")
	outside := networktest.Host(t, "outside", netip.MustParsePrefix("192.0.2.0/24"))
	w.answer(networktest.Host(t, "database", netip.MustParsePrefix("198.51.100.0/24")), "database")
	w.put(service("web", "10.96.0.20", 30080))
	w.put(endpoints("web", network.Sandbox{IP: "198.51.100.2"}))
	w.until("10.96.0.20:80/TCP shop/web:tcp -> 198.51.100.2:8080")
	for _, c := range []struct{ name, from, to string }{
		{"Pod to cluster address", a.NetNS, "10.96.0.20:80"},
		{"host to cluster address", here, "10.96.0.20:80"},
		{"host to node port on loopback", here, "127.0.0.1:30080"},
		{"outside to node port", outside, "192.0.2.1:30080"},
	} {
		for _, network := range []string{"tcp4", "udp4"} {
			if got := w.call(c.from, network, c.to); got != "198.51.100.1 to database" {
				t.Errorf("%s by %s: %q", c.name, network, got)
			}
		}
	}
}

func TestServiceWithoutEndpointsIsRefusedAtOnce(t *testing.T) {
	w := newWorld(t)
	a := w.pod("a")
	networktest.Host(t, "outside", netip.MustParsePrefix("192.0.2.0/24"))
	w.put(service("web", "10.96.0.20", 30080))
	w.until("10.96.0.20:80/TCP shop/web:tcp -> refused")
	for _, c := range []struct{ from, to string }{
		{a.NetNS, "10.96.0.20:80"}, {here, "10.96.0.20:80"}, {a.NetNS, "10.96.99.99:1"}, {here, "127.0.0.1:30080"}, {a.NetNS, "192.0.2.1:30080"},
	} {
		for _, network := range []string{"tcp4", "udp4"} {
			// A process of the host that sends a datagram is told by the call itself.
			if got := w.call(c.from, network, c.to); !strings.Contains(got, "refused") && !strings.HasSuffix(got, "operation not permitted") {
				t.Errorf("%s by %s: %q, want refused", c.to, network, got)
			}
		}
	}
}

func TestEndpointLeavesBeforeItsPodIsStopped(t *testing.T) {
	w := newWorld(t)
	a, b, c := w.pod("a"), w.pod("b"), w.pod("c")
	w.put(service("web", "10.96.0.20", 30080))
	w.put(endpoints("web", b))
	w.until("10.96.0.20:80/TCP shop/web:tcp -> 10.244.0.3:8080")
	held, err := networktest.Dial(t.Context(), t, a.NetNS, "tcp4", "10.96.0.20:80")
	check(t, err)
	relayed, err := networktest.Dial(t.Context(), t, here, "tcp4", "127.0.0.1:30080")
	check(t, err)
	talking, err := networktest.Dial(t.Context(), t, a.NetNS, "udp4", "10.96.0.20:80")
	check(t, err)
	if got := exchange(talking); got != a.IP+" to b" {
		t.Errorf("UDP before: %q", got)
	}

	settled := make(chan error, 1)
	go func() { settled <- w.proxy.Settled(t.Context(), object(b)) }()
	select {
	case <-settled:
		t.Fatal("Settled returned while the Pod is ready")
	case <-time.After(20 * time.Millisecond):
	}
	w.put(leaving(endpoints("web", c), b))
	check(t, <-settled)
	for range 20 {
		if got := w.call(a.NetNS, "tcp4", "10.96.0.20:80"); got != a.IP+" to c" {
			t.Fatalf("after Settled a call got %q", got)
		}
	}
	if got := exchange(held); got != a.IP+" to b" {
		t.Errorf("the connection from before: %q, want it to go on", got)
	}
	if got := exchange(relayed); got != "10.244.0.1 to b" {
		t.Errorf("the relayed connection from before: %q, want it to go on", got)
	}
	w.until("10.96.0.20:80/UDP shop/web:udp -> 10.244.0.4:8080")
	if got := eventually(func() string { return exchange(talking) }, a.IP+" to c"); got != a.IP+" to c" {
		t.Errorf("UDP afterwards: %q, want the other Pod", got)
	}
}

func TestSettledWhenOnlyTerminatingEndpointsAreLeft(t *testing.T) {
	w := newWorld(t)
	b := w.pod("b")
	w.put(service("web", "10.96.0.20", 0))
	w.put(leaving(endpoints("web"), b))
	w.until("10.96.0.20:80/TCP shop/web:tcp -> 10.244.0.2:8080 (draining)")
	check(t, w.proxy.Settled(t.Context(), object(b)))
	if got := w.call(here, "tcp4", "10.96.0.20:80"); got != "10.244.0.1 to b" {
		t.Errorf("call: %q", got)
	}
}

func TestStickyClientKeepsItsPod(t *testing.T) {
	w := newWorld(t)
	a, b, c := w.pod("a"), w.pod("b"), w.pod("c")
	s := service("web", "10.96.0.20", 30080)
	s.Spec.SessionAffinity = corev1.ServiceAffinityClientIP
	w.put(s)
	w.put(endpoints("web", b, c))
	w.until("10.96.0.20:80/TCP shop/web:tcp -> 10.244.0.3:8080 10.244.0.4:8080 (sticky 3h0m0s)")
	first := w.call(a.NetNS, "tcp4", "10.96.0.20:80")
	for range 20 {
		if got := w.call(a.NetNS, "tcp4", "10.96.0.20:80"); got != first {
			t.Fatalf("the client moved from %q to %q", first, got)
		}
	}
	other, want := c, a.IP+" to c"
	if first == want {
		other, want = b, a.IP+" to b"
	}
	w.put(endpoints("web", other))
	w.until(fmt.Sprintf("10.96.0.20:80/TCP shop/web:tcp -> %s:8080 (sticky 3h0m0s)", other.IP))
	if got := eventually(func() string { return w.call(a.NetNS, "tcp4", "10.96.0.20:80") }, want); got != want {
		t.Errorf("after its Pod went: %q, want %q", got, want)
	}
}

// eventually calls f until it returns want, for a while.
func eventually(f func() string, want string) string {
	deadline := time.Now().Add(5 * time.Second)
	for {
		got := f()
		if got == want || time.Now().After(deadline) {
			return got
		}
		<-time.After(10 * time.Millisecond)
	}
}

func TestRulesAreBackAfterOthersRemoveThem(t *testing.T) {
	w := newWorld(t)
	a, b := w.pod("a"), w.pod("b")
	w.put(service("web", "10.96.0.20", 30080))
	w.put(endpoints("web", b))
	w.until("10.96.0.20:80/TCP shop/web:tcp -> 10.244.0.3:8080")
	held, err := networktest.Dial(t.Context(), t, a.NetNS, "tcp4", "10.96.0.20:80")
	check(t, err)
	check(t, held.SetDeadline(time.Now().Add(time.Minute)))
	greeting := bufio.NewReader(held)
	_, err = greeting.Peek(1) // nothing is on its way while the rules are gone
	check(t, err)
	conn, err := nftables.New()
	check(t, err)
	table := &nftables.Table{Name: "slipway", Family: nftables.TableFamilyIPv4}
	services, err := conn.GetSetByName(table, "services")
	check(t, err)
	for name, damage := range map[string]func(){
		"whole ruleset flushed": conn.FlushRuleset,
		"table flushed":         func() { conn.FlushTable(table) },
		"map flushed":           func() { conn.FlushSet(services) },
	} {
		damage()
		check(t, conn.Flush())
		if got := eventually(func() string { return w.call(a.NetNS, "tcp4", "10.96.0.20:80") }, a.IP+" to b"); got != a.IP+" to b" {
			t.Errorf("%s: %q", name, got)
		}
	}
	_, err = held.Write([]byte("?")) // at which the other side closes
	check(t, err)
	if got, err := io.ReadAll(greeting); err != nil || string(got) != a.IP+" to b" {
		t.Errorf("the connection from before: %q, %v", got, err)
	}
}
