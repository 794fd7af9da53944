package proxy

import (
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/intstr"
)

// TestLists: a Pod that a Service will never list must not wait for it to do so.
func TestLists(t *testing.T) {
	always := corev1.ContainerRestartPolicyAlways
	ports := []corev1.ContainerPort{{Name: "http", ContainerPort: 8080}}
	for name, c := range map[string]struct {
		change func(s *corev1.Service, p *corev1.Pod)
		want   bool
	}{
		"selected":                {func(*corev1.Service, *corev1.Pod) {}, true},
		"other labels":            {func(_ *corev1.Service, p *corev1.Pod) { p.Labels = nil }, false},
		"no selector":             {func(s *corev1.Service, _ *corev1.Pod) { s.Spec.Selector = nil }, false},
		"a name outside":          {func(s *corev1.Service, _ *corev1.Pod) { s.Spec.Type = corev1.ServiceTypeExternalName }, false},
		"a Service being deleted": {func(s *corev1.Service, _ *corev1.Pod) { s.DeletionTimestamp = &metav1.Time{} }, false},
		"no address":              {func(_ *corev1.Service, p *corev1.Pod) { p.Status.PodIP = "" }, false},
		"an IPv6 address alone":   {func(_ *corev1.Service, p *corev1.Pod) { p.Status.PodIP = "fd00::1" }, false},
		"an IPv4 address beside it": {func(_ *corev1.Service, p *corev1.Pod) {
			p.Status.PodIP, p.Status.PodIPs = "fd00::1", []corev1.PodIP{{IP: "10.244.0.9"}}
		}, true},
		"ended":               {func(_ *corev1.Service, p *corev1.Pod) { p.Status.Phase = corev1.PodFailed }, false},
		"no port of the name": {func(_ *corev1.Service, p *corev1.Pod) { p.Spec.Containers[0].Ports = nil }, false},
		"a number instead of a name": {func(s *corev1.Service, p *corev1.Pod) {
			s.Spec.Ports[0].TargetPort, p.Spec.Containers[0].Ports = intstr.FromInt32(80), nil
		}, true},
		"the name with another protocol": {func(s *corev1.Service, _ *corev1.Pod) { s.Spec.Ports[0].Protocol = corev1.ProtocolUDP }, false},
		"a sidecar's port": {func(_ *corev1.Service, p *corev1.Pod) {
			p.Spec.Containers[0].Ports, p.Spec.InitContainers = nil, []corev1.Container{{RestartPolicy: &always, Ports: ports}}
		}, true},
		"an init container's port": {func(_ *corev1.Service, p *corev1.Pod) {
			p.Spec.Containers[0].Ports, p.Spec.InitContainers = nil, []corev1.Container{{Ports: ports}}
		}, false},
		"no ports at all": {func(s *corev1.Service, _ *corev1.Pod) { s.Spec.Ports = nil }, true},
	} {
		s := &corev1.Service{Spec: corev1.ServiceSpec{Selector: map[string]string{"app": "web"},
			Ports: []corev1.ServicePort{{Port: 80, TargetPort: intstr.FromString("http")}}}}
		p := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Labels: map[string]string{"app": "web"}},
			Spec: corev1.PodSpec{Containers: []corev1.Container{{Ports: ports}}}, Status: corev1.PodStatus{PodIP: "10.244.0.9"}}
		c.change(s, p)
		if got := lists(s, p); got != c.want {
			t.Errorf("%s: %t, want %t", name, got, c.want)
		}
	}
}
