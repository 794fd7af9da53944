package manifest

import (
	"bytes"
	"errors"
	"fmt"
	"path"
	"reflect"
	"regexp"
	"strings"

	"k8s.io/apimachinery/pkg/runtime/schema"
	utiljson "k8s.io/apimachinery/pkg/util/json"

	"github.com/slipway-dev/slipway/apiserver/api"
	"github.com/slipway-dev/slipway/gitsource"
)

// found is what one file holds.
type found struct {
	objects  []Object
	notes    []Note
	problems []Problem
}

// place is where an object is written.
type place struct {
	path   string
	doc    document
	json   bool
	inside []int
}

func (p place) line(v *value) int { return p.doc.line + v.line }

// Words of an object's two indispensable keys: a document without them holds no object and is not even parsed.
var (
	apiVersionKey = regexp.MustCompile(`apiVersion["']?\s*:`)
	kindKey       = regexp.MustCompile(`kind["']?\s*:`)
)

func readFile(f gitsource.File) found {
	var r found
	data := bytes.TrimPrefix(f.Data, []byte("\xef\xbb\xbf"))
	if bytes.HasPrefix(data, []byte("\xff\xfe")) || bytes.HasPrefix(data, []byte("\xfe\xff")) {
		r.problems = append(r.problems, Problem{Path: f.Path, rank: rankSyntax, Message: "is not readable text (got UTF-16, want UTF-8)"})
		return r
	}
	if bytes.HasPrefix(data, []byte("version https://git-lfs.github.com/")) {
		r.problems = append(r.problems, Problem{Path: f.Path, Line: 1, rank: rankSyntax, Message: "is a Git LFS pointer, which is not followed: keep the file itself in the repository"})
		return r
	}
	isJSON := path.Ext(f.Path) == ".json"
	docs := []document{{text: data}}
	if !isJSON {
		docs = split(data)
	}
	for _, doc := range docs {
		r.document(place{path: f.Path, doc: doc, json: isJSON})
	}
	if base := path.Base(f.Path); (base == "kustomization.yaml" || base == "kustomization.yml") && len(r.notes)+len(r.problems) == 0 {
		r.notes = append(r.notes, Note{Path: f.Path, Line: 1, Message: "not acted on: Kustomization"})
	}
	return r
}

func parse(doc document, isJSON bool) (*value, []*syntaxError, error) {
	if isJSON {
		return parseJSON(doc.text)
	}
	return parseYAML(doc.text)
}

func (r *found) document(at place) {
	hasVersion, hasKind := apiVersionKey.Match(at.doc.text), kindKey.Match(at.doc.text)
	if !hasVersion && !hasKind {
		return
	}
	v, twice, err := parse(at.doc, at.json)
	if err != nil {
		if hasVersion && hasKind {
			r.problems = append(r.problems, at.syntax(err, rankSyntax))
		}
		return
	}
	if v == nil {
		return
	}
	objects, problems := len(r.objects), len(r.problems)
	r.object(at, v, v.member("apiVersion").text(), v.member("kind").text())
	if len(r.objects) == objects && len(r.problems) == problems {
		return // nothing to act on: its duplicate keys are nobody's concern
	}
	for _, e := range twice {
		problem := at.syntax(e, rankSchema)
		problem.Object = identify(v)
		r.problems = append(r.problems, problem)
	}
}

// syntax turns a parser's error into a Problem.
func (p place) syntax(err error, as rank) Problem {
	problem := Problem{Path: p.path, Line: p.doc.line + 1, Message: err.Error(), rank: as}
	var e *syntaxError
	if errors.As(err, &e) {
		problem.Field = e.field
		if e.line > 0 {
			problem.Line = p.doc.line + e.line
		}
		if e.limit {
			problem.rank = rankLimit
		}
	}
	return problem
}

// identify names what a document seems to hold.
func identify(v *value) string {
	metadata := v.member("metadata")
	return name(v.member("kind").text(), metadata.member("namespace").text(), metadata.member("name").text())
}

// object reads one object, or each item of a List. apiVersion and kind may come from a typed List.
func (r *found) object(at place, v *value, apiVersion, kind string) {
	refuse := func(as rank, field, message string) {
		r.problems = append(r.problems, Problem{Path: at.path, Line: at.doc.line + locate(v, field), Object: identify(v), Field: field, Message: message, rank: as})
	}
	if apiVersion == "" || kind == "" {
		r.incomplete(at, v, apiVersion, kind)
		return
	}
	gv, err := schema.ParseGroupVersion(apiVersion)
	if err != nil {
		refuse(rankObject, "apiVersion", fmt.Sprintf("is not group/version (got %q)", apiVersion))
		return
	}
	if items, ok := v.member("items").items(); ok && strings.HasSuffix(kind, "List") {
		r.list(at, items, apiVersion, strings.TrimSuffix(kind, "List"))
		return
	}
	switch verdict := judge(gv.WithKind(kind)); {
	case verdict.problem != "":
		refuse(rankObject, "kind", verdict.problem)
	case verdict.note != "":
		r.notes = append(r.notes, Note{Path: at.path, Line: at.line(v), Object: identify(v), Message: verdict.note})
	default:
		r.known(at, v, verdict.kind)
	}
}

// incomplete handles a mapping that lacks apiVersion or kind. With a name in its metadata it was meant to be an
// object; letting it pass would prune what it made before.
func (r *found) incomplete(at place, v *value, apiVersion, kind string) {
	missing := "apiVersion"
	if apiVersion != "" {
		missing = "kind"
	}
	_, isString := v.member("kind").anyString()
	switch {
	case (apiVersion != "" || kind != "") && v.member("metadata").member("name") != nil:
		r.problems = append(r.problems, Problem{Path: at.path, Line: at.line(v), Object: identify(v), Field: missing, rank: rankObject, Message: "is missing"})
	case isString && apiVersion == "" && len(at.inside) == 0:
		r.notes = append(r.notes, Note{Path: at.path, Line: at.line(v), Message: fmt.Sprintf("not acted on: has kind %s but no apiVersion", kind)})
	}
}

func (v *value) anyString() (string, bool) {
	if v == nil {
		return "", false
	}
	s, ok := v.data.(string)
	return s, ok && s != ""
}

func (r *found) list(at place, items []*value, apiVersion, kind string) {
	if len(at.inside) >= 4 {
		r.problems = append(r.problems, Problem{Path: at.path, Line: at.doc.line + 1, rank: rankLimit, Message: "Lists are nested too deeply (want at most 4 levels)"})
		return
	}
	for i, v := range items {
		inner := at
		inner.inside = append(at.inside[:len(at.inside):len(at.inside)], i)
		version, name := v.member("apiVersion").text(), v.member("kind").text()
		if kind != "" && version == "" && name == "" {
			version, name = apiVersion, kind
		}
		r.object(inner, v, version, name)
	}
}

// serverSet is the metadata only a server writes. It is in manifests that were exported from a cluster.
var serverSet = []string{"uid", "resourceVersion", "generation", "creationTimestamp", "deletionTimestamp", "deletionGracePeriodSeconds", "managedFields", "selfLink"}

// known reads an object whose kind is in the table.
func (r *found) known(at place, v *value, kind *api.Kind) {
	problems := len(r.problems)
	report := func(v *value, field, message string) {
		r.problems = append(r.problems, Problem{Path: at.path, Line: at.line(v), Object: identify(v), Field: field, Message: message, rank: rankSchema})
	}
	root, ok := v.data.(*mapping)
	if !ok {
		return
	}
	root.remove("status")
	if len(at.inside) > 0 { // an item of a typed List may leave them out
		setDefault(root, "apiVersion", kind.GroupVersion().String(), v.line)
		setDefault(root, "kind", kind.Kind, v.line)
	}
	r.metadata(at, v, kind)
	obj := kind.New()
	c := checker{secret: kind == api.Secrets, found: func(bad *value, field, message string) { report(bad, field, message) }}
	c.check(v, reflect.TypeOf(obj), "")
	for i := range r.problems[problems:] { // c does not know the object's name
		r.problems[problems+i].Object = named(v, kind)
	}
	data := v.appendJSON(nil)
	if err := utiljson.Unmarshal(data, obj); err != nil {
		if len(r.problems) == problems {
			report(v, "", "cannot be decoded: "+shown(err.Error(), kind))
		}
		return
	}
	r.problems = append(r.problems, validate(at, v, kind, obj, r.problems[problems:])...)
	r.objects = append(r.objects, Object{Object: obj, Kind: kind, Path: at.path, Line: at.line(v), JSON: data, source: at.doc, json: at.json, inside: at.inside})
}

func named(v *value, kind *api.Kind) string {
	metadata := v.member("metadata")
	return name(kind.Kind, metadata.member("namespace").text(), metadata.member("name").text())
}

// shown keeps values of Secrets out of messages that were not written here.
func shown(message string, kind *api.Kind) string {
	if kind == api.Secrets {
		return "a value has the wrong type"
	}
	return message
}

func setDefault(m *mapping, key, text string, line int) {
	if i := m.find(key); i >= 0 {
		if m.members[i].value.data == nil {
			m.members[i].value = &value{line: m.members[i].value.line, data: text}
		}
		return
	}
	m.add(key, &value{line: line, data: text})
}

// metadata drops what only a server sets, fills in the namespace and refuses names that are made up on creation.
func (r *found) metadata(at place, v *value, kind *api.Kind) {
	metadata, ok := v.member("metadata").mapping()
	if !ok {
		return
	}
	metadata.remove(serverSet...)
	if g := metadata.get("generateName"); g != nil && g.data != nil {
		r.problems = append(r.problems, Problem{Path: at.path, Line: at.line(g), Field: "metadata.generateName", rank: rankSchema,
			Message: "cannot come from Git: every reading of the tree would make another object (want metadata.name)"})
	}
	if kind.Namespaced {
		if ns := metadata.get("namespace"); ns == nil || ns.data == nil || ns.data == "" {
			metadata.remove("namespace")
			metadata.add("namespace", &value{line: v.member("metadata").line, data: "default"})
		}
		return
	}
	if ns := metadata.get("namespace"); ns != nil && ns.data != nil {
		metadata.remove("namespace")
		r.notes = append(r.notes, Note{Path: at.path, Line: at.line(ns), Object: named(v, kind), Message: fmt.Sprintf("not acted on: metadata.namespace (a %s has none)", kind.Kind)})
	}
}

func (v *value) mapping() (*mapping, bool) {
	if v == nil {
		return nil, false
	}
	m, ok := v.data.(*mapping)
	return m, ok
}
