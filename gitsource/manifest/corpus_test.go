package manifest

import (
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

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

func TestCorpus(t *testing.T) {
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
			for _, p := range problems {
				t.Log(p)
			}
		})
	}
}
