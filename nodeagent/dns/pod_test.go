package dns

import (
	"context"
	"net/netip"
	"testing"
	"time"

	"github.com/miekg/dns"
	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"

	"github.com/slipway-dev/slipway/apiserver/store"
	"github.com/slipway-dev/slipway/nodeagent/network"
	"github.com/slipway-dev/slipway/nodeagent/network/networktest"
	"github.com/slipway-dev/slipway/nodeagent/proxy"
	"github.com/slipway-dev/slipway/testing/need"
)

func TestMain(m *testing.M) { networktest.Main(m) }

// TestPodAsksTheClusterAddress goes the whole way: a Pod asks the Service kube-dns, the proxy leads it to the gateway
// address, and the server answers.
func TestPodAsksTheClusterAddress(t *testing.T) {
	need.Root(t)
	pods, services := netip.MustParsePrefix("10.244.0.0/24"), netip.MustParsePrefix("10.96.0.0/16")
	net, err := network.Open(t.Context(), network.Config{RunDir: t.TempDir(), PodCIDR: pods})
	check(t, err)
	box, err := net.Setup(t.Context(), network.Pod{ID: "a"})
	check(t, err)
	p, err := proxy.New(proxy.Config{Node: "n1", PodCIDR: pods, ServiceCIDR: services})
	check(t, err)
	s, err := New(Config{Listen: []netip.AddrPort{netip.AddrPortFrom(network.Gateway(pods), 53)}, ResolvConf: "/dev/null"})
	check(t, err)
	client := follow(t, s)
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan struct{})
	go func() { defer close(ended); p.Run(ctx, client) }()
	defer func() {
		cancel()
		<-ended
		check(t, s.Close())
		check(t, p.Close())
		check(t, net.Teardown(context.Background(), "a"))
		check(t, net.Close(context.Background()))
	}()

	spec := corev1.ServiceSpec{ClusterIP: "10.96.0.10"}
	leads := slice("kube-dns", endpoint("10.244.0.1", "", true))
	leads.Ports = nil
	for _, protocol := range []corev1.Protocol{corev1.ProtocolUDP, corev1.ProtocolTCP} {
		name, port := "dns-"+string(protocol), int32(53)
		spec.Ports = append(spec.Ports, corev1.ServicePort{Name: name, Port: port, Protocol: protocol})
		leads.Ports = append(leads.Ports, endpointPort(name, port, protocol))
	}
	_, err = client.Create(ctx, service("kube-dns", spec).Service, store.CreateOptions{})
	check(t, err)
	_, err = client.Create(ctx, leads, store.CreateOptions{})
	check(t, err)
	until(t, "10.244.0.1:53", "kube-dns.shop.svc.cluster.local.", "NOERROR own 10.96.0.10/5")
	applied(t, p, proxy.Front{Addr: netip.MustParseAddr("10.96.0.10"), Port: 53, Proto: proxy.TCP})

	for _, from := range []string{box.NetNS, "/proc/self/ns/net"} {
		for _, protocol := range []string{"udp4", "tcp4"} {
			conn, err := networktest.Dial(ctx, t, from, protocol, "10.96.0.10:53")
			check(t, err)
			req := new(dns.Msg)
			req.SetQuestion("web.shop.svc.cluster.local.", dns.TypeA)
			c := &dns.Conn{Conn: conn}
			check(t, c.WriteMsg(req))
			resp, err := c.ReadMsg()
			check(t, err)
			if got := summary(resp); got != "NOERROR own 10.96.0.20/5" {
				t.Errorf("%s from %s: %s", protocol, from, got)
			}
		}
	}
}

func endpointPort(name string, port int32, protocol corev1.Protocol) discoveryv1.EndpointPort {
	return discoveryv1.EndpointPort{Name: &name, Port: &port, Protocol: &protocol}
}

// applied waits until the proxy leads a front somewhere.
func applied(t *testing.T, p *proxy.Proxy, front proxy.Front) {
	t.Helper()
	deadline := time.After(10 * time.Second)
	for len(p.State()[front].Backends) == 0 {
		select {
		case <-deadline:
			t.Fatalf("%s leads nowhere", front)
		case <-time.After(5 * time.Millisecond):
		}
	}
}

func check(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}
