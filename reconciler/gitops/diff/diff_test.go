package diff

import (
	"testing"

	"github.com/google/go-cmp/cmp"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/slipway-dev/slipway/apiserver/api"
)

func deployment(change func(*appsv1.Deployment)) *appsv1.Deployment {
	replicas := int32(2)
	d := &appsv1.Deployment{ObjectMeta: metav1.ObjectMeta{Name: "web", Namespace: "shop", ResourceVersion: "1"}}
	d.Spec.Replicas = &replicas
	d.Spec.Template.Spec.Containers = []corev1.Container{
		{Name: "log", Image: "log:1"},
		{Name: "web", Image: "nginx:1", Args: []string{"-a", "-b"}, Env: []corev1.EnvVar{{Name: "A", Value: "1"}, {Name: "B", Value: "2"}}},
	}
	if change != nil {
		change(d)
	}
	return d
}

func TestObjects(t *testing.T) {
	secret := func(data map[string][]byte, annotations map[string]string) api.Object {
		return &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Name: "s", Annotations: annotations}, Data: data}
	}
	tests := []struct {
		name          string
		before, after api.Object
		want          []string
	}{
		{"nothing differs", deployment(nil), deployment(func(d *appsv1.Deployment) {
			d.ResourceVersion, d.Generation, d.Status.Replicas = "7", 4, 3
			d.Annotations = map[string]string{"origin": "elsewhere"}
		}), nil},
		{"an image and a number", deployment(nil), deployment(func(d *appsv1.Deployment) {
			*d.Spec.Replicas = 3
			d.Spec.Template.Spec.Containers[1].Image = "nginx:2"
		}), []string{
			"spec.replicas: 2 → 3",
			"spec.template.spec.containers[1].image: nginx:1 → nginx:2",
		}},
		{"a container leaves and the others keep their names", deployment(nil), deployment(func(d *appsv1.Deployment) {
			d.Spec.Template.Spec.Containers = d.Spec.Template.Spec.Containers[1:]
			d.Spec.Template.Spec.Containers[0].Env = d.Spec.Template.Spec.Containers[0].Env[1:]
		}), []string{
			"spec.template.spec.containers[0]: removed",
			"spec.template.spec.containers[0].env[0]: removed",
		}},
		{"positions where there are no names", deployment(nil), deployment(func(d *appsv1.Deployment) {
			d.Spec.Template.Spec.Containers[1].Args = []string{"-a", "-c", "-d"}
		}), []string{
			"spec.template.spec.containers[1].args[1]: -b → -c",
			"spec.template.spec.containers[1].args[2]: -d (new)",
		}},
		{"keys with dots", deployment(nil), deployment(func(d *appsv1.Deployment) {
			d.Labels = map[string]string{"a": "1"}
			d.Annotations = map[string]string{"example.com/a": "two\nlines"}
		}), []string{
			`metadata.annotations: {"example.com/a":"two\nlines"} (new)`,
			`metadata.labels: {"a":"1"} (new)`,
		}},
		{"secret values stay secret",
			secret(map[string][]byte{"a": []byte("hunter1"), "b": []byte("hunter2")}, map[string]string{"x": "1"}),
			secret(map[string][]byte{"a": []byte("hunter3"), "c": []byte("hunter4")}, map[string]string{"x": "2"}),
			[]string{"data.a: changed", "data.b: removed", "data.c: added", "metadata.annotations.x: 1 → 2"}},
		{"a secret's first value stays secret", secret(nil, nil), secret(map[string][]byte{"c": []byte("hunter4")}, nil), []string{"data: added"}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			changes, err := Objects(tt.before, tt.after, "origin")
			if err != nil {
				t.Fatal(err)
			}
			var got []string
			for _, c := range changes {
				got = append(got, c.String())
			}
			if d := cmp.Diff(tt.want, got); d != "" {
				t.Errorf("changes (-want +got):\n%s", d)
			}
		})
	}
}
