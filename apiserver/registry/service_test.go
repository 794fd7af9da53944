package registry

import (
	"fmt"
	"net/netip"
	"strings"
	"sync"
	"testing"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/intstr"

	"github.com/slipway-dev/slipway/apiserver/api"
	"github.com/slipway-dev/slipway/apiserver/store"
)

func service(name string, kind corev1.ServiceType) *corev1.Service {
	return &corev1.Service{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: name}, Spec: corev1.ServiceSpec{
		Type: kind, Selector: map[string]string{"app": name}, Ports: []corev1.ServicePort{{Name: "http", Port: 80, TargetPort: intstr.FromInt32(8080)}},
	}}
}

func TestServiceIsCompleted(t *testing.T) {
	f := newFixture(t)
	got := f.create(t, service("web", "")).(*corev1.Service)
	addr, err := netip.ParseAddr(got.Spec.ClusterIP)
	if err != nil || !f.pool.cidr.Contains(addr) || !cmp.Equal(got.Spec.ClusterIPs, []string{got.Spec.ClusterIP}) {
		t.Errorf("addresses %q %q", got.Spec.ClusterIP, got.Spec.ClusterIPs)
	}
	if got.Spec.Type != corev1.ServiceTypeClusterIP || *got.Spec.IPFamilyPolicy != corev1.IPFamilyPolicySingleStack || *got.Spec.InternalTrafficPolicy != "Cluster" ||
		!cmp.Equal(got.Spec.IPFamilies, []corev1.IPFamily{corev1.IPv4Protocol}) || got.Spec.SessionAffinity != corev1.ServiceAffinityNone {
		t.Errorf("%+v", got.Spec)
	}
	headless := service("headless", "")
	headless.Spec.ClusterIP = corev1.ClusterIPNone
	if got := f.create(t, headless).(*corev1.Service); !cmp.Equal(got.Spec.ClusterIPs, []string{"None"}) {
		t.Errorf("headless: %q", got.Spec.ClusterIPs)
	}
	bare := service("bare", "")
	bare.Spec.ClusterIP, bare.Spec.Selector = corev1.ClusterIPNone, nil
	if got := f.create(t, bare).(*corev1.Service); *got.Spec.IPFamilyPolicy != corev1.IPFamilyPolicyRequireDualStack || len(got.Spec.IPFamilies) != 2 {
		t.Errorf("headless without selector: %v %v", *got.Spec.IPFamilyPolicy, got.Spec.IPFamilies)
	}
	name := &corev1.Service{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: "name"}, Spec: corev1.ServiceSpec{Type: corev1.ServiceTypeExternalName, ExternalName: "example.com"}}
	if got := f.create(t, name).(*corev1.Service); got.Spec.ClusterIP != "" || got.Spec.IPFamilies != nil {
		t.Errorf("ExternalName: %+v", got.Spec)
	}
	node := service("node", corev1.ServiceTypeNodePort)
	node.Spec.Ports = []corev1.ServicePort{{Name: "a", Port: 53, Protocol: "UDP"}, {Name: "b", Port: 53, Protocol: "TCP"}, {Name: "c", Port: 80}}
	ports := nodePorts(f.create(t, node).(*corev1.Service))
	if ports[0] != ports[1] || ports[0] == ports[2] || ports[0] < 30000 || ports[2] > 32767 {
		t.Errorf("node ports %v, want the same for both protocols of 53", ports)
	}
}

func TestServiceRefusals(t *testing.T) {
	f := newFixture(t)
	taken := service("taken", corev1.ServiceTypeNodePort)
	taken.Spec.ClusterIP, taken.Spec.Ports[0].NodePort = "10.96.0.10", 30080
	f.create(t, taken)
	dual := corev1.IPFamilyPolicyRequireDualStack
	tests := map[string]struct {
		change func(*corev1.ServiceSpec)
		field  string
		want   string
	}{
		"an address in use":        {func(s *corev1.ServiceSpec) { s.ClusterIP = "10.96.0.10" }, "spec.clusterIPs", "provided IP is already allocated (to default/taken)"},
		"a port in use":            {func(s *corev1.ServiceSpec) { s.Type, s.Ports[0].NodePort = corev1.ServiceTypeNodePort, 30080 }, "spec.ports[0].nodePort", "provided port is already allocated (to default/taken)"},
		"an address of elsewhere":  {func(s *corev1.ServiceSpec) { s.ClusterIP = "10.97.0.1" }, "spec.clusterIPs[0]", "not in the valid range. The range of valid IPs is 10.96.0.0/16"},
		"the network's address":    {func(s *corev1.ServiceSpec) { s.ClusterIP = "10.96.0.0" }, "spec.clusterIPs[0]", "not in the valid range"},
		"the range's last address": {func(s *corev1.ServiceSpec) { s.ClusterIP = "10.96.255.255" }, "spec.clusterIPs[0]", "not in the valid range"},
		"two families":             {func(s *corev1.ServiceSpec) { s.IPFamilyPolicy = &dual }, "spec.ipFamilyPolicy", "not configured for dual-stack"},
		"the other family":         {func(s *corev1.ServiceSpec) { s.IPFamilies = []corev1.IPFamily{corev1.IPv6Protocol} }, "spec.ipFamilies[0]", "not configured on this cluster"},
		"an address of no version": {func(s *corev1.ServiceSpec) { s.ClusterIP = "x" }, "spec.clusterIPs[0]", ""},
		"a port out of range":      {func(s *corev1.ServiceSpec) { s.Type, s.Ports[0].NodePort = corev1.ServiceTypeNodePort, 80 }, "spec.ports[0].nodePort", "The range of valid ports is 30000-32767"},
	}
	for name, test := range tests {
		for _, dryRun := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s, dry run %t", name, dryRun), func(t *testing.T) {
				svc := service("web", "")
				test.change(&svc.Spec)
				_, err := f.admin.Create(f.ctx, svc, store.CreateOptions{DryRun: dryRun})
				status, ok := err.(apierrors.APIStatus)
				if !ok || !apierrors.IsInvalid(err) || status.Status().Details.Causes[0].Field != test.field || !strings.Contains(err.Error(), test.want) {
					t.Errorf("got %v, want %s: %s", err, test.field, test.want)
				}
			})
		}
	}
}

func TestServiceKeepsAndReleases(t *testing.T) {
	f := newFixture(t)
	first := f.create(t, service("web", corev1.ServiceTypeNodePort)).(*corev1.Service)
	port := first.Spec.Ports[0].NodePort

	manifest := service("web", corev1.ServiceTypeNodePort)
	manifest.Spec.Ports = append(manifest.Spec.Ports, corev1.ServicePort{Name: "more", Port: 81})
	second := f.update(t, manifest, "").(*corev1.Service)
	if second.Spec.ClusterIP != first.Spec.ClusterIP || second.Spec.Ports[0].NodePort != port || second.Spec.Ports[1].NodePort == 0 {
		t.Errorf("after a port more: %+v", second.Spec)
	}
	f.wantClaims(t, first.Spec.ClusterIP, second.Spec.Ports[0].NodePort, second.Spec.Ports[1].NodePort)

	third := f.update(t, service("web", corev1.ServiceTypeClusterIP), "").(*corev1.Service)
	if third.Spec.ClusterIP != first.Spec.ClusterIP || third.Spec.Ports[0].NodePort != 0 {
		t.Errorf("as ClusterIP: %+v", third.Spec)
	}
	f.wantClaims(t, first.Spec.ClusterIP)

	moved := third.DeepCopy()
	moved.Spec.ClusterIP, moved.Spec.ClusterIPs = "10.96.9.9", []string{"10.96.9.9"}
	if _, err := f.admin.Update(f.ctx, moved, store.UpdateOptions{}); !apierrors.IsInvalid(err) {
		t.Errorf("another address: got %v, want Invalid", err)
	}

	name := service("web", corev1.ServiceTypeExternalName)
	name.Spec.ExternalName = "example.com"
	if got := f.update(t, name, "").(*corev1.Service); got.Spec.ClusterIP != "" || got.Spec.ClusterIPs != nil {
		t.Errorf("as ExternalName: %+v", got.Spec)
	}
	f.wantClaims(t, "")

	back := f.update(t, service("web", corev1.ServiceTypeNodePort), "").(*corev1.Service)
	f.wantClaims(t, back.Spec.ClusterIP, back.Spec.Ports[0].NodePort)
	f.delete(t, api.Services, "default", "web", store.DeleteOptions{})
	f.wantClaims(t, "")

	again := service("again", corev1.ServiceTypeNodePort)
	again.Spec.ClusterIP, again.Spec.Ports[0].NodePort = first.Spec.ClusterIP, port
	f.create(t, again)
}

// wantClaims checks what is claimed in the store, by claiming it.
func (f *fixture) wantClaims(t *testing.T, ip string, ports ...int32) {
	t.Helper()
	want := map[string]bool{}
	if ip != "" {
		want[claimIP+ip] = true
	}
	for _, p := range ports {
		want[portClaim(p)] = true
	}
	for name := range want {
		if _, err := f.store.Txn(f.ctx, store.Claim(name, "test")); err == nil {
			t.Errorf("%s is not claimed", name)
		}
	}
	for n := f.pool.first; n <= f.pool.last; n++ {
		if want[portClaim(n)] {
			continue
		}
		if _, err := f.store.Txn(f.ctx, store.Claim(portClaim(n), "test")); err != nil {
			t.Errorf("port %d: %v", n, err)
		}
		if _, err := f.store.Txn(f.ctx, store.Release(portClaim(n))); err != nil {
			t.Fatal(err)
		}
	}
}

func TestServicesMadeAtOnceShareNothing(t *testing.T) {
	// Few ports, so that choices collide.
	f := newFixture(t, func(c *Config) {
		c.NodePorts = [2]int32{30000, 30119}
		c.ServiceCIDR = netip.MustParsePrefix("10.96.0.0/25")
	})
	const n = 100
	services := make([]*corev1.Service, n)
	errs := make([]error, n)
	var group sync.WaitGroup
	for i := range n {
		group.Go(func() {
			var obj api.Object
			obj, errs[i] = f.admin.Create(f.ctx, service(fmt.Sprintf("s%d", i), corev1.ServiceTypeNodePort), store.CreateOptions{})
			services[i], _ = obj.(*corev1.Service)
		})
	}
	group.Wait()
	ips, ports := map[string]bool{}, map[int32]bool{}
	for i := range n {
		if errs[i] != nil {
			t.Fatal(errs[i])
		}
		ips[services[i].Spec.ClusterIP] = true
		ports[services[i].Spec.Ports[0].NodePort] = true
	}
	if len(ips) != n || len(ports) != n {
		t.Errorf("%d addresses and %d ports for %d Services", len(ips), len(ports), n)
	}
	if ips["10.96.0.1"] {
		t.Error("the first address was given away")
	}
}

func TestPoolPrefersTheUpperBand(t *testing.T) {
	p, err := newPool(netip.MustParsePrefix("10.96.0.0/24"), [2]int32{30000, 30099})
	if err != nil {
		t.Fatal(err)
	}
	taken := map[string]bool{}
	for i := range 238 { // 16…254 less the network's lower band
		ip, ok := p.newIP(taken)
		if !ok || strings.HasPrefix(ip, "10.96.0.1") && len(ip) < len("10.96.0.16") {
			t.Fatalf("address %d: %s %t, want one of the upper band", i, ip, ok)
		}
		taken[claimIP+ip] = true
	}
	for i := range 15 { // then what is left
		if ip, ok := p.newIP(taken); !ok {
			t.Fatalf("address %d of the lower band: none", i)
		} else {
			taken[claimIP+ip] = true
		}
	}
	if ip, ok := p.newIP(taken); ok {
		t.Errorf("a full range gave %s", ip)
	}
	for _, bad := range []string{"10.0.0.0/30", "fd00::/112", "0.0.0.0/0"} {
		if _, err := newPool(netip.MustParsePrefix(bad), [2]int32{1, 2}); err == nil {
			t.Errorf("%s was accepted", bad)
		}
	}
}
