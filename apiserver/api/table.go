package api

import (
	appsv1 "k8s.io/api/apps/v1"
	authenticationv1 "k8s.io/api/authentication/v1"
	authorizationv1 "k8s.io/api/authorization/v1"
	coordinationv1 "k8s.io/api/coordination/v1"
	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/runtime/schema"

	slipwayv1 "github.com/slipway-dev/slipway/apiserver/api/v1alpha1"
)

func in(gv schema.GroupVersion) schema.GroupVersionKind { return gv.WithKind("") }

var all = []string{"all"}

// The kinds Slipway knows. Adding one is adding a row; validation is named in validate.go by the same variable.
var (
	Namespaces = add[*corev1.Namespace](Kind{GroupVersionKind: in(corev1.SchemeGroupVersion), Resource: "namespaces", Singular: "namespace", Short: []string{"ns"}, Status: true, Subs: []string{"finalize"},
		SelectableFields: func(o Object) fields.Set {
			return fields.Set{"status.phase": string(o.(*corev1.Namespace).Status.Phase)}
		}})
	Nodes = add[*corev1.Node](Kind{GroupVersionKind: in(corev1.SchemeGroupVersion), Resource: "nodes", Singular: "node", Short: []string{"no"}, Status: true})
	Pods  = add[*corev1.Pod](Kind{GroupVersionKind: in(corev1.SchemeGroupVersion), Resource: "pods", Singular: "pod", Short: []string{"po"}, Categories: all, Namespaced: true, Status: true, Subs: []string{"binding", "log"},
		SelectableFields: func(o Object) fields.Set {
			p := o.(*corev1.Pod)
			return fields.Set{"spec.nodeName": p.Spec.NodeName, "spec.restartPolicy": string(p.Spec.RestartPolicy), "spec.schedulerName": p.Spec.SchedulerName,
				"spec.serviceAccountName": p.Spec.ServiceAccountName, "status.phase": string(p.Status.Phase), "status.podIP": p.Status.PodIP}
		}})
	Services = add[*corev1.Service](Kind{GroupVersionKind: in(corev1.SchemeGroupVersion), Resource: "services", Singular: "service", Short: []string{"svc"}, Categories: all, Namespaced: true, Status: true,
		SelectableFields: func(o Object) fields.Set {
			s := o.(*corev1.Service)
			return fields.Set{"spec.clusterIP": s.Spec.ClusterIP, "spec.type": string(s.Spec.Type)}
		}})
	Endpoints  = add[*corev1.Endpoints](Kind{GroupVersionKind: in(corev1.SchemeGroupVersion), Resource: "endpoints", Singular: "endpoints", Short: []string{"ep"}, Namespaced: true})
	ConfigMaps = add[*corev1.ConfigMap](Kind{GroupVersionKind: in(corev1.SchemeGroupVersion), Resource: "configmaps", Singular: "configmap", Short: []string{"cm"}, Namespaced: true})
	Secrets    = add[*corev1.Secret](Kind{GroupVersionKind: in(corev1.SchemeGroupVersion), Resource: "secrets", Singular: "secret", Namespaced: true,
		SelectableFields: func(o Object) fields.Set { return fields.Set{"type": string(o.(*corev1.Secret).Type)} }})
	ServiceAccounts = add[*corev1.ServiceAccount](Kind{GroupVersionKind: in(corev1.SchemeGroupVersion), Resource: "serviceaccounts", Singular: "serviceaccount", Short: []string{"sa"}, Namespaced: true, Subs: []string{"token"}})
	Events          = add[*corev1.Event](Kind{GroupVersionKind: in(corev1.SchemeGroupVersion), Resource: "events", Singular: "event", Short: []string{"ev"}, Namespaced: true,
		SelectableFields: eventFields})

	Deployments    = add[*appsv1.Deployment](Kind{GroupVersionKind: in(appsv1.SchemeGroupVersion), Resource: "deployments", Singular: "deployment", Short: []string{"deploy"}, Categories: all, Namespaced: true, Status: true})
	ReplicaSets    = add[*appsv1.ReplicaSet](Kind{GroupVersionKind: in(appsv1.SchemeGroupVersion), Resource: "replicasets", Singular: "replicaset", Short: []string{"rs"}, Categories: all, Namespaced: true, Status: true})
	EndpointSlices = add[*discoveryv1.EndpointSlice](Kind{GroupVersionKind: in(discoveryv1.SchemeGroupVersion), Resource: "endpointslices", Singular: "endpointslice", Namespaced: true})
	Leases         = add[*coordinationv1.Lease](Kind{GroupVersionKind: in(coordinationv1.SchemeGroupVersion), Resource: "leases", Singular: "lease", Namespaced: true})

	Roles               = add[*rbacv1.Role](Kind{GroupVersionKind: in(rbacv1.SchemeGroupVersion), Resource: "roles", Singular: "role", Namespaced: true})
	RoleBindings        = add[*rbacv1.RoleBinding](Kind{GroupVersionKind: in(rbacv1.SchemeGroupVersion), Resource: "rolebindings", Singular: "rolebinding", Namespaced: true})
	ClusterRoles        = add[*rbacv1.ClusterRole](Kind{GroupVersionKind: in(rbacv1.SchemeGroupVersion), Resource: "clusterroles", Singular: "clusterrole"})
	ClusterRoleBindings = add[*rbacv1.ClusterRoleBinding](Kind{GroupVersionKind: in(rbacv1.SchemeGroupVersion), Resource: "clusterrolebindings", Singular: "clusterrolebinding"})

	Sources  = add[*slipwayv1.Source](Kind{GroupVersionKind: in(slipwayv1.SchemeGroupVersion), Resource: "sources", Singular: "source", Status: true})
	Rollouts = add[*slipwayv1.Rollout](Kind{GroupVersionKind: in(slipwayv1.SchemeGroupVersion), Resource: "rollouts", Singular: "rollout", Short: []string{"ro"}, Status: true})

	// Create-only kinds: answered, never stored.
	Bindings                 = add[*corev1.Binding](Kind{GroupVersionKind: in(corev1.SchemeGroupVersion), Resource: "bindings", Singular: "binding", Namespaced: true, CreateOnly: true})
	TokenRequests            = add[*authenticationv1.TokenRequest](Kind{GroupVersionKind: in(authenticationv1.SchemeGroupVersion), Resource: "tokenrequests", Singular: "tokenrequest", Namespaced: true, CreateOnly: true})
	SelfSubjectReviews       = add[*authenticationv1.SelfSubjectReview](Kind{GroupVersionKind: in(authenticationv1.SchemeGroupVersion), Resource: "selfsubjectreviews", Singular: "selfsubjectreview", CreateOnly: true})
	SelfSubjectAccessReviews = add[*authorizationv1.SelfSubjectAccessReview](Kind{GroupVersionKind: in(authorizationv1.SchemeGroupVersion), Resource: "selfsubjectaccessreviews", Singular: "selfsubjectaccessreview", CreateOnly: true})
	SelfSubjectRulesReviews  = add[*authorizationv1.SelfSubjectRulesReview](Kind{GroupVersionKind: in(authorizationv1.SchemeGroupVersion), Resource: "selfsubjectrulesreviews", Singular: "selfsubjectrulesreview", CreateOnly: true})
)

func eventFields(o Object) fields.Set {
	e := o.(*corev1.Event)
	return fields.Set{
		"involvedObject.kind": e.InvolvedObject.Kind, "involvedObject.namespace": e.InvolvedObject.Namespace,
		"involvedObject.name": e.InvolvedObject.Name, "involvedObject.uid": string(e.InvolvedObject.UID),
		"involvedObject.apiVersion": e.InvolvedObject.APIVersion, "involvedObject.fieldPath": e.InvolvedObject.FieldPath,
		"involvedObject.resourceVersion": e.InvolvedObject.ResourceVersion,
		"reason":                         e.Reason, "reportingComponent": e.ReportingController, "source": e.Source.Component, "type": e.Type,
	}
}
