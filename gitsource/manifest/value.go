package manifest

import (
	"encoding/json"
	"fmt"
	"slices"
	"strconv"
	"strings"
)

// value is one node of a document: what JSON can say, with the lines it was said on.
type value struct {
	line int // of the key for a member of a mapping, of the value itself otherwise
	data any // nil, bool, int64, uint64, float64, string, []*value or *mapping
}

// mapping keeps its members in the order written.
type mapping struct {
	members []member
	index   map[string]int // made when there are many members
}

type member struct {
	key   string
	value *value
}

// manyMembers is from where on a mapping is searched by an index.
const manyMembers = 12

func (m *mapping) get(key string) *value {
	if i := m.find(key); i >= 0 {
		return m.members[i].value
	}
	return nil
}

func (m *mapping) find(key string) int {
	if m.index != nil {
		if i, ok := m.index[key]; ok {
			return i
		}
		return -1
	}
	return slices.IndexFunc(m.members, func(e member) bool { return e.key == key })
}

func (m *mapping) add(key string, v *value) {
	m.members = append(m.members, member{key, v})
	switch {
	case m.index != nil:
		m.index[key] = len(m.members) - 1
	case len(m.members) == manyMembers:
		m.index = make(map[string]int, 2*manyMembers)
		for i, e := range m.members {
			m.index[e.key] = i
		}
	}
}

func (m *mapping) remove(keys ...string) {
	m.members = slices.DeleteFunc(m.members, func(e member) bool { return slices.Contains(keys, e.key) })
	if m.index != nil {
		clear(m.index)
		for i, e := range m.members {
			m.index[e.key] = i
		}
	}
}

// member returns the value of key when v is a mapping that has it.
func (v *value) member(key string) *value {
	if v == nil {
		return nil
	}
	if m, ok := v.data.(*mapping); ok {
		return m.get(key)
	}
	return nil
}

// text returns the string v holds, or "".
func (v *value) text() string {
	if v == nil {
		return ""
	}
	s, _ := v.data.(string)
	return s
}

// String describes v for a message: scalars as written, at most 60 bytes.
func (v *value) String() string {
	switch d := v.data.(type) {
	case nil:
		return "null"
	case string:
		if len(d) > 60 {
			d = strings.ToValidUTF8(d[:60], "") + "…"
		}
		return "the string " + strconv.Quote(d)
	case *mapping:
		return "a mapping"
	case []*value:
		return "a list"
	case bool:
		return fmt.Sprintf("the boolean %t", d)
	}
	return fmt.Sprintf("the number %v", v.data)
}

// kind describes v without showing what it holds, as messages about Secrets must.
func (v *value) kind() string {
	switch v.data.(type) {
	case nil, *mapping, []*value:
		return v.String()
	case string:
		return "a string"
	case bool:
		return "a boolean"
	}
	return "a number"
}

// appendJSON appends v as JSON with sorted keys. Null members are left out: they mean the same as absent ones.
func (v *value) appendJSON(b []byte) []byte {
	switch d := v.data.(type) {
	case nil:
		return append(b, "null"...)
	case bool:
		return strconv.AppendBool(b, d)
	case int64:
		return strconv.AppendInt(b, d, 10)
	case uint64:
		return strconv.AppendUint(b, d, 10)
	case []*value:
		b = append(b, '[')
		for i, item := range d {
			if i > 0 {
				b = append(b, ',')
			}
			b = item.appendJSON(b)
		}
		return append(b, ']')
	case *mapping:
		return d.appendJSON(b)
	}
	scalar, err := json.Marshal(v.data) // string or finite float64
	if err != nil {
		return append(b, "null"...)
	}
	return append(b, scalar...)
}

func (m *mapping) appendJSON(b []byte) []byte {
	sorted := slices.Clone(m.members)
	slices.SortFunc(sorted, func(x, y member) int { return strings.Compare(x.key, y.key) })
	b = append(b, '{')
	first := true
	for _, e := range sorted {
		if e.value.data == nil {
			continue
		}
		if !first {
			b = append(b, ',')
		}
		first = false
		key, _ := json.Marshal(e.key) // a string always marshals
		b = append(b, key...)
		b = append(b, ':')
		b = e.value.appendJSON(b)
	}
	return append(b, '}')
}
