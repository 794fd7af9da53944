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

	"golang.org/x/sys/unix"
)

// FromDebian makes an image of Debian packages and all they depend on, unpacked, no scripts run. The layer is kept,
// so that only its first making needs apt's sources.
func FromDebian(ctx context.Context, ref string, packages ...string) (Image, error) {
	return Debian{Packages: packages}.Image(ctx, ref)
}

// Debian says what an image of Debian packages holds.
type Debian struct {
	Packages []string // by name; what they depend on comes with them
	Without  []string // patterns of paths below / that are left out: "usr/lib/*/libLLVM*"
}

// Fetch makes the image's layer, which is kept, so that Image needs no network any more.
func (d Debian) Fetch(ctx context.Context) error {
	if _, err := d.layer(ctx); err != nil {
		return fmt.Errorf("fetch Debian packages %s: %w", strings.Join(d.Packages, " "), err)
	}
	return nil
}

// Image makes the image, as FromDebian does.
func (d Debian) Image(ctx context.Context, ref string) (Image, error) {
	layer, err := d.layer(ctx)
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

// layer returns the path of a tar file with the packages' files.
func (d Debian) layer(ctx context.Context) (string, error) {
	cache, err := cacheDir()
	if err != nil {
		return "", err
	}
	packages := slices.Sorted(slices.Values(d.Packages))
	key := goarch() + " " + strings.Join(packages, " ")
	if len(d.Without) > 0 {
		key += " without " + strings.Join(d.Without, " ")
	}
	sum := sha256.Sum256([]byte(key))
	path := filepath.Join(cache, "debian-"+d.Packages[0]+"-"+hex.EncodeToString(sum[:6])+".tar")
	if _, err := os.Stat(path); err == nil {
		return path, nil
	}
	unlock, err := lock(filepath.Join(cache, ".debian.lock"))
	if err != nil {
		return "", err
	}
	defer unlock()
	if _, err := os.Stat(path); err == nil {
		return path, nil // made by another process while this one waited
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
	if err := remove(root, d.Without); err != nil {
		return "", err
	}
	if err := tarFolder(path+".new", root); err != nil {
		return "", err
	}
	return path, os.Rename(path+".new", path)
}

// lock waits until this process alone holds a file: apt's own locks are passed by. It returns what gives it back.
func lock(path string) (func(), error) {
	file, err := os.OpenFile(path, os.O_CREATE|os.O_RDWR, 0o644)
	if err != nil {
		return nil, err
	}
	if err := unix.Flock(int(file.Fd()), unix.LOCK_EX); err != nil {
		file.Close()
		return nil, fmt.Errorf("lock %s: %w", path, err)
	}
	return func() { file.Close() }, nil
}

// download fetches packages and their dependencies as for an empty system. Package lists that are missing or too old
// are updated.
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
	args = append(args, packages...)
	if err := run(ctx, "apt-get", args...); err != nil {
		if updateErr := run(ctx, "apt-get", "update", "-qq"); updateErr != nil {
			return nil, errors.Join(err, updateErr)
		}
		if err := run(ctx, "apt-get", args...); err != nil {
			return nil, err
		}
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
	if err := remove(root, []string{"usr/share/doc", "usr/share/man", "usr/share/locale", "usr/share/info"}); err != nil {
		return err
	}
	return addBase(root)
}

// remove deletes what matches the patterns below root.
func remove(root string, patterns []string) error {
	for _, pattern := range patterns {
		paths, err := filepath.Glob(filepath.Join(root, pattern))
		if err != nil {
			return fmt.Errorf("leave out %s: %w", pattern, err)
		}
		for _, path := range paths {
			if err := os.RemoveAll(path); err != nil {
				return err
			}
		}
	}
	return nil
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
