package manifest

import (
	"path"
	"strings"

	"github.com/slipway-dev/slipway/gitsource"
)

// chartParts are what belongs to a chart that is the whole tree.
var chartParts = []string{"templates", "charts", "crds", "ci"}

// charts are the folders that hold a Helm chart. Their templates are not manifests.
type charts map[string]bool

func findCharts(files []gitsource.File) charts {
	found := charts{}
	for _, f := range files {
		if base := path.Base(f.Path); base == "Chart.yaml" || base == "Chart.yml" {
			found[path.Dir(f.Path)] = true
		}
	}
	return found
}

// holds says whether a file belongs to a chart.
func (c charts) holds(name string) bool {
	if len(c) == 0 {
		return false
	}
	for dir := path.Dir(name); dir != "."; dir = path.Dir(dir) {
		if c[dir] {
			return true
		}
	}
	if !c["."] {
		return false
	}
	top, _, nested := strings.Cut(name, "/")
	if !nested {
		return true
	}
	for _, part := range chartParts {
		if top == part {
			return true
		}
	}
	return false
}

// notes says once per outermost chart that it is not acted on.
func (c charts) notes(files []gitsource.File) []Note {
	var notes []Note
	for _, f := range files {
		dir := path.Dir(f.Path)
		if strings.HasPrefix(path.Base(f.Path), "Chart.y") && c[dir] && (dir == "." || !c.holds(dir)) {
			notes = append(notes, Note{Path: f.Path, Line: 1, Message: "not acted on: Helm chart"})
		}
	}
	return notes
}
