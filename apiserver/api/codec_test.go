package api

import (
	"bytes"
	"errors"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/runtime"
	protobufserializer "k8s.io/apimachinery/pkg/runtime/serializer/protobuf"

	slipwayv1 "github.com/slipway-dev/slipway/apiserver/api/v1alpha1"
)

func TestStorageCodecRoundTrip(t *testing.T) {
	for _, kind := range Kinds() {
		if kind.CreateOnly {
			continue
		}
		obj := kind.New()
		obj.SetName("a")
		obj.SetNamespace("b")
		obj.SetLabels(map[string]string{"k": strings.Repeat("v", 60)})
		data, err := StorageCodec{}.Encode(obj)
		if err != nil {
			t.Fatalf("%s: %v", kind, err)
		}
		back, err := StorageCodec{}.Decode(kind, data)
		if err != nil {
			t.Fatalf("%s: %v", kind, err)
		}
		if diff := cmp.Diff(obj, back); diff != "" {
			t.Errorf("%s changed (-put +got):\n%s", kind, diff)
		}
	}
}

func TestStorageCodecWritesUpstreamEnvelope(t *testing.T) {
	pod := &corev1.Pod{Spec: corev1.PodSpec{NodeName: strings.Repeat("n", 300)}}
	got, err := StorageCodec{}.Encode(pod)
	if err != nil {
		t.Fatal(err)
	}
	var want bytes.Buffer
	pod.SetGroupVersionKind(Pods.GroupVersionKind)
	if err := protobufserializer.NewSerializer(Scheme, Scheme).Encode(pod, &want); err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(got, want.Bytes()) {
		t.Errorf("got %d bytes %q\nwant %d bytes %q", len(got), got, want.Len(), want.Bytes())
	}
}

func TestStorageCodecRefusesAnotherKind(t *testing.T) {
	data, err := StorageCodec{}.Encode(&corev1.Pod{})
	if err != nil {
		t.Fatal(err)
	}
	for _, kind := range []*Kind{Services, Sources} {
		if _, err := (StorageCodec{}).Decode(kind, data); err == nil {
			t.Errorf("decode a Pod as %s: no error", kind)
		}
	}
}

func TestDecode(t *testing.T) {
	tests := map[string]struct {
		data    string
		want    string // part of the error; empty: none
		unknown bool
	}{
		"yaml":              {data: "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: a}\ndata: {k: v}\n"},
		"json":              {data: `{"apiVersion":"v1","kind":"ConfigMap","metadata":{"name":"a"}}`},
		"own kind":          {data: "apiVersion: slipway.dev/v1alpha1\nkind: Source\nmetadata: {name: a}\nspec: {dir: /x}\n"},
		"unknown field":     {data: "apiVersion: v1\nkind: Pod\nspec: {containrs: []}\n", want: `unknown field "spec.containrs"`},
		"field of own kind": {data: "apiVersion: slipway.dev/v1alpha1\nkind: Source\nspec: {dri: /x}\n", want: `unknown field "spec.dri"`},
		"wrong case":        {data: "apiVersion: v1\nkind: Pod\nspec: {NodeName: a}\n", want: `unknown field "spec.NodeName"`},
		"duplicate in YAML": {data: "apiVersion: v1\nkind: ConfigMap\ndata: {k: a, k: b}\n", want: `"k" already set`},
		"duplicate in JSON": {data: `{"apiVersion":"v1","kind":"ConfigMap","data":{},"data":{}}`, want: `duplicate field "data"`},
		"wrong type":        {data: "apiVersion: v1\nkind: Service\nspec: {ports: 80}\n", want: "ports"},
		"other kind":        {data: "apiVersion: example.com/v1\nkind: Thing\n", want: `kind "Thing" of apiVersion "example.com/v1"`, unknown: true},
		"no kind":           {data: "apiVersion: v1\n", want: "no kind is set", unknown: true},
		"no version":        {data: "kind: Pod\n", want: "no apiVersion", unknown: true},
		"nothing":           {data: " \n", want: "empty document"},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			obj, err := Decode([]byte(test.data))
			switch {
			case test.want == "" && (err != nil || obj.GetName() != "a"):
				t.Errorf("got %v, %v; want object a", obj, err)
			case test.want != "" && (err == nil || !strings.Contains(err.Error(), test.want)):
				t.Errorf("got %v, want %q", err, test.want)
			}
			if kindError := new(UnknownKindError); errors.As(err, &kindError) != test.unknown {
				t.Errorf("got %T, want UnknownKindError: %t", err, test.unknown)
			}
			if test.want != "" && runtime.IsStrictDecodingError(err) && obj != nil {
				t.Errorf("got an object with error %v", err)
			}
		})
	}
}

func TestDecodeAs(t *testing.T) {
	obj, err := DecodeAs([]byte(`{"metadata":{"name":"a"}}`), Sources.GroupVersionKind)
	if err != nil {
		t.Fatal(err)
	}
	if _, ok := obj.(*slipwayv1.Source); !ok {
		t.Errorf("got %T, want a Source", obj)
	}
	if _, err := DecodeAs([]byte(`{"kind":"Service","apiVersion":"v1"}`), Pods.GroupVersionKind); err == nil {
		t.Error("a Service was read as a Pod")
	}
}

func TestDefault(t *testing.T) {
	pod := &corev1.Pod{Spec: corev1.PodSpec{Containers: []corev1.Container{{Name: "a", Image: "b:1"}}}}
	Default(pod)
	if pod.Spec.RestartPolicy != corev1.RestartPolicyAlways || pod.Spec.Containers[0].ImagePullPolicy != corev1.PullIfNotPresent {
		t.Errorf("defaults are missing: %+v", pod.Spec)
	}
}
