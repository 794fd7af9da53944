package manifest

import (
	"bytes"
	"fmt"
	"runtime"
	"strings"
	"testing"

	"github.com/slipway-dev/slipway/gitsource"
)

const head = "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: a}\ndata:\n"

// bomb nests aliases: each level repeats the one above nine times.
func bomb(levels int) string {
	var b strings.Builder
	b.WriteString(head + "  a0: &a0 [x,x,x,x,x,x,x,x,x]\n")
	for i := 1; i < levels; i++ {
		fmt.Fprintf(&b, "  a%d: &a%d [%s]\n", i, i, strings.TrimSuffix(strings.Repeat(fmt.Sprintf("*a%d,", i-1), 9), ","))
	}
	return b.String()
}

// TestHostileDocuments looks at size and depth. That each ends is the point; what it costs is in the benchmark.
func TestHostileDocuments(t *testing.T) {
	const million = 1_000_000
	tests := []struct{ name, text, want string }{
		{"alias bomb", bomb(12), "is too large once aliases are expanded"},
		{"alias of itself", head + "  a: &a [*a]\n", "contains itself"},
		{"merge bomb", strings.ReplaceAll(bomb(12), "[*a", "[<<, *a"), "is too large once aliases are expanded"},
		{"deep flow lists", head + "  a: " + strings.Repeat("[", million), "exceeded max depth"},
		{"deep flow mappings", head + "  a: " + strings.Repeat("{a: ", million/2), "exceeded max depth"},
		{"deep block lists", head + "  a:\n    " + strings.Repeat("- ", million), "exceeded max depth"},
		{"deep lists that end", head + "  a: " + strings.Repeat("[", 5000) + strings.Repeat("]", 5000), "is nested too deeply"},
		{"many values", head + "  a: [" + strings.Repeat("1,", 700_000) + "]\n", "is too large"},
		{"large document", head + "  a: " + strings.Repeat("x", maxDocumentBytes), "document is too large"},
		{"anchors and nothing else", head + "  a: [" + strings.Repeat("&a x,", 100_000) + "]\n", "has the wrong type"},
		{"comments and nothing else", head + strings.Repeat("#\n", million), ""},
		{"indented comments", head + "  a: b\n" + strings.Repeat("    # c\n", 300_000), ""},
		{"quotes", head + "  a: " + strings.Repeat(`"a": `, 300_000), "is not valid YAML"},
		{"question marks", head + strings.Repeat("? ", million), "exceeded max depth"},
		{"many keys", head + manyKeys(200_000), ""},
		{"long line of plain text", head + "  a: " + strings.Repeat("a ", million/3), ""},
		{"tags", head + "  a: " + strings.Repeat("!a ", million/2), "is not valid YAML"},
		{"nul bytes", head + strings.Repeat("\x00", million), "is not valid YAML"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			_, problems := Read(snapshot("a.yaml", tt.text), Options{})
			got := strings.Join(lines(problems, Problem.String), "\n")
			if tt.want == "" && got != "" || !strings.Contains(got, tt.want) {
				t.Errorf("got %.300q, want %q", got, tt.want)
			}
			if len(got) > 1000 {
				t.Errorf("the answer has %d bytes", len(got))
			}
		})
	}
}

func manyKeys(n int) string {
	var b strings.Builder
	for i := range n {
		fmt.Fprintf(&b, "  k%d: v\n", i)
	}
	return b.String()
}

func TestHostileJSON(t *testing.T) {
	for name, text := range map[string]string{
		"deep":       `{"apiVersion":"v1","kind":"X","a":` + strings.Repeat(`[`, 1_000_000),
		"deep close": `{"apiVersion":"v1","kind":"X","a":` + strings.Repeat(`{"a":`, 500) + "1" + strings.Repeat(`}`, 501),
		"two":        `{"apiVersion":"v1","kind":"X"} {}`,
	} {
		if _, problems := Read(snapshot("a.json", text), Options{}); len(problems) != 1 {
			t.Errorf("%s: got %v, want one problem", name, problems)
		}
	}
}

func TestTreeBounds(t *testing.T) {
	t.Run("a large file", func(t *testing.T) {
		snap := &gitsource.Snapshot{Files: []gitsource.File{{Path: "a.yaml", Data: make([]byte, gitsource.MaxFileBytes+1)}}}
		_, problems := Read(snap, Options{})
		if len(problems) != 1 || !strings.Contains(problems[0].String(), "a.yaml: file is too large (got 8388609 bytes") {
			t.Errorf("got %v", problems)
		}
	})
	t.Run("100,000 files", func(t *testing.T) {
		var snap gitsource.Snapshot
		for i := range 100_000 {
			snap.Files = append(snap.Files, gitsource.File{Path: fmt.Sprintf("f%06d.yaml", i), Data: []byte(configMap(fmt.Sprintf("c%d", i)))})
		}
		result, problems := Read(&snap, Options{})
		if len(problems) > maxProblems+1 || !strings.Contains(problems[len(problems)-1].Message, "too many manifest files") {
			t.Errorf("got %d problems, the last %v", len(problems), problems[len(problems)-1])
		}
		if len(result.Objects) > gitsource.MaxFiles {
			t.Errorf("read %d objects", len(result.Objects))
		}
	})
	t.Run("many wrong objects", func(t *testing.T) {
		_, problems := Read(snapshot("a.yaml", strings.Repeat("apiVersion: v1\nkind: ConfigMap\nmetadata: {name: a, x: y}\n---\n", 5000)), Options{})
		if len(problems) != maxProblems+1 || problems[0].Message != "9000 further problems are not shown" {
			t.Errorf("got %d problems, the first %v", len(problems), problems[0])
		}
	})
}

func FuzzRead(f *testing.F) {
	for _, seed := range []string{web, bomb(3), head, "a: &a\n  <<: *a\n", "apiVersion: v1\nkind: List\nitems: [{apiVersion: v1, kind: List, items: [null, 1, {}]}]\n",
		"--- {apiVersion: v1, kind: Pod, metadata: 1, spec: []}\n...\n%YAML 1.1\n---\nkind: !!binary aGk=\napiVersion: !!str 1\n", "{\"apiVersion\": \"v1\", \"kind\": \"Secret\", \"data\": {\"a\": null}}"} {
		f.Add([]byte(seed), "spec.containers[0]")
	}
	f.Fuzz(func(t *testing.T, data []byte, field string) {
		for _, name := range []string{"a.yaml", "a.json"} {
			result, problems := Read(&gitsource.Snapshot{Files: []gitsource.File{{Path: name, Data: data}}}, Options{})
			last := 2 + bytes.Count(data, []byte("\n")) + bytes.Count(data, []byte("\r"))
			for _, o := range result.Objects {
				if line := o.FieldLine(field); o.Line < 1 || line < 1 {
					t.Errorf("%s on line %d, %s on line %d", o, o.Line, field, line)
				}
			}
			for _, p := range problems {
				if p.Path == "" || p.Message == "" || p.Line < 0 || p.Line > last && !bytes.ContainsAny(data, "\u0085\u2028\u2029") {
					t.Errorf("%#v of %d lines", p, last)
				}
			}
		}
	})
}

func BenchmarkHostile(b *testing.B) {
	for _, c := range []struct{ name, text string }{
		{"alias bomb", bomb(12)},
		{"many values", head + "  a: [" + strings.Repeat("1,", 700_000) + "]\n"},
		{"deep", head + "  a: " + strings.Repeat("[", 1_000_000)},
		{"comments", head + strings.Repeat("#\n", 1_000_000)},
		{"mapping", head + manyKeys(200_000)},
	} {
		b.Run(c.name, func(b *testing.B) {
			snap := snapshot("a.yaml", c.text)
			b.ReportAllocs()
			for b.Loop() {
				Read(snap, Options{})
			}
		})
	}
}

// BenchmarkRead is a tree of 1,000 applications with four objects each.
func BenchmarkRead(b *testing.B) {
	var snap gitsource.Snapshot
	for i := range 1000 {
		name := fmt.Sprintf("app-%d", i)
		text := strings.ReplaceAll(strings.ReplaceAll(web, "name: web", "name: "+name), "shop", name) + "---\n" + configMap(name) + "---\n" + configMap(name+"-x") +
			"---\napiVersion: v1\nkind: Service\nmetadata: {name: " + name + "}\nspec:\n  selector: {app: web}\n  ports: [{port: 80}]\n"
		snap.Files = append(snap.Files, gitsource.File{Path: name + ".yaml", Data: []byte(text)})
	}
	for name, read := range map[string]func(*gitsource.Snapshot, Options) (Result, []Problem){"all": Read, "unchanged": NewReader().Read} {
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			var result Result
			for b.Loop() {
				var problems []Problem
				if result, problems = read(&snap, Options{}); len(problems) > 0 {
					b.Fatal(problems[0])
				}
			}
			runtime.KeepAlive(result)
			b.ReportMetric(float64(len(result.Objects)), "objects")
		})
	}
}
