package main

import (
	"context"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"testing"
	"testing/synctest"

	"github.com/slipway-dev/slipway/nodeagent/engine"
)

// shelf is an engine's images: each archive holds one, named by its text. It is away for as many loads as away says.
type shelf struct {
	engine.Images
	away  int
	loads int
	there map[string]bool
}

func (s *shelf) Load(_ context.Context, archive io.Reader) ([]engine.Image, error) {
	if s.loads++; s.away > 0 {
		s.away--
		return nil, fmt.Errorf("load: %w", engine.ErrUnavailable)
	}
	text, err := io.ReadAll(archive)
	s.there[string(text)] = true
	return []engine.Image{{Ref: string(text), ID: "sha256:" + string(text)}}, err
}

func (s *shelf) Image(_ context.Context, ref string) (engine.Image, error) {
	if !s.there[ref] {
		return engine.Image{}, engine.ErrImageNotFound
	}
	return engine.Image{Ref: ref, ID: "sha256:" + ref}, nil
}

// tarball writes an archive that holds the image named by text.
func tarball(t *testing.T, path, text string) {
	t.Helper()
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

func TestArchivesAreLoadedOnce(t *testing.T) {
	path, record := filepath.Join(t.TempDir(), "a.tar"), filepath.Join(t.TempDir(), "archives.json")
	tarball(t, path, "first")
	s := &shelf{there: map[string]bool{}}
	if _, err := openArchives(record, s).load(t.Context(), path); err != nil {
		t.Fatal(err)
	}
	again := openArchives(record, s)
	if !again.unchanged(path) {
		t.Error("the archive is not known at the second start")
	}
	if err := again.restore(t.Context(), []string{path}); err != nil || s.loads != 1 {
		t.Errorf("an archive whose image is there was loaded %d times: %v", s.loads, err)
	}
	delete(s.there, "first")
	if err := again.restore(t.Context(), []string{path}); err != nil || !s.there["first"] {
		t.Errorf("the image that was gone did not come back: %v", err)
	}
	tarball(t, path, "second")
	if openArchives(record, s).unchanged(path) {
		t.Error("a changed archive counts as loaded")
	}
}

func TestArchivesWaitForTheEngine(t *testing.T) {
	path, record := filepath.Join(t.TempDir(), "a.tar"), filepath.Join(t.TempDir(), "archives.json")
	tarball(t, path, "first")
	synctest.Test(t, func(t *testing.T) {
		s := &shelf{there: map[string]bool{}, away: 3}
		if loaded, err := openArchives(record, s).load(t.Context(), path); err != nil || len(loaded) != 1 {
			t.Errorf("loaded %v: %v", loaded, err)
		}
	})
}
