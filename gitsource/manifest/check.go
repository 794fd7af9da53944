package manifest

import (
	"encoding"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"reflect"
	"strings"
	"sync"
)

// checker compares a value with the Go type it is to become, so that every unknown field and wrong type of an
// object is found at once, each with its line. The decoder itself stops at the first.
type checker struct {
	secret bool // never show what was written
	found  func(v *value, field, message string)
}

var (
	jsonUnmarshaler = reflect.TypeFor[json.Unmarshaler]()
	textUnmarshaler = reflect.TypeFor[encoding.TextUnmarshaler]()
)

func (c *checker) check(v *value, t reflect.Type, path string) {
	for t.Kind() == reflect.Pointer {
		t = t.Elem()
	}
	if v.data == nil { // null means absent
		return
	}
	if p := reflect.PointerTo(t); p.Implements(jsonUnmarshaler) || p.Implements(textUnmarshaler) {
		c.unmarshals(v, t, path)
		return
	}
	switch t.Kind() {
	case reflect.Struct:
		c.object(v, t, path)
	case reflect.Map:
		m, ok := v.data.(*mapping)
		if !ok {
			c.want(v, path, "a mapping")
			return
		}
		for _, e := range m.members {
			c.check(e.value, t.Elem(), path+"["+e.key+"]")
		}
	case reflect.Slice:
		if t.Elem().Kind() == reflect.Uint8 {
			c.bytes(v, path)
			return
		}
		items, ok := v.data.([]*value)
		if !ok {
			c.want(v, path, "a list")
			return
		}
		for i, e := range items {
			c.check(e, t.Elem(), item(path, i))
		}
	default:
		c.scalar(v, t, path)
	}
}

func (c *checker) object(v *value, t reflect.Type, path string) {
	m, ok := v.data.(*mapping)
	if !ok {
		c.want(v, path, "a mapping")
		return
	}
	known := fieldsOf(t)
	for _, e := range m.members {
		field, ok := known[e.key]
		if !ok {
			message := "unknown field"
			if near := nearest(e.key, known); near != "" {
				message += fmt.Sprintf(" (did you mean %q?)", near)
			}
			c.found(e.value, child(path, e.key), message)
			continue
		}
		c.check(e.value, field, child(path, e.key))
	}
}

func (c *checker) bytes(v *value, path string) {
	s, ok := v.data.(string)
	if !ok {
		c.want(v, path, "a base64 string")
		return
	}
	if _, err := base64.StdEncoding.DecodeString(s); err != nil {
		c.found(v, path, "is not base64 (plain text belongs into stringData)")
	}
}

func (c *checker) scalar(v *value, t reflect.Type, path string) {
	switch t.Kind() {
	case reflect.String:
		if _, ok := v.data.(string); !ok {
			c.want(v, path, "a string; quote it")
		}
	case reflect.Bool:
		if _, ok := v.data.(bool); !ok {
			c.want(v, path, "true or false")
		}
	case reflect.Int, reflect.Int8, reflect.Int16, reflect.Int32, reflect.Int64, reflect.Uint, reflect.Uint8, reflect.Uint16, reflect.Uint32, reflect.Uint64:
		if json.Unmarshal(v.appendJSON(nil), reflect.New(t).Interface()) != nil {
			c.want(v, path, "a whole number ("+t.Kind().String()+")")
		}
	case reflect.Float32, reflect.Float64:
		if json.Unmarshal(v.appendJSON(nil), reflect.New(t).Interface()) != nil {
			c.want(v, path, "a number")
		}
	}
}

// unmarshals asks the type itself, such as a quantity or a time.
func (c *checker) unmarshals(v *value, t reflect.Type, path string) {
	err := json.Unmarshal(v.appendJSON(nil), reflect.New(t).Interface())
	if err == nil {
		return
	}
	name := map[string]string{"Quantity": `a quantity such as "250m" or "64Mi"`, "IntOrString": "a whole number or a string",
		"Time": "a time such as 2006-01-02T15:04:05Z", "MicroTime": "a time such as 2006-01-02T15:04:05.000000Z", "Duration": "a duration such as 1m30s"}[t.Name()]
	if name == "" {
		name = "a " + t.Name()
	}
	c.want(v, path, name)
}

func (c *checker) want(v *value, path, want string) {
	got := v.String()
	if c.secret {
		got = v.kind()
	}
	c.found(v, path, fmt.Sprintf("has the wrong type (got %s, want %s)", got, want))
}

var fieldCache sync.Map // reflect.Type → map[string]reflect.Type; only ever grows to the number of API types

// fieldsOf returns the JSON fields of a struct type, those of inlined structs included.
func fieldsOf(t reflect.Type) map[string]reflect.Type {
	if known, ok := fieldCache.Load(t); ok {
		return known.(map[string]reflect.Type)
	}
	known := map[string]reflect.Type{}
	for i := range t.NumField() {
		f := t.Field(i)
		name, _, _ := strings.Cut(f.Tag.Get("json"), ",")
		switch {
		case name == "-" || !f.IsExported():
		case name == "" && f.Anonymous:
			inner := f.Type
			if inner.Kind() == reflect.Pointer {
				inner = inner.Elem()
			}
			for k, v := range fieldsOf(inner) {
				known[k] = v
			}
		case name == "":
			known[f.Name] = f.Type
		default:
			known[name] = f.Type
		}
	}
	fieldCache.Store(t, known)
	return known
}

// nearest returns the known name that key was probably meant to be, or "".
func nearest[T any](key string, known map[string]T) string {
	best, at := "", 3
	for name := range known {
		d := distance(strings.ToLower(key), strings.ToLower(name))
		if d < at || d == at && best != "" && name < best {
			best, at = name, d
		}
	}
	if at >= len(key) {
		return ""
	}
	return best
}

// distance counts the insertions, deletions and replacements between two short words.
func distance(a, b string) int {
	if len(a)-len(b) > 2 || len(b)-len(a) > 2 {
		return 3
	}
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		diagonal := row[0]
		row[0] = i + 1
		for j := range len(b) {
			cost := diagonal
			if a[i] != b[j] {
				cost++
			}
			diagonal = row[j+1]
			row[j+1] = min(cost, row[j]+1, row[j+1]+1)
		}
	}
	return row[len(b)]
}
