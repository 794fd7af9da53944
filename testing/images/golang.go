package images

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"runtime"
	"strings"

	"github.com/slipway-dev/slipway/testing/need"
)

// FromGo makes an image of a Go main package: a static binary as /app and entry point, with a minimal /etc/passwd.
// pkg is an import path or a folder ("./testing/images/testpod") seen from this module's root; a folder of another
// module is given absolute.
func FromGo(ctx context.Context, pkg, ref string) (Image, error) {
	binary, err := BuildGo(ctx, pkg)
	if err != nil {
		return Image{}, err
	}
	files := baseFiles()
	files["/app"] = File{Data: binary, Mode: 0o755}
	image, err := FromFiles(ref, files)
	if err != nil {
		return Image{}, err
	}
	return image.With(ref, Config{Entrypoint: []string{"/app"}, Env: []string{"PATH=/usr/bin:/bin:/"}})
}

// BuildGo returns the static binary of a Go main package, which is named as for FromGo.
func BuildGo(ctx context.Context, pkg string) ([]byte, error) {
	dir, err := cacheDir()
	if err != nil {
		return nil, err
	}
	out, err := os.MkdirTemp(dir, ".go-*")
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(out)
	binary := filepath.Join(out, path.Base(filepath.ToSlash(pkg)))
	cmd := exec.CommandContext(ctx, "go", "build", "-trimpath", "-buildvcs=false", "-ldflags=-s -w -buildid=", "-o", binary, pkg)
	cmd.Dir = need.ModuleRoot()
	if filepath.IsAbs(pkg) {
		cmd.Dir = pkg
		cmd.Args[len(cmd.Args)-1] = "."
	}
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0", "GOOS=linux", "GOARCH="+goarch())
	if output, err := cmd.CombinedOutput(); err != nil {
		return nil, fmt.Errorf("build %s: %w\n%s", pkg, err, strings.TrimSpace(string(bytes.TrimSpace(output))))
	}
	data, err := os.ReadFile(binary)
	if err != nil {
		return nil, fmt.Errorf("build %s: %w", pkg, err)
	}
	return data, nil
}

// Testpod makes the image of the multi-purpose test program.
func Testpod(ctx context.Context, ref string) (Image, error) {
	return FromGo(ctx, "./testing/images/testpod", ref)
}

func goarch() string { return runtime.GOARCH }
