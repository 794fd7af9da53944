package plan

import (
	"fmt"
	"strings"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"github.com/slipway-dev/slipway/apiserver/api"
	"github.com/slipway-dev/slipway/gitsource/manifest"
)

// Ref names an object.
type Ref struct {
	schema.GroupVersionKind
	Namespace string
	Name      string
}

// RefOf returns the reference to obj, which must be of a kind in the table.
func RefOf(kind *api.Kind, obj api.Object) Ref {
	return Ref{kind.GroupVersionKind, obj.GetNamespace(), obj.GetName()}
}

func refTo(kind *api.Kind, namespace, name string) Ref {
	return Ref{kind.GroupVersionKind, namespace, name}
}

// String returns "Deployment shop/web" or "Namespace shop".
func (r Ref) String() string {
	if r.Namespace == "" {
		return r.Kind + " " + r.Name
	}
	return r.Kind + " " + r.Namespace + "/" + r.Name
}

// Slashed returns "Deployment/shop/web", as messages with a file and a line have it.
func (r Ref) Slashed() string { return strings.Replace(r.String(), " ", "/", 1) }

func (r Ref) Row() *api.Kind { return api.ByGVK(r.GroupVersionKind) }

func (r Ref) Compare(o Ref) int {
	if c := strings.Compare(r.Namespace, o.Namespace); c != 0 {
		return c
	}
	if c := strings.Compare(r.Kind, o.Kind); c != 0 {
		return c
	}
	if c := strings.Compare(r.Name, o.Name); c != 0 {
		return c
	}
	return strings.Compare(r.Group, o.Group)
}

// Want is one object as the tree asks for it.
type Want struct {
	Ref
	Origin     string     // path:line
	Object     api.Object // as written, not defaulted
	Hash       string     // of what was written
	Refused    string     // not empty: why this version cannot act on it
	NotActedOn []string   // fields that are accepted and ignored

	written *manifest.Object // nil in tests of the plan
}

// Needs returns the objects that must be there before w can work: its Namespace, and what its Pods or bindings
// name. Optional references are left out.
func (w *Want) Needs() []Ref {
	obj := w.Object
	var refs []Ref
	ns := obj.GetNamespace()
	if ns != "" {
		refs = append(refs, refTo(api.Namespaces, "", ns))
	}
	switch o := obj.(type) {
	case *corev1.Pod:
		refs = append(refs, podNeeds(ns, &o.Spec)...)
	case *appsv1.Deployment:
		refs = append(refs, podNeeds(ns, &o.Spec.Template.Spec)...)
	case *appsv1.ReplicaSet:
		refs = append(refs, podNeeds(ns, &o.Spec.Template.Spec)...)
	case *rbacv1.RoleBinding:
		refs = append(refs, roleRef(ns, o.RoleRef))
	case *rbacv1.ClusterRoleBinding:
		refs = append(refs, roleRef("", o.RoleRef))
	}
	return refs
}

func roleRef(namespace string, r rbacv1.RoleRef) Ref {
	if r.Kind == "ClusterRole" {
		return refTo(api.ClusterRoles, "", r.Name)
	}
	return refTo(api.Roles, namespace, r.Name)
}

func podNeeds(ns string, spec *corev1.PodSpec) []Ref {
	var refs []Ref
	add := func(kind *api.Kind, name string, optional *bool) {
		if name != "" && (optional == nil || !*optional) {
			refs = append(refs, refTo(kind, ns, name))
		}
	}
	add(api.ServiceAccounts, spec.ServiceAccountName, nil)
	for i := range spec.Volumes {
		v := &spec.Volumes[i]
		if v.ConfigMap != nil {
			add(api.ConfigMaps, v.ConfigMap.Name, v.ConfigMap.Optional)
		}
		if v.Secret != nil {
			add(api.Secrets, v.Secret.SecretName, v.Secret.Optional)
		}
		if v.Projected == nil {
			continue
		}
		for _, s := range v.Projected.Sources {
			if s.ConfigMap != nil {
				add(api.ConfigMaps, s.ConfigMap.Name, s.ConfigMap.Optional)
			}
			if s.Secret != nil {
				add(api.Secrets, s.Secret.Name, s.Secret.Optional)
			}
		}
	}
	for _, containers := range [][]corev1.Container{spec.InitContainers, spec.Containers} {
		for i := range containers {
			envNeeds(&containers[i], add)
		}
	}
	return refs
}

func envNeeds(c *corev1.Container, add func(kind *api.Kind, name string, optional *bool)) {
	for _, from := range c.EnvFrom {
		if from.ConfigMapRef != nil {
			add(api.ConfigMaps, from.ConfigMapRef.Name, from.ConfigMapRef.Optional)
		}
		if from.SecretRef != nil {
			add(api.Secrets, from.SecretRef.Name, from.SecretRef.Optional)
		}
	}
	for _, env := range c.Env {
		if env.ValueFrom == nil {
			continue
		}
		if ref := env.ValueFrom.ConfigMapKeyRef; ref != nil {
			add(api.ConfigMaps, ref.Name, ref.Optional)
		}
		if ref := env.ValueFrom.SecretKeyRef; ref != nil {
			add(api.Secrets, ref.Name, ref.Optional)
		}
	}
}

// Level orders kinds the way upstream tools do: what others need comes first. Deletions go the other way.
func Level(r Ref) int {
	switch r.Row() {
	case api.Namespaces:
		return 0
	case api.ClusterRoles, api.Roles:
		return 1
	case api.ClusterRoleBindings, api.RoleBindings:
		return 2
	case api.ServiceAccounts:
		return 3
	case api.Secrets, api.ConfigMaps:
		return 4
	case api.Services, api.Endpoints, api.EndpointSlices:
		return 5
	case api.ReplicaSets, api.Deployments:
		return 7
	case api.Pods:
		return 8
	default:
		return 6
	}
}

// originText is what the origin annotation says.
func originText(origin, short string) string { return fmt.Sprintf("%s@%s", origin, short) }
