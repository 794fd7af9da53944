package containerd

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"slices"

	"github.com/containerd/containerd/v2/core/snapshots"
	"github.com/opencontainers/runtime-spec/specs-go"
)

// label32 on an image's topmost layer says whether the image holds 32-bit programs.
const label32 = "io.slipway.engine/32bit"

// maxPrograms bounds the search for 32-bit programs; an image with more is taken to have some.
const maxPrograms = 50_000

// filterArches leaves in a seccomp filter the architectures that matter. runc translates the filter for each of them
// at every start, and that is most of what a start costs; system calls of an architecture that is left out are
// refused altogether. The kernel's x32 calls matter only where the kernel has them, 32-bit calls only to images with
// 32-bit programs.
func filterArches(arches []specs.Arch, x32, programs32 bool) []specs.Arch {
	return slices.DeleteFunc(slices.Clone(arches), func(a specs.Arch) bool {
		switch a {
		case specs.ArchX32:
			return !x32
		case specs.ArchX86, specs.ArchARM:
			return !programs32
		}
		return false
	})
}

// has32 tells whether an image holds 32-bit programs. The answer is kept with its topmost layer.
func (e *Engine) has32(ctx context.Context, layer snapshots.Info) (bool, error) {
	if v, ok := layer.Labels[label32]; ok {
		return v == "yes", nil
	}
	found := false
	err := e.withRootfs(ctx, layer.Name, func(root *os.Root) (err error) {
		found, err = find32(root.FS())
		return err
	})
	if err != nil {
		return false, fmt.Errorf("look for 32-bit programs: %w", err)
	}
	answer := snapshots.Info{Name: layer.Name, Labels: map[string]string{label32: "no"}}
	if found {
		answer.Labels[label32] = "yes"
	}
	if _, err := e.client.SnapshotService(e.snap).Update(ctx, answer, "labels."+label32); err != nil {
		e.cfg.Log.Warn("what an image holds could not be noted", "err", err)
	}
	return found, nil
}

var errFound = errors.New("found")

// find32 looks for an executable file that is a 32-bit ELF program or library.
func find32(files fs.FS) (bool, error) {
	programs := 0
	err := fs.WalkDir(files, ".", func(path string, entry fs.DirEntry, err error) error {
		if err != nil || !entry.Type().IsRegular() {
			return nil // what cannot be read cannot be told apart; it is not a reason to refuse the image
		}
		info, err := entry.Info()
		if err != nil || info.Mode()&0o111 == 0 {
			return nil
		}
		if programs++; programs > maxPrograms || is32(files, path) {
			return errFound
		}
		return nil
	})
	if errors.Is(err, errFound) {
		return true, nil
	}
	return false, err
}

func is32(files fs.FS, path string) bool {
	f, err := files.Open(path)
	if err != nil {
		return false
	}
	defer f.Close()
	var head [5]byte
	if _, err := io.ReadFull(f, head[:]); err != nil {
		return false
	}
	return string(head[:]) == "\x7fELF\x01"
}
