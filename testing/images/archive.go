package images

import (
	"archive/tar"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"github.com/google/go-containerregistry/pkg/name"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/layout"
	"github.com/google/go-containerregistry/pkg/v1/tarball"
)

// WriteArchive writes images to one OCI archive, each under its name.
func WriteArchive(path string, images ...Image) error {
	dir, err := os.MkdirTemp(filepath.Dir(path), ".archive-*")
	if err != nil {
		return fmt.Errorf("write archive %s: %w", path, err)
	}
	defer os.RemoveAll(dir)
	index, err := layout.Write(dir, empty.Index)
	if err != nil {
		return fmt.Errorf("write archive %s: %w", path, err)
	}
	for _, image := range images {
		names := map[string]string{"io.containerd.image.name": image.Ref, "org.opencontainers.image.ref.name": image.Ref}
		if err := index.AppendImage(image.img, layout.WithAnnotations(names)); err != nil {
			return fmt.Errorf("write image %s: %w", image.Ref, err)
		}
	}
	tmp := path + ".new"
	if err := tarFolder(tmp, dir); err != nil {
		return fmt.Errorf("write archive %s: %w", path, err)
	}
	return os.Rename(tmp, path)
}

// WriteDockerArchive writes an image as `docker save` does.
func WriteDockerArchive(path string, image Image) error {
	tag, err := name.NewTag(image.Ref)
	if err != nil {
		return fmt.Errorf("write image %s: %w", image.Ref, err)
	}
	if err := tarball.WriteToFile(path, tag, image.img); err != nil {
		return fmt.Errorf("write archive %s: %w", path, err)
	}
	return nil
}

// tarFolder writes what is in dir to a tar file.
func tarFolder(path, dir string) error {
	f, err := os.Create(path)
	if err != nil {
		return err
	}
	defer f.Close()
	w := tar.NewWriter(f)
	err = filepath.WalkDir(dir, func(file string, entry fs.DirEntry, err error) error {
		if err != nil || file == dir {
			return err
		}
		return tarEntry(w, dir, file, entry)
	})
	if err != nil {
		return err
	}
	if err := w.Close(); err != nil {
		return err
	}
	return f.Close()
}

// tarEntry adds one file, folder or link below dir, with its owner and without its times.
func tarEntry(w *tar.Writer, dir, file string, entry fs.DirEntry) error {
	info, err := entry.Info()
	if err != nil {
		return err
	}
	link := ""
	if info.Mode()&fs.ModeSymlink != 0 {
		if link, err = os.Readlink(file); err != nil {
			return err
		}
	}
	header, err := tar.FileInfoHeader(info, link)
	if err != nil {
		return err
	}
	if header.Name, err = filepath.Rel(dir, file); err != nil {
		return err
	}
	if info.IsDir() {
		header.Name += "/"
	}
	header.Uname, header.Gname, header.Format = "", "", tar.FormatPAX
	header.ModTime, header.AccessTime, header.ChangeTime = time.Unix(0, 0), time.Time{}, time.Time{}
	if err := w.WriteHeader(header); err != nil {
		return err
	}
	if !info.Mode().IsRegular() {
		return nil
	}
	src, err := os.Open(file)
	if err != nil {
		return err
	}
	defer src.Close()
	_, err = io.Copy(w, src)
	return err
}
