package images

import (
	"archive/tar"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-containerregistry/pkg/name"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/remote"

	"github.com/slipway-dev/slipway/testing/need"
)

func TestImageComesBackFromTheRegistry(t *testing.T) {
	image, err := FromFiles("example.com/team/tiny:1", map[string]File{"/etc/motd": {Data: []byte("hello\n")}})
	if err != nil {
		t.Fatal(err)
	}
	if image, err = image.With(image.Ref, Config{Cmd: []string{"/x"}, User: "app"}); err != nil {
		t.Fatal(err)
	}
	registry, err := ServeRegistry("127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer registry.Close()
	refs, err := registry.Push(t.Context(), image)
	if err != nil {
		t.Fatal(err)
	}
	if want := registry.Host + "/team/tiny:1"; refs[0] != want {
		t.Errorf("pushed as %s, want %s", refs[0], want)
	}
	ref, err := name.ParseReference(refs[0], name.Insecure)
	if err != nil {
		t.Fatal(err)
	}
	got, err := remote.Image(ref)
	if err != nil {
		t.Fatal(err)
	}
	config, err := got.ConfigFile()
	if err != nil {
		t.Fatal(err)
	}
	if config.Config.User != "app" || config.OS != "linux" {
		t.Errorf("config is %+v", config)
	}
	if data := fileOf(t, mutate.Extract(got), "etc/motd"); data != "hello\n" {
		t.Errorf("/etc/motd is %q", data)
	}
}

func fileOf(t *testing.T, archive io.ReadCloser, path string) string {
	t.Helper()
	defer archive.Close()
	r := tar.NewReader(archive)
	for {
		header, err := r.Next()
		if errors.Is(err, io.EOF) {
			t.Fatalf("no %s", path)
		}
		if err != nil {
			t.Fatal(err)
		}
		if header.Name == path {
			data, err := io.ReadAll(r)
			if err != nil {
				t.Fatal(err)
			}
			return string(data)
		}
	}
}

func TestFromGoIsReproducible(t *testing.T) {
	one, err := FromGo(t.Context(), "./testing/images/testpod", "a:1")
	if err != nil {
		t.Fatal(err)
	}
	two, err := Testpod(t.Context(), "b:1")
	if err != nil {
		t.Fatal(err)
	}
	digest1, _ := one.Digest()
	digest2, _ := two.Digest()
	if digest1 != digest2 || digest1 == "" {
		t.Errorf("the same program gives %s and %s", digest1, digest2)
	}
}

func TestFromGoSaysWhatDoesNotCompile(t *testing.T) {
	dir := t.TempDir()
	os.WriteFile(filepath.Join(dir, "go.mod"), []byte("module x\n"), 0o644)
	os.WriteFile(filepath.Join(dir, "main.go"), []byte("package main\nfunc main() { oops }\n"), 0o644)
	if _, err := FromGo(t.Context(), dir, "x"); err == nil || !strings.Contains(err.Error(), "oops") {
		t.Errorf("got %v", err)
	}
}

func TestFromDebianHoldsThePackage(t *testing.T) {
	need.Root(t)
	image, err := FromDebian(t.Context(), "busybox:1", "busybox-static")
	if err != nil {
		t.Fatal(err)
	}
	if data := fileOf(t, mutate.Extract(image.img), "usr/bin/busybox"); !strings.HasPrefix(data, "\x7fELF") {
		t.Error("busybox is no program")
	}
}

func TestArchivesHoldTheName(t *testing.T) {
	image, err := FromFiles("docker.io/library/tiny:1", baseFiles())
	if err != nil {
		t.Fatal(err)
	}
	oci, docker := filepath.Join(t.TempDir(), "oci.tar"), filepath.Join(t.TempDir(), "docker.tar")
	if err := errors.Join(WriteArchive(oci, image), WriteDockerArchive(docker, image)); err != nil {
		t.Fatal(err)
	}
	for path, index := range map[string]string{oci: "index.json", docker: "manifest.json"} {
		f, err := os.Open(path)
		if err != nil {
			t.Fatal(err)
		}
		if data := fileOf(t, f, index); !strings.Contains(data, "tiny:1") {
			t.Errorf("%s: %s does not name the image: %s", filepath.Base(path), index, data)
		}
	}
}
