package store

import (
	"fmt"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/selection"

	"github.com/slipway-dev/slipway/apiserver/api"
)

// chosen decides which objects of a kind a reader sees.
type chosen struct {
	kind      *api.Kind
	namespace string
	name      string // not empty: only this name, as metadata.name= asks for
	labels    labels.Selector
	fields    fields.Selector
}

// choose checks the selectors. A field that the kind has not is a bad request, as upstream.
func choose(kind *api.Kind, namespace string, l labels.Selector, f fields.Selector) (chosen, error) {
	c := chosen{kind: kind, namespace: namespace}
	if !kind.Namespaced {
		c.namespace = ""
	}
	if l != nil && !l.Empty() {
		c.labels = l
	}
	if f == nil || f.Empty() {
		return c, nil
	}
	c.fields = f
	known := kind.Fields(kind.New())
	for _, r := range f.Requirements() {
		if !known.Has(r.Field) {
			return c, apierrors.NewBadRequest(fmt.Sprintf("field label not supported: %s", r.Field))
		}
		if r.Field == "metadata.name" && (r.Operator == selection.Equals || r.Operator == selection.DoubleEquals) {
			c.name = r.Value
		}
	}
	if c.name != "" && len(f.Requirements()) == 1 {
		c.fields = nil
	}
	return c, nil
}

// everything says that all objects of the namespaces are wanted.
func (c *chosen) everything() bool { return c.name == "" && c.labels == nil && c.fields == nil }

// has says whether an item is wanted; nil is not.
func (c *chosen) has(it *item) bool {
	if it == nil || c.namespace != "" && it.namespace != c.namespace || c.name != "" && it.name != c.name {
		return false
	}
	if c.labels != nil && !c.labels.Matches(labels.Set(it.obj.GetLabels())) {
		return false
	}
	return c.fields == nil || c.fields.Matches(&itemFields{kind: c.kind, it: it})
}

// itemFields are the selectable fields of an item, looked at when they are asked for.
type itemFields struct {
	kind *api.Kind
	it   *item
	set  fields.Set
}

// Get implements fields.Fields.
func (f *itemFields) Get(field string) string {
	switch field {
	case "metadata.name":
		return f.it.name
	case "metadata.namespace":
		return f.it.namespace
	}
	if f.set == nil && f.kind.SelectableFields != nil {
		f.set = f.kind.SelectableFields(f.it.obj)
	}
	return f.set[field]
}

// Has implements fields.Fields. choose has refused the fields that the kind does not have.
func (f *itemFields) Has(string) bool { return true }
