package store

import (
	"testing"

	"github.com/slipway-dev/slipway/apiserver/api"
)

func TestKeysAreUpstreams(t *testing.T) {
	s := &Store{byPrefix: map[string]*kindCache{}}
	for _, kind := range api.Kinds() {
		s.byPrefix[prefixOf(kind)] = &kindCache{kind: kind, prefix: prefixOf(kind)}
	}
	rows := []struct {
		kind            *api.Kind
		namespace, name string
		key             string
	}{
		{api.Pods, "ns", "a", "/registry/pods/ns/a"},
		{api.Nodes, "", "a", "/registry/minions/a"},
		{api.Namespaces, "", "a", "/registry/namespaces/a"},
		{api.Services, "ns", "a", "/registry/services/specs/ns/a"},
		{api.Endpoints, "ns", "a", "/registry/services/endpoints/ns/a"},
		{api.Deployments, "ns", "a", "/registry/deployments/ns/a"},
		{api.Leases, "ns", "a", "/registry/leases/ns/a"},
		{api.EndpointSlices, "ns", "a", "/registry/endpointslices/ns/a"},
		{api.ClusterRoles, "", "system:a", "/registry/clusterroles/system:a"},
		{api.Sources, "", "a", "/registry/slipway.dev/sources/a"},
		{api.Rollouts, "", "a", "/registry/slipway.dev/rollouts/a"},
	}
	for _, row := range rows {
		if got := keyOf(prefixOf(row.kind), row.namespace, row.name); got != row.key {
			t.Errorf("key of %s is %s, want %s", row.kind, got, row.key)
		}
		k, namespace, name := s.locate(row.key)
		if k == nil || k.kind != row.kind || namespace != row.namespace || name != row.name {
			t.Errorf("%s is %v %s/%s", row.key, k, namespace, name)
		}
	}
	for _, key := range []string{"", "/registry/", "/registry/pods", "/registry/pods/", "/registry/pods/ns", "/registry/pods/ns/",
		"/registry/pods/ns/a/b", "/registry/minions/a/b", "/registry/services/ns/a", "/registry/unknown/a", "/other/pods/ns/a"} {
		if k, _, _ := s.locate(key); k != nil {
			t.Errorf("%q is taken for a key of %s", key, k.kind)
		}
	}
}
