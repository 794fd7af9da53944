package api

import (
	"testing"

	"github.com/google/go-cmp/cmp"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	"sigs.k8s.io/yaml"
)

// TestEveryFieldHasARow walks the types: a field that a new version of Kubernetes adds fails it.
func TestEveryFieldHasARow(t *testing.T) {
	for _, problem := range append(podMissing, serviceMissing...) {
		t.Error(problem)
	}
}

func TestForgottenFieldsAreFound(t *testing.T) {
	type inner struct {
		A string `json:"a"`
		B string `json:"b"`
	}
	type outer struct {
		Inner *inner   `json:"inner"`
		Whole []inner  `json:"whole"`
		Names []string `json:"names"`
	}
	rows := map[string]support{"inner.a": {}, "whole": {}, "names": {}, "gone": {}}
	_, missing := compileSupport[outer](rows)
	want := []string{"done, but not a leaf: whole", "no row: inner.b", "row without a field: gone"}
	if diff := cmp.Diff(want, missing); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

func TestUnsupportedFields(t *testing.T) {
	tests := map[string]struct {
		spec             string
		ignored, refused []string
	}{
		"a plain Pod with every default": {spec: `
containers: [{name: a, image: "b:1", ports: [{containerPort: 80}], livenessProbe: {grpc: {port: 1}}, securityContext: {seccompProfile: {type: RuntimeDefault}}}]`},
		"volumes that are done": {spec: `
containers: [{name: a, image: b}]
volumes:
- {name: a, emptyDir: {medium: Memory, sizeLimit: 1Mi}}
- {name: b, hostPath: {path: /x}}
- {name: c, projected: {sources: [{serviceAccountToken: {path: token}}, {configMap: {name: x, items: [{key: k, path: p}]}}]}}`},
		"what the agent does": {spec: `
containers: [{name: a, image: b, terminationMessagePolicy: FallbackToLogsOnError, lifecycle: {preStop: {sleep: {seconds: 1}}}, volumeMounts: [{name: v, mountPath: /v, subPath: x}]}]
volumes: [{name: v, emptyDir: {}}]
affinity: {nodeAffinity: {requiredDuringSchedulingIgnoredDuringExecution: {nodeSelectorTerms: [{matchExpressions: [{key: a, operator: Exists}]}]}}}`},
		"a disk's limit": {spec: `{containers: [{name: a, image: b}], volumes: [{name: v, emptyDir: {sizeLimit: 1Gi}}, {name: w, emptyDir: {sizeLimit: 1Gi, medium: Memory}}]}`},
		"the same in an init container": {spec: `{containers: [{name: a, image: b}], initContainers: [{name: i, image: b, securityContext: {seccompProfile: {type: Localhost, localhostProfile: x}}}]}`,
			refused: []string{
				"spec.initContainers[0].securityContext.seccompProfile.type: seccomp profiles of a node are not loaded",
				"spec.initContainers[0].securityContext.seccompProfile.localhostProfile: seccomp profiles of a node are not loaded"}},
		"a claim": {spec: `{containers: [{name: a, image: b}], volumes: [{name: v, persistentVolumeClaim: {claimName: c}}]}`,
			refused: []string{"spec.volumes[0].persistentVolumeClaim: volumes of this type are not mounted"}},
		"limits": {spec: `containers: [{name: a, image: b, resources: {limits: {cpu: 1, memory: 1Gi, ephemeral-storage: 1Gi, example.com/gpu: 1}, requests: {ephemeral-storage: 1Gi}}}]`,
			refused: []string{"spec.containers[0].resources.limits[example.com/gpu]: this resource is not limited"}},
		"affinity": {spec: `
containers: [{name: a, image: b}]
affinity:
  podAffinity: {requiredDuringSchedulingIgnoredDuringExecution: [{topologyKey: a}]}
  podAntiAffinity: {preferredDuringSchedulingIgnoredDuringExecution: [{weight: 1, podAffinityTerm: {topologyKey: a}}]}`,
			ignored: []string{"spec.affinity.podAntiAffinity.preferredDuringSchedulingIgnoredDuringExecution: Pod anti-affinity does not score nodes"},
			refused: []string{"spec.affinity.podAffinity.requiredDuringSchedulingIgnoredDuringExecution: Pod affinity is not enforced"}},
		"spread as a wish": {spec: `{containers: [{name: a, image: b}], topologySpreadConstraints: [{maxSkew: 1, topologyKey: z, whenUnsatisfiable: ScheduleAnyway}]}`,
			ignored: []string{"spec.topologySpreadConstraints[0].maxSkew: Pods are not spread"}},
		"user namespaces": {spec: `{containers: [{name: a, image: b}], hostUsers: false, shareProcessNamespace: false}`,
			refused: []string{"spec.hostUsers: user namespaces are not used"}},
		"a priority": {spec: `{containers: [{name: a, image: b}], priority: 10, preemptionPolicy: Never}`,
			ignored: []string{"spec.priority: it orders waiting Pods, but none is preempted"}},
		"SCTP": {spec: `containers: [{name: a, image: b, ports: [{containerPort: 1, protocol: SCTP}]}]`,
			refused: []string{"spec.containers[0].ports[0].protocol: SCTP is not forwarded"}},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			pod := &corev1.Pod{}
			if err := yaml.UnmarshalStrict([]byte(test.spec), &pod.Spec); err != nil {
				t.Fatal(err)
			}
			Default(pod)
			ignored, refused := UnsupportedFields(&pod.Spec)
			if diff := cmp.Diff(test.ignored, lines(ignored)); diff != "" {
				t.Errorf("not acted on (-want +got):\n%s", diff)
			}
			if diff := cmp.Diff(test.refused, lines(refused)); diff != "" {
				t.Errorf("refused (-want +got):\n%s", diff)
			}
		})
	}
}

func TestNotActedOn(t *testing.T) {
	deployment := &appsv1.Deployment{}
	deployment.Spec.Template.Spec.RuntimeClassName = new(string)
	service := &corev1.Service{Spec: corev1.ServiceSpec{Type: corev1.ServiceTypeLoadBalancer, ExternalIPs: []string{"192.0.2.1"}, ClusterIP: "10.96.0.9"}}
	tests := map[string]struct {
		obj  Object
		want []FieldNote
	}{
		"a template": {deployment, []FieldNote{{"spec.template.spec.runtimeClassName", "other runtimes are not used", true}}},
		"a Service": {service, []FieldNote{
			{"spec.type", "no load balancer is made; the node ports work", false},
			{"spec.externalIPs", "addresses that belong to others are not taken", true}}},
		"a ConfigMap": {&corev1.ConfigMap{Data: map[string]string{"a": "b"}}, nil},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			if diff := cmp.Diff(test.want, NotActedOn(test.obj)); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
		})
	}
}

func lines(notes []FieldNote) []string {
	var all []string
	for _, n := range notes {
		all = append(all, n.String())
	}
	return all
}

func BenchmarkUnsupportedFields(b *testing.B) {
	pod := &corev1.Pod{Spec: corev1.PodSpec{Containers: []corev1.Container{{Name: "a", Image: "b", Env: []corev1.EnvVar{{Name: "A", Value: "b"}}}}}}
	Default(pod)
	for b.Loop() {
		UnsupportedFields(&pod.Spec)
	}
}

func TestWarnings(t *testing.T) {
	pod := &corev1.Pod{Spec: corev1.PodSpec{Priority: new(int32), Containers: []corev1.Container{{Name: "a", Image: "b",
		Env: []corev1.EnvVar{{Name: "A"}, {Name: "A"}}, VolumeDevices: []corev1.VolumeDevice{{Name: "d"}}}}}}
	want := []string{
		`spec.containers[0].env[1]: hides previous definition of "A", which may be dropped when using apply`,
		"not acted on: spec.containers[0].volumeDevices: block devices are not attached",
	}
	if diff := cmp.Diff(want, Warnings(pod)); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}
