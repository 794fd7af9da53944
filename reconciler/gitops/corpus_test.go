package gitops

import (
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/slipway-dev/slipway/apiserver/event"
	"github.com/slipway-dev/slipway/apiserver/store/kv/memory"
	"github.com/slipway-dev/slipway/gitsource"
	"github.com/slipway-dev/slipway/gitsource/manifest"
	"github.com/slipway-dev/slipway/reconciler/gitops/plan"
	"github.com/slipway-dev/slipway/testing/need"
)

// Trees people wrote, applied to a real registry, are unchanged when planned again by an engine that remembers
// nothing: what the registry fills in is no difference.
func TestRealTreesConverge(t *testing.T) {
	repos := filepath.Join(need.Corpus(t), "repos")
	folders := manifestFolders(t, repos)
	applied := 0
	for _, folder := range folders {
		snap := snapshotOf(t, filepath.Join(repos, folder))
		tree := plan.Read(manifest.NewReader(), snap, "")
		if len(tree.Problems) > 0 || len(tree.Wants) == 0 {
			continue
		}
		applied++
		t.Run(strings.ReplaceAll(folder, "/", "_"), func(t *testing.T) {
			r := newRig(t, memory.New())
			for _, w := range tree.Wants {
				if w.Namespace == "" || has[*corev1.ServiceAccount](r, w.Namespace, "default") {
					continue
				}
				if !has[*corev1.Namespace](r, "", w.Namespace) {
					r.create(&corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: w.Namespace}})
				}
				r.create(&corev1.ServiceAccount{ObjectMeta: metav1.ObjectMeta{Namespace: w.Namespace, Name: "default"}})
			}
			stop := r.start(Config{})
			r.updates <- gitsource.Update{Snapshot: snap}
			r.await("applied", func(p Progress) bool { return p.Step == StepWorkload || p.Step == StepSettled })
			stop()
			p, problems, err := New(r.gitops, event.Discard, r.log, Config{}).Plan(t.Context(), snap)
			if err != nil || len(problems) > 0 {
				t.Fatal(problems, err)
			}
			for _, a := range p.Actions {
				if a.Op != plan.Unchanged && a.Op != plan.NotActedOn && a.Op != plan.Refused {
					t.Errorf("planned again: %s", a)
				}
			}
		})
	}
	if applied < 5 {
		t.Errorf("only %d of %d trees could be read", applied, len(folders))
	}
}

// manifestFolders returns the folders below root that hold YAML files, at most the first few of each repository.
func manifestFolders(t *testing.T, root string) []string {
	t.Helper()
	const each = 6
	var folders []string
	count, seen := map[string]int{}, map[string]bool{}
	err := filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() || filepath.Ext(path) != ".yaml" {
			return err
		}
		rel, err := filepath.Rel(root, filepath.Dir(path))
		repo, _, _ := strings.Cut(rel, "/")
		if err != nil || seen[rel] || count[repo] >= each {
			return err
		}
		if data, err := os.ReadFile(path); err != nil || !strings.Contains(string(data), "kind: Deployment") {
			return err
		}
		seen[rel] = true
		count[repo]++
		folders = append(folders, rel)
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return folders
}

func snapshotOf(t *testing.T, dir string) *gitsource.Snapshot {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	snap := &gitsource.Snapshot{Revision: gitsource.Revision{ID: strings.Repeat("a", 40)}}
	for _, entry := range entries {
		if !entry.Type().IsRegular() || !gitsource.IsManifest(entry.Name()) {
			continue
		}
		data, err := os.ReadFile(filepath.Join(dir, entry.Name()))
		if err != nil {
			t.Fatal(err)
		}
		snap.Files = append(snap.Files, gitsource.File{Path: entry.Name(), Data: data})
	}
	return snap
}
