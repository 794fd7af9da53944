package images

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
)

// FromDebian makes an image of Debian packages and all they depend on, unpacked, no scripts run. The layer is kept,
// so that only its first making needs apt's sources.
func FromDebian(ctx context.Context, ref string, packages ...string) (Image, error) {
	layer, err := debianLayer(ctx, packages)
	if err != nil {
		return Image{}, fmt.Errorf("make image %s: %w", ref, err)
	}
	image, err := fromFile(ref, layer)
	if err != nil {
		return Image{}, err
	}
	return image.With(ref, Config{Env: []string{"PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"}})
}

func fromFile(ref, path string) (Image, error) {
	layer, err := newPlainLayer(func() (io.ReadCloser, error) { return os.Open(path) })
	if err != nil {
		return Image{}, fmt.Errorf("make image %s: %w", ref, err)
	}
	return fromLayer(ref, layer)
}

// debianLayer returns the path of a tar file with the packages' files.
func debianLayer(ctx context.Context, packages []string) (string, error) {
	cache, err := cacheDir()
	if err != nil {
		return "", err
	}
	packages = slices.Sorted(slices.Values(packages))
	sum := sha256.Sum256([]byte(goarch() + " " + strings.Join(packages, " ")))
	path := filepath.Join(cache, "debian-"+packages[0]+"-"+hex.EncodeToString(sum[:6])+".tar")
	if _, err := os.Stat(path); err == nil {
		return path, nil
	}
	work, err := os.MkdirTemp(cache, ".debian-*")
	if err != nil {
		return "", err
	}
	defer os.RemoveAll(work)
	debs, err := download(ctx, work, packages)
	if err != nil {
		return "", err
	}
	root := filepath.Join(work, "root")
	if err := unpack(ctx, root, debs); err != nil {
		return "", err
	}
	if err := tarFolder(path+".new", root); err != nil {
		return "", err
	}
	return path, os.Rename(path+".new", path)
}

// download fetches packages and their dependencies as for an empty system.
func download(ctx context.Context, work string, packages []string) ([]string, error) {
	archives := filepath.Join(work, "archives")
	if err := os.MkdirAll(filepath.Join(archives, "partial"), 0o755); err != nil {
		return nil, err
	}
	status := filepath.Join(work, "status")
	if err := os.WriteFile(status, nil, 0o644); err != nil {
		return nil, err
	}
	args := []string{
		"install", "--download-only", "--yes", "--no-install-recommends", "-qq", "-o", "Dir::State::status=" + status,
		"-o", "Dir::Cache::archives=" + archives, "-o", "Debug::NoLocking=1", "-o", "APT::Sandbox::User=root",
	}
	if err := run(ctx, "apt-get", append(args, packages...)...); err != nil {
		return nil, fmt.Errorf("%w (apt's package lists may be missing: run `apt-get update`)", err)
	}
	return filepath.Glob(filepath.Join(archives, "*.deb"))
}

// unpack extracts packages into root, which has the merged /usr of every Debian since 12.
func unpack(ctx context.Context, root string, debs []string) error {
	for _, dir := range []string{"bin", "sbin", "lib", "lib64"} {
		if err := os.MkdirAll(filepath.Join(root, "usr", dir), 0o755); err != nil {
			return err
		}
		if err := os.Symlink(filepath.Join("usr", dir), filepath.Join(root, dir)); err != nil {
			return err
		}
	}
	for _, deb := range debs {
		// dpkg-deb itself would put folders in the place of the links.
		script := `dpkg-deb --fsys-tarfile "$1" | tar -x -C "$2" --keep-directory-symlink --numeric-owner -p`
		if err := run(ctx, "sh", "-ec", script, "unpack", deb, root); err != nil {
			return err
		}
	}
	for _, dir := range []string{"usr/share/doc", "usr/share/man", "usr/share/locale", "usr/share/info"} {
		if err := os.RemoveAll(filepath.Join(root, dir)); err != nil {
			return err
		}
	}
	return addBase(root)
}

// addBase writes what a package's scripts would have made on a real system.
func addBase(root string) error {
	for name, file := range baseFiles() {
		path := filepath.Join(root, name)
		mode := os.FileMode(file.Mode)
		if file.Mode&0o1000 != 0 {
			mode = 0o777 | os.ModeSticky
		}
		if strings.HasSuffix(name, "/") {
			if mode == 0 {
				mode = 0o755
			}
			if err := os.MkdirAll(path, mode); err != nil {
				return err
			}
			if err := errors.Join(os.Chmod(path, mode), os.Lchown(path, file.UID, file.GID)); err != nil {
				return err
			}
			continue
		}
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			return err
		}
		if err := os.WriteFile(path, file.Data, 0o644); err != nil {
			return err
		}
	}
	return nil
}

func run(ctx context.Context, program string, args ...string) error {
	cmd := exec.CommandContext(ctx, program, args...)
	cmd.Env = append(os.Environ(), "DEBIAN_FRONTEND=noninteractive", "LC_ALL=C")
	if output, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("run %s: %w\n%s", program, err, strings.TrimSpace(string(output)))
	}
	return nil
}
