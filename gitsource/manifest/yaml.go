package manifest

import (
	"bytes"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"math"
	"regexp"
	"strconv"
	"strings"

	"go.yaml.in/yaml/v3"
)

// syntaxError says why a document cannot be read. line counts from the document's first line, 1-based.
type syntaxError struct {
	line    int
	field   string
	message string
	limit   bool
}

func (e *syntaxError) Error() string { return e.message }

// parseYAML reads one document. Duplicate keys are returned beside the value. Scalars are resolved as Kubernetes'
// own tools do: YAML 1.1, where an unquoted yes, no, on, off, y or n is a boolean.
func parseYAML(text []byte) (v *value, duplicates []*syntaxError, err error) {
	if len(text) > maxDocumentBytes {
		return nil, nil, &syntaxError{limit: true, message: fmt.Sprintf("document is too large (got %d bytes, want at most %d)", len(text), maxDocumentBytes)}
	}
	root, err := parseNode(text)
	if err != nil || root == nil {
		return nil, nil, err
	}
	b := builder{expanding: map[*yaml.Node]bool{}}
	v, err = b.build(root, "", 0)
	return v, b.duplicates, err
}

// parseNode runs the YAML parser. It returns nil for a document without content.
func parseNode(text []byte) (root *yaml.Node, err error) {
	defer func() {
		if r := recover(); r != nil { // the parser's own mistake must not end the process
			root, err = nil, &syntaxError{message: fmt.Sprintf("YAML parser gave up: %v", r)}
		}
	}()
	decoder := yaml.NewDecoder(bytes.NewReader(text))
	var doc yaml.Node
	switch err := decoder.Decode(&doc); {
	case errors.Is(err, io.EOF):
		return nil, nil
	case err != nil:
		return nil, yamlError(err)
	}
	var more yaml.Node
	if err := decoder.Decode(&more); err == nil {
		return nil, &syntaxError{line: more.Line, message: "a second document begins inside a line"}
	} else if !errors.Is(err, io.EOF) {
		return nil, yamlError(err)
	}
	if doc.Kind == yaml.DocumentNode && len(doc.Content) == 1 {
		return doc.Content[0], nil
	}
	return nil, nil
}

var yamlLine = regexp.MustCompile(`^line (\d+): `)

func yamlError(err error) *syntaxError {
	message := strings.TrimPrefix(err.Error(), "yaml: ")
	e := &syntaxError{message: "is not valid YAML: " + message}
	if m := yamlLine.FindStringSubmatch(message); m != nil {
		e.line, _ = strconv.Atoi(m[1])
		e.message = "is not valid YAML: " + message[len(m[0]):]
	}
	e.limit = strings.Contains(message, "exceeded max depth")
	return e
}

// builder turns parser nodes into values: aliases and merge keys are expanded within bounds.
type builder struct {
	duplicates []*syntaxError
	expanding  map[*yaml.Node]bool
	nodes      int
	bytes      int
}

func (b *builder) build(n *yaml.Node, path string, depth int) (*value, error) {
	if err := b.count(n, path, depth); err != nil {
		return nil, err
	}
	v := &value{line: n.Line}
	switch n.Kind {
	case yaml.AliasNode:
		if b.expanding[n.Alias] {
			return nil, &syntaxError{line: n.Line, field: path, message: fmt.Sprintf("alias *%s contains itself", n.Value)}
		}
		b.expanding[n.Alias] = true
		inner, err := b.build(n.Alias, path, depth+1)
		delete(b.expanding, n.Alias)
		if err != nil {
			return nil, err
		}
		v.data = inner.data
	case yaml.ScalarNode:
		data, err := scalar(n)
		if err != nil {
			return nil, &syntaxError{line: n.Line, field: path, message: err.Error()}
		}
		v.data = data
	case yaml.SequenceNode:
		items := make([]*value, len(n.Content))
		for i, c := range n.Content {
			var err error
			if items[i], err = b.build(c, item(path, i), depth+1); err != nil {
				return nil, err
			}
		}
		v.data = items
	case yaml.MappingNode:
		m, err := b.mapping(n, path, depth)
		if err != nil {
			return nil, err
		}
		v.data = m
	}
	return v, nil
}

func (b *builder) count(n *yaml.Node, path string, depth int) error {
	b.nodes++
	b.bytes += len(n.Value)
	switch {
	case depth > maxDepth:
		return &syntaxError{line: n.Line, limit: true, message: fmt.Sprintf("is nested too deeply (want at most %d levels)", maxDepth)}
	case b.nodes > maxNodes || b.bytes > maxDocumentBytes:
		return &syntaxError{line: n.Line, limit: true, message: fmt.Sprintf("is too large once aliases are expanded (want at most %d values and %d bytes)", maxNodes, maxDocumentBytes)}
	}
	return nil
}

func (b *builder) mapping(n *yaml.Node, path string, depth int) (*mapping, error) {
	m := &mapping{}
	var merges []*yaml.Node
	for i := 0; i+1 < len(n.Content); i += 2 {
		k, c := n.Content[i], n.Content[i+1]
		if k.Kind == yaml.ScalarNode && k.Tag == "!!merge" {
			merges = append(merges, c)
			continue
		}
		key, err := b.key(k)
		if err != nil {
			return nil, &syntaxError{line: k.Line, field: path, message: err.Error()}
		}
		field := child(path, key)
		inner, err := b.build(c, field, depth+1)
		if err != nil {
			return nil, err
		}
		inner.line = k.Line
		if first := m.get(key); first != nil {
			b.duplicates = append(b.duplicates, &syntaxError{line: k.Line, field: field, message: fmt.Sprintf("is set twice (first %s)", linesUp(k.Line, first.line))})
			continue
		}
		m.add(key, inner)
	}
	for _, c := range merges {
		if err := b.merge(m, c, path, depth); err != nil {
			return nil, err
		}
	}
	return m, nil
}

func linesUp(line, first int) string {
	switch line - first {
	case 0:
		return "on the same line"
	case 1:
		return "one line above"
	}
	return fmt.Sprintf("%d lines above", line-first)
}

// merge adds the members of a merge key's value that m does not have.
func (b *builder) merge(m *mapping, n *yaml.Node, path string, depth int) error {
	v, err := b.build(n, path, depth+1)
	if err != nil {
		return err
	}
	sources, ok := v.data.([]*value)
	if !ok {
		sources = []*value{v}
	}
	for _, s := range sources {
		from, ok := s.data.(*mapping)
		if !ok {
			return &syntaxError{line: n.Line, field: path, message: fmt.Sprintf("merge key << is wrong (got %s, want a mapping)", s.kind())}
		}
		for _, e := range from.members {
			if m.find(e.key) < 0 {
				m.add(e.key, e.value)
			}
		}
	}
	return nil
}

// key returns a mapping key as the string JSON has for it.
func (b *builder) key(n *yaml.Node) (string, error) {
	if n.Kind == yaml.AliasNode {
		n = n.Alias
	}
	if n.Kind != yaml.ScalarNode {
		return "", errors.New("a key is not a string (got a mapping or list)")
	}
	data, err := scalar(n)
	if err != nil {
		return "", err
	}
	switch d := data.(type) {
	case nil:
		return "", errors.New("a key is empty (got null, want a string)")
	case string:
		return d, nil
	case float64:
		return strconv.FormatFloat(d, 'g', -1, 32), nil
	}
	return fmt.Sprint(data), nil
}

// scalar resolves a scalar to nil, bool, int64, uint64, float64 or string.
func scalar(n *yaml.Node) (any, error) {
	if n.Style&yaml.TaggedStyle != 0 {
		return tagged(n)
	}
	switch n.Tag {
	case "!!str":
		if n.Style == 0 {
			if b, ok := boolean(n.Value); ok {
				return b, nil
			}
		}
	case "!!bool":
		return strings.EqualFold(n.Value, "true"), nil
	case "!!null":
		return nil, nil
	case "!!int":
		return integer(n.Value), nil
	case "!!float":
		return float(n.Value)
	}
	return n.Value, nil // strings; timestamps and << are strings to Kubernetes
}

func tagged(n *yaml.Node) (any, error) {
	plain := *n
	plain.Style, plain.Tag = 0, ""
	switch n.Tag {
	case "!!str":
		return n.Value, nil
	case "!!binary":
		data, err := base64.StdEncoding.DecodeString(strings.Join(strings.Fields(n.Value), ""))
		if err != nil {
			return nil, errors.New("!!binary is not base64")
		}
		return string(data), nil
	case "!!null", "!!bool", "!!int", "!!float", "!!timestamp":
		plain.Tag = plain.ShortTag()
		if plain.Tag != n.Tag && !(plain.Tag == "!!int" && n.Tag == "!!float") {
			return nil, fmt.Errorf("is not a %s", strings.TrimPrefix(n.Tag, "!!"))
		}
		return scalar(&plain)
	}
	return nil, fmt.Errorf("has the tag %s, which Kubernetes does not know", n.Tag)
}

// boolean reads the words that are booleans in YAML 1.1 only.
func boolean(s string) (value, ok bool) {
	switch s {
	case "y", "Y", "yes", "Yes", "YES", "on", "On", "ON":
		return true, true
	case "n", "N", "no", "No", "NO", "off", "Off", "OFF":
		return false, true
	}
	return false, false
}

// integer reads what the parser resolved as an integer. 0o17 is YAML 1.2 and a string to Kubernetes.
func integer(s string) any {
	if strings.HasPrefix(s, "0o") || strings.HasPrefix(s, "-0o") {
		return s
	}
	plain := strings.ReplaceAll(s, "_", "")
	if i, err := strconv.ParseInt(plain, 0, 64); err == nil {
		return i
	}
	if u, err := strconv.ParseUint(plain, 0, 64); err == nil {
		return u
	}
	return s
}

func float(s string) (any, error) {
	f, err := strconv.ParseFloat(strings.ReplaceAll(s, "_", ""), 64)
	if err != nil || math.IsInf(f, 0) || math.IsNaN(f) {
		return nil, fmt.Errorf("is not a number JSON can hold (got %s)", s)
	}
	return f, nil
}
