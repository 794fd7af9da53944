package imagestore

import (
	"context"
	"fmt"
	"time"

	"github.com/containerd/containerd/v2/core/images"
	"github.com/containerd/errdefs"

	"github.com/slipway-dev/slipway/nodeagent/engine/fault"
)

// Labels of an image in containerd. A pull replaces all labels: what a registry has is not "loaded" any more.
const (
	labelLoaded = "io.slipway.image/loaded" // it came from an archive
	labelUsed   = "io.slipway.image/used"   // when its use was noted last
)

// RemoveImage removes an image by its full name. It returns when the content and the layers that nothing else needs
// are gone from the disk. Removing what does not exist is no error; an image that is being pulled is not removed.
func (s *Store) RemoveImage(ctx context.Context, ref string) error {
	ctx = s.in(ctx)
	if s.pulling(ref) {
		return fmt.Errorf("remove image %s: it is being pulled", ref)
	}
	err := s.client.ImageService().Delete(ctx, ref, images.SynchronousDelete())
	s.images.forget(ref)
	if err != nil && !errdefs.IsNotFound(err) {
		return fault.Classify("remove image "+ref, err)
	}
	return nil
}

func (s *Store) pulling(ref string) bool {
	s.pulls.mu.Lock()
	defer s.pulls.mu.Unlock()
	return s.pulls.running[ref] != nil
}

// NoteUse notes with an image that it is used now: its Since begins anew. It outlives restarts.
func (s *Store) NoteUse(ctx context.Context, ref string) error {
	note := images.Image{Name: ref, Labels: map[string]string{labelUsed: time.Now().UTC().Format(time.RFC3339)}}
	_, err := s.client.ImageService().Update(s.in(ctx), note, "labels."+labelUsed)
	if err != nil && !errdefs.IsNotFound(err) {
		return fault.Classify("note use of image "+ref, err)
	}
	return nil
}

// DropLeases lets go of what pulls of an earlier process held that did not end: containerd would keep it for a day.
// It must not be called while images are pulled or loaded.
func (s *Store) DropLeases(ctx context.Context) error {
	ctx = s.in(ctx)
	service := s.client.LeasesService()
	list, err := service.List(ctx)
	if err != nil {
		return fault.Classify("list leases", err)
	}
	for _, lease := range list {
		if err := service.Delete(ctx, lease); err != nil && !errdefs.IsNotFound(err) {
			return fault.Classify("drop lease "+lease.ID, err)
		}
	}
	return nil
}
