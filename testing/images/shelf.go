package images

import (
	"context"
	"fmt"
	"io"
	"sync"

	"github.com/google/go-containerregistry/pkg/registry"
	v1 "github.com/google/go-containerregistry/pkg/v1"
)

// blobs is what a registry's store can do.
type blobs interface {
	registry.BlobHandler
	registry.BlobStatHandler
	registry.BlobPutHandler
}

// shelf is a registry's store of blobs: layers of images pushed in this process are read where they are, whatever else
// is uploaded is kept in memory.
type shelf struct {
	blobs
	mu     sync.Mutex
	layers map[v1.Hash]v1.Layer
}

func newShelf() (*shelf, error) {
	memory, ok := registry.NewInMemoryBlobHandler().(blobs)
	if !ok {
		return nil, fmt.Errorf("serve registry: its store in memory cannot be written to")
	}
	return &shelf{blobs: memory, layers: map[v1.Hash]v1.Layer{}}, nil
}

// add puts an image's layers on the shelf; pushing them then finds them there.
func (s *shelf) add(image v1.Image) error {
	layers, err := image.Layers()
	if err != nil {
		return err
	}
	for _, layer := range layers {
		hash, err := layer.Digest()
		if err != nil {
			return err
		}
		s.mu.Lock()
		s.layers[hash] = layer
		s.mu.Unlock()
	}
	return nil
}

func (s *shelf) layer(h v1.Hash) (v1.Layer, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	layer, ok := s.layers[h]
	return layer, ok
}

// Stat implements registry.BlobStatHandler.
func (s *shelf) Stat(ctx context.Context, repo string, h v1.Hash) (int64, error) {
	if layer, ok := s.layer(h); ok {
		return layer.Size()
	}
	return s.blobs.Stat(ctx, repo, h)
}

// Get implements registry.BlobHandler.
func (s *shelf) Get(ctx context.Context, repo string, h v1.Hash) (io.ReadCloser, error) {
	if layer, ok := s.layer(h); ok {
		return layer.Compressed()
	}
	return s.blobs.Get(ctx, repo, h)
}
