package manifest

import (
	"encoding/json"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"sigs.k8s.io/yaml"

	"github.com/slipway-dev/slipway/gitsource"
	"github.com/slipway-dev/slipway/testing/need"
)

// tree reads a directory as a source would.
func tree(t testing.TB, dir string) *gitsource.Snapshot {
	t.Helper()
	var snap gitsource.Snapshot
	err := filepath.WalkDir(dir, func(name string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if name != dir && strings.HasPrefix(d.Name(), ".") {
			if d.IsDir() {
				return filepath.SkipDir
			}
			return nil
		}
		if !d.Type().IsRegular() || !gitsource.IsManifest(name) {
			return nil
		}
		data, err := os.ReadFile(name)
		if err != nil {
			return err
		}
		rel, err := filepath.Rel(dir, name)
		snap.Files = append(snap.Files, gitsource.File{Path: filepath.ToSlash(rel), Data: data})
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	slices.SortFunc(snap.Files, func(a, b gitsource.File) int { return strings.Compare(a.Path, b.Path) })
	return &snap
}

// corpus counts what each repository holds. problems leaves out duplicates, which come from overlays and variants
// in one tree.
var corpus = map[string]struct{ objects, problems int }{
	"AudiusProject+audius-k8s-manifests":     {30, 4},
	"GoogleCloudPlatform+microservices-demo": {112, 4},
	"dockersamples+example-voting-app":       {9, 0},
	"fluxcd+flux2-kustomize-helm-example":    {3, 0},
	"fluxcd+flux2-multi-tenancy":             {3, 0},
	"kubernetes-sigs+kustomize":              {24, 18},
	"kubernetes-up-and-running+examples":     {31, 2},
	"python-discord+infra":                   {110, 0},
	"sholdee+home-ops":                       {80, 2},
	"stefanprodan+podinfo":                   {34, 0},
}

func TestCorpusIsRead(t *testing.T) {
	repos := filepath.Join(need.Corpus(t), "repos")
	entries, err := os.ReadDir(repos)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		t.Run(e.Name(), func(t *testing.T) {
			snap := tree(t, filepath.Join(repos, e.Name()))
			result, problems := Read(snap, Options{})
			t.Logf("%d files, %d objects, %d notes, %d problems", len(snap.Files), len(result.Objects), len(result.NotActedOn), len(problems))
			problems = slices.DeleteFunc(problems, func(p Problem) bool { return p.rank == rankDuplicate })
			for _, p := range problems {
				t.Log(p)
				if p.Path == "" || p.Line == 0 || p.Message == "" {
					t.Errorf("problem without a place: %#v", p)
				}
			}
			for _, o := range result.Objects {
				if got := o.FieldLine("metadata"); got < o.Line {
					t.Errorf("%s:%d: %s: metadata is on line %d", o.Path, o.Line, o, got)
				}
			}
			if want, ok := corpus[e.Name()]; ok && (len(result.Objects) != want.objects || len(problems) != want.problems) {
				t.Errorf("got %d objects and %d problems, want %d and %d", len(result.Objects), len(problems), want.objects, want.problems)
			}
		})
	}
}

func TestVotingAppLines(t *testing.T) {
	dir := filepath.Join(need.Corpus(t), "repos", "dockersamples+example-voting-app")
	result, problems := Read(tree(t, dir), Options{Path: "k8s-specifications"})
	if len(problems) != 0 {
		t.Fatal(problems)
	}
	var got []string
	for _, o := range result.Objects {
		field := "spec.template.spec.containers[0].image"
		if o.Kind.Kind == "Service" {
			field = "spec.ports[0].port"
		}
		got = append(got, fmt.Sprintf("%s:%d %s %d", o.Path, o.Line, o, o.FieldLine(field)))
	}
	want := []string{
		"k8s-specifications/db-deployment.yaml:1 Deployment/default/db 18",
		"k8s-specifications/db-service.yaml:1 Service/default/db 11",
		"k8s-specifications/redis-deployment.yaml:1 Deployment/default/redis 18",
		"k8s-specifications/redis-service.yaml:1 Service/default/redis 11",
		"k8s-specifications/result-deployment.yaml:1 Deployment/default/result 18",
		"k8s-specifications/result-service.yaml:1 Service/default/result 11",
		"k8s-specifications/vote-deployment.yaml:1 Deployment/default/vote 18",
		"k8s-specifications/vote-service.yaml:1 Service/default/vote 11",
		"k8s-specifications/worker-deployment.yaml:1 Deployment/default/worker 18",
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
}

// TestScalarsAreReadAsKubernetesDoes compares every document of the corpus with what Kubernetes' own conversion
// makes of it.
func TestScalarsAreReadAsKubernetesDoes(t *testing.T) {
	repos := filepath.Join(need.Corpus(t), "repos")
	compared := 0
	for _, f := range tree(t, repos).Files {
		if filepath.Ext(f.Path) == ".json" {
			continue
		}
		for _, doc := range split(f.Data) {
			if compareWithUpstream(t, f.Path, doc) {
				compared++
			}
		}
	}
	if compared < 3000 {
		t.Errorf("compared %d documents, want the whole corpus", compared)
	}
}

func compareWithUpstream(t *testing.T, name string, doc document) bool {
	t.Helper()
	theirs, err := yaml.YAMLToJSONStrict(doc.text)
	v, twice, ours := parseYAML(doc.text)
	if err != nil || ours != nil || v == nil || len(twice) > 0 {
		if err == nil && ours != nil && !strings.Contains(ours.Error(), "tag") {
			t.Errorf("%s:%d: only Kubernetes can read it: %v", name, doc.line, ours)
		}
		if err != nil && ours == nil && v != nil && len(twice) == 0 {
			t.Errorf("%s:%d: only we can read it: %v", name, doc.line, err)
		}
		return false
	}
	var got, want any
	if err := json.Unmarshal(v.appendJSON(nil), &got); err != nil {
		t.Fatalf("%s:%d: %v", name, doc.line, err)
	}
	if err := json.Unmarshal(theirs, &want); err != nil {
		t.Fatalf("%s:%d: %v", name, doc.line, err)
	}
	if diff := cmp.Diff(withoutNulls(want), withoutNulls(got)); diff != "" {
		t.Errorf("%s:%d: %s", name, doc.line, diff)
	}
	return true
}

func withoutNulls(v any) any {
	switch v := v.(type) {
	case map[string]any:
		for k, e := range v {
			if e == nil {
				delete(v, k)
				continue
			}
			v[k] = withoutNulls(e)
		}
	case []any:
		for i := range v {
			v[i] = withoutNulls(v[i])
		}
	}
	return v
}
