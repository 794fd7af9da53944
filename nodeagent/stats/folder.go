package stats

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"
)

// Size is what files take.
type Size struct {
	Bytes  int64 // on the disk
	Inodes int64
}

// Add returns the sum of two sizes.
func (s Size) Add(o Size) Size { return Size{s.Bytes + o.Bytes, s.Inodes + o.Inodes} }

// FolderSize returns what is in a folder, or what a file takes. Files with several names count once; other file
// systems mounted below do not count; what vanishes meanwhile, or is not there, counts as nothing.
func FolderSize(ctx context.Context, path string) (Size, error) {
	var size Size
	var device uint64
	linked := map[uint64]bool{}
	err := filepath.WalkDir(path, func(p string, d fs.DirEntry, err error) error {
		if ctx.Err() != nil {
			return ctx.Err()
		}
		if errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		if err != nil {
			return err
		}
		info, err := os.Lstat(p)
		if errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		if err != nil {
			return err
		}
		st := info.Sys().(*syscall.Stat_t)
		switch {
		case device == 0:
			device = st.Dev
		case st.Dev != device && d.IsDir():
			return fs.SkipDir
		case st.Dev != device:
			return nil
		}
		if !d.IsDir() && st.Nlink > 1 {
			if linked[st.Ino] {
				return nil
			}
			linked[st.Ino] = true
		}
		size = size.Add(Size{Bytes: st.Blocks * 512, Inodes: 1})
		return nil
	})
	return size, err
}
