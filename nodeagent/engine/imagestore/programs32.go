package imagestore

import (
	"context"
	"errors"
	"io"
	"io/fs"

	"github.com/containerd/containerd/v2/core/snapshots"
)

// label32 on an image's topmost layer says whether the image holds 32-bit programs.
const label32 = "io.slipway.engine/32bit"

// maxPrograms bounds the search for 32-bit programs; an image with more is taken to have some.
const maxPrograms = 50_000

// note32 keeps the answer with the image's topmost layer.
func (s *Store) note32(ctx context.Context, layer string, found bool) {
	answer := snapshots.Info{Name: layer, Labels: map[string]string{label32: "no"}}
	if found {
		answer.Labels[label32] = "yes"
	}
	if _, err := s.client.SnapshotService(s.snapshotter).Update(ctx, answer, "labels."+label32); err != nil {
		s.log.Warn("what an image holds could not be noted", "err", err)
	}
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
