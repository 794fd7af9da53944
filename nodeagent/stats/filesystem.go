// Package stats reads how much of a machine's memory, disk and process ids is used, by all and by one Pod.
//
// It keeps nothing and judges nothing.
package stats

import (
	"fmt"
	"os"

	"golang.org/x/sys/unix"
)

// Level is how much of something is left.
type Level struct {
	Available int64
	Capacity  int64
}

// UsedPercent returns the share that is used, 0 to 100. Of nothing, nothing is used.
func (l Level) UsedPercent() int64 {
	if l.Capacity <= 0 {
		return 0
	}
	return 100 - l.Available*100/l.Capacity
}

// FileSystem is what one has left. What is reserved for root counts as not there, as df does.
type FileSystem struct {
	Device uint64 // equal for paths on one file system
	Bytes  Level
	Inodes Level // of zero capacity where the file system makes them as needed
}

// ReadFileSystem reads the file system that holds a path.
func ReadFileSystem(path string) (FileSystem, error) {
	var fs unix.Statfs_t
	if err := unix.Statfs(path, &fs); err != nil {
		return FileSystem{}, &os.PathError{Op: "read file system of", Path: path, Err: err}
	}
	var st unix.Stat_t
	if err := unix.Stat(path, &st); err != nil {
		return FileSystem{}, fmt.Errorf("read file system of %s: %w", path, err)
	}
	block := fs.Bsize
	free := int64(fs.Bavail) * block
	return FileSystem{
		Device: st.Dev,
		Bytes:  Level{Available: free, Capacity: int64(fs.Blocks-fs.Bfree)*block + free},
		Inodes: Level{Available: int64(fs.Ffree), Capacity: int64(fs.Files)},
	}, nil
}
