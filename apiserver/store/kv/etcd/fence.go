package etcd

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
)

// fence shuts a server that went wrong out of its directory. Such a server cannot be trusted to end: it may wait for
// ever for a lock of a goroutine that is gone, with files open and locked. So every descriptor this process has in
// the directory is made to lead nowhere: later reads, writes and syncs through it fail, and its locks are free for a
// new server. The server names its files through root, so it finds none of them by name either.
type fence struct {
	dir         string   // resolved
	root        *os.File // the directory
	descriptors *os.File // /proc/self/fd, opened early: there may be no descriptor left when it is needed
	nowhere     *os.File // what descriptors lead to afterwards
}

// newFence opens the directory.
func newFence(dir string) (f *fence, err error) {
	f = &fence{}
	defer func() {
		if err != nil {
			err = fmt.Errorf("open the store's directory: %w", errors.Join(err, f.close()))
		}
	}()
	if f.dir, err = filepath.EvalSymlinks(dir); err != nil {
		return nil, err
	}
	if f.dir, err = filepath.Abs(f.dir); err != nil {
		return nil, err
	}
	if f.root, err = os.OpenFile(f.dir, unix.O_PATH|unix.O_DIRECTORY, 0); err != nil {
		return nil, err
	}
	if f.descriptors, err = os.Open("/proc/self/fd"); err != nil {
		return nil, err
	}
	f.nowhere, err = os.Open(os.DevNull)
	return f, err
}

// path names the directory in a way that ends with the fence.
func (f *fence) path() string { return fmt.Sprintf("/proc/self/fd/%d", f.root.Fd()) }

// plain replaces that name by the directory's own in what people read.
func (f *fence) plain(text string) string { return strings.ReplaceAll(text, f.path(), f.dir) }

// shut cuts the server off. It may be called by any goroutine, and again.
func (f *fence) shut() error {
	// The directory first: nothing is opened through it afterwards, as a directory of descriptors has no such names. A
	// second look finds what was just being opened.
	if err := unix.Dup3(int(f.descriptors.Fd()), int(f.root.Fd()), unix.O_CLOEXEC); err != nil {
		return fmt.Errorf("shut %s: %w", f.dir, err)
	}
	return errors.Join(f.cut(), f.cut(), f.settle())
}

// cut makes the open descriptors lead nowhere.
func (f *fence) cut() error {
	if _, err := f.descriptors.Seek(0, 0); err != nil {
		return fmt.Errorf("list descriptors: %w", err)
	}
	names, err := f.descriptors.Readdirnames(-1)
	if err != nil {
		return fmt.Errorf("list descriptors: %w", err)
	}
	for _, name := range names {
		target, err := os.Readlink("/proc/self/fd/" + name)
		if err != nil || !strings.HasPrefix(target, f.dir+"/") {
			continue
		}
		fd, err := strconv.Atoi(name)
		if err != nil {
			continue
		}
		// A memory map keeps the open file, and with it its locks, alive: give them back by name.
		_ = unix.Flock(fd, unix.LOCK_UN)
		_ = unix.FcntlFlock(uintptr(fd), unix.F_OFD_SETLK, &unix.Flock_t{Type: unix.F_UNLCK})
		if err := unix.Dup3(int(f.nowhere.Fd()), fd, unix.O_CLOEXEC); err != nil {
			return fmt.Errorf("cut off %s: %w", target, err)
		}
	}
	return nil
}

// settle waits for writes that had begun before: each holds its file's inode, which a change of mode needs too.
func (f *fence) settle() error {
	return filepath.WalkDir(filepath.Join(f.dir, "member"), func(path string, entry fs.DirEntry, err error) error {
		if err == nil && entry.Type().IsRegular() {
			err = os.Chmod(path, 0o600)
		}
		if errors.Is(err, fs.ErrNotExist) || errors.Is(err, syscall.EROFS) {
			return nil
		}
		return err
	})
}

func (f *fence) close() error {
	var errs []error
	for _, file := range []*os.File{f.nowhere, f.descriptors, f.root} {
		if file != nil {
			errs = append(errs, file.Close())
		}
	}
	return errors.Join(errs...)
}
