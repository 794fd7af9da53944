// Package images makes container images without a network or a container engine: from Go programs of this module,
// from Debian packages, from files. It also serves a registry on the loopback address.
//
// It is for tests, examples and benchmarks. What is slow to make is kept under the checkout's build folder.
package images

import (
	"archive/tar"
	"bytes"
	"context"
	"fmt"
	"io"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/google/go-containerregistry/pkg/v1/types"

	"github.com/slipway-dev/slipway/testing/need"
)

// Image is an image in memory or on disk, with the name it is to be known by.
type Image struct {
	Ref string // "docker.io/library/web:1"
	img v1.Image
}

// Config is the part of an image's configuration that tests care for. It is applied by Image.With.
type Config struct {
	Entrypoint []string
	Cmd        []string
	Env        []string
	User       string
	WorkDir    string
	StopSignal string
	Volumes    []string
}

// cacheDir holds what is slow to make.
func cacheDir() (string, error) {
	dir := filepath.Join(need.ModuleRoot(), "build", "images")
	return dir, os.MkdirAll(dir, 0o755)
}

// FromFiles makes an image of files by their absolute path; a path that ends in / is a folder.
func FromFiles(ref string, files map[string]File) (Image, error) {
	layer, err := layerOf(files)
	if err != nil {
		return Image{}, fmt.Errorf("make image %s: %w", ref, err)
	}
	return fromLayer(ref, layer)
}

// File is one file of an image.
type File struct {
	Data []byte
	Mode int64 // zero: 0644, folders 0755
	UID  int
	GID  int
	Link string // not empty: a symbolic link to this
}

// baseFiles is what a C library or a Go program expects of a root file system.
func baseFiles() map[string]File {
	return map[string]File{
		"/etc/passwd": {Data: []byte("root:x:0:0:root:/root:/bin/sh\napp:x:1000:1000:app:/home/app:/bin/sh\nnobody:x:65534:65534:nobody:/:/bin/false\n")},
		"/etc/group":  {Data: []byte("root:x:0:\napp:x:1000:\nextra:x:2000:app\nnobody:x:65534:\n")},
		"/tmp/":       {Mode: 0o1777},
		"/root/":      {Mode: 0o700},
		"/home/app/":  {UID: 1000, GID: 1000},
	}
}

func layerOf(files map[string]File) (v1.Layer, error) {
	var buf bytes.Buffer
	w := tar.NewWriter(&buf)
	names := make([]string, 0, len(files))
	for name := range files {
		names = append(names, name)
	}
	slices.Sort(names)
	for _, name := range names {
		if err := addFile(w, name, files[name]); err != nil {
			return nil, err
		}
	}
	if err := w.Close(); err != nil {
		return nil, err
	}
	data := buf.Bytes()
	return newPlainLayer(func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(data)), nil })
}

func addFile(w *tar.Writer, name string, file File) error {
	header := &tar.Header{
		Name: strings.TrimPrefix(name, "/"), Mode: file.Mode, Uid: file.UID, Gid: file.GID,
		Typeflag: tar.TypeReg, Size: int64(len(file.Data)), ModTime: time.Unix(0, 0), Format: tar.FormatPAX,
	}
	switch {
	case strings.HasSuffix(name, "/"):
		header.Typeflag, header.Size = tar.TypeDir, 0
		if header.Mode == 0 {
			header.Mode = 0o755
		}
	case file.Link != "":
		header.Typeflag, header.Size, header.Linkname, header.Mode = tar.TypeSymlink, 0, file.Link, 0o777
	case header.Mode == 0:
		header.Mode = 0o644
	}
	if err := w.WriteHeader(header); err != nil {
		return err
	}
	if header.Size == 0 {
		return nil
	}
	_, err := w.Write(file.Data)
	return err
}

func fromLayer(ref string, layer v1.Layer) (Image, error) {
	base := mutate.ConfigMediaType(mutate.MediaType(empty.Image, types.OCIManifestSchema1), types.OCIConfigJSON)
	img, err := mutate.AppendLayers(base, layer)
	if err != nil {
		return Image{}, fmt.Errorf("make image %s: %w", ref, err)
	}
	out := Image{Ref: ref, img: img}
	return out.With(ref, Config{})
}

// With returns the image under another name, with those fields of cfg that are not empty.
func (i Image) With(ref string, cfg Config) (Image, error) {
	file, err := i.img.ConfigFile()
	if err != nil {
		return Image{}, fmt.Errorf("configure image %s: %w", ref, err)
	}
	file = file.DeepCopy()
	file.OS, file.Architecture = "linux", goarch()
	c := &file.Config
	set(&c.Entrypoint, cfg.Entrypoint)
	set(&c.Cmd, cfg.Cmd)
	set(&c.Env, cfg.Env)
	setString(&c.User, cfg.User)
	setString(&c.WorkingDir, cfg.WorkDir)
	setString(&c.StopSignal, cfg.StopSignal)
	for _, v := range cfg.Volumes {
		if c.Volumes == nil {
			c.Volumes = map[string]struct{}{}
		}
		c.Volumes[v] = struct{}{}
	}
	img, err := mutate.ConfigFile(i.img, file)
	if err != nil {
		return Image{}, fmt.Errorf("configure image %s: %w", ref, err)
	}
	return Image{Ref: ref, img: img}, nil
}

func set(dst *[]string, v []string) {
	if len(v) > 0 {
		*dst = v
	}
}

func setString(dst *string, v string) {
	if v != "" {
		*dst = v
	}
}

// Add returns the image with one more layer of files.
func (i Image) Add(files map[string]File) (Image, error) {
	layer, err := layerOf(files)
	if err != nil {
		return Image{}, fmt.Errorf("add to image %s: %w", i.Ref, err)
	}
	img, err := mutate.AppendLayers(i.img, layer)
	if err != nil {
		return Image{}, fmt.Errorf("add to image %s: %w", i.Ref, err)
	}
	return Image{Ref: i.Ref, img: img}, nil
}

// Push uploads the image to a plain-HTTP registry at host ("127.0.0.1:5000") and returns the name it has there: its
// path and tag below the host.
func (i Image) Push(ctx context.Context, host string) (string, error) {
	_, rest, ok := strings.Cut(i.Ref, "/")
	if !ok || !strings.ContainsAny(i.Ref[:len(i.Ref)-len(rest)-1], ".:") {
		rest = i.Ref
	}
	ref, err := name.ParseReference(path.Join(host, rest), name.Insecure)
	if err != nil {
		return "", fmt.Errorf("push image %s: %w", i.Ref, err)
	}
	if err := remote.Write(ref, i.img, remote.WithContext(ctx)); err != nil {
		return "", fmt.Errorf("push image %s: %w", i.Ref, err)
	}
	return ref.Name(), nil
}

// Digest is the digest of the image's manifest: "sha256:…".
func (i Image) Digest() (string, error) {
	hash, err := i.img.Digest()
	return hash.String(), err
}
