package manifest

import (
	"fmt"
	"slices"
	"strings"
)

// Problem is one thing wrong with a tree.
type Problem struct {
	Path    string // file, as in the snapshot
	Line    int    // 1-based; 0: the file as a whole
	Object  string // "Kind/namespace/name", without what is not known
	Field   string // such as spec.template.spec.containers[0].image
	Message string // what is wrong (got X, want Y)

	rank rank
}

// rank orders problems for reading: the last line on the terminal is the one to mend first.
type rank int

const (
	rankValue     rank = iota // validation found a bad value
	rankDuplicate             // the same object twice
	rankSchema                // unknown field, wrong type
	rankObject                // not recognisable as an object
	rankSyntax                // not YAML or JSON at all
	rankLimit                 // too large to look at
)

// String returns the line shown to people: path/file.yaml:LINE: Kind/namespace/name: field: what is wrong.
func (p Problem) String() string { return join(p.Path, p.Line, p.Object, p.Field, p.Message) }

// Error makes a Problem usable as an error.
func (p Problem) Error() string { return p.String() }

// Note is something a tree asks for that this version does not act on.
type Note struct {
	Path    string
	Line    int
	Object  string
	Message string
}

// String returns the line shown to people.
func (n Note) String() string { return join(n.Path, n.Line, n.Object, n.Message) }

func join(path string, line int, parts ...string) string {
	var b strings.Builder
	b.WriteString(path)
	if line > 0 {
		fmt.Fprintf(&b, ":%d", line)
	}
	for _, part := range parts {
		if part != "" {
			b.WriteString(": ")
			b.WriteString(part)
		}
	}
	return b.String()
}

// arrange sorts problems so that the most useful is last, and keeps the number within bounds.
func arrange(problems []Problem) []Problem {
	slices.SortStableFunc(problems, func(a, b Problem) int {
		if a.rank != b.rank {
			return int(a.rank) - int(b.rank)
		}
		if a.Path != b.Path {
			return strings.Compare(a.Path, b.Path)
		}
		return a.Line - b.Line
	})
	if extra := len(problems) - maxProblems; extra > 0 {
		first := problems[extra]
		problems = problems[extra-1:]
		problems[0] = Problem{Path: first.Path, Message: fmt.Sprintf("%d further problems are not shown", extra+1)}
	}
	return problems
}
