package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"time"

	"github.com/slipway-dev/slipway/nodeagent/engine"
)

// archives loads the image archives of --images, and remembers in the data directory which ones are loaded: a start
// that finds an archive unchanged does not read it again, and does not wait for the container runtime.
type archives struct {
	path   string // of the record
	engine engine.Images
	known  map[string]archive // by absolute path
}

// archive is what is remembered of one.
type archive struct {
	Bytes    int64
	Modified time.Time
	Images   []engine.Image
}

func openArchives(path string, images engine.Images) *archives {
	a := &archives{path: path, engine: images, known: map[string]archive{}}
	if data, err := os.ReadFile(path); err == nil {
		_ = json.Unmarshal(data, &a.known) // unreadable: everything is loaded again
	}
	return a
}

// unchanged says whether the archive is the one that was loaded.
func (a *archives) unchanged(path string) bool {
	info, err := os.Stat(path)
	known, ok := a.known[path]
	return err == nil && ok && info.Size() == known.Bytes && info.ModTime().Equal(known.Modified)
}

// load reads an archive into the engine. While the engine is away it waits for it.
func (a *archives) load(ctx context.Context, path string) ([]engine.Image, error) {
	for {
		loaded, err := a.loadOnce(ctx, path)
		if !errors.Is(err, engine.ErrUnavailable) {
			return loaded, err
		}
		select {
		case <-time.After(engineRetry):
		case <-ctx.Done():
			return nil, err
		}
	}
}

// engineRetry is how long a runtime that is starting again is left alone.
const engineRetry = 200 * time.Millisecond

func (a *archives) loadOnce(ctx context.Context, path string) ([]engine.Image, error) {
	file, err := os.Open(path)
	if err != nil {
		return nil, usage("--images: %w", err)
	}
	defer file.Close()
	info, err := file.Stat()
	if err != nil {
		return nil, usage("--images: %w", err)
	}
	loaded, err := a.engine.Load(ctx, file)
	if err != nil {
		return nil, fmt.Errorf("load images of %s: %w", path, err)
	}
	a.known[path] = archive{Bytes: info.Size(), Modified: info.ModTime(), Images: loaded}
	return loaded, a.save()
}

// restore loads again what is known as loaded and is not in the engine any more.
func (a *archives) restore(ctx context.Context, paths []string) error {
	for _, path := range paths {
		for _, image := range a.known[path].Images {
			found, err := a.engine.Image(ctx, image.Ref)
			if err == nil && found.ID == image.ID {
				continue
			}
			if err != nil && !errors.Is(err, engine.ErrImageNotFound) {
				return err
			}
			if _, err := a.load(ctx, path); err != nil {
				return err
			}
			break
		}
	}
	return nil
}

// save replaces the record. Losing it only costs time.
func (a *archives) save() error {
	data, err := json.Marshal(a.known)
	if err != nil {
		return err
	}
	next := a.path + ".next"
	if err := os.WriteFile(next, data, 0o600); err != nil {
		return fmt.Errorf("note the images that are loaded: %w", err)
	}
	return os.Rename(next, a.path)
}
