package agent

import (
	"slices"
	"testing"

	corev1 "k8s.io/api/core/v1"
)

func TestImagesInUse(t *testing.T) {
	r, _, _ := modelRig(t)
	a, err := New(r.config)
	if err != nil {
		t.Fatal(err)
	}
	if names, known := a.ImagesInUse(); known {
		t.Errorf("before the Pods are read %v is known", names)
	}
	r.begin()
	r.create(bound("web"))
	r.create(bound("soon", func(s *corev1.PodSpec) { s.Containers[0].Image = "none:1" }))
	r.create(bound("job", func(s *corev1.PodSpec) { s.RestartPolicy = corev1.RestartPolicyNever }))
	r.until("ready", "web", isReady)
	r.until("waiting for its image", "soon", waits("ErrImagePull"))
	names, known := r.agent.ImagesInUse()
	for _, want := range []string{"app:1", "sha256:1", "none:1"} {
		if !known || !slices.Contains(names, want) {
			t.Errorf("%s is not in use: %v, known %v", want, names, known)
		}
	}
}
