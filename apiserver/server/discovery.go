package server

import (
	"net/http"
	"slices"
	"strings"

	apidiscovery "k8s.io/api/apidiscovery/v2"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"github.com/slipway-dev/slipway/apiserver/api"
)

var emptyResource = schema.GroupResource{}

const aggregated = "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList"

// discovery says what the server serves, in both shapes clients ask for. It is made once from the table of kinds.
type discovery struct {
	versions  []schema.GroupVersion
	resources map[schema.GroupVersion]*metav1.APIResourceList
	details   map[schema.GroupVersion][]apidiscovery.APIResourceDiscovery
}

var verbs = []string{"create", "delete", "get", "list", "patch", "update", "watch"}

// subresource says how a subresource is discovered.
type subresource struct {
	kind  schema.GroupVersionKind // what it takes or gives; empty: the resource's own
	verbs []string
}

var subresources = map[string]subresource{
	"status":   {verbs: []string{"get", "patch", "update"}},
	"finalize": {verbs: []string{"update"}},
	"log":      {verbs: []string{"get"}},
	"binding":  {kind: schema.GroupVersionKind{Version: "v1", Kind: "Binding"}, verbs: []string{"create"}},
	"token":    {kind: schema.GroupVersionKind{Group: "authentication.k8s.io", Version: "v1", Kind: "TokenRequest"}, verbs: []string{"create"}},
}

func newDiscovery() discovery {
	d := discovery{resources: map[schema.GroupVersion]*metav1.APIResourceList{}, details: map[schema.GroupVersion][]apidiscovery.APIResourceDiscovery{}}
	for _, kind := range api.Kinds() {
		if kind == api.Bindings || kind == api.TokenRequests {
			continue // reached as subresources only
		}
		gv := kind.GroupVersion()
		if d.resources[gv] == nil {
			d.versions = append(d.versions, gv)
			d.resources[gv] = &metav1.APIResourceList{TypeMeta: metav1.TypeMeta{Kind: "APIResourceList", APIVersion: "v1"}, GroupVersion: gv.String()}
		}
		d.add(gv, kind)
	}
	return d
}

func (d discovery) add(gv schema.GroupVersion, kind *api.Kind) {
	scope := apidiscovery.ScopeCluster
	if kind.Namespaced {
		scope = apidiscovery.ScopeNamespace
	}
	offered := verbs
	if kind.CreateOnly {
		offered = []string{"create"}
	}
	list := d.resources[gv]
	list.APIResources = append(list.APIResources, metav1.APIResource{Name: kind.Resource, SingularName: kind.Singular, Namespaced: kind.Namespaced,
		Kind: kind.Kind, Verbs: offered, ShortNames: kind.Short, Categories: kind.Categories})
	detail := apidiscovery.APIResourceDiscovery{Resource: kind.Resource, SingularResource: kind.Singular, Scope: scope, Verbs: offered,
		ResponseKind: groupVersionKind(kind.GroupVersionKind), ShortNames: kind.Short, Categories: kind.Categories}
	for _, name := range subresourceNames(kind) {
		sub := subresources[name]
		gvk := sub.kind
		if gvk.Kind == "" {
			gvk = kind.GroupVersionKind
		}
		entry := metav1.APIResource{Name: kind.Resource + "/" + name, Namespaced: kind.Namespaced, Kind: gvk.Kind, Verbs: sub.verbs}
		if sub.kind.Kind != "" {
			entry.Group, entry.Version = gvk.Group, gvk.Version
		}
		list.APIResources = append(list.APIResources, entry)
		detail.Subresources = append(detail.Subresources, apidiscovery.APISubresourceDiscovery{Subresource: name, ResponseKind: groupVersionKind(gvk), Verbs: sub.verbs})
	}
	d.details[gv] = append(d.details[gv], detail)
}

func subresourceNames(kind *api.Kind) []string {
	names := slices.Clone(kind.Subs)
	if kind.Status {
		names = append(names, "status")
	}
	slices.Sort(names)
	return names
}

func groupVersionKind(gvk schema.GroupVersionKind) *metav1.GroupVersionKind {
	return &metav1.GroupVersionKind{Group: gvk.Group, Version: gvk.Version, Kind: gvk.Kind}
}

// core answers /api.
func (d discovery) core(w http.ResponseWriter, r *http.Request) {
	if wantsAggregated(r) {
		d.writeAggregated(w, func(gv schema.GroupVersion) bool { return gv.Group == "" })
		return
	}
	writeJSON(w, http.StatusOK, metav1.APIVersions{TypeMeta: metav1.TypeMeta{Kind: "APIVersions"}, Versions: []string{"v1"},
		ServerAddressByClientCIDRs: []metav1.ServerAddressByClientCIDR{}})
}

// groups answers /apis.
func (d discovery) groups(w http.ResponseWriter, r *http.Request) {
	if wantsAggregated(r) {
		d.writeAggregated(w, func(gv schema.GroupVersion) bool { return gv.Group != "" })
		return
	}
	list := metav1.APIGroupList{TypeMeta: metav1.TypeMeta{Kind: "APIGroupList", APIVersion: "v1"}, Groups: []metav1.APIGroup{}}
	for _, gv := range d.versions {
		if gv.Group != "" {
			list.Groups = append(list.Groups, group(gv))
		}
	}
	writeJSON(w, http.StatusOK, list)
}

// group answers /apis/GROUP. Each group has one version here.
func group(gv schema.GroupVersion) metav1.APIGroup {
	version := metav1.GroupVersionForDiscovery{GroupVersion: gv.String(), Version: gv.Version}
	return metav1.APIGroup{TypeMeta: metav1.TypeMeta{Kind: "APIGroup", APIVersion: "v1"}, Name: gv.Group,
		Versions: []metav1.GroupVersionForDiscovery{version}, PreferredVersion: version}
}

// serve answers /api/v1, /apis/GROUP and /apis/GROUP/VERSION; false: the path is none of these.
func (d discovery) serve(w http.ResponseWriter, path []string) bool {
	for _, gv := range d.versions {
		prefix := []string{"apis", gv.Group, gv.Version}
		if gv.Group == "" {
			prefix = []string{"api", gv.Version}
		}
		switch {
		case slices.Equal(path, prefix):
			writeJSON(w, http.StatusOK, d.resources[gv])
			return true
		case gv.Group != "" && slices.Equal(path, prefix[:2]):
			writeJSON(w, http.StatusOK, group(gv))
			return true
		}
	}
	return false
}

func wantsAggregated(r *http.Request) bool {
	accept := strings.ReplaceAll(r.Header.Get("Accept"), " ", "")
	return strings.Contains(accept, "g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList")
}

func (d discovery) writeAggregated(w http.ResponseWriter, wanted func(schema.GroupVersion) bool) {
	list := apidiscovery.APIGroupDiscoveryList{TypeMeta: metav1.TypeMeta{Kind: "APIGroupDiscoveryList", APIVersion: "apidiscovery.k8s.io/v2"}}
	for _, gv := range d.versions {
		if wanted(gv) {
			list.Items = append(list.Items, apidiscovery.APIGroupDiscovery{ObjectMeta: metav1.ObjectMeta{Name: gv.Group},
				Versions: []apidiscovery.APIVersionDiscovery{{Version: gv.Version, Resources: d.details[gv], Freshness: apidiscovery.DiscoveryFreshnessCurrent}}})
		}
	}
	writeBody(w, http.StatusOK, aggregated, list)
}
