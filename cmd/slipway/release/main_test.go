package main

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/slipway-dev/slipway/testing/need"
)

// built makes a folder with stand-ins for the programs, slipway of the size given.
func built(t *testing.T, size int64) string {
	t.Helper()
	dir := t.TempDir()
	for _, path := range programPaths(dir) {
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(filepath.Base(path)), 0o700); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Truncate(filepath.Join(dir, "slipway"), size); err != nil {
		t.Fatal(err)
	}
	return dir
}

func TestGatherRefuses(t *testing.T) {
	small := built(t, 10)
	if err := os.Remove(filepath.Join(small, "runtime", "runc")); err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct{ dir, want string }{
		"a slipway that is too large": {built(t, maxSlipway+1), "want at most 85000000"},
		"a program that is missing":   {small, "runtime/runc"},
	} {
		t.Run(name, func(t *testing.T) {
			if _, err := gather(c.dir, need.ModuleRoot()); err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("got %v, want an error with %q", err, c.want)
			}
		})
	}
}

// TestArchive packs twice: the same bytes, and in them the files a machine needs, in order, of one time and of root.
func TestArchive(t *testing.T) {
	files, err := gather(built(t, maxSlipway), need.ModuleRoot())
	if err != nil {
		t.Fatal(err)
	}
	files["slipway"] = files["slipway"][:10]
	var archives [2]bytes.Buffer
	for i := range archives {
		if err := pack(&archives[i], files, time.Unix(1700000000, 0)); err != nil {
			t.Fatal(err)
		}
	}
	if !bytes.Equal(archives[0].Bytes(), archives[1].Bytes()) {
		t.Error("the same input gave two different archives")
	}
	want := []string{
		"drwxr-xr-x root 1700000000 slipway/",
		"drwxr-xr-x root 1700000000 slipway/runtime/",
		"-rw-r--r-- root 1700000000 slipway/INSTALL.md",
		"-rw-r--r-- root 1700000000 slipway/LICENSE",
		"-rwxr-xr-x root 1700000000 slipway/runtime/containerd",
		"-rwxr-xr-x root 1700000000 slipway/runtime/containerd-shim-slipway-v1",
		"-rwxr-xr-x root 1700000000 slipway/runtime/runc",
		"-rwxr-xr-x root 1700000000 slipway/slipway",
		"-rw-r--r-- root 1700000000 slipway/slipway.service",
	}
	if diff := cmp.Diff(want, list(t, &archives[0])); diff != "" {
		t.Errorf("the archive holds (-want +got):\n%s", diff)
	}
}

func list(t *testing.T, archive io.Reader) []string {
	t.Helper()
	zip, err := gzip.NewReader(archive)
	if err != nil {
		t.Fatal(err)
	}
	var lines []string
	for files := tar.NewReader(zip); ; {
		h, err := files.Next()
		if err == io.EOF {
			return lines
		}
		if err != nil {
			t.Fatal(err)
		}
		lines = append(lines, fmt.Sprintf("%s %s %d %s", h.FileInfo().Mode(), h.Uname, h.ModTime.Unix(), h.Name))
	}
}

// TestLicences reads a program that links modules and C libraries.
func TestLicences(t *testing.T) {
	text, err := licences([]string{filepath.Join(need.Runtime(t), "runc")})
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"github.com/opencontainers/runc@v", "Copyright 2014 Docker, Inc.", "libseccomp (in runc)", "The Go Authors"} {
		if !strings.Contains(string(text), want) {
			t.Errorf("the text misses %q:\n%s", want, text)
		}
	}
	if _, err := moduleTerms(t.TempDir()); err == nil {
		t.Error("a module without a licence was taken")
	}
}
