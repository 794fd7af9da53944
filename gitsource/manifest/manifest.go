// Package manifest reads the objects in a snapshot of plain YAML and JSON files: which file and line each comes
// from, what is wrong with the tree, all of it at once, and what the tree asks for that is not acted on.
//
// It is pure and reads snapshots only: it opens no file, follows no link and knows no cluster. What it reads may be
// hostile: time and memory are bounded by the constants below and in package gitsource.
package manifest

import (
	"crypto/sha256"
	"fmt"
	"path"
	"runtime"
	"slices"
	"strings"
	"sync"

	"github.com/slipway-dev/slipway/apiserver/api"
	"github.com/slipway-dev/slipway/gitsource"
)

// Bounds on one document. The first is what the Kubernetes API accepts as one request.
const (
	maxDocumentBytes = 3 << 20
	maxNodes         = 500_000 // values in a document, aliases expanded
	maxDepth         = 100     // levels of nesting
	maxObjects       = 100_000 // objects in a tree
	maxProblems      = 1_000   // problems reported of a tree
)

// Options choose what is read.
type Options struct {
	Path string // folder inside the tree; empty: all of it
}

// Result is what a tree asks for.
type Result struct {
	Objects    []Object // sorted by path, then in the order written
	NotActedOn []Note
}

// Object is one object of a tree.
type Object struct {
	Object api.Object // typed, its namespace filled in, nothing else defaulted; shared: must not be changed
	Kind   *api.Kind
	Path   string
	Line   int // of its first key

	// JSON is what was written, for server-side apply and for comparing: keys sorted, namespace filled in, without
	// nulls, status and the metadata that a server sets.
	JSON []byte

	source document // with the lines before it
	json   bool
	inside []int // position in nested Lists
}

// String names the object for people: Kind/namespace/name.
func (o Object) String() string {
	return name(o.Kind.Kind, o.Object.GetNamespace(), o.Object.GetName())
}

// FieldLine returns the line of a field such as spec.template.spec.containers[0].image, or of its nearest parent
// that is written. It reads the document again: objects do not keep their lines.
func (o Object) FieldLine(field string) int {
	v, _, err := parse(o.source, o.json)
	if err != nil || v == nil {
		return o.Line
	}
	for _, i := range o.inside {
		items, _ := v.member("items").items()
		if i >= len(items) {
			return o.Line
		}
		v = items[i]
	}
	return o.source.line + locate(v, field)
}

func (v *value) items() ([]*value, bool) {
	if v == nil {
		return nil, false
	}
	items, ok := v.data.([]*value)
	return items, ok
}

func name(kind, namespace, name string) string {
	if namespace == "" {
		return kind + "/" + name
	}
	return kind + "/" + namespace + "/" + name
}

// Read reads every object of a snapshot. With problems the result holds what could be read and must not be applied
// or pruned by; the last problem is the one to mend first.
func Read(snap *gitsource.Snapshot, opts Options) (Result, []Problem) {
	return NewReader().Read(snap, opts)
}

// Reader reads one snapshot after another. A file that did not change since the last one is not read again.
type Reader struct {
	mu   sync.Mutex
	last map[string]remembered // by path
}

// remembered is what a file with this content holds.
type remembered struct {
	content [sha256.Size]byte
	found   found
}

// NewReader returns a Reader that has read nothing.
func NewReader() *Reader { return &Reader{} }

// Read is the function Read. It may be called by several goroutines, one at a time being read.
func (rd *Reader) Read(snap *gitsource.Snapshot, opts Options) (Result, []Problem) {
	rd.mu.Lock()
	defer rd.mu.Unlock()
	files, problems := choose(snap, opts)
	helm := findCharts(files)
	result := Result{NotActedOn: helm.notes(files)}
	for _, r := range rd.readAll(files, helm) {
		result.Objects = append(result.Objects, r.objects...)
		result.NotActedOn = append(result.NotActedOn, r.notes...)
		problems = append(problems, r.problems...)
	}
	if n := len(result.Objects); n > maxObjects {
		problems = append(problems, Problem{Path: result.Objects[maxObjects].Path, rank: rankLimit, Message: fmt.Sprintf("too many objects in the tree (got %d, want at most %d)", n, maxObjects)})
	}
	problems = append(problems, duplicates(result.Objects)...)
	slices.SortStableFunc(result.NotActedOn, func(a, b Note) int { return strings.Compare(a.Path, b.Path) })
	return result, arrange(problems)
}

// choose returns the files to read and what is wrong with the choice.
func choose(snap *gitsource.Snapshot, opts Options) ([]gitsource.File, []Problem) {
	var budget gitsource.Budget
	folder := path.Clean(opts.Path)
	if path.IsAbs(folder) || folder == ".." || strings.HasPrefix(folder, "../") {
		return nil, []Problem{{Path: opts.Path, rank: rankLimit, Message: "is not a folder inside the tree"}}
	}
	var files []gitsource.File
	var problems []Problem
	for _, f := range snap.Files {
		if folder != "." && !strings.HasPrefix(f.Path, folder+"/") || !gitsource.IsManifest(f.Path) {
			continue
		}
		if err := budget.Add(f.Path, int64(len(f.Data))); err != nil {
			problems = append(problems, Problem{Path: f.Path, rank: rankLimit, Message: strings.TrimPrefix(err.Error(), f.Path+": ")})
			if len(problems) > maxProblems {
				break
			}
			continue
		}
		files = append(files, f)
	}
	if len(files) == 0 && len(problems) == 0 && folder != "." {
		problems = append(problems, Problem{Path: folder, rank: rankLimit, Message: "holds no manifests: no such folder in the tree, or no .yaml, .yml or .json file in it"})
	}
	return files, problems
}

// readAll reads files in parallel and returns what was found in their order. It remembers these files only.
func (rd *Reader) readAll(files []gitsource.File, helm charts) []found {
	results := make([]remembered, len(files))
	next := make(chan int)
	var wg sync.WaitGroup
	for range min(runtime.GOMAXPROCS(0), len(files)) {
		wg.Go(func() {
			for i := range next {
				content := sha256.Sum256(files[i].Data)
				if known, ok := rd.last[files[i].Path]; ok && known.content == content {
					results[i] = known
					continue
				}
				results[i] = remembered{content, readFile(files[i])}
			}
		})
	}
	for i, f := range files {
		if !helm.holds(f.Path) {
			next <- i
		}
	}
	close(next)
	wg.Wait()
	rd.last = make(map[string]remembered, len(files))
	all := make([]found, len(files))
	for i, r := range results {
		all[i] = r.found
		if r.content != [sha256.Size]byte{} { // not a chart's
			rd.last[files[i].Path] = r
		}
	}
	return all
}

// duplicates finds objects that are in the tree more than once.
func duplicates(objects []Object) []Problem {
	type identity struct {
		kind            *api.Kind
		namespace, name string
	}
	first := make(map[identity]*Object, len(objects))
	var problems []Problem
	for i := range objects {
		o := &objects[i]
		id := identity{o.Kind, o.Object.GetNamespace(), o.Object.GetName()}
		if before, ok := first[id]; ok {
			problems = append(problems, Problem{Path: o.Path, Line: o.Line, Object: o.String(), rank: rankDuplicate,
				Message: fmt.Sprintf("is in the tree twice (first at %s:%d)", before.Path, before.Line)})
			continue
		}
		first[id] = o
	}
	return problems
}
