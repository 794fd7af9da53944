package manifest

import (
	"fmt"
	"slices"
	"strings"

	"k8s.io/apimachinery/pkg/runtime/schema"

	"github.com/slipway-dev/slipway/apiserver/api"
)

// verdict says what to do with an object of a kind.
type verdict struct {
	kind    *api.Kind // act on it
	note    string    // not acted on
	problem string    // refused
}

// later are upstream's kinds in groups this version knows only in part. A kind that is in neither list is a typing
// mistake: ignoring it would prune what the mistyped manifest made.
var later = map[string][]string{
	"": {"PersistentVolume", "PersistentVolumeClaim", "ReplicationController", "ResourceQuota", "LimitRange", "PodTemplate", "ComponentStatus",
		"Pod", "Service", "Namespace", "Node", "ConfigMap", "Secret", "ServiceAccount", "Endpoints", "Event"},
	"apps":                      {"StatefulSet", "DaemonSet", "ControllerRevision", "Deployment", "ReplicaSet"},
	"discovery.k8s.io":          {"EndpointSlice"},
	"coordination.k8s.io":       {"Lease", "LeaseCandidate"},
	"rbac.authorization.k8s.io": {"Role", "RoleBinding", "ClusterRole", "ClusterRoleBinding"},
	"slipway.dev":               {},
}

// kustomizeBuiltin is the apiVersion of transformers and generators that kustomize brings along.
const kustomizeBuiltin = "builtin"

// judge decides by apiVersion and kind alone.
func judge(gvk schema.GroupVersionKind) verdict {
	apiVersion := gvk.GroupVersion().String()
	if k := api.ByGVK(gvk); k != nil {
		switch {
		case k.CreateOnly:
			return verdict{problem: fmt.Sprintf("%s is a request that is answered and never stored: it cannot come from Git", gvk.Kind)}
		case k == api.Sources || k == api.Rollouts:
			return verdict{problem: fmt.Sprintf("%s is written by Slipway itself: it cannot come from Git", gvk.Kind)}
		}
		return verdict{kind: k}
	}
	if want := versionOf(gvk); want != "" {
		return verdict{problem: fmt.Sprintf("unknown apiVersion for kind %s (got %q, want %q)", gvk.Kind, apiVersion, want)}
	}
	kinds, partly := later[gvk.Group]
	if partly && apiVersion != kustomizeBuiltin && !slices.Contains(kinds, gvk.Kind) {
		names := map[string]bool{}
		for _, name := range kinds {
			names[name] = true
		}
		message := fmt.Sprintf("unknown kind (got %q of %s", gvk.Kind, apiVersion)
		if near := nearest(gvk.Kind, names); near != "" {
			message += fmt.Sprintf(", did you mean %q?", near)
		}
		return verdict{problem: message + ")"}
	}
	return verdict{note: fmt.Sprintf("not acted on: kind %s of %s", gvk.Kind, apiVersion)}
}

// versionOf returns the apiVersion the table has for a kind that was asked for in a wrong or retired version of
// its own group, or in a group that only Kubernetes itself could use; "" when the kind is somebody else's.
func versionOf(gvk schema.GroupVersionKind) string {
	for _, k := range api.Kinds() {
		if k.Kind != gvk.Kind || k.CreateOnly {
			continue
		}
		if k.Group == gvk.Group || !strings.Contains(gvk.Group, ".") {
			return k.GroupVersion().String()
		}
	}
	return ""
}
