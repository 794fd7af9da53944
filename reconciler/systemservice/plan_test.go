package systemservice

import (
	"fmt"
	"testing"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
)

var kubernetes = Service{Namespace: "default", Name: "kubernetes", ClusterIP: "10.96.0.1", Labels: map[string]string{"component": "apiserver"},
	Ports: []Port{{Name: "https", Protocol: corev1.ProtocolTCP, Port: 443, Target: 6443}}, Addresses: []string{"10.244.0.1"}}

// model applies actions to what was observed, as the store would.
func model(o observed, actions []action) observed {
	for _, a := range actions {
		switch obj := a.object.(type) {
		case *corev1.Service:
			o.service = obj
		case *corev1.Endpoints:
			o.endpoints = obj
		case *discoveryv1.EndpointSlice:
			o.slice = obj
		}
	}
	return o
}

func lines(actions []action) []string {
	var out []string
	for _, a := range actions {
		out = append(out, fmt.Sprint(a))
	}
	return out
}

func TestPlanMakesWhatIsMissingAndThenRests(t *testing.T) {
	o := observed{want: kubernetes}
	first := plan(o)
	want := []string{"create *v1.Service default/kubernetes", "create *v1.Endpoints default/kubernetes", "create *v1.EndpointSlice default/kubernetes"}
	if diff := cmp.Diff(want, lines(first)); diff != "" {
		t.Fatalf("plan (-want +got):\n%s", diff)
	}
	if again := plan(model(o, first)); len(again) != 0 {
		t.Errorf("a second plan still wants %v", lines(again))
	}
}

func TestPlanPutsBackWhatWasChanged(t *testing.T) {
	good := model(observed{want: kubernetes}, plan(observed{want: kubernetes}))
	for name, spoil := range map[string]func(*observed){
		"other port":      func(o *observed) { o.service.Spec.Ports[0].Port = 80 },
		"a selector":      func(o *observed) { o.service.Spec.Selector = map[string]string{"app": "x"} },
		"other endpoint":  func(o *observed) { o.slice.Endpoints[0].Addresses = []string{"10.0.0.9"} },
		"other address":   func(o *observed) { o.endpoints.Subsets[0].Addresses[0].IP = "10.0.0.9" },
		"a label is gone": func(o *observed) { o.service.Labels = nil },
	} {
		o := observed{want: kubernetes, service: good.service.DeepCopy(), endpoints: good.endpoints.DeepCopy(), slice: good.slice.DeepCopy()}
		spoil(&o)
		actions := plan(o)
		if len(actions) != 1 || actions[0].create {
			t.Errorf("%s: plan is %v, want one update", name, lines(actions))
		}
		if again := plan(model(o, actions)); len(again) != 0 {
			t.Errorf("%s: a second plan still wants %v", name, lines(again))
		}
	}
}

func TestPlanKeepsAnAllocatedAddress(t *testing.T) {
	o := model(observed{want: kubernetes}, plan(observed{want: kubernetes}))
	o.service.Spec.ClusterIP = "10.96.7.7"
	if actions := plan(o); len(actions) != 0 {
		t.Errorf("plan wants %v; a cluster address cannot be changed", lines(actions))
	}
}
