package proxy

import (
	"fmt"
	"net/netip"
	"testing"

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

func manyServices(b *testing.B, count int) (*Proxy, catalog.Changes) {
	b.Helper()
	need.Root(b)
	pods := netip.MustParsePrefix("10.244.0.0/24")
	net, err := network.Open(b.Context(), network.Config{RunDir: b.TempDir(), PodCIDR: pods})
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
		net.Close(b.Context())
	})
	changes := catalog.Changes{}
	for i := range count {
		name, s := numbered(i)
		changes[name] = s
	}
	return p, changes
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
		p.have = nil
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
