// Package api says which kinds exist: their names, scope, subresources and selectable fields, how they are
// defaulted, validated and encoded, and Slipway's own types (slipway.dev/v1alpha1).
//
// It is pure: no I/O, no clock, no stored state. It must not know who stores, serves or acts on objects.
package api

import (
	"fmt"
	"reflect"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
)

// Object is an API object in its versioned type, such as *corev1.Pod. An Object that came out of a store is
// shared and immutable: copy it (DeepCopyObject) before changing it.
type Object interface {
	runtime.Object
	metav1.Object
}

// Kind is one row of the table of kinds. Rows are created once, at package initialisation, and compared by
// pointer.
type Kind struct {
	schema.GroupVersionKind
	Resource   string   // plural name, as in URLs and storage keys: "pods"
	Singular   string   // "pod"
	Short      []string // short names: "po"
	Categories []string // "all"
	Namespaced bool
	Status     bool     // has the status subresource: spec and status are written separately
	Subs       []string // further subresources, such as "log", "binding", "token"
	CreateOnly bool     // answered, never stored: reviews, bindings, token requests

	// SelectableFields returns the fields a field selector may name beside metadata.name and
	// metadata.namespace. Nil: none.
	SelectableFields func(Object) fields.Set

	goType reflect.Type // struct type, without the pointer
}

// New returns an empty object of the kind with apiVersion and kind set.
func (k *Kind) New() Object {
	obj := reflect.New(k.goType).Interface().(Object)
	obj.GetObjectKind().SetGroupVersionKind(k.GroupVersionKind)
	return obj
}

// GroupResource names the kind's resource without a version, as errors and authorization rules do.
func (k *Kind) GroupResource() schema.GroupResource {
	return schema.GroupResource{Group: k.Group, Resource: k.Resource}
}

// GroupVersionResource names the kind's resource as URLs do.
func (k *Kind) GroupVersionResource() schema.GroupVersionResource {
	return k.GroupVersion().WithResource(k.Resource)
}

// String returns the resource name kubectl would print: "pods" or "deployments.apps".
func (k *Kind) String() string { return k.GroupResource().String() }

// Fields returns the selectable fields of obj, metadata.name and metadata.namespace included.
func (k *Kind) Fields(obj Object) fields.Set {
	set := fields.Set{"metadata.name": obj.GetName()}
	if k.Namespaced {
		set["metadata.namespace"] = obj.GetNamespace()
	}
	if k.SelectableFields != nil {
		for name, value := range k.SelectableFields(obj) {
			set[name] = value
		}
	}
	return set
}

// Kinds returns every row of the table, in table order. The slice is the caller's.
func Kinds() []*Kind { return append([]*Kind(nil), table...) }

// KindOf returns the row for obj's Go type, or an error that names the type.
func KindOf(obj runtime.Object) (*Kind, error) {
	if k, ok := byType[reflect.TypeOf(obj)]; ok {
		return k, nil
	}
	return nil, fmt.Errorf("no kind is registered for %T", obj)
}

// KindFor returns the row for T, such as KindFor[*corev1.Pod](). T must be in the table: it panics otherwise,
// which a package variable or a test finds at start.
func KindFor[T Object]() *Kind {
	k, ok := byType[reflect.TypeFor[T]()]
	if !ok {
		panic(fmt.Sprintf("no kind is registered for %s", reflect.TypeFor[T]()))
	}
	return k
}

// ByGVK returns the row for gvk, or nil.
func ByGVK(gvk schema.GroupVersionKind) *Kind { return byGVK[gvk] }

// ByResource returns the row for gvr, or nil.
func ByResource(gvr schema.GroupVersionResource) *Kind { return byGVR[gvr] }

var (
	table  []*Kind
	byType = map[reflect.Type]*Kind{}
	byGVK  = map[schema.GroupVersionKind]*Kind{}
	byGVR  = map[schema.GroupVersionResource]*Kind{}
)

// add appends a row for T. It is called from package variable declarations only.
func add[T Object](k Kind) *Kind {
	t := reflect.TypeFor[T]()
	k.goType = t.Elem()
	k.Kind = k.goType.Name()
	row := &k
	table = append(table, row)
	byType[t] = row
	byGVK[row.GroupVersionKind] = row
	byGVR[row.GroupVersionResource()] = row
	return row
}
