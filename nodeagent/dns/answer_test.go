package dns

import (
	"fmt"
	"net/netip"
	"sort"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/miekg/dns"
	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/slipway-dev/slipway/nodeagent/catalog"
)

func ptr[T any](v T) *T { return &v }

func service(name string, spec corev1.ServiceSpec, slices ...*discoveryv1.EndpointSlice) *catalog.Service {
	return &catalog.Service{Service: &corev1.Service{ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: name}, Spec: spec}, Slices: slices}
}

func slice(owner string, endpoints ...discoveryv1.Endpoint) *discoveryv1.EndpointSlice {
	return &discoveryv1.EndpointSlice{
		ObjectMeta:  metav1.ObjectMeta{Namespace: "shop", Name: owner + "-1", Labels: map[string]string{discoveryv1.LabelServiceName: owner}},
		AddressType: discoveryv1.AddressTypeIPv4, Endpoints: endpoints,
		Ports: []discoveryv1.EndpointPort{{Name: ptr("sql"), Port: ptr(int32(5432)), Protocol: ptr(corev1.ProtocolTCP)}},
	}
}

func endpoint(addr, hostname string, ready bool) discoveryv1.Endpoint {
	e := discoveryv1.Endpoint{Addresses: []string{addr}, Conditions: discoveryv1.EndpointConditions{Ready: &ready}}
	if hostname != "" {
		e.Hostname = &hostname
	}
	return e
}

func testServices() catalog.Changes {
	changes := catalog.Changes{}
	for _, s := range []*catalog.Service{
		service("web", corev1.ServiceSpec{ClusterIP: "10.96.0.20", Ports: []corev1.ServicePort{{Name: "http", Port: 80, Protocol: corev1.ProtocolTCP}}}),
		service("db", corev1.ServiceSpec{ClusterIP: corev1.ClusterIPNone},
			slice("db", endpoint("10.244.0.5", "db-0", true), endpoint("10.244.0.6", "", true), endpoint("10.244.0.7", "db-2", false))),
		service("all", corev1.ServiceSpec{ClusterIP: corev1.ClusterIPNone, PublishNotReadyAddresses: true}, slice("all", endpoint("10.244.0.8", "", false))),
		service("elsewhere", corev1.ServiceSpec{Type: corev1.ServiceTypeExternalName, ExternalName: "Example.org"}),
		service("nearby", corev1.ServiceSpec{Type: corev1.ServiceTypeExternalName, ExternalName: "web.shop.svc.cluster.local"}),
	} {
		changes[types.NamespacedName{Namespace: s.Namespace, Name: s.Name}] = s
	}
	return changes
}

func testAuthority() *authority {
	a := &authority{domain: "cluster.local.", ranges: []netip.Prefix{netip.MustParsePrefix("10.96.0.0/16"), netip.MustParsePrefix("10.244.0.0/16")}, zone: &zone{}}
	a.zone.apply(testServices())
	return a
}

// text returns an answer on one line: its records, or what is missing.
func text(a answer) string {
	var parts []string
	for _, rr := range a.answers {
		parts = append(parts, strings.TrimPrefix(rr.String(), rr.Header().String()))
	}
	sort.Strings(parts)
	switch {
	case !a.exists:
		return "no such name"
	case len(parts) == 0:
		return "nothing of this type"
	}
	return strings.Join(parts, " | ")
}

func TestAnswers(t *testing.T) {
	a := testAuthority()
	for _, c := range []struct {
		kind uint16
		name string
		want string
	}{
		{dns.TypeA, "web.shop.svc.cluster.local.", "10.96.0.20"},
		{dns.TypeAAAA, "web.shop.svc.cluster.local.", "nothing of this type"},
		{dns.TypeA, "web.other.svc.cluster.local.", "no such name"},
		{dns.TypeA, "other.shop.svc.cluster.local.", "no such name"},
		{dns.TypeA, "x.web.shop.svc.cluster.local.", "no such name"},
		{dns.TypeA, "web.shop.svc.cluster.local.shop.svc.cluster.local.", "no such name"},
		{dns.TypeA, "shop.svc.cluster.local.", "nothing of this type"},
		{dns.TypeA, "other.svc.cluster.local.", "no such name"},
		{dns.TypeA, "svc.cluster.local.", "nothing of this type"},
		{dns.TypeA, "cluster.local.", "nothing of this type"},
		{dns.TypeA, "example.cluster.local.", "no such name"},
		{dns.TypeNS, "cluster.local.", "ns.dns.cluster.local."},
		{dns.TypeTXT, "dns-version.cluster.local.", `"1.1.0"`},
		{dns.TypeSRV, "_http._tcp.web.shop.svc.cluster.local.", "0 100 80 web.shop.svc.cluster.local."},
		{dns.TypeA, "_http._tcp.web.shop.svc.cluster.local.", "nothing of this type"},
		{dns.TypeSRV, "_http._udp.web.shop.svc.cluster.local.", "no such name"},
		{dns.TypeSRV, "_tcp.web.shop.svc.cluster.local.", "nothing of this type"},
		{dns.TypeSRV, "_udp.web.shop.svc.cluster.local.", "no such name"},
		{dns.TypeA, "db.shop.svc.cluster.local.", "10.244.0.5 | 10.244.0.6"},
		{dns.TypeA, "db-0.db.shop.svc.cluster.local.", "10.244.0.5"},
		{dns.TypeA, "10-244-0-6.db.shop.svc.cluster.local.", "10.244.0.6"},
		{dns.TypeA, "db-2.db.shop.svc.cluster.local.", "no such name"},
		{dns.TypeSRV, "_sql._tcp.db.shop.svc.cluster.local.", "0 50 5432 10-244-0-6.db.shop.svc.cluster.local. | 0 50 5432 db-0.db.shop.svc.cluster.local."},
		{dns.TypeA, "all.shop.svc.cluster.local.", "10.244.0.8"},
		{dns.TypeA, "elsewhere.shop.svc.cluster.local.", "example.org."},
		{dns.TypeA, "10-244-0-99.shop.pod.cluster.local.", "10.244.0.99"},
		{dns.TypeAAAA, "10-244-0-99.shop.pod.cluster.local.", "nothing of this type"},
		{dns.TypeA, "10-244-0-99.other.pod.cluster.local.", "no such name"},
		{dns.TypeA, "10-244-0.shop.pod.cluster.local.", "no such name"},
		{dns.TypePTR, "20.0.96.10.in-addr.arpa.", "web.shop.svc.cluster.local."},
		{dns.TypePTR, "5.0.244.10.in-addr.arpa.", "db-0.db.shop.svc.cluster.local."},
		{dns.TypePTR, "6.0.244.10.in-addr.arpa.", "10-244-0-6.db.shop.svc.cluster.local."},
		{dns.TypePTR, "99.0.244.10.in-addr.arpa.", "no such name"},
		{dns.TypeA, "5.0.244.10.in-addr.arpa.", "nothing of this type"},
	} {
		if !a.owns(c.name) {
			t.Errorf("%s is not owned", c.name)
		}
		if got := text(a.ask(c.name, c.name, c.kind)); got != c.want {
			t.Errorf("%s %s: %s, want %s", dns.TypeToString[c.kind], c.name, got, c.want)
		}
	}
	for _, name := range []string{"example.org.", "xcluster.local.", "1.0.0.127.in-addr.arpa.", "1.0.in-addr.arpa.", "."} {
		if a.owns(name) {
			t.Errorf("%s is owned", name)
		}
	}
}

func TestZoneForgetsServices(t *testing.T) {
	a := testAuthority()
	gone := catalog.Changes{}
	for name := range testServices() {
		gone[name] = nil
	}
	gone[types.NamespacedName{Namespace: "shop", Name: "next"}] = service("next", corev1.ServiceSpec{ClusterIP: "10.96.0.20"})
	a.zone.apply(gone)
	got := fmt.Sprint(
		text(a.ask("web.shop.svc.cluster.local.", "", dns.TypeA)), ", ",
		text(a.ask("next.shop.svc.cluster.local.", "", dns.TypeA)), ", ",
		text(a.ask("20.0.96.10.in-addr.arpa.", "", dns.TypePTR)), ", ",
		text(a.ask("5.0.244.10.in-addr.arpa.", "", dns.TypePTR)))
	want := "no such name, 10.96.0.20, next.shop.svc.cluster.local., no such name"
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("answers (-want +got):\n%s", diff)
	}
	a.zone.apply(catalog.Changes{types.NamespacedName{Namespace: "shop", Name: "next"}: nil})
	if got := text(a.ask("shop.svc.cluster.local.", "", dns.TypeA)); got != "no such name" {
		t.Errorf("a namespace without Services: %s", got)
	}
}

func BenchmarkAsk(b *testing.B) {
	a := testAuthority()
	for b.Loop() {
		a.ask("web.shop.svc.cluster.local.", "web.shop.svc.cluster.local.", dns.TypeA)
	}
}
