// Command release packs what `make dist` has built into one archive: slipway, the container runtime beside it, the
// systemd unit, how to install them, and the licences of everything linked. The same input gives the same bytes.
//
// It builds nothing and installs nothing.
package main

import (
	"archive/tar"
	"compress/gzip"
	"crypto/sha256"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"path"
	"path/filepath"
	"slices"
	"time"
)

// programs are what an archive must hold, as built.
var programs = []string{"slipway", "runtime/containerd", "runtime/containerd-shim-slipway-v1", "runtime/runc"}

// texts go with them: where they lie in the checkout.
var texts = map[string]string{
	"INSTALL.md":      "cmd/slipway/release/INSTALL.md",
	"LICENSE":         "LICENSE",
	"slipway.service": "cmd/slipway/release/slipway.service",
}

// maxSlipway is how large the stripped binary may be, in bytes.
const maxSlipway = 85_000_000

func main() {
	if err := run(os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "release: "+err.Error())
		os.Exit(1)
	}
}

func run(args []string) error {
	flags := flag.NewFlagSet("release", flag.ContinueOnError)
	built := flags.String("built", "", "folder with slipway and runtime/, as built")
	epoch := flags.Int64("time", 0, "time of every file, in seconds since 1970")
	out := flags.String("o", "", "archive to write; its SHA-256 goes beside it")
	if err := flags.Parse(args); err != nil {
		return err
	}
	files, err := gather(*built, ".")
	if err != nil {
		return err
	}
	if files["LICENSES.txt"], err = licences(programPaths(*built)); err != nil {
		return fmt.Errorf("gather licences: %w", err)
	}
	return write(*out, files, time.Unix(*epoch, 0).UTC())
}

// programPaths are the programs of a folder.
func programPaths(built string) []string {
	paths := make([]string, len(programs))
	for i, name := range programs {
		paths[i] = filepath.Join(built, name)
	}
	return paths
}

// gather reads what goes into the archive, by name, and refuses a slipway that has grown too large.
func gather(built, checkout string) (map[string][]byte, error) {
	files := map[string][]byte{}
	for _, name := range programs {
		data, err := os.ReadFile(filepath.Join(built, name))
		if err != nil {
			return nil, fmt.Errorf("gather programs: %w", err)
		}
		files[name] = data
	}
	if size := len(files["slipway"]); size > maxSlipway {
		return nil, fmt.Errorf("slipway is %d bytes, want at most %d: see what was linked with `go tool nm -size -sort size`", size, maxSlipway)
	}
	for name, path := range texts {
		data, err := os.ReadFile(filepath.Join(checkout, path))
		if err != nil {
			return nil, fmt.Errorf("gather texts: %w", err)
		}
		files[name] = data
	}
	return files, nil
}

// write makes the archive and, beside it, its checksum in the form sha256sum reads.
func write(out string, files map[string][]byte, at time.Time) error {
	partial, err := os.CreateTemp(filepath.Dir(out), ".archive-")
	if err != nil {
		return fmt.Errorf("write archive: %w", err)
	}
	defer os.Remove(partial.Name())
	sum := sha256.New()
	err = errors.Join(pack(io.MultiWriter(partial, sum), files, at), partial.Chmod(0o644), partial.Close())
	if err != nil {
		return fmt.Errorf("write archive %s: %w", out, err)
	}
	line := fmt.Sprintf("%x  %s\n", sum.Sum(nil), filepath.Base(out))
	return errors.Join(os.Rename(partial.Name(), out), os.WriteFile(out+".sha256", []byte(line), 0o644))
}

// pack writes files below one folder, sorted, all of one time and of root.
func pack(w io.Writer, files map[string][]byte, at time.Time) error {
	zip := gzip.NewWriter(w)
	archive := tar.NewWriter(zip)
	header := func(name string, kind byte, mode, size int64) error {
		return archive.WriteHeader(&tar.Header{Typeflag: kind, Name: name, Mode: mode, Size: size, ModTime: at, Uname: "root", Gname: "root", Format: tar.FormatUSTAR})
	}
	names := make([]string, 0, len(files))
	folders := map[string]bool{"slipway/": true}
	for name := range files {
		names = append(names, name)
		folders[path.Join("slipway", path.Dir(name))+"/"] = true
	}
	for _, folder := range sorted(folders) {
		if err := header(folder, tar.TypeDir, 0o755, 0); err != nil {
			return err
		}
	}
	slices.Sort(names)
	for _, name := range names {
		mode := int64(0o644)
		if slices.Contains(programs, name) {
			mode = 0o755
		}
		if err := header("slipway/"+name, tar.TypeReg, mode, int64(len(files[name]))); err != nil {
			return err
		}
		if _, err := archive.Write(files[name]); err != nil {
			return err
		}
	}
	return errors.Join(archive.Close(), zip.Close())
}

func sorted(set map[string]bool) []string {
	var names []string
	for name := range set {
		names = append(names, name)
	}
	slices.Sort(names)
	return names
}
