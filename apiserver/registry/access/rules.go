package access

import (
	"slices"
	"strings"

	rbacv1 "k8s.io/api/rbac/v1"
)

// may builds rules: verbs separated by spaces, resources as "pods", "pods/status", "deployments.apps" or
// "deployments.apps/status". "*" stands for every resource without its subresources.
func may(verbs string, resources ...string) []rbacv1.PolicyRule {
	var rules []rbacv1.PolicyRule
	for _, name := range resources {
		resource, subresource, isSub := strings.Cut(name, "/")
		resource, group, _ := strings.Cut(resource, ".")
		if isSub {
			resource += "/" + subresource
		}
		if name == "*" {
			group = "*"
		}
		rules = append(rules, rbacv1.PolicyRule{Verbs: strings.Fields(verbs), APIGroups: []string{group}, Resources: []string{resource}})
	}
	return rules
}

const (
	read   = "get list watch"
	change = "create update patch delete"
)

// authenticatedRules are upstream's default roles system:discovery, system:basic-user and
// system:public-info-viewer.
var authenticatedRules = append(
	may("create", "selfsubjectaccessreviews.authorization.k8s.io", "selfsubjectrulesreviews.authorization.k8s.io", "selfsubjectreviews.authentication.k8s.io"),
	rbacv1.PolicyRule{Verbs: []string{"get"}, NonResourceURLs: []string{"/api", "/api/*", "/apis", "/apis/*", "/healthz", "/livez", "/openapi", "/openapi/*", "/readyz", "/version", "/version/"}},
)

var peopleRules = append(may(read, "*", "pods/log"), rbacv1.PolicyRule{Verbs: []string{"get"}, NonResourceURLs: []string{"*"}})

// everyPart is what all parts need: Events about what they do and Leases by which one of them leads.
var everyPart = slices.Concat(may("create update patch get", "events"), may("get create update patch", "leases.coordination.k8s.io"))

// partRules is what the job of each part needs, by user name.
var partRules = map[string][]rbacv1.PolicyRule{
	controllerPrefix + "deployment": slices.Concat(
		may(read+" update patch", "deployments.apps"), may("update patch", "deployments.apps/status"),
		may(read+" "+change, "replicasets.apps"), may(read, "pods")),
	controllerPrefix + "replicaset": slices.Concat(
		may(read+" update patch", "replicasets.apps"), may("update patch", "replicasets.apps/status"),
		may(read+" "+change, "pods")),
	controllerPrefix + "endpoints": slices.Concat(
		may(read, "services", "pods", "nodes"), may(read+" "+change, "endpoints", "endpointslices.discovery.k8s.io")),
	controllerPrefix + "namespace": slices.Concat(
		may(read+" create update patch delete", "namespaces"), may("update patch", "namespaces/status", "namespaces/finalize"),
		may(read+" delete", "*")),
	controllerPrefix + "serviceaccount": slices.Concat(
		may(read, "namespaces"), may(read+" create update patch", "serviceaccounts", "configmaps")),
	controllerPrefix + "systemservice": slices.Concat(
		may(read, "namespaces"), may(read+" create update", "services", "endpoints", "endpointslices.discovery.k8s.io")),
	controllerPrefix + "garbage":  may(read+" update patch delete", "*"),
	controllerPrefix + "eventttl": may(read+" delete", "events"),
	controllerPrefix + "events":   may("list", "events"),
	controllerPrefix + "node": slices.Concat(
		may(read+" update patch", "nodes"), may("update patch", "nodes/status"), may(read, "leases.coordination.k8s.io"),
		may(read+" delete", "pods"), may("update patch", "pods/status")),
	controllerPrefix + "drain": slices.Concat(
		may(read+" update patch", "nodes"), may("update patch", "nodes/status"), may(read+" delete", "pods"),
		may(read, "replicasets.apps", "deployments.apps")),
	"system:kube-scheduler": slices.Concat(
		may(read, "nodes", "namespaces", "services", "replicasets.apps"), may(read+" delete", "pods"),
		may("create", "pods/binding"), may("update patch", "pods/status")),
	"system:slipway:gitops": slices.Concat(
		may(read+" "+change, "*"), may("update patch", "sources.slipway.dev/status", "rollouts.slipway.dev/status")),
}

// partAllows is allows, but "*" means no subresource: bindings and tokens are for those whose job they are.
func partAllows(rule *rbacv1.PolicyRule, a Attributes) bool {
	return (a.Subresource == "" || rule.Resources[0] != "*") && allows(rule, a)
}

func anyAllows(rules []rbacv1.PolicyRule, a Attributes) bool {
	for i := range rules {
		if allows(&rules[i], a) {
			return true
		}
	}
	return false
}

// allows says whether an RBAC rule covers a, as https://kubernetes.io/docs/reference/access-authn-authz/rbac/
// describes.
func allows(rule *rbacv1.PolicyRule, a Attributes) bool {
	if !has(rule.Verbs, a.Verb) {
		return false
	}
	if a.Path != "" {
		return slices.ContainsFunc(rule.NonResourceURLs, func(pattern string) bool {
			prefix, wild := strings.CutSuffix(pattern, "*")
			return pattern == a.Path || wild && strings.HasPrefix(a.Path, prefix)
		})
	}
	if !has(rule.APIGroups, a.Group) || !slices.ContainsFunc(rule.Resources, func(r string) bool { return names(r, a) }) {
		return false
	}
	return len(rule.ResourceNames) == 0 || a.Name != "" && slices.Contains(rule.ResourceNames, a.Name)
}

// names says whether a rule's resource means a's: "pods", "pods/status", "*/status", or "*".
func names(resource string, a Attributes) bool {
	switch resource {
	case a.resource():
		return true
	case "*":
		return true
	}
	return a.Subresource != "" && resource == "*/"+a.Subresource
}

func has(list []string, value string) bool {
	return slices.Contains(list, "*") || slices.Contains(list, value)
}
