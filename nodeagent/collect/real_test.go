package collect

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"

	"github.com/slipway-dev/slipway/nodeagent/cgroup"
	"github.com/slipway-dev/slipway/nodeagent/engine"
	"github.com/slipway-dev/slipway/nodeagent/engine/containerd"
	"github.com/slipway-dev/slipway/nodeagent/runtime"
	"github.com/slipway-dev/slipway/nodeagent/stats"
	"github.com/slipway-dev/slipway/testing/images"
	"github.com/slipway-dev/slipway/testing/need"
)

const diskSize = 192 << 20

// realNode is a containerd whose images are on a small file system of their own.
func realNode(t *testing.T, registry *images.Registry) (e *containerd.Engine, disk string) {
	t.Helper()
	bundle, dir := need.Runtime(t), t.TempDir()
	disk = filepath.Join(dir, "disk")
	if err := os.Mkdir(disk, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := unix.Mount("tmpfs", disk, "tmpfs", 0, fmt.Sprintf("size=%d", diskSize)); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := unix.Unmount(disk, unix.MNT_DETACH); err != nil {
			t.Error(err)
		}
	})
	rt, err := runtime.Start(context.WithoutCancel(t.Context()), runtime.Config{BundleDir: bundle, StateDir: filepath.Join(disk, "containerd"), Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := rt.Stop(context.Background()); err != nil {
			t.Errorf("stop containerd: %v", err)
		}
	})
	e, err = containerd.New(context.WithoutCancel(t.Context()), containerd.Config{
		Address: rt.Address(), Shim: rt.Shim(), Runc: rt.Runc(), StateDir: filepath.Join(dir, "engine"), RunDir: filepath.Join(dir, "run"),
		Registries: []containerd.Registry{{Host: registry.Host, PlainHTTP: true}}, Log: slog.New(slog.NewTextHandler(t.Output(), nil)),
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = e.Close() })
	return e, disk
}

// blob makes an image with incompressible content of its own.
func blob(t *testing.T, name string, megabytes int) images.Image {
	t.Helper()
	data := make([]byte, megabytes<<20)
	source := rand.NewChaCha8([32]byte{1, byte(megabytes), name[0]})
	_, _ = source.Read(data)
	image, err := images.FromFiles("docker.io/library/"+name+":1", map[string]images.File{"/data": {Data: data}})
	if err != nil {
		t.Fatal(err)
	}
	return image
}

func names(t *testing.T, e *containerd.Engine) []string {
	t.Helper()
	list, err := e.ListImages(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	var out []string
	for _, i := range list {
		out = append(out, i.Ref[strings.LastIndex(i.Ref, "/")+1:])
	}
	slices.Sort(out)
	return out
}

// entries counts what is in containerd's folders of layers and content.
func entries(t *testing.T, disk string) (layers, blobs int) {
	t.Helper()
	root := filepath.Join(disk, "containerd", "root")
	err := filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		switch parent := filepath.Base(filepath.Dir(path)); {
		case parent == "snapshots" && d.IsDir():
			layers++
			return fs.SkipDir
		case parent == "sha256":
			blobs++
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return layers, blobs
}

func TestDiskIsFreedOfUnusedImagesOnly(t *testing.T) {
	registry, err := images.ServeRegistry("127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer registry.Close()
	need.Runtime(t)
	pulled, err := registry.Push(t.Context(), blob(t, "old", 20), blob(t, "used", 20), blob(t, "named", 20), blob(t, "recent", 10))
	if err != nil {
		t.Fatal(err)
	}
	e, disk := realNode(t, registry)
	for _, ref := range pulled {
		if _, err := e.Pull(t.Context(), ref, engine.PullOptions{}); err != nil {
			t.Fatal(err)
		}
	}
	archive := filepath.Join(t.TempDir(), "kept.tar")
	if err := images.WriteArchive(archive, blob(t, "kept", 3)); err != nil {
		t.Fatal(err)
	}
	load(t, e, archive)
	if err := e.NoteUse(t.Context(), pulled[3]); err != nil {
		t.Fatal(err)
	}
	used := createContainer(t, e, pulled[1])

	full, err := stats.ReadFileSystem(disk)
	if err != nil {
		t.Fatal(err)
	}
	if e.LayersDir() == "" || !strings.HasPrefix(e.LayersDir(), disk) {
		t.Errorf("layers are said to be in %q, want below %s", e.LayersDir(), disk)
	}
	layersBefore, blobsBefore := entries(t, disk)
	inUse := func() ([]string, bool) {
		list, err := e.List(t.Context())
		if err != nil {
			t.Error(err)
		}
		out := []string{pulled[2]} // a Pod names it
		for _, s := range list {
			out = append(out, s.Image, s.ImageID)
		}
		return out, true
	}
	// The oldest alone is enough to come from High to Low.
	c := New(Config{Images: e, InUse: inUse, Dir: e.LayersDir(), MinAge: time.Nanosecond, High: full.Bytes.UsedPercent(), Low: full.Bytes.UsedPercent() - 5})
	if err := c.look(t.Context()); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff([]string{"kept:1", "named:1", "recent:1", "used:1"}, names(t, e)); diff != "" {
		t.Errorf("images (-want +got):\n%s", diff)
	}
	after, err := stats.ReadFileSystem(disk)
	if err != nil {
		t.Fatal(err)
	}
	layers, blobs := entries(t, disk)
	if freed := after.Bytes.Available - full.Bytes.Available; freed < 39<<20 || layers >= layersBefore || blobs > blobsBefore-3 {
		t.Errorf("freed %d MB, layers %d → %d, blobs %d → %d; want the 40 MB of the layer and its content at once", freed>>20, layersBefore, layers, blobsBefore, blobs)
	}

	if err := c.Free(t.Context(), func() (bool, error) { return false, nil }); err != nil { // whatever can go
		t.Fatal(err)
	}
	if diff := cmp.Diff([]string{"kept:1", "named:1", "used:1"}, names(t, e)); diff != "" {
		t.Errorf("images when nothing is enough (-want +got):\n%s", diff)
	}
	if list, err := e.List(t.Context()); err != nil || !slices.ContainsFunc(list, func(s engine.Status) bool { return s.ID == used }) {
		t.Errorf("the container is gone: %v (%v)", list, err)
	}
	if err := e.Remove(t.Context(), used); err != nil {
		t.Fatal(err)
	}
	if err := c.Free(t.Context(), func() (bool, error) { return false, nil }); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff([]string{"kept:1", "named:1"}, names(t, e)); diff != "" {
		t.Errorf("images once the container is gone (-want +got):\n%s", diff)
	}
}

func load(t *testing.T, e *containerd.Engine, path string) {
	t.Helper()
	archive, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer archive.Close()
	if _, err := e.Load(t.Context(), archive); err != nil {
		t.Fatal(err)
	}
}

// createContainer makes a container that cannot run, as the image has no program, but needs its image.
func createContainer(t *testing.T, e *containerd.Engine, image string) string {
	t.Helper()
	c := engine.Container{ID: fmt.Sprintf("collect-%d", os.Getpid()), Group: "collect", Image: image, Command: []string{"/data"}, Cgroup: "/slipway-collect-test"}
	if err := e.Create(t.Context(), c); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
		defer cancel()
		if err := errors.Join(e.Remove(ctx, c.ID), cgroup.At(cgroup.Mount, c.Cgroup).Remove(ctx, "")); err != nil {
			t.Error(err)
		}
	})
	return c.ID
}

// An image that was pulled after it had been loaded can be had again.
func TestPulledImageIsNotLoaded(t *testing.T) {
	need.Runtime(t)
	registry, err := images.ServeRegistry("127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer registry.Close()
	e, _ := realNode(t, registry)
	image := blob(t, "both", 1)
	refs, err := registry.Push(t.Context(), image)
	if err != nil {
		t.Fatal(err)
	}
	if image, err = image.With(refs[0], images.Config{}); err != nil {
		t.Fatal(err)
	}
	archive := filepath.Join(t.TempDir(), "both.tar")
	if err := images.WriteArchive(archive, image); err != nil {
		t.Fatal(err)
	}
	loaded := func() bool {
		t.Helper()
		list, err := e.ListImages(t.Context())
		if err != nil || len(list) != 1 {
			t.Fatalf("images %v (%v), want one", list, err)
		}
		return list[0].Loaded
	}
	load(t, e, archive)
	if !loaded() {
		t.Error("an image from an archive does not count as loaded")
	}
	if _, err := e.Pull(t.Context(), refs[0], engine.PullOptions{}); err != nil {
		t.Fatal(err)
	}
	if loaded() {
		t.Error("an image from a registry counts as loaded")
	}
	load(t, e, archive)
	if !loaded() {
		t.Error("an image loaded anew does not count as loaded")
	}
}
