// Package systemservice keeps the Services that lead to Slipway itself: default/kubernetes to the API server, and
// kube-system/kube-dns to the cluster's DNS. They have no selector; their endpoints are addresses of the process.
//
// It touches no other Service, and none of these that a person made under another name.
package systemservice

import (
	"fmt"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/intstr"

	"github.com/slipway-dev/slipway/apiserver/api"
)

// Service is one Service to keep.
type Service struct {
	Namespace, Name string
	ClusterIP       string
	Labels          map[string]string
	Ports           []Port
	Addresses       []string // IPv4, of the process
}

// Port is a port of a Service and where it leads.
type Port struct {
	Name     string
	Protocol corev1.Protocol
	Port     int32
	Target   int32
}

// observed is what a plan looks at; nil: absent.
type observed struct {
	want      Service
	service   *corev1.Service
	endpoints *corev1.Endpoints
	slice     *discoveryv1.EndpointSlice
}

// action writes one object.
type action struct {
	create bool
	object api.Object
}

// String is the line for logs and tests.
func (a action) String() string {
	verb := "update"
	if a.create {
		verb = "create"
	}
	return fmt.Sprintf("%s %T %s/%s", verb, a.object, a.object.GetNamespace(), a.object.GetName())
}

// plan returns what has to be written so that the Service exists and leads to its addresses.
func plan(o observed) []action {
	var actions []action
	if want := o.want.service(o.service); o.service == nil {
		actions = append(actions, action{create: true, object: want})
	} else if !equality.Semantic.DeepEqual(want, o.service) {
		actions = append(actions, action{object: want})
	}
	if want := o.want.endpoints(o.endpoints); o.endpoints == nil {
		actions = append(actions, action{create: true, object: want})
	} else if !equality.Semantic.DeepEqual(want, o.endpoints) {
		actions = append(actions, action{object: want})
	}
	if want := o.want.slice(o.slice); o.slice == nil {
		actions = append(actions, action{create: true, object: want})
	} else if !equality.Semantic.DeepEqual(want, o.slice) {
		actions = append(actions, action{object: want})
	}
	return actions
}

// service returns the wanted Service, over the present one where there is one.
func (s Service) service(present *corev1.Service) *corev1.Service {
	want := &corev1.Service{ObjectMeta: metav1.ObjectMeta{Namespace: s.Namespace, Name: s.Name}}
	if present != nil {
		want = present.DeepCopy()
	}
	want.Labels = merged(want.Labels, s.Labels)
	want.Spec.Type = corev1.ServiceTypeClusterIP
	if present == nil {
		want.Spec.ClusterIP, want.Spec.ClusterIPs = s.ClusterIP, []string{s.ClusterIP}
	}
	want.Spec.Selector = nil
	want.Spec.Ports = make([]corev1.ServicePort, len(s.Ports))
	for i, p := range s.Ports {
		want.Spec.Ports[i] = corev1.ServicePort{Name: p.Name, Protocol: p.Protocol, Port: p.Port, TargetPort: intstr.FromInt32(p.Target)}
	}
	return want
}

//nolint:staticcheck // old clients read Endpoints
func (s Service) endpoints(present *corev1.Endpoints) *corev1.Endpoints {
	want := &corev1.Endpoints{ObjectMeta: metav1.ObjectMeta{Namespace: s.Namespace, Name: s.Name}}
	if present != nil {
		want = present.DeepCopy()
	}
	want.Labels = merged(want.Labels, map[string]string{discoveryv1.LabelSkipMirror: "true"})
	subset := corev1.EndpointSubset{}
	for _, address := range s.Addresses {
		subset.Addresses = append(subset.Addresses, corev1.EndpointAddress{IP: address})
	}
	for _, p := range s.Ports {
		subset.Ports = append(subset.Ports, corev1.EndpointPort{Name: p.Name, Protocol: p.Protocol, Port: p.Target})
	}
	want.Subsets = []corev1.EndpointSubset{subset}
	return want
}

func (s Service) slice(present *discoveryv1.EndpointSlice) *discoveryv1.EndpointSlice {
	want := &discoveryv1.EndpointSlice{ObjectMeta: metav1.ObjectMeta{Namespace: s.Namespace, Name: s.Name}}
	if present != nil {
		want = present.DeepCopy()
	}
	want.Labels = merged(want.Labels, map[string]string{discoveryv1.LabelServiceName: s.Name})
	want.AddressType = discoveryv1.AddressTypeIPv4
	want.Endpoints = []discoveryv1.Endpoint{{Addresses: s.Addresses, Conditions: discoveryv1.EndpointConditions{Ready: new(true)}}}
	want.Ports = make([]discoveryv1.EndpointPort, len(s.Ports))
	for i, p := range s.Ports {
		want.Ports[i] = discoveryv1.EndpointPort{Name: &p.Name, Protocol: &p.Protocol, Port: &p.Target}
	}
	return want
}

func merged(present, want map[string]string) map[string]string {
	out := map[string]string{}
	for _, labels := range []map[string]string{present, want} {
		for key, value := range labels {
			out[key] = value
		}
	}
	return out
}
