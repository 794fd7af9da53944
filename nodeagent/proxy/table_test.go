package proxy

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"testing"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/slipway-dev/slipway/nodeagent/catalog"
	"github.com/slipway-dev/slipway/nodeagent/network"
	"github.com/slipway-dev/slipway/testing/need"
)

// numbered is one of many Services, with three endpoints.
func numbered(i int) (types.NamespacedName, *catalog.Service) {
	name := fmt.Sprintf("svc-%d", i)
	s := web(func(s *corev1.Service) {
		s.Name, s.Spec.ClusterIP, s.Spec.Ports[0].NodePort = name, fmt.Sprintf("10.96.%d.%d", 1+i/250, 1+i%250), 0
	})
	var endpoints []discoveryv1.Endpoint
	for e := range 3 {
		endpoints = append(endpoints, endpoint(fmt.Sprintf("10.244.%d.%d", e, 2+i%250), "ready"))
	}
	s.Slices = append(s.Slices, slice(name, 8080, endpoints...))
	return types.NamespacedName{Namespace: "shop", Name: name}, s
}

func manyServices(b testing.TB, count int) (*Proxy, catalog.Changes) {
	b.Helper()
	need.Root(b)
	pods := netip.MustParsePrefix("10.244.0.0/24")
	pool, err := network.Open(b.Context(), network.Config{RunDir: b.TempDir(), PodCIDR: pods})
	if err != nil {
		b.Fatal(err)
	}
	p, err := New(Config{Node: "n1", PodCIDR: pods, ServiceCIDR: netip.MustParsePrefix("10.96.0.0/16")})
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() {
		if err := p.Close(); err != nil {
			b.Error(err)
		}
		if err := pool.Close(context.Background()); err != nil {
			b.Error(err)
		}
	})
	changes := catalog.Changes{}
	for i := range count {
		name, s := numbered(i)
		changes[name] = s
	}
	return p, changes
}

func TestFailedChangeIsMadeWhole(t *testing.T) {
	p, changes := manyServices(t, 3)
	name, s := numbered(0)
	s.Spec.Ports[0].NodePort = 30080
	changes[name] = s
	if err := p.apply(changes); err != nil {
		t.Fatal(err)
	}
	if err := p.table.remove(); err != nil {
		t.Fatal(err)
	}
	more, s := numbered(4)
	next := catalog.Changes{more: s, name: nil}
	if err := p.apply(next); err == nil {
		t.Error("a change of a table that is gone succeeded")
	}
	if err := p.apply(next); err != nil {
		t.Fatal(err)
	}
	want := `
10.96.1.2:80/TCP shop/svc-1:http -> 10.244.0.3:8080 10.244.1.3:8080 10.244.2.3:8080
10.96.1.3:80/TCP shop/svc-2:http -> 10.244.0.4:8080 10.244.1.4:8080 10.244.2.4:8080
10.96.1.5:80/TCP shop/svc-4:http -> 10.244.0.6:8080 10.244.1.6:8080 10.244.2.6:8080
`
	if diff := cmp.Diff(want, "\n"+p.State().String()); diff != "" {
		t.Errorf("rules (-want +got):\n%s", diff)
	}
	if !p.table.hasRules() || !p.table.hasElements(p.have) {
		t.Error("the packet filter is not as it should be")
	}
	if c, err := net.Dial("tcp", "127.0.0.1:30080"); err == nil {
		c.Close()
		t.Error("the node port of a Service that went is still served on 127.0.0.1")
	}
}

// BenchmarkOneMoreService adds one Service, and takes it away again, beside 10,000.
func BenchmarkOneMoreService(b *testing.B) {
	p, changes := manyServices(b, 10_000)
	if err := p.apply(changes); err != nil {
		b.Fatal(err)
	}
	name, s := numbered(10_001)
	for i := 0; b.Loop(); i++ {
		change := catalog.Changes{name: s}
		if i%2 == 1 {
			change[name] = nil
		}
		if err := p.apply(change); err != nil {
			b.Fatal(err)
		}
	}
	if !p.table.hasRules() || !p.table.hasElements(p.have) {
		b.Error("the packet filter is not as it should be")
	}
}

// BenchmarkStart puts the rules of 10,000 Services in place at once.
func BenchmarkStart(b *testing.B) {
	p, changes := manyServices(b, 10_000)
	for b.Loop() {
		p.have, p.known = State{}, false
		if err := p.apply(changes); err != nil {
			b.Fatal(err)
		}
	}
}

// BenchmarkLook checks the rules of 10,000 Services, as after every change by others.
func BenchmarkLook(b *testing.B) {
	p, changes := manyServices(b, 10_000)
	if err := p.apply(changes); err != nil {
		b.Fatal(err)
	}
	for b.Loop() {
		if !p.table.hasRules() || !p.table.hasElements(p.have) {
			b.Fatal("the packet filter is not as it should be")
		}
	}
}
