package containerd

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"sync"

	"github.com/containerd/containerd/v2/client"
	"github.com/containerd/containerd/v2/core/content"
	"github.com/containerd/containerd/v2/core/images"
	"github.com/containerd/errdefs"
	"github.com/containerd/platforms"
	"github.com/distribution/reference"
	"github.com/opencontainers/image-spec/identity"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/slipway-dev/slipway/nodeagent/engine"
	"github.com/slipway-dev/slipway/nodeagent/engine/runspec"
)

// imageInfo is an image with all that is needed to make a container of it.
type imageInfo struct {
	engine.Image
	chainID string // key of its topmost layer
	config  runspec.Image
}

// imageCache remembers images, so that making a container asks nothing twice.
type imageCache struct {
	mu    sync.Mutex
	byRef map[string]imageInfo
}

func (c *imageCache) get(ref string) (imageInfo, bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	info, ok := c.byRef[ref]
	return info, ok
}

func (c *imageCache) put(info imageInfo) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.byRef[info.Ref] = info
}

func (c *imageCache) forget(ref string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	delete(c.byRef, ref)
}

// normalise gives an image name its full form: "redis:7" is "docker.io/library/redis:7".
func normalise(ref string) (string, error) {
	named, err := reference.ParseDockerRef(ref)
	if err != nil {
		return "", fmt.Errorf("%w: %q: %v", engine.ErrImageName, ref, err)
	}
	return named.String(), nil
}

// Image returns a present image.
func (e *Engine) Image(ctx context.Context, ref string) (engine.Image, error) {
	info, err := e.imageOf(e.in(ctx), ref)
	return info.Image, err
}

// imageOf finds a present image and unpacks it when that has not been done for this snapshotter.
func (e *Engine) imageOf(ctx context.Context, ref string) (imageInfo, error) {
	name, err := normalise(ref)
	if err != nil {
		return imageInfo{}, err
	}
	if info, ok := e.images.get(name); ok {
		return info, nil
	}
	img, err := e.client.ImageService().Get(ctx, name)
	if errdefs.IsNotFound(err) {
		return imageInfo{}, fmt.Errorf("%w: %s is not on this node", engine.ErrImageNotFound, name)
	}
	if err != nil {
		return imageInfo{}, classify("look up image "+name, err)
	}
	return e.unpacked(ctx, img)
}

func (e *Engine) unpacked(ctx context.Context, img images.Image) (imageInfo, error) {
	info, err := e.describe(ctx, img)
	if err != nil {
		return imageInfo{}, err
	}
	layers := e.client.SnapshotService(e.snap)
	layer, err := layers.Stat(ctx, info.chainID)
	if errdefs.IsNotFound(err) {
		if err = client.NewImage(e.client, img).Unpack(ctx, e.snap); err == nil {
			layer, err = layers.Stat(ctx, info.chainID)
		}
	}
	if err != nil {
		return imageInfo{}, classify("unpack image "+img.Name, err)
	}
	if err := e.inspect(ctx, layer, &info.config); err != nil {
		return imageInfo{}, fmt.Errorf("read image %s: %w", img.Name, err)
	}
	e.images.put(info)
	return info, nil
}

// describe reads an image's manifest and configuration.
func (e *Engine) describe(ctx context.Context, img images.Image) (imageInfo, error) {
	store := e.client.ContentStore()
	platform := platforms.Default()
	manifest, err := images.Manifest(ctx, store, img.Target, platform)
	if errdefs.IsNotFound(err) {
		return imageInfo{}, fmt.Errorf("%w: %s is not whole or not for %s: %v", engine.ErrImageNotFound, img.Name,
			platforms.DefaultString(), plain(err))
	}
	if err != nil {
		return imageInfo{}, classify("read image "+img.Name, err)
	}
	data, err := content.ReadBlob(ctx, store, manifest.Config)
	if err != nil {
		return imageInfo{}, classify("read image "+img.Name, err)
	}
	var config ocispec.Image
	if err := json.Unmarshal(data, &config); err != nil {
		return imageInfo{}, fmt.Errorf("read configuration of image %s: %w", img.Name, err)
	}
	info := imageInfo{
		Image:   engine.Image{Ref: img.Name, ID: img.Target.Digest.String(), User: config.Config.User},
		chainID: identity.ChainID(config.RootFS.DiffIDs).String(),
		config: runspec.Image{
			Entrypoint: config.Config.Entrypoint, Cmd: config.Config.Cmd, Env: config.Config.Env,
			User: config.Config.User, WorkDir: config.Config.WorkingDir, StopSignal: config.Config.StopSignal,
		},
	}
	info.Bytes = manifest.Config.Size
	for _, layer := range manifest.Layers {
		info.Bytes += layer.Size
	}
	return info, nil
}

// ListImages returns all present images, sorted by name.
func (e *Engine) ListImages(ctx context.Context) ([]engine.Image, error) {
	ctx = e.in(ctx)
	all, err := e.client.ImageService().List(ctx)
	if err != nil {
		return nil, classify("list images", err)
	}
	list := make([]engine.Image, 0, len(all))
	for _, img := range all {
		info, ok := e.images.get(img.Name)
		if !ok {
			if info, err = e.describe(ctx, img); errors.Is(err, engine.ErrImageNotFound) {
				continue
			}
			if err != nil {
				return nil, err
			}
		}
		list = append(list, info.Image)
	}
	slices.SortFunc(list, func(a, b engine.Image) int { return strings.Compare(a.Ref, b.Ref) })
	return list, nil
}

// Load reads an archive and unpacks the images in it.
func (e *Engine) Load(ctx context.Context, archive io.Reader) ([]engine.Image, error) {
	ctx = e.in(ctx)
	ctx, release, err := e.client.WithLease(ctx)
	if err != nil {
		return nil, classify("load images", err)
	}
	defer release(context.WithoutCancel(ctx))
	loaded, err := e.client.Import(ctx, archive)
	if err != nil {
		return nil, classify("load images", err)
	}
	var list []engine.Image
	for _, img := range loaded {
		if img, err = e.rename(ctx, img); err != nil {
			return nil, err
		}
		e.images.forget(img.Name)
		info, err := e.unpacked(ctx, img)
		if err != nil {
			return nil, err
		}
		list = append(list, info.Image)
	}
	if len(list) == 0 {
		return nil, errors.New("load images: the archive names no image")
	}
	slices.SortFunc(list, func(a, b engine.Image) int { return strings.Compare(a.Ref, b.Ref) })
	return list, nil
}

// rename gives a loaded image its full name.
func (e *Engine) rename(ctx context.Context, img images.Image) (images.Image, error) {
	name, err := normalise(img.Name)
	if err != nil {
		return images.Image{}, fmt.Errorf("load images: %w", err)
	}
	if name == img.Name {
		return img, nil
	}
	store := e.client.ImageService()
	old := img.Name
	img.Name = name
	if _, err = store.Update(ctx, img, "target"); errdefs.IsNotFound(err) {
		_, err = store.Create(ctx, img)
	}
	if err != nil {
		return images.Image{}, classify("name image "+name, err)
	}
	if err := store.Delete(ctx, old); err != nil && !errdefs.IsNotFound(err) {
		return images.Image{}, classify("name image "+name, err)
	}
	return img, nil
}
