package registry

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strings"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"github.com/slipway-dev/slipway/apiserver/api"
)

// forbidden says in upstream's words that id may not do what a asks for.
func forbidden(id Identity, a Attributes, reason string) error {
	var text strings.Builder
	if a.Path != "" {
		fmt.Fprintf(&text, "User %q cannot %s path %q", id.Name, a.Verb, a.Path)
	} else {
		resource := a.Resource
		if a.Subresource != "" {
			resource += "/" + a.Subresource
		}
		fmt.Fprintf(&text, "User %q cannot %s resource %q in API group %q", id.Name, a.Verb, resource, a.Group)
		if a.Namespace != "" {
			fmt.Fprintf(&text, " in the namespace %q", a.Namespace)
		} else {
			text.WriteString(" at the cluster scope")
		}
	}
	if reason != "" {
		text.WriteString(": " + reason)
	}
	return apierrors.NewForbidden(schema.GroupResource{Group: a.Group, Resource: a.Resource}, a.Name, errors.New(text.String()))
}

// readOnly is the Forbidden error of a person's write: it says where in Git the object is written. obj is nil when
// it does not exist.
func (r *Registry) readOnly(ctx context.Context, kind *api.Kind, name string, obj api.Object) error {
	message := fmt.Sprintf("%s %q is read-only here: people change the cluster in Git", kind.Resource, name)
	if origin := r.origin(ctx, obj); origin != "" {
		place, revision, found := strings.Cut(origin, "@")
		if found {
			place += " at " + revision
		}
		message = fmt.Sprintf("%s %q is read-only here: it comes from %s; change it in Git", kind.Resource, name, place)
	}
	return &apierrors.StatusError{ErrStatus: metav1.Status{
		Status: metav1.StatusFailure, Code: http.StatusForbidden, Reason: metav1.StatusReasonForbidden, Message: message,
		Details: &metav1.StatusDetails{Group: kind.Group, Kind: kind.Resource, Name: name},
	}}
}

// maxOwners bounds the way from an object to the one written in Git: Pod, ReplicaSet, Deployment, and one to spare.
const maxOwners = 4

// origin returns where obj, or the object that led to it, is written.
func (r *Registry) origin(ctx context.Context, obj api.Object) string {
	for range maxOwners {
		if obj == nil {
			return ""
		}
		if origin := obj.GetAnnotations()[api.AnnotationOrigin]; origin != "" {
			return origin
		}
		owner := metav1.GetControllerOf(obj)
		if owner == nil {
			return ""
		}
		kind := api.ByGVK(schema.FromAPIVersionAndKind(owner.APIVersion, owner.Kind))
		if kind == nil {
			return ""
		}
		next, err := r.store.Get(ctx, kind, obj.GetNamespace(), owner.Name)
		if err != nil {
			return ""
		}
		obj = next
	}
	return ""
}

// conflict is upstream's answer to a write that knew another state.
func conflict(kind *api.Kind, name, why string) error {
	return apierrors.NewConflict(kind.GroupResource(), name, errors.New(why))
}

const modified = "the object has been modified; please apply your changes to the latest version and try again"

func noSubresource(kind *api.Kind, name, subresource string) error {
	return &apierrors.StatusError{ErrStatus: metav1.Status{
		Status: metav1.StatusFailure, Code: http.StatusNotFound, Reason: metav1.StatusReasonNotFound,
		Message: fmt.Sprintf("%s %q has no subresource %q that can be written", kind, name, subresource),
		Details: &metav1.StatusDetails{Group: kind.Group, Kind: kind.Resource, Name: name},
	}}
}
