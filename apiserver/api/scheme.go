package api

import (
	"bytes"
	"errors"
	"fmt"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	jsonserializer "k8s.io/apimachinery/pkg/runtime/serializer/json"
	"k8s.io/kubernetes/pkg/api/legacyscheme"
	_ "k8s.io/kubernetes/pkg/apis/apps/install"           // registers the group's types, conversions and defaults
	_ "k8s.io/kubernetes/pkg/apis/authentication/install" // same
	_ "k8s.io/kubernetes/pkg/apis/authorization/install"  // same
	_ "k8s.io/kubernetes/pkg/apis/coordination/install"   // same
	_ "k8s.io/kubernetes/pkg/apis/core/install"           // same
	_ "k8s.io/kubernetes/pkg/apis/discovery/install"      // same
	_ "k8s.io/kubernetes/pkg/apis/rbac/install"           // same
	"k8s.io/kubernetes/pkg/capabilities"
	"sigs.k8s.io/yaml"

	slipwayv1 "github.com/slipway-dev/slipway/apiserver/api/v1alpha1"
)

// Scheme knows every Go type of the table, and upstream's internal types, defaulting and conversions for the
// built-in ones. It is complete when the package is initialised and not changed afterwards.
var Scheme = newScheme()

// newScheme adds Slipway's own group to the scheme that upstream's install packages fill. The same instance is
// used because upstream's validation reads it.
func newScheme() *runtime.Scheme {
	capabilities.Setup(true, 0) // privileged containers are valid; who may have them is no question of validity
	if err := slipwayv1.AddToScheme(legacyscheme.Scheme); err != nil {
		panic(fmt.Sprintf("register slipway.dev: %v", err)) // a duplicate name: found by any run
	}
	return legacyscheme.Scheme
}

// Default sets the fields of obj that are empty and have a default, as upstream does. It takes the namespace from an
// object whose kind has none.
func Default(obj Object) {
	if kind, err := KindOf(obj); err == nil && !kind.Namespaced && obj.GetNamespace() != "" {
		obj.SetNamespace("")
	}
	Scheme.Default(obj)
	// Upstream does this one later, when the object is on its way into the store, but a manifest is valid only with it.
	if svc, ok := obj.(*corev1.Service); ok && svc.Spec.ClusterIP != "" && len(svc.Spec.ClusterIPs) == 0 {
		svc.Spec.ClusterIPs = []string{svc.Spec.ClusterIP}
	}
}

// UnknownKindError says that a manifest's apiVersion and kind are not in the table.
type UnknownKindError struct {
	GVK schema.GroupVersionKind
}

// Error names the kind and what is wrong with it.
func (e *UnknownKindError) Error() string {
	if e.GVK.Kind == "" {
		return "no kind is set"
	}
	if e.GVK.Version == "" {
		return fmt.Sprintf("no apiVersion is set for kind %q", e.GVK.Kind)
	}
	apiVersion, kind := e.GVK.ToAPIVersionAndKind()
	return fmt.Sprintf("kind %q of apiVersion %q is not known here", kind, apiVersion)
}

// Decode reads one object in JSON or YAML, strictly: an unknown or duplicate field is an error. It returns
// *UnknownKindError for a kind outside the table. Nothing is defaulted or validated.
func Decode(data []byte) (Object, error) {
	data, err := ToJSON(data)
	if err != nil {
		return nil, err
	}
	var meta metav1.TypeMeta
	if err := yaml.Unmarshal(data, &meta); err != nil {
		return nil, fmt.Errorf("read apiVersion and kind: %w", err)
	}
	return DecodeAs(data, meta.GroupVersionKind())
}

// DecodeAs is Decode for bytes whose kind is known from elsewhere, such as a URL. apiVersion and kind may be
// missing in data; when they are there they must be gvk's.
func DecodeAs(data []byte, gvk schema.GroupVersionKind) (Object, error) {
	kind := ByGVK(gvk)
	if kind == nil {
		return nil, &UnknownKindError{gvk}
	}
	data, err := ToJSON(data)
	if err != nil {
		return nil, err
	}
	into := kind.New()
	_, found, err := strictJSON.Decode(data, &gvk, into)
	if err != nil {
		return nil, err
	}
	if *found != gvk {
		return nil, fmt.Errorf("got %s, want %s", found, gvk)
	}
	into.GetObjectKind().SetGroupVersionKind(gvk)
	return into, nil
}

// ToJSON returns data as JSON: JSON unchanged, YAML converted. A key that occurs twice in a YAML mapping and a
// second document are errors.
func ToJSON(data []byte) ([]byte, error) {
	data = bytes.TrimSpace(data)
	if len(data) == 0 {
		return nil, errors.New("empty document")
	}
	if data[0] == '{' {
		return data, nil
	}
	return yaml.YAMLToJSONStrict(data)
}

var strictJSON = jsonserializer.NewSerializerWithOptions(jsonserializer.DefaultMetaFactory, Scheme, Scheme, jsonserializer.SerializerOptions{Strict: true})
