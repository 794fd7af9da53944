package api

import (
	"encoding/json"
	"testing"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/util/validation/field"
)

func TestEveryKindIsValidated(t *testing.T) {
	for _, kind := range Kinds() {
		if _, ok := rulesOf[kind]; !ok {
			t.Errorf("%s has no row in rulesOf", kind)
		}
	}
}

func TestValidate(t *testing.T) {
	const pod = "spec: {containers: [{name: a, image: b}]}"
	tests := map[string]struct {
		manifest string
		want     []string // fields
	}{
		"Pod":                         {"apiVersion: v1\nkind: Pod\nmetadata: {name: a, namespace: b}\n" + pod, nil},
		"Pod without a namespace":     {"apiVersion: v1\nkind: Pod\nmetadata: {name: a}\n" + pod, []string{"metadata.namespace"}},
		"Pod with a bad name":         {"apiVersion: v1\nkind: Pod\nmetadata: {name: A_, namespace: b}\n" + pod, []string{"metadata.name"}},
		"Pod without containers":      {"apiVersion: v1\nkind: Pod\nmetadata: {name: a, namespace: b}\nspec: {}\n", []string{"spec.containers"}},
		"Pod with a bad port":         {"apiVersion: v1\nkind: Pod\nmetadata: {name: a, namespace: b}\nspec: {containers: [{name: a, image: b, ports: [{containerPort: 70000}]}]}\n", []string{"spec.containers[0].ports[0].containerPort"}},
		"Service with a bad port":     {"apiVersion: v1\nkind: Service\nmetadata: {name: a, namespace: b}\nspec: {ports: [{port: 0}]}\n", []string{"spec.ports[0].port", "spec.ports[0].targetPort"}},
		"headless Service":            {"apiVersion: v1\nkind: Service\nmetadata: {name: a, namespace: b}\nspec: {clusterIP: None, ports: [{port: 80}]}\n", nil},
		"local load balancer":         {"apiVersion: v1\nkind: Service\nmetadata: {name: a, namespace: b}\nspec: {type: LoadBalancer, externalTrafficPolicy: Local, ports: [{port: 80}]}\n", nil},
		"selector not in template":    {"apiVersion: apps/v1\nkind: Deployment\nmetadata: {name: a, namespace: b}\nspec: {selector: {matchLabels: {a: b}}, template: {metadata: {labels: {a: c}}, " + pod + "}}\n", []string{"spec.template.metadata.labels"}},
		"Role with a rule of nothing": {"apiVersion: rbac.authorization.k8s.io/v1\nkind: Role\nmetadata: {name: a, namespace: b}\nrules: [{}]\n", []string{"rules[0].apiGroups", "rules[0].resources", "rules[0].verbs"}},
		"Source without a place":      {"apiVersion: slipway.dev/v1alpha1\nkind: Source\nmetadata: {name: a}\nspec: {}\n", []string{"spec.url"}},
		"cluster kind in a namespace": {"apiVersion: v1\nkind: Namespace\nmetadata: {name: a, namespace: b}\n", nil},
		"a negative number of Pods":   {"apiVersion: apps/v1\nkind: ReplicaSet\nmetadata: {name: a, namespace: b}\nspec: {replicas: -1, selector: {matchLabels: {a: b}}, template: {metadata: {labels: {a: b}}, " + pod + "}}\n", []string{"spec.replicas"}},
		"a Lease of no time":          {"apiVersion: coordination.k8s.io/v1\nkind: Lease\nmetadata: {name: a, namespace: b}\nspec: {leaseDurationSeconds: 0}\n", []string{"spec.leaseDurationSeconds"}},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			obj, err := Decode([]byte(test.manifest))
			if err != nil {
				t.Fatal(err)
			}
			Default(obj)
			errs := Validate(obj)
			if diff := cmp.Diff(test.want, fieldsOf(errs)); diff != "" {
				t.Errorf("(-want +got):\n%s\n%v", diff, errs)
			}
		})
	}
}

func TestValidateUpdate(t *testing.T) {
	decode := func(manifest string) Object {
		obj, err := Decode([]byte(manifest))
		if err != nil {
			t.Fatal(err)
		}
		Default(obj)
		obj.SetResourceVersion("1")
		return obj
	}
	const head = "apiVersion: apps/v1\nkind: Deployment\nmetadata: {name: a, namespace: b}\nspec: {replicas: 2, selector: {matchLabels: {a: "
	const tail = ", template: {metadata: {labels: {a: b, c: d}}, spec: {containers: [{name: a, image: b}]}}}\n"
	tests := map[string]struct {
		old, updated string
		want         []string
	}{
		"a number of Pods": {head + "b}}" + tail, "apiVersion: apps/v1\nkind: Deployment\nmetadata: {name: a, namespace: b}\nspec: {replicas: 3, selector: {matchLabels: {a: b}}" + tail, nil},
		"a selector":       {head + "b}}" + tail, head + "b, c: d}}" + tail, []string{"spec.selector"}},
		"a Pod's image": {"apiVersion: v1\nkind: Pod\nmetadata: {name: a, namespace: b}\nspec: {containers: [{name: a, image: b}]}",
			"apiVersion: v1\nkind: Pod\nmetadata: {name: a, namespace: b}\nspec: {containers: [{name: a, image: c}]}", nil},
		"a Pod's command": {"apiVersion: v1\nkind: Pod\nmetadata: {name: a, namespace: b}\nspec: {containers: [{name: a, image: b}]}",
			"apiVersion: v1\nkind: Pod\nmetadata: {name: a, namespace: b}\nspec: {containers: [{name: a, image: b, command: [x]}]}", []string{"spec"}},
		"an immutable Secret": {"apiVersion: v1\nkind: Secret\nmetadata: {name: a, namespace: b}\nimmutable: true\ndata: {k: YQ==}",
			"apiVersion: v1\nkind: Secret\nmetadata: {name: a, namespace: b}\nimmutable: true\ndata: {k: Yg==}", []string{"data"}},
		"a Rollout's revision": {"apiVersion: slipway.dev/v1alpha1\nkind: Rollout\nmetadata: {name: a}\nspec: {source: s, revision: r1}",
			"apiVersion: slipway.dev/v1alpha1\nkind: Rollout\nmetadata: {name: a}\nspec: {source: s, revision: r2}", []string{"spec.revision"}},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			errs := ValidateUpdate(decode(test.updated), decode(test.old))
			if diff := cmp.Diff(test.want, fieldsOf(errs)); diff != "" {
				t.Errorf("(-want +got):\n%s\n%v", diff, errs)
			}
		})
	}
}

func fieldsOf(errs field.ErrorList) []string {
	var names []string
	for _, err := range errs {
		names = append(names, err.Field)
	}
	return names
}

func TestMaskSecret(t *testing.T) {
	secret := &corev1.Secret{Data: map[string][]byte{"password": []byte("hunter2")}, StringData: map[string]string{"token": "hunter2"}}
	secret.Annotations = map[string]string{corev1.LastAppliedConfigAnnotation: "hunter2", "a": "b"}
	before := secret.DeepCopy()
	masked, err := json.Marshal(MaskSecret(secret))
	if err != nil {
		t.Fatal(err)
	}
	want := `{"metadata":{"annotations":{"a":"b"}},"data":{"password":"KioqKio="},"stringData":{"token":"*****"}}`
	if string(masked) != want {
		t.Errorf("got  %s\nwant %s", masked, want)
	}
	if diff := cmp.Diff(before, secret); diff != "" {
		t.Errorf("the Secret was changed:\n%s", diff)
	}
	other := &corev1.ConfigMap{}
	if MaskSecret(other) != Object(other) {
		t.Error("a ConfigMap was copied")
	}
}

func BenchmarkValidatePod(b *testing.B) {
	obj, err := Decode([]byte("apiVersion: v1\nkind: Pod\nmetadata: {name: a, namespace: b}\nspec: {containers: [{name: a, image: b, ports: [{containerPort: 80}]}]}"))
	if err != nil {
		b.Fatal(err)
	}
	Default(obj)
	b.ReportAllocs()
	for b.Loop() {
		if errs := Validate(obj); errs != nil {
			b.Fatal(errs)
		}
	}
}
