package store

import (
	"strings"

	"k8s.io/apimachinery/pkg/runtime/schema"

	"github.com/slipway-dev/slipway/apiserver/api"
)

// root is where every object lives, as upstream: /registry/pods/namespace/name.
const root = "/registry/"

// renamed are the resources upstream stores under another name
// (k8s.io/kubernetes/pkg/kubeapiserver, SpecialDefaultResourcePrefixes).
var renamed = map[schema.GroupResource]string{
	{Resource: "replicationcontrollers"}:                                   "controllers",
	{Resource: "endpoints"}:                                                "services/endpoints",
	{Resource: "nodes"}:                                                    "minions",
	{Resource: "services"}:                                                 "services/specs",
	{Group: "networking.k8s.io", Resource: "ingresses"}:                    "ingress",
	{Group: "apiregistration.k8s.io", Resource: "apiservices"}:             "apiregistration.k8s.io/apiservices",
	{Group: "apiextensions.k8s.io", Resource: "customresourcedefinitions"}: "apiextensions.k8s.io/customresourcedefinitions",
}

// builtin are the groups upstream stores by resource alone. Every other group is part of its keys.
var builtin = map[string]bool{
	"": true, "apps": true, "autoscaling": true, "batch": true, "policy": true,
	"admissionregistration.k8s.io": true, "apiregistration.k8s.io": true, "apiextensions.k8s.io": true,
	"certificates.k8s.io": true, "coordination.k8s.io": true, "discovery.k8s.io": true, "events.k8s.io": true,
	"flowcontrol.apiserver.k8s.io": true, "networking.k8s.io": true, "node.k8s.io": true,
	"rbac.authorization.k8s.io": true, "resource.k8s.io": true, "scheduling.k8s.io": true, "storage.k8s.io": true,
}

// prefixOf returns the kind's part of its keys, such as "pods" or "slipway.dev/sources".
func prefixOf(kind *api.Kind) string {
	gr := kind.GroupResource()
	if prefix, ok := renamed[gr]; ok {
		return prefix
	}
	if builtin[gr.Group] {
		return gr.Resource
	}
	return gr.Group + "/" + gr.Resource
}

// KeyPrefix is what the keys of all objects of a kind begin with, such as "/registry/secrets/".
func KeyPrefix(kind *api.Kind) string { return root + prefixOf(kind) + "/" }

// keyOf returns the key of an object of the kind with prefix.
func keyOf(prefix, namespace, name string) string {
	if namespace == "" {
		return root + prefix + "/" + name
	}
	return root + prefix + "/" + namespace + "/" + name
}

// locate finds whose key it is. It returns nil for a key that no known kind would have.
func (s *Store) locate(key string) (k *kindCache, namespace, name string) {
	rest, ok := strings.CutPrefix(key, root)
	if !ok {
		return nil, "", ""
	}
	first, rest, _ := strings.Cut(rest, "/")
	if k = s.byPrefix[first]; k == nil {
		second, after, _ := strings.Cut(rest, "/")
		if k = s.byPrefix[first+"/"+second]; k == nil {
			return nil, "", ""
		}
		rest = after
	}
	if k.kind.Namespaced {
		if namespace, rest, ok = strings.Cut(rest, "/"); !ok || namespace == "" {
			return nil, "", ""
		}
	}
	if rest == "" || strings.Contains(rest, "/") {
		return nil, "", ""
	}
	return k, namespace, rest
}
