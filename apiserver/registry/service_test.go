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

func svc(name string, kind corev1.ServiceType) *corev1.Service {
	return &corev1.Service{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: name}, Spec: corev1.ServiceSpec{
		Type: kind, Selector: map[string]string{"app": name}, Ports: []corev1.ServicePort{{Name: "http", Port: 80, TargetPort: intstr.FromInt32(8080)}},
	}}
}

func TestServiceIsCompleted(t *testing.T) {
	f := newFixture(t)
	got := f.create(t, svc("web", "")).(*corev1.Service)
	addr, err := netip.ParseAddr(got.Spec.ClusterIP)
	if err != nil || !netip.MustParsePrefix("10.96.0.0/16").Contains(addr) || !cmp.Equal(got.Spec.ClusterIPs, []string{got.Spec.ClusterIP}) {
		t.Errorf("addresses %q %q", got.Spec.ClusterIP, got.Spec.ClusterIPs)
	}
	if got.Spec.Type != corev1.ServiceTypeClusterIP || *got.Spec.IPFamilyPolicy != corev1.IPFamilyPolicySingleStack || *got.Spec.InternalTrafficPolicy != "Cluster" ||
		!cmp.Equal(got.Spec.IPFamilies, []corev1.IPFamily{corev1.IPv4Protocol}) || got.Spec.SessionAffinity != corev1.ServiceAffinityNone {
		t.Errorf("%+v", got.Spec)
	}
	headless := svc("headless", "")
	headless.Spec.ClusterIP = corev1.ClusterIPNone
	if got := f.create(t, headless).(*corev1.Service); !cmp.Equal(got.Spec.ClusterIPs, []string{"None"}) {
		t.Errorf("headless: %q", got.Spec.ClusterIPs)
	}
	bare := svc("bare", "")
	bare.Spec.ClusterIP, bare.Spec.Selector = corev1.ClusterIPNone, nil
	if got := f.create(t, bare).(*corev1.Service); *got.Spec.IPFamilyPolicy != corev1.IPFamilyPolicyRequireDualStack || len(got.Spec.IPFamilies) != 2 {
		t.Errorf("headless without selector: %v %v", *got.Spec.IPFamilyPolicy, got.Spec.IPFamilies)
	}
	name := &corev1.Service{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: "name"}, Spec: corev1.ServiceSpec{Type: corev1.ServiceTypeExternalName, ExternalName: "example.com"}}
	if got := f.create(t, name).(*corev1.Service); got.Spec.ClusterIP != "" || got.Spec.IPFamilies != nil {
		t.Errorf("ExternalName: %+v", got.Spec)
	}
	node := svc("node", corev1.ServiceTypeNodePort)
	node.Spec.Ports = []corev1.ServicePort{{Name: "a", Port: 53, Protocol: "UDP"}, {Name: "b", Port: 53, Protocol: "TCP"}, {Name: "c", Port: 80}}
	ports := f.create(t, node).(*corev1.Service).Spec.Ports
	if ports[0].NodePort != ports[1].NodePort || ports[0].NodePort == ports[2].NodePort || ports[0].NodePort < 30000 || ports[2].NodePort > 32767 {
		t.Errorf("node ports %v, want the same for both protocols of 53", ports)
	}
}

func TestServiceRefusals(t *testing.T) {
	f := newFixture(t)
	taken := svc("taken", corev1.ServiceTypeNodePort)
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
				web := svc("web", "")
				test.change(&web.Spec)
				_, err := f.admin.Create(f.ctx, web, store.CreateOptions{DryRun: dryRun})
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
	first := f.create(t, svc("web", corev1.ServiceTypeNodePort)).(*corev1.Service)
	port := first.Spec.Ports[0].NodePort

	manifest := svc("web", corev1.ServiceTypeNodePort)
	manifest.Spec.Ports = append(manifest.Spec.Ports, corev1.ServicePort{Name: "more", Port: 81})
	second := f.update(t, manifest, "").(*corev1.Service)
	if second.Spec.ClusterIP != first.Spec.ClusterIP || second.Spec.Ports[0].NodePort != port || second.Spec.Ports[1].NodePort == 0 {
		t.Errorf("after a port more: %+v", second.Spec)
	}
	f.wantClaims(t, first.Spec.ClusterIP, second.Spec.Ports[0].NodePort, second.Spec.Ports[1].NodePort)

	third := f.update(t, svc("web", corev1.ServiceTypeClusterIP), "").(*corev1.Service)
	if third.Spec.ClusterIP != first.Spec.ClusterIP || third.Spec.Ports[0].NodePort != 0 {
		t.Errorf("as ClusterIP: %+v", third.Spec)
	}
	f.wantClaims(t, first.Spec.ClusterIP)

	moved := third.DeepCopy()
	moved.Spec.ClusterIP, moved.Spec.ClusterIPs = "10.96.9.9", []string{"10.96.9.9"}
	if _, err := f.admin.Update(f.ctx, moved, store.UpdateOptions{}); !apierrors.IsInvalid(err) {
		t.Errorf("another address: got %v, want Invalid", err)
	}

	name := svc("web", corev1.ServiceTypeExternalName)
	name.Spec.ExternalName = "example.com"
	if got := f.update(t, name, "").(*corev1.Service); got.Spec.ClusterIP != "" || got.Spec.ClusterIPs != nil {
		t.Errorf("as ExternalName: %+v", got.Spec)
	}
	f.wantClaims(t, "")

	back := f.update(t, svc("web", corev1.ServiceTypeNodePort), "").(*corev1.Service)
	f.wantClaims(t, back.Spec.ClusterIP, back.Spec.Ports[0].NodePort)
	f.delete(t, api.Services, "default", "web", store.DeleteOptions{})
	f.wantClaims(t, "")

	again := svc("again", corev1.ServiceTypeNodePort)
	again.Spec.ClusterIP, again.Spec.Ports[0].NodePort = first.Spec.ClusterIP, port
	f.create(t, again)
}

// wantClaims checks what is claimed in the store, by claiming it.
func (f *fixture) wantClaims(t *testing.T, ip string, ports ...int32) {
	t.Helper()
	claim := func(port int32) string { return fmt.Sprintf("servicenodeports/%d", port) }
	want := map[string]bool{}
	if ip != "" {
		want["serviceips/"+ip] = true
	}
	for _, p := range ports {
		want[claim(p)] = true
	}
	for name := range want {
		if _, err := f.store.Txn(f.ctx, store.Claim(name, "test")); err == nil {
			t.Errorf("%s is not claimed", name)
		}
	}
	for n := int32(30000); n <= 32767; n++ {
		if want[claim(n)] {
			continue
		}
		if _, err := f.store.Txn(f.ctx, store.Claim(claim(n), "test")); err != nil {
			t.Errorf("port %d: %v", n, err)
		}
		if _, err := f.store.Txn(f.ctx, store.Release(claim(n))); err != nil {
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
			obj, errs[i] = f.admin.Create(f.ctx, svc(fmt.Sprintf("s%d", i), corev1.ServiceTypeNodePort), store.CreateOptions{})
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

func TestLoadBalancerBecomesClusterIP(t *testing.T) {
	f := newFixture(t)
	lb := svc("web", corev1.ServiceTypeLoadBalancer)
	lb.Spec.ExternalTrafficPolicy = corev1.ServiceExternalTrafficPolicyLocal
	got := f.create(t, lb).(*corev1.Service)
	if got.Spec.Ports[0].NodePort == 0 || got.Spec.HealthCheckNodePort == 0 || got.Spec.HealthCheckNodePort == got.Spec.Ports[0].NodePort || got.Spec.AllocateLoadBalancerNodePorts == nil {
		t.Errorf("%+v", got.Spec)
	}
	f.wantClaims(t, got.Spec.ClusterIP, got.Spec.Ports[0].NodePort, got.Spec.HealthCheckNodePort)
	back := got.DeepCopy() // a client that only changes the type
	back.Spec.Type = corev1.ServiceTypeClusterIP
	now := f.update(t, back, "").(*corev1.Service)
	if now.Spec.Ports[0].NodePort != 0 || now.Spec.HealthCheckNodePort != 0 || now.Spec.AllocateLoadBalancerNodePorts != nil || now.Spec.ExternalTrafficPolicy != "" {
		t.Errorf("%+v", now.Spec)
	}
	f.wantClaims(t, now.Spec.ClusterIP)
}
