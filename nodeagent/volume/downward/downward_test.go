package downward

import (
	"testing"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

func self() Self {
	return Self{IP: "10.0.0.1", HostIP: "192.0.2.1",
		Allocatable: corev1.ResourceList{"cpu": resource.MustParse("2"), "memory": resource.MustParse("1Gi")},
		Pod: &corev1.Pod{
			ObjectMeta: metav1.ObjectMeta{Name: "web", Namespace: "shop", UID: "u", Labels: map[string]string{"b": "2", "a": "x\"y"}, Annotations: map[string]string{"example.org/n": "v"}},
			Spec: corev1.PodSpec{NodeName: "node1", ServiceAccountName: "sa", Containers: []corev1.Container{
				{Name: "main", Resources: corev1.ResourceRequirements{Requests: corev1.ResourceList{"cpu": resource.MustParse("1500m")}, Limits: corev1.ResourceList{"memory": resource.MustParse("100Mi")}}},
			}},
		}}
}

func TestField(t *testing.T) {
	for path, want := range map[string]string{
		"metadata.name": "web", "metadata.namespace": "shop", "metadata.uid": "u", "metadata.labels": "a=\"x\\\"y\"\nb=\"2\"", "metadata.labels['b']": "2",
		"metadata.annotations['example.org/n']": "v", "metadata.annotations['none']": "", "spec.nodeName": "node1", "spec.serviceAccountName": "sa", "status.podIP": "10.0.0.1", "status.hostIP": "192.0.2.1",
	} {
		if got, err := self().Field(path); err != nil || got != want {
			t.Errorf("%s is %q, %v; want %q", path, got, err, want)
		}
	}
	for _, path := range []string{"spec.containers", "spec['x']", ""} {
		if got, err := self().Field(path); err == nil {
			t.Errorf("%s is %q, want an error", path, got)
		}
	}
}

func TestResource(t *testing.T) {
	cases := []struct{ resource, divisor, want string }{
		{"requests.cpu", "", "2"}, {"requests.cpu", "1m", "1500"}, {"limits.cpu", "", "2"}, {"limits.memory", "1Mi", "100"},
		{"limits.memory", "", "104857600"}, {"requests.memory", "", "0"},
	}
	for _, tc := range cases {
		ref := &corev1.ResourceFieldSelector{Resource: tc.resource}
		if tc.divisor != "" {
			ref.Divisor = resource.MustParse(tc.divisor)
		}
		if got, err := self().Resource(ref, "main"); err != nil || got != tc.want {
			t.Errorf("%s / %s is %q, %v; want %q", tc.resource, tc.divisor, got, err, tc.want)
		}
	}
	if _, err := self().Resource(&corev1.ResourceFieldSelector{Resource: "limits.cpu", ContainerName: "none"}, "main"); err == nil {
		t.Error("a container that is not there has resources")
	}
}
