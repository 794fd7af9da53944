// Package arch holds the house rules as tests: which room may import which, and how large things may grow.
package arch

import (
	"go/parser"
	"go/token"
	"io/fs"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/slipway-dev/slipway/testing/need"
)

const module = "github.com/slipway-dev/slipway/"

// rooms says what each folder may import of Slipway's own packages, beside what lies in the same room. The longest
// matching folder counts.
var rooms = map[string][]string{
	"cmd/slipway":              {"apiserver", "gitsource", "reconciler", "nodeagent"},
	"apiserver/api":            {},
	"apiserver/pki":            {},
	"apiserver/store":          {"apiserver/api"},
	"apiserver/registry":       {"apiserver/api", "apiserver/store"},
	"apiserver/event":          {"apiserver/api", "apiserver/store"},
	"apiserver/server":         {"apiserver/api", "apiserver/pki", "apiserver/store", "apiserver/registry"},
	"gitsource":                {"apiserver/api"},
	"reconciler":               {"apiserver/api", "apiserver/store", "apiserver/event", "reconciler/loop"},
	"reconciler/loop":          {"apiserver/api", "apiserver/store"},
	"reconciler/gitops":        {"apiserver/api", "apiserver/store", "apiserver/event", "reconciler/loop", "gitsource"},
	"nodeagent/agent":          {"apiserver/api", "apiserver/store", "apiserver/event", "reconciler/loop", "nodeagent"},
	"nodeagent/lifecycle":      {"apiserver/api", "nodeagent/engine"},
	"nodeagent/engine":         {"nodeagent/cgroup"},
	"nodeagent/runtime":        {},
	"nodeagent/network":        {},
	"nodeagent/proxy":          {"apiserver/api", "apiserver/store", "nodeagent/catalog", "nodeagent/network"},
	"nodeagent/dns":            {"apiserver/api", "apiserver/store", "nodeagent/catalog"},
	"nodeagent/probe":          {"apiserver/api", "nodeagent/engine"},
	"nodeagent/volume":         {"apiserver/api", "apiserver/store"},
	"nodeagent/logs":           {"apiserver/api", "nodeagent/lifecycle"},
	"nodeagent/catalog":        {"apiserver/api", "apiserver/store"},
	"nodeagent/cgroup":         {},
	"nodeagent/limits":         {},
	"nodeagent/stats":          {"apiserver/api"},
	"nodeagent/collect":        {"nodeagent/engine", "nodeagent/stats"},
	"nodeagent/pressure":       {"apiserver/api", "nodeagent/stats"},
	"examples-repo":            {},
	"testing":                  {"apiserver", "gitsource", "reconciler", "nodeagent", "cmd", "examples-repo"},
	"nodeagent/runtime/bundle": {}, // a module of its own
}

// roomOf returns the room a folder belongs to and what it may import.
func roomOf(dir string) (string, []string) {
	for room := dir; room != "."; room = filepath.Dir(room) {
		if allowed, ok := rooms[room]; ok {
			return room, allowed
		}
	}
	return "", nil
}

func TestImportsStayInTheirRooms(t *testing.T) {
	each(t, func(dir, file string, imports []string) {
		room, allowed := roomOf(dir)
		if room == "" {
			t.Errorf("%s: folder %s is in no room of the plan", file, dir)
			return
		}
		if strings.HasSuffix(file, "_test.go") {
			return // a test may put together what it needs
		}
		home := room
		if room == "reconciler" {
			home = controller(dir)
		}
		for _, path := range imports {
			if own := strings.TrimPrefix(path, module); own != path && !below(own, home) && !anyBelow(own, allowed) {
				t.Errorf("%s: %s may not import %s", file, dir, own)
			}
		}
	})
}

func TestTestingIsImportedByTestsOnly(t *testing.T) {
	each(t, func(dir, file string, imports []string) {
		if strings.HasSuffix(file, "_test.go") || below(dir, "testing") || strings.HasSuffix(dir, "test") {
			return
		}
		for _, path := range imports {
			if own := strings.TrimPrefix(path, module); own != path && below(own, "testing") || path == "testing" {
				t.Errorf("%s: imports %s outside a test", file, path)
			}
		}
	})
}

func TestControllersDoNotImportEachOther(t *testing.T) {
	shared := map[string]bool{"reconciler/loop": true}
	each(t, func(dir, file string, imports []string) {
		if !below(dir, "reconciler") || strings.HasSuffix(file, "_test.go") {
			return
		}
		for _, path := range imports {
			own := strings.TrimPrefix(path, module)
			if own != path && below(own, "reconciler") && controller(own) != controller(dir) && !shared[controller(own)] {
				t.Errorf("%s: controller %s imports %s; they meet in stored objects only", file, controller(dir), own)
			}
		}
	})
}

func TestPackagesHaveNoDumpingGrounds(t *testing.T) {
	each(t, func(dir, file string, _ []string) {
		switch filepath.Base(dir) {
		case "util", "utils", "common", "helpers", "misc", "types", "manager":
			t.Errorf("%s: a package is a noun said in one sentence, not %q", file, filepath.Base(dir))
		}
	})
}

// controller returns the first two segments of a path below reconciler.
func controller(dir string) string {
	parts := strings.SplitN(dir, "/", 3)
	return strings.Join(parts[:min(2, len(parts))], "/")
}

func below(path, folder string) bool { return path == folder || strings.HasPrefix(path, folder+"/") }

func anyBelow(path string, folders []string) bool {
	for _, folder := range folders {
		if below(path, folder) {
			return true
		}
	}
	return false
}

// each calls visit for every Go file of the repository with its imports.
func each(t *testing.T, visit func(dir, file string, imports []string)) {
	t.Helper()
	root := need.ModuleRoot()
	files := 0
	err := filepath.WalkDir(root, func(path string, entry fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		name := entry.Name()
		if entry.IsDir() {
			if path != root && (strings.HasPrefix(name, ".") || name == "bin" || name == "build" || name == "dist" || name == "testdata") {
				return filepath.SkipDir
			}
			return nil
		}
		if !strings.HasSuffix(name, ".go") {
			return nil
		}
		parsed, err := parser.ParseFile(token.NewFileSet(), path, nil, parser.ImportsOnly)
		if err != nil {
			return err
		}
		relative, err := filepath.Rel(root, path)
		if err != nil {
			return err
		}
		var imports []string
		for _, spec := range parsed.Imports {
			imported, err := strconv.Unquote(spec.Path.Value)
			if err != nil {
				return err
			}
			imports = append(imports, imported)
		}
		files++
		visit(filepath.ToSlash(filepath.Dir(relative)), filepath.ToSlash(relative), imports)
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if files < 50 {
		t.Fatalf("only %d Go files were found in %s", files, root)
	}
}
