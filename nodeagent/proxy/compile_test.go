package proxy

import (
	"net/netip"
	"testing"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/slipway-dev/slipway/nodeagent/catalog"
)

func ptr[T any](v T) *T { return &v }

func slice(name string, port int32, endpoints ...discoveryv1.Endpoint) *discoveryv1.EndpointSlice {
	return &discoveryv1.EndpointSlice{
		ObjectMeta:  metav1.ObjectMeta{Namespace: "shop", Name: name, Labels: map[string]string{discoveryv1.LabelServiceName: "web"}},
		AddressType: discoveryv1.AddressTypeIPv4, Endpoints: endpoints,
		Ports: []discoveryv1.EndpointPort{{Name: ptr("http"), Port: ptr(port), Protocol: ptr(corev1.ProtocolTCP)}},
	}
}

func endpoint(addr string, state string) discoveryv1.Endpoint {
	e := discoveryv1.Endpoint{Addresses: []string{addr}, NodeName: ptr("n1")}
	e.Conditions.Ready = ptr(state == "ready")
	e.Conditions.Serving = ptr(state != "unready")
	e.Conditions.Terminating = ptr(state == "terminating")
	return e
}

func web(change func(*corev1.Service), slices ...*discoveryv1.EndpointSlice) *catalog.Service {
	s := &corev1.Service{ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: "web"}, Spec: corev1.ServiceSpec{
		ClusterIP: "10.96.0.20", Ports: []corev1.ServicePort{{Name: "http", Port: 80, NodePort: 30080, Protocol: corev1.ProtocolTCP}}}}
	if change != nil {
		change(s)
	}
	return &catalog.Service{Service: s, Slices: slices}
}

func TestCompile(t *testing.T) {
	one, two := endpoint("10.244.0.5", "ready"), endpoint("10.244.0.6", "ready")
	for _, c := range []struct {
		name    string
		service *catalog.Service
		want    string
	}{
		{"ready endpoints of all slices, sorted, each once", web(nil, slice("a", 8080, two, one), slice("b", 8080, one)), `
node:30080/TCP shop/web:http -> 10.244.0.5:8080 10.244.0.6:8080
10.96.0.20:80/TCP shop/web:http -> 10.244.0.5:8080 10.244.0.6:8080
`},
		{"endpoints that are not ready do not count", web(nil, slice("a", 8080, one, endpoint("10.244.0.7", "unready"), endpoint("10.244.0.8", "terminating"))), `
node:30080/TCP shop/web:http -> 10.244.0.5:8080
10.96.0.20:80/TCP shop/web:http -> 10.244.0.5:8080
`},
		{"terminating endpoints are better than none", web(nil, slice("a", 8080, endpoint("10.244.0.7", "unready"), endpoint("10.244.0.8", "terminating"))), `
node:30080/TCP shop/web:http -> 10.244.0.8:8080 (draining)
10.96.0.20:80/TCP shop/web:http -> 10.244.0.8:8080 (draining)
`},
		{"no endpoints are refused", web(nil), `
node:30080/TCP shop/web:http -> refused
10.96.0.20:80/TCP shop/web:http -> refused
`},
		{"a port the slice does not have", web(func(s *corev1.Service) { s.Spec.Ports[0].Name = "admin" }, slice("a", 8080, one)), `
node:30080/TCP shop/web:admin -> refused
10.96.0.20:80/TCP shop/web:admin -> refused
`},
		{"client affinity", web(func(s *corev1.Service) {
			s.Spec.SessionAffinity, s.Spec.Ports[0].NodePort = corev1.ServiceAffinityClientIP, 0
		}, slice("a", 8080, one)), `
10.96.0.20:80/TCP shop/web:http -> 10.244.0.5:8080 (sticky 3h0m0s)
`},
		{"local traffic policies", web(func(s *corev1.Service) {
			s.Spec.InternalTrafficPolicy = ptr(corev1.ServiceInternalTrafficPolicyLocal)
		}, slice("a", 8080, one, discoveryv1.Endpoint{Addresses: []string{"10.244.1.5"}, NodeName: ptr("n2")})), `
node:30080/TCP shop/web:http -> 10.244.0.5:8080 10.244.1.5:8080
10.96.0.20:80/TCP shop/web:http -> 10.244.0.5:8080
`},
		{"headless", web(func(s *corev1.Service) { s.Spec.ClusterIP = corev1.ClusterIPNone }, slice("a", 8080, one)), "\n"},
		{"external name", web(func(s *corev1.Service) { s.Spec.Type = corev1.ServiceTypeExternalName }, slice("a", 8080, one)), "\n"},
		{"gone", nil, "\n"},
	} {
		t.Run(c.name, func(t *testing.T) {
			state := State{}
			for _, rule := range Compile(c.service, "n1") {
				state[rule.Front] = rule
			}
			if diff := cmp.Diff(c.want, "\n"+state.String()); diff != "" {
				t.Errorf("rules (-want +got):\n%s", diff)
			}
		})
	}
}

func TestDiffNamesOnlyWhatChanged(t *testing.T) {
	rule := func(addr, backend string) Rule {
		front := Front{Addr: netip.MustParseAddr(addr), Port: 80, Proto: TCP}
		return Rule{Front: front, Name: "a/b", Backends: []netip.AddrPort{netip.MustParseAddrPort(backend)}}
	}
	state := func(rules ...Rule) State {
		s := State{}
		for _, r := range rules {
			s[r.Front] = r
		}
		return s
	}
	same, gone, before := rule("10.96.0.1", "10.244.0.1:1"), rule("10.96.0.2", "10.244.0.2:1"), rule("10.96.0.3", "10.244.0.3:1")
	after, come := rule("10.96.0.3", "10.244.0.9:1"), rule("10.96.0.4", "10.244.0.4:1")
	got := "\n"
	for _, step := range Diff(state(same, gone, before), state(same, after, come), []Front{come.Front, same.Front, before.Front, gone.Front, gone.Front}) {
		got += step.String() + "\n"
	}
	want := `
- 10.96.0.2:80/TCP a/b -> 10.244.0.2:1
~ 10.96.0.3:80/TCP a/b -> 10.244.0.9:1
+ 10.96.0.4:80/TCP a/b -> 10.244.0.4:1
`
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("steps (-want +got):\n%s", diff)
	}
}
