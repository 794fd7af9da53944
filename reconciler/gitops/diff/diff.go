// Package diff says which fields differ between two states of an object, in words a person reads:
// "spec.template.spec.containers[0].image: nginx:1 → nginx:2". It is pure. It never shows a Secret's values, and it
// does not decide whether a difference matters.
package diff

import (
	"encoding/json"
	"fmt"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/runtime"

	"github.com/slipway-dev/slipway/apiserver/api"
)

// Change is one field that differs.
type Change struct {
	Path string // spec.template.spec.containers[0].image
	Old  string // shortened for people; empty: was not set
	New  string // shortened for people; empty: is not set any more
	// Hidden says the values are secret: Old and New are empty or "…".
	Hidden bool
}

// String returns "path: old → new".
func (c Change) String() string {
	switch {
	case c.Hidden && c.Old != "" && c.New != "":
		return c.Path + ": changed"
	case c.Hidden && c.New != "":
		return c.Path + ": added"
	case c.Hidden, c.New == "":
		return c.Path + ": removed"
	case c.Old == "":
		return c.Path + ": " + c.New + " (new)"
	default:
		return c.Path + ": " + c.Old + " → " + c.New
	}
}

// Objects returns what differs between two states of one object, sorted by path. Status and the metadata a server
// keeps are left out, and so are the annotations named in ignore.
func Objects(before, after api.Object, ignore ...string) ([]Change, error) {
	old, err := content(before, ignore)
	if err != nil {
		return nil, err
	}
	new, err := content(after, ignore)
	if err != nil {
		return nil, err
	}
	_, secret := after.(*corev1.Secret)
	return values(old, new, secret), nil
}

// serverFields are the metadata that no manifest decides.
var serverFields = []string{"managedFields", "resourceVersion", "generation", "uid", "creationTimestamp", "selfLink"}

func content(obj api.Object, ignore []string) (map[string]any, error) {
	m, err := runtime.DefaultUnstructuredConverter.ToUnstructured(obj)
	if err != nil {
		return nil, fmt.Errorf("convert %T %s: %w", obj, obj.GetName(), err)
	}
	delete(m, "status")
	meta, _ := m["metadata"].(map[string]any)
	for _, field := range serverFields {
		delete(meta, field)
	}
	annotations, _ := meta["annotations"].(map[string]any)
	for _, name := range ignore {
		delete(annotations, name)
	}
	if len(annotations) == 0 {
		delete(meta, "annotations")
	}
	return m, nil
}

func values(old, new map[string]any, secret bool) []Change {
	r := &reporter{secret: secret}
	x, y := pair(old, new)
	cmp.Equal(x, y, cmp.Reporter(r), cmp.FilterPath(isIndex, cmp.Ignore()))
	slices.SortFunc(r.changes, func(a, b Change) int { return strings.Compare(a.Path, b.Path) })
	return r.changes
}

// list stands for a slice while comparing: its elements by a key that stays the same when others come and go.
type list map[string]element

type element struct {
	Index int // for display only; never compared
	Value any
}

func isIndex(p cmp.Path) bool {
	field, ok := p.Last().(cmp.StructField)
	return ok && field.Name() == "Index"
}

// pair prepares two values for comparison: slices become lists keyed by the elements' names where every element on
// both sides has a name of its own, by position otherwise.
func pair(x, y any) (any, any) {
	if xs, ys, ok := both[[]any](x, y); ok {
		named := unique(xs) && unique(ys)
		a, b := keyed(xs, named), keyed(ys, named)
		for key, ea := range a {
			eb, found := b[key]
			ea.Value, eb.Value = pair(ea.Value, eb.Value)
			a[key] = ea
			if found {
				b[key] = eb
			}
		}
		return a, b
	}
	if xs, ys, ok := both[map[string]any](x, y); ok {
		a, b := make(map[string]any, len(xs)), make(map[string]any, len(ys))
		for key, vb := range ys {
			b[key] = vb
		}
		for key, va := range xs {
			vb, found := ys[key]
			if !found {
				a[key] = va
				continue
			}
			a[key], b[key] = pair(va, vb)
		}
		return a, b
	}
	return x, y
}

func both[T any](x, y any) (a, b T, ok bool) {
	a, okA := x.(T)
	b, okB := y.(T)
	return a, b, okA && okB
}

func nameOf(v any) string {
	m, _ := v.(map[string]any)
	name, _ := m["name"].(string)
	return name
}

func unique(items []any) bool {
	seen := map[string]bool{}
	for _, item := range items {
		name := nameOf(item)
		if name == "" || seen[name] {
			return false
		}
		seen[name] = true
	}
	return true
}

func keyed(items []any, named bool) list {
	out := make(list, len(items))
	for i, item := range items {
		key := strconv.Itoa(i)
		if named {
			key = nameOf(item)
		}
		out[key] = element{Index: i, Value: item}
	}
	return out
}

// reporter collects differences as field paths. It implements the interface cmp.Reporter wants.
type reporter struct {
	path    cmp.Path
	secret  bool
	changes []Change
}

func (r *reporter) PushStep(step cmp.PathStep) { r.path = append(r.path, step) }
func (r *reporter) PopStep()                   { r.path = r.path[:len(r.path)-1] }

func (r *reporter) Report(result cmp.Result) {
	if result.Equal() {
		return
	}
	path, first := r.fieldPath()
	vx, vy := r.path.Last().Values()
	c := Change{Path: path, Hidden: r.secret && hides(first, path)}
	if vx.IsValid() {
		c.Old = show(vx.Interface(), c.Hidden)
	}
	if vy.IsValid() {
		c.New = show(vy.Interface(), c.Hidden)
	}
	r.changes = append(r.changes, c)
}

// hides says whether a Secret's field may hold what must not be shown: everything but its labels and the like.
func hides(first, path string) bool {
	return first == "data" || first == "stringData" || strings.Contains(path, "last-applied-configuration")
}

// fieldPath renders the path as people write it and returns its first field as well.
func (r *reporter) fieldPath() (path, first string) {
	var b strings.Builder
	for _, step := range r.path {
		index, ok := step.(cmp.MapIndex)
		if !ok {
			continue
		}
		vx, vy := index.Values()
		if e, ok := asElement(vy, vx); ok {
			fmt.Fprintf(&b, "[%d]", e.Index)
			continue
		}
		key := index.Key().String()
		switch {
		case b.Len() == 0:
			first = key
			b.WriteString(key)
		case strings.ContainsAny(key, "./[] "):
			fmt.Fprintf(&b, "[%s]", key)
		default:
			b.WriteString("." + key)
		}
	}
	return b.String(), first
}

// show renders a value on one short line.
func show(v any, hidden bool) string {
	if hidden {
		return "…"
	}
	if e, ok := v.(element); ok {
		v = e.Value
	}
	s, ok := v.(string)
	if !ok {
		raw, err := json.Marshal(plain(v))
		if err != nil {
			return fmt.Sprintf("%T", v)
		}
		s = string(raw)
	}
	if s == "" || strings.ContainsAny(s, "\n\r\t") {
		s = strconv.Quote(s)
	}
	return shorten(s, 80)
}

// plain undoes keyed, for a value shown as a whole.
func plain(v any) any {
	l, ok := v.(list)
	if !ok {
		return v
	}
	out := make([]any, len(l))
	for _, e := range l {
		if e.Index < len(out) {
			out[e.Index] = e.Value
		}
	}
	return out
}

// shorten cuts s after at most max bytes, between runes.
func shorten(s string, max int) string {
	if len(s) <= max {
		return s
	}
	for max > 0 && !utf8.RuneStart(s[max]) {
		max--
	}
	return s[:max] + "…"
}

// asElement returns the first of values that is there, if it is an element of a list.
func asElement(values ...reflect.Value) (element, bool) {
	for _, v := range values {
		if v.IsValid() {
			e, ok := v.Interface().(element)
			return e, ok
		}
	}
	return element{}, false
}
