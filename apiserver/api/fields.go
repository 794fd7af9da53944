package api

import (
	"fmt"
	"reflect"
	"slices"
	"sort"
	"strings"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	"k8s.io/apimachinery/pkg/util/intstr"
	"k8s.io/apimachinery/pkg/util/validation/field"
)

// ReasonUnsupportedField is the reason of a Pod that is refused because it asks for a restriction this version does
// not enforce.
const ReasonUnsupportedField = "UnsupportedField"

// FieldNote says that an object sets a field this version does not act on.
type FieldNote struct {
	Path    string // from the object's root: spec.template.spec.containers[0].lifecycle
	Note    string // what does not happen
	Refused bool   // the field restricts, or the workload breaks without it: the object must not run
}

// String returns "path: note".
func (n FieldNote) String() string { return n.Path + ": " + n.Note }

// UnsupportedFields returns what spec, of a Pod, asks for that the node agent and scheduler do not do: what is
// ignored, and what must not be. Values equal to Kubernetes' defaults are always supported.
func UnsupportedFields(spec *corev1.PodSpec) (notActedOn, refused []FieldNote) {
	for _, note := range podNotes(spec, field.NewPath("spec")) {
		if note.Refused {
			refused = append(refused, note)
		} else {
			notActedOn = append(notActedOn, note)
		}
	}
	return notActedOn, refused
}

// NotActedOn returns what obj asks for that this version does not do, in the order of fields. Kinds that are acted
// on whole have no notes.
func NotActedOn(obj Object) []FieldNote {
	template := field.NewPath("spec", "template", "spec")
	switch obj := obj.(type) {
	case *corev1.Pod:
		return podNotes(&obj.Spec, field.NewPath("spec"))
	case *appsv1.Deployment:
		return podNotes(&obj.Spec.Template.Spec, template)
	case *appsv1.ReplicaSet:
		return podNotes(&obj.Spec.Template.Spec, template)
	case *corev1.Service:
		var notes []FieldNote
		serviceSupport.visit(reflect.ValueOf(&obj.Spec).Elem(), field.NewPath("spec"), &notes)
		return notes
	}
	return nil
}

func podNotes(spec *corev1.PodSpec, path *field.Path) []FieldNote {
	var notes []FieldNote
	podSupport.visit(reflect.ValueOf(spec).Elem(), path, &notes)
	return notes
}

// how says what becomes of a field.
type how int

const (
	done    how = iota // acted on
	ignored            // accepted, nothing happens: harmless
	refused            // must not be ignored
)

// support is a row of a table of fields.
type support struct {
	how  how
	note string   // what does not happen; for done rows empty
	fine []string // values, or keys of a map, that are acted on or change nothing, whatever how says
	// when says, from the struct the field is in, whether the row holds; nil: always. Else the field is done.
	when func(in reflect.Value) bool
}

// supportNode is a compiled table: what to do with a value and the fields below it.
type supportNode struct {
	row    *support
	fields []supportField // when there is no row
}

type supportField struct {
	index int
	name  string // "" for an embedded struct
	node  *supportNode
}

var (
	podSupport, podMissing         = compileSupport[corev1.PodSpec](podRows())
	serviceSupport, serviceMissing = compileSupport[corev1.ServiceSpec](serviceRows)
)

// compileSupport turns rows into a tree over T. missing names the leaves without a row and the rows without a
// field; a test wants none.
func compileSupport[T any](rows map[string]support) (root *supportNode, missing []string) {
	c := supportCompiler{rows: rows, used: map[string]bool{}}
	root = c.compile("", reflect.TypeFor[T]())
	for path := range rows {
		if !c.used[path] {
			c.missing = append(c.missing, "row without a field: "+path)
		}
	}
	sort.Strings(c.missing)
	return root, c.missing
}

type supportCompiler struct {
	rows    map[string]support
	used    map[string]bool
	missing []string
}

func (c *supportCompiler) compile(path string, t reflect.Type) *supportNode {
	if row, ok := c.rows[path]; ok {
		c.used[path] = true
		if below := elementOf(t); row.how == done && len(row.fine) == 0 && below.Kind() == reflect.Struct && !leafTypes[below] {
			c.missing = append(c.missing, "done, but not a leaf: "+path)
		}
		return &supportNode{row: &row}
	}
	switch t.Kind() {
	case reflect.Pointer:
		return c.compile(path, t.Elem())
	case reflect.Slice:
		return c.compile(path+"[]", t.Elem())
	case reflect.Struct:
		node := &supportNode{}
		for i := range t.NumField() {
			f := t.Field(i)
			name, _, _ := strings.Cut(f.Tag.Get("json"), ",")
			below := path
			if name != "" {
				below = strings.TrimPrefix(path+"."+name, ".")
			}
			node.fields = append(node.fields, supportField{i, name, c.compile(below, f.Type)})
		}
		return node
	}
	c.missing = append(c.missing, "no row: "+path)
	return nil
}

// leafTypes are structs that are one value.
var leafTypes = map[reflect.Type]bool{reflect.TypeFor[intstr.IntOrString](): true, reflect.TypeFor[resource.Quantity](): true}

// elementOf looks through pointers and slices.
func elementOf(t reflect.Type) reflect.Type {
	for t.Kind() == reflect.Pointer || t.Kind() == reflect.Slice {
		t = t.Elem()
	}
	return t
}

// visit adds a note for each field below v that is set and not acted on.
func (n *supportNode) visit(v reflect.Value, path *field.Path, notes *[]FieldNote) {
	if n == nil || n.row != nil && n.row.how == done {
		return
	}
	switch v.Kind() {
	case reflect.Pointer:
		if !v.IsNil() {
			n.visitSet(v.Elem(), path, notes)
		}
		return
	case reflect.Slice, reflect.Map:
		if v.Len() == 0 {
			return
		}
	default:
		if v.IsZero() {
			return
		}
	}
	n.visitSet(v, path, notes)
}

// visitSet is visit for a value that is set, be it to zero.
func (n *supportNode) visitSet(v reflect.Value, path *field.Path, notes *[]FieldNote) {
	switch {
	case n.row != nil && v.Kind() == reflect.Map:
		n.visitKeys(v, path, notes)
	case n.row != nil:
		if len(n.row.fine) == 0 || !slices.Contains(n.row.fine, fmt.Sprint(v.Interface())) {
			*notes = append(*notes, FieldNote{Path: path.String(), Note: n.row.note, Refused: n.row.how == refused})
		}
	case v.Kind() == reflect.Slice:
		for i := range v.Len() {
			n.visit(v.Index(i), path.Index(i), notes)
		}
	default:
		for _, f := range n.fields {
			if f.node != nil && f.node.row != nil && f.node.row.when != nil && !f.node.row.when(v) {
				continue
			}
			below := path
			if f.name != "" {
				below = path.Child(f.name)
			}
			f.node.visit(v.Field(f.index), below, notes)
		}
	}
}

func (n *supportNode) visitKeys(v reflect.Value, path *field.Path, notes *[]FieldNote) {
	var keys []string
	for _, key := range v.MapKeys() {
		if !slices.Contains(n.row.fine, key.String()) {
			keys = append(keys, key.String())
		}
	}
	sort.Strings(keys)
	for _, key := range keys {
		*notes = append(*notes, FieldNote{Path: path.Key(key).String(), Note: n.row.note, Refused: n.row.how == refused})
	}
}
