// Package imagestore holds the images of a node in containerd: it pulls, loads, unpacks and looks into them.
//
// It must not know containers.
package imagestore

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
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
	"github.com/slipway-dev/slipway/nodeagent/engine/fault"
	"github.com/slipway-dev/slipway/nodeagent/engine/runspec"
)

// Info is an image with all that is needed to make a container of it.
type Info struct {
	engine.Image
	ChainID string // key of its topmost layer
	Config  runspec.Image
}

// Store is an engine.Images on containerd.
type Store struct {
	client      *client.Client
	snapshotter string
	in          func(context.Context) context.Context
	registries  []Registry
	log         *slog.Logger

	images imageCache
	pulls  pulls
}

var _ engine.Images = (*Store)(nil)

// Config says which containerd to use and how.
type Config struct {
	Client      *client.Client
	Snapshotter string
	Context     func(context.Context) context.Context // puts the containerd namespace into a context
	Registries  []Registry
	Log         *slog.Logger
}

// New returns a store.
func New(cfg Config) *Store {
	return &Store{
		client: cfg.Client, snapshotter: cfg.Snapshotter, in: cfg.Context, registries: cfg.Registries, log: cfg.Log,
		images: imageCache{byRef: map[string]Info{}}, pulls: pulls{running: map[string]*pull{}},
	}
}

// Forget drops what is remembered of an image, because it changed.
func (s *Store) Forget(ref string) { s.images.forget(ref) }

// ForgetAll does so for every image: containerd was away, and may have come back without them.
func (s *Store) ForgetAll() { s.images.forgetAll() }

// imageCache remembers images, so that making a container asks nothing twice.
type imageCache struct {
	mu      sync.Mutex
	byRef   map[string]Info
	changes uint64 // counts what was forgotten
}

// now returns the count of changes, for put.
func (c *imageCache) now() uint64 {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.changes
}

func (c *imageCache) get(ref string) (Info, bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	info, ok := c.byRef[ref]
	return info, ok
}

// put remembers what was read since a count of changes. If anything was forgotten meanwhile, it may have been this.
func (c *imageCache) put(info Info, since uint64) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.changes == since {
		c.byRef[info.Ref] = info
	}
}

func (c *imageCache) forget(ref string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.changes++
	delete(c.byRef, ref)
}

func (c *imageCache) forgetAll() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.changes++
	clear(c.byRef)
}

// Normalise gives an image name its full form: "redis:7" is "docker.io/library/redis:7". The error is ErrImageName.
func Normalise(ref string) (string, error) { return normalise(ref) }

func normalise(ref string) (string, error) {
	named, err := reference.ParseDockerRef(ref)
	if err != nil {
		return "", fmt.Errorf("%w: %q: %w", engine.ErrImageName, ref, err)
	}
	return named.String(), nil
}

// Image returns a present image.
func (s *Store) Image(ctx context.Context, ref string) (engine.Image, error) {
	info, err := s.Lookup(ctx, ref)
	return info.Image, err
}

// Lookup finds a present image and unpacks it when that has not been done for this snapshotter.
func (s *Store) Lookup(ctx context.Context, ref string) (Info, error) {
	ctx = s.in(ctx)
	name, err := normalise(ref)
	if err != nil {
		return Info{}, err
	}
	if info, ok := s.images.get(name); ok {
		return info, nil
	}
	since := s.images.now()
	img, err := s.client.ImageService().Get(ctx, name)
	if errdefs.IsNotFound(err) {
		return Info{}, fmt.Errorf("%w: %s is not on this node", engine.ErrImageNotFound, name)
	}
	if err != nil {
		return Info{}, fault.Classify("look up image "+name, err)
	}
	return s.unpacked(ctx, img, since)
}

// unpacked describes an image that was read since a count of changes of the cache.
func (s *Store) unpacked(ctx context.Context, img images.Image, since uint64) (Info, error) {
	info, err := s.describe(ctx, img)
	if err != nil {
		return Info{}, err
	}
	layers := s.client.SnapshotService(s.snapshotter)
	layer, err := layers.Stat(ctx, info.ChainID)
	if errdefs.IsNotFound(err) {
		if err = client.NewImage(s.client, img).Unpack(ctx, s.snapshotter); err == nil {
			layer, err = layers.Stat(ctx, info.ChainID)
		}
	}
	if err != nil {
		return Info{}, fault.Classify("unpack image "+img.Name, err)
	}
	if err := s.inspect(ctx, layer, &info.Config); err != nil {
		return Info{}, fmt.Errorf("read image %s: %w", img.Name, err)
	}
	s.images.put(info, since)
	return info, nil
}

// describe reads an image's manifest and configuration.
func (s *Store) describe(ctx context.Context, img images.Image) (Info, error) {
	store := s.client.ContentStore()
	platform := platforms.Default()
	manifest, err := images.Manifest(ctx, store, img.Target, platform)
	if errdefs.IsNotFound(err) {
		return Info{}, fmt.Errorf("%w: %s is not whole or not for %s: %w", engine.ErrImageNotFound, img.Name,
			platforms.DefaultString(), fault.Plain(err))
	}
	if err != nil {
		return Info{}, fault.Classify("read image "+img.Name, err)
	}
	data, err := content.ReadBlob(ctx, store, manifest.Config)
	if err != nil {
		return Info{}, fault.Classify("read image "+img.Name, err)
	}
	var config ocispec.Image
	if err := json.Unmarshal(data, &config); err != nil {
		return Info{}, fmt.Errorf("read configuration of image %s: %w", img.Name, err)
	}
	info := Info{
		Image: engine.Image{Ref: img.Name, ID: img.Target.Digest.String(), User: config.Config.User,
			Loaded: img.Labels[labelLoaded] != "", Since: img.UpdatedAt},
		ChainID: identity.ChainID(config.RootFS.DiffIDs).String(),
		Config: runspec.Image{
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
func (s *Store) ListImages(ctx context.Context) ([]engine.Image, error) {
	ctx = s.in(ctx)
	all, err := s.client.ImageService().List(ctx)
	if err != nil {
		return nil, fault.Classify("list images", err)
	}
	list := make([]engine.Image, 0, len(all))
	for _, img := range all {
		info, ok := s.images.get(img.Name)
		if !ok {
			if info, err = s.describe(ctx, img); errors.Is(err, engine.ErrImageNotFound) {
				continue
			}
			if err != nil {
				return nil, err
			}
		}
		info.Loaded, info.Since = img.Labels[labelLoaded] != "", img.UpdatedAt // a note of use changes them
		list = append(list, info.Image)
	}
	slices.SortFunc(list, func(a, b engine.Image) int { return strings.Compare(a.Ref, b.Ref) })
	return list, nil
}

// Load reads an archive and unpacks the images in it.
func (s *Store) Load(ctx context.Context, archive io.Reader) ([]engine.Image, error) {
	ctx = s.in(ctx)
	ctx, release, err := s.client.WithLease(ctx)
	if err != nil {
		return nil, fault.Classify("load images", err)
	}
	defer func() { _ = release(context.WithoutCancel(ctx)) }() // what is held longer is let go of at the next start
	loaded, err := s.client.Import(ctx, archive, client.WithImageLabels(map[string]string{labelLoaded: "archive"}))
	if err != nil {
		return nil, fault.Classify("load images", err)
	}
	var list []engine.Image
	for _, img := range loaded {
		if img, err = s.rename(ctx, img); err != nil {
			return nil, err
		}
		s.images.forget(img.Name)
		info, err := s.unpacked(ctx, img, s.images.now())
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
func (s *Store) rename(ctx context.Context, img images.Image) (images.Image, error) {
	name, err := normalise(img.Name)
	if err != nil {
		return images.Image{}, fmt.Errorf("load images: %w", err)
	}
	if name == img.Name {
		return img, nil
	}
	store := s.client.ImageService()
	old := img.Name
	img.Name = name
	if _, err = store.Update(ctx, img, "target", "labels"); errdefs.IsNotFound(err) {
		_, err = store.Create(ctx, img)
	}
	if err != nil {
		return images.Image{}, fault.Classify("name image "+name, err)
	}
	if err := store.Delete(ctx, old); err != nil && !errdefs.IsNotFound(err) {
		return images.Image{}, fault.Classify("name image "+name, err)
	}
	return img, nil
}
