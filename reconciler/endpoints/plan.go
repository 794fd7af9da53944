// Package endpoints publishes where a Service's Pods are: as Endpoints and as EndpointSlices, for Services with a
// selector. A Pod that is being deleted stops being ready at once, so that it leaves every packet filter before its
// processes are told to end. For Services without a selector it copies the Endpoints somebody wrote into
// EndpointSlices, which is what proxies and DNS read.
//
// It must not judge Pods' health itself: readiness is the Ready condition the node reports.
package endpoints

import (
	"cmp"
	"fmt"
	"maps"
	"slices"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// observed is what one turn looks at.
type observed struct {
	Service   *corev1.Service // nil: gone
	Pods      []*corev1.Pod   // matching the selector
	Endpoints *corev1.Endpoints
	Slices    []*discoveryv1.EndpointSlice // of the Service's name, whoever made them
}

// managed returns the slices a manager made.
func (o observed) managed(by string) []*discoveryv1.EndpointSlice {
	return slices.DeleteFunc(byName(o.Slices), func(s *discoveryv1.EndpointSlice) bool { return s.Labels[discoveryv1.LabelManagedBy] != by })
}

// Action is one effect.
type Action interface {
	fmt.Stringer
}

type (
	// CreateEndpoints makes the Endpoints object.
	CreateEndpoints struct{ Endpoints *corev1.Endpoints }
	// UpdateEndpoints writes it.
	UpdateEndpoints struct{ Endpoints *corev1.Endpoints }
	// DeleteEndpoints removes it.
	DeleteEndpoints struct{ Endpoints *corev1.Endpoints }
	// CreateSlice makes a slice; the server names it.
	CreateSlice struct{ Slice *discoveryv1.EndpointSlice }
	// UpdateSlice writes a slice.
	UpdateSlice struct{ Slice *discoveryv1.EndpointSlice }
	// DeleteSlice removes a slice.
	DeleteSlice struct{ Slice *discoveryv1.EndpointSlice }
)

func (a CreateEndpoints) String() string { return "create endpoints " + describe(a.Endpoints) }
func (a UpdateEndpoints) String() string { return "update endpoints " + describe(a.Endpoints) }
func (a DeleteEndpoints) String() string { return "delete endpoints " + a.Endpoints.Name }
func (a CreateSlice) String() string {
	return fmt.Sprintf("create endpointslice with %d endpoints", len(a.Slice.Endpoints))
}
func (a UpdateSlice) String() string {
	return fmt.Sprintf("update endpointslice %s to %d endpoints", a.Slice.Name, len(a.Slice.Endpoints))
}
func (a DeleteSlice) String() string { return "delete endpointslice " + a.Slice.Name }

func describe(e *corev1.Endpoints) string {
	ready, not := 0, 0
	for _, s := range e.Subsets {
		ready += len(s.Addresses)
		not += len(s.NotReadyAddresses)
	}
	return fmt.Sprintf("%s: %d ready, %d not ready", e.Name, ready, not)
}

// plan returns what makes the published addresses those of the Pods. Additions and changes come before removals.
func plan(o observed) []Action {
	if o.Service == nil || !selects(o.Service) {
		return append(retire(o), mirror(o)...)
	}
	members := membersOf(o.Service, o.Pods)
	actions := append(planEndpoints(o, members), planSlices(o, members)...)
	return append(actions, deleteAll(o.managed(mirrorManager))...)
}

// selects says whether the Service's addresses come from Pods. Others are their author's business.
func selects(svc *corev1.Service) bool {
	return len(svc.Spec.Selector) > 0 && svc.Spec.Type != corev1.ServiceTypeExternalName && svc.DeletionTimestamp == nil
}

// retire removes what this controller published of Pods.
func retire(o observed) []Action {
	var actions []Action
	if isOwn(o.Endpoints) {
		actions = append(actions, DeleteEndpoints{o.Endpoints})
	}
	return append(actions, deleteAll(o.managed(slicesManager))...)
}

func isOwn(e *corev1.Endpoints) bool {
	return e != nil && e.Labels[endpointsManagedBy] == endpointsManager
}

func deleteAll(all []*discoveryv1.EndpointSlice) []Action {
	var actions []Action
	for _, s := range all {
		actions = append(actions, DeleteSlice{s})
	}
	return actions
}

func planEndpoints(o observed, members []member) []Action {
	want := newEndpoints(o.Service, members)
	have := o.Endpoints
	switch {
	case have == nil:
		return []Action{CreateEndpoints{want}}
	case equality.Semantic.DeepEqual(have.Subsets, want.Subsets) && maps.Equal(have.Labels, want.Labels) && have.Annotations[overCapacity] == want.Annotations[overCapacity]:
		return nil
	}
	changed := have.DeepCopy()
	changed.Labels, changed.Subsets = want.Labels, want.Subsets
	if value, over := want.Annotations[overCapacity]; over {
		metav1.SetMetaDataAnnotation(&changed.ObjectMeta, overCapacity, value)
	} else {
		delete(changed.Annotations, overCapacity)
	}
	return []Action{UpdateEndpoints{changed}}
}

func planSlices(o observed, members []member) []Action {
	groups := groupByPorts(members)
	if len(groups) == 0 {
		groups = []group{{}} // an empty slice says: looked, nothing there
	}
	return fit(o.managed(slicesManager), groups, newSlice(o.Service))
}

// fit makes the slices of one manager hold groups. It keeps each endpoint in the slice it is in, fills free places,
// and makes and removes slices as needed: a change of one Pod writes one slice. Slices that gain ready endpoints are
// written before those that lose some, so that nobody who follows them sees a moment without any. Template is a slice without ports and
// endpoints.
func fit(have []*discoveryv1.EndpointSlice, groups []group, template *discoveryv1.EndpointSlice) []Action {
	var create, gain, update []Action
	rest := have
	var remove []*discoveryv1.EndpointSlice
	for _, g := range groups {
		var own []*discoveryv1.EndpointSlice
		rest = slices.DeleteFunc(rest, func(s *discoveryv1.EndpointSlice) bool {
			if s.DeletionTimestamp == nil && s.AddressType == discoveryv1.AddressTypeIPv4 && equality.Semantic.DeepEqual(s.Ports, g.ports) {
				own = append(own, s)
				return true
			}
			return false
		})
		for i, endpoints := range distribute(own, g.endpoints) {
			switch {
			case i >= len(own):
				made := template.DeepCopy()
				made.Ports, made.Endpoints = g.ports, endpoints
				create = append(create, CreateSlice{made})
			case len(endpoints) == 0 && (len(g.endpoints) > 0 || i > 0):
				remove = append(remove, own[i])
			case !equality.Semantic.DeepEqual(own[i].Endpoints, endpoints) || !maps.Equal(own[i].Labels, template.Labels):
				changed := own[i].DeepCopy()
				changed.Endpoints, changed.Labels = endpoints, template.Labels
				if countReady(changed) > countReady(own[i]) {
					gain = append(gain, UpdateSlice{changed})
				} else {
					update = append(update, UpdateSlice{changed})
				}
			}
		}
	}
	return slices.Concat(create, gain, update, deleteAll(append(remove, rest...)))
}

func countReady(s *discoveryv1.EndpointSlice) (n int) {
	for _, e := range s.Endpoints {
		if e.Conditions.Ready != nil && *e.Conditions.Ready {
			n++
		}
	}
	return n
}

// distribute returns the endpoints of each slice in own, and of further ones where those are full.
func distribute(own []*discoveryv1.EndpointSlice, want []discoveryv1.Endpoint) [][]discoveryv1.Endpoint {
	out := make([][]discoveryv1.Endpoint, max(1, len(own)))
	left := map[string]discoveryv1.Endpoint{}
	for _, e := range want {
		left[identity(e)] = e
	}
	for i, s := range own {
		for _, e := range s.Endpoints {
			if now, ok := left[identity(e)]; ok && len(out[i]) < maxEndpoints {
				out[i] = append(out[i], now)
				delete(left, identity(e))
			}
		}
	}
	slot := 0
	for _, e := range want {
		if _, homeless := left[identity(e)]; !homeless {
			continue
		}
		for slot < len(out) && len(out[slot]) >= maxEndpoints {
			slot++
		}
		if slot == len(out) {
			out = append(out, nil)
		}
		out[slot] = append(out[slot], e)
	}
	return out
}

// identity tells endpoints apart: a Pod that was replaced under its name is another one.
func identity(e discoveryv1.Endpoint) string {
	uid := ""
	if e.TargetRef != nil {
		uid = string(e.TargetRef.UID)
	}
	return uid + "/" + slices.Concat(e.Addresses, []string{""})[0]
}

func byName(all []*discoveryv1.EndpointSlice) []*discoveryv1.EndpointSlice {
	return slices.SortedFunc(slices.Values(all), func(a, b *discoveryv1.EndpointSlice) int { return cmp.Compare(a.Name, b.Name) })
}
