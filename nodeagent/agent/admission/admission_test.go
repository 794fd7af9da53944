package admission

import (
	"testing"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

func pod(cpu string, port int32, change ...func(*corev1.PodSpec)) *corev1.Pod {
	c := corev1.Container{Name: "main", Resources: corev1.ResourceRequirements{Requests: corev1.ResourceList{}}}
	if cpu != "" {
		c.Resources.Requests[corev1.ResourceCPU] = resource.MustParse(cpu)
	}
	if port != 0 {
		c.Ports = []corev1.ContainerPort{{ContainerPort: 80, HostPort: port}}
	}
	p := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: "web"}, Spec: corev1.PodSpec{Containers: []corev1.Container{c}}}
	for _, f := range change {
		f(&p.Spec)
	}
	return p
}

func TestDecide(t *testing.T) {
	node := corev1.ResourceList{corev1.ResourceCPU: resource.MustParse("2"), corev1.ResourcePods: resource.MustParse("3"), corev1.ResourceMemory: resource.MustParse("1Gi")}
	address := func(ip string) func(*corev1.PodSpec) {
		return func(s *corev1.PodSpec) { s.Containers[0].Ports[0].HostIP = ip }
	}
	shared := true
	cases := []struct {
		name    string
		pod     *corev1.Pod
		others  []*corev1.Pod
		reason  string
		message string
	}{
		{"fits exactly", pod("500m", 0), []*corev1.Pod{pod("1500m", 0)}, "", ""},
		{"one milli too much", pod("501m", 0), []*corev1.Pod{pod("1500m", 0)}, "OutOfcpu",
			"Pod was rejected: Node didn't have enough resource: cpu, requested: 501, used: 1500, capacity: 2000"},
		{"asks for nothing on a full node", pod("", 0), []*corev1.Pod{pod("2", 0)}, "", ""},
		{"too many Pods", pod("", 0), []*corev1.Pod{pod("", 0), pod("", 0), pod("", 0)}, "OutOfpods",
			"Pod was rejected: Node didn't have enough resource: pods, requested: 1, used: 3, capacity: 3"},
		{"host port taken", pod("", 8080), []*corev1.Pod{pod("", 8080)}, "NodePorts", "Pod was rejected: host port 8080/TCP is taken by Pod shop/web"},
		{"host port on another address", pod("", 8080, address("192.0.2.1")), []*corev1.Pod{pod("", 8080, address("192.0.2.2"))}, "", ""},
		{"host port on all addresses", pod("", 8080, address("0.0.0.0")), []*corev1.Pod{pod("", 8080, address("192.0.2.2"))}, "NodePorts",
			"Pod was rejected: host port 8080/TCP is taken by Pod shop/web"},
		{"what is not supported", pod("", 0, func(s *corev1.PodSpec) { s.ShareProcessNamespace = &shared }), nil, "UnsupportedField",
			"spec.shareProcessNamespace: containers do not share a process namespace"},
	}
	for _, tc := range cases {
		t.Run(tc.name, func(t *testing.T) {
			got := Decide(tc.pod, tc.others, node)
			switch {
			case got == nil && tc.reason != "":
				t.Errorf("taken, want %s", tc.reason)
			case got != nil && (got.Reason != tc.reason || got.Message != tc.message):
				t.Errorf("refused with %s: %s, want %s: %s", got.Reason, got.Message, tc.reason, tc.message)
			}
		})
	}
}

func TestPressedNodeTakesWhatItCanKeep(t *testing.T) {
	memory := map[corev1.NodeConditionType]string{corev1.NodeMemoryPressure: "memory.available is below 100Mi"}
	disk := map[corev1.NodeConditionType]string{corev1.NodeDiskPressure: "nodefs.available is below 10%"}
	nothing := &corev1.Pod{Spec: corev1.PodSpec{Containers: []corev1.Container{{Name: "a"}}}}
	asks := nothing.DeepCopy()
	asks.Spec.Containers[0].Resources.Requests = corev1.ResourceList{corev1.ResourceMemory: resource.MustParse("1Mi")}
	tolerates := nothing.DeepCopy()
	tolerates.Spec.Tolerations = []corev1.Toleration{{Key: corev1.TaintNodeMemoryPressure, Operator: corev1.TolerationOpExists}}
	system := nothing.DeepCopy()
	priority := int32(2000001000)
	system.Spec.Priority = &priority
	for name, tt := range map[string]struct {
		pod        *corev1.Pod
		conditions map[corev1.NodeConditionType]string
		want       string
	}{
		"no pressure":                {nothing, nil, ""},
		"memory, asks for none":      {nothing, memory, "Pod was rejected: the node has the condition MemoryPressure (memory.available is below 100Mi)"},
		"memory, asks for some":      {asks, memory, ""},
		"memory, tolerates it":       {tolerates, memory, ""},
		"disk, whatever it asks for": {asks, disk, "Pod was rejected: the node has the condition DiskPressure (nodefs.available is below 10%)"},
		"what the cluster lives on":  {system, disk, ""},
	} {
		got := ""
		if r := Pressed(tt.pod, tt.conditions); r != nil {
			got = r.Message
		}
		if got != tt.want {
			t.Errorf("%s: %q, want %q", name, got, tt.want)
		}
	}
}
