// Package crilog writes a container's output to a log file in the CRI format and rotates it.
//
// A File never makes the container wait for a full disk: lines that cannot be written are dropped and counted, and a
// marker says so when writing works again. What others do to the file is noticed before each write: one that was
// removed or renamed is begun anew, with its folder, one that was emptied goes on. It must not know containerd or
// containers.
package crilog

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// Limits bound what one container's log may hold on disk.
type Limits struct {
	Bytes int64 // of one file, before it is rotated
	Files int   // including the one being written
}

// DefaultLimits are the kubelet's: 10 MiB in each of 5 files.
var DefaultLimits = Limits{Bytes: 10 << 20, Files: 5}

// retryEvery is how long an open or a rotation that failed is left alone, and how often a loss that could not be told
// of is tried to be told.
const retryEvery = time.Second

// File is a log file shared by a container's streams. Its methods may be called concurrently.
type File struct {
	path   string
	limits Limits
	now    func() time.Time

	mu     sync.Mutex
	file   *os.File
	inode  unix.Stat_t // of file: device and number count
	size   int64
	lost   loss
	retry  time.Time // not before this is what failed tried again
	sealed bool
}

// loss is what could not be written since the last successful write.
type loss struct {
	lines int
	since time.Time
	cause error
	timer *time.Timer
}

// Open returns a File that appends to path. A path that cannot be opened now is tried again while lines are written.
func Open(path string, limits Limits) *File {
	f := &File{path: path, limits: limits, now: time.Now}
	f.mu.Lock()
	defer f.mu.Unlock()
	f.open()
	return f
}

// Write appends whole formatted lines, count of them. It reports nothing: lines that cannot be written are counted.
func (f *File) Write(lines []byte, count int) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if !f.ready(len(lines)) || !f.tell() {
		f.lose(count)
		return
	}
	if kept := f.append(lines); kept < len(lines) {
		f.lose(bytes.Count(lines[kept:], []byte{'\n'}))
	}
}

// Close tells of a loss, when that is possible, and closes the file.
func (f *File) Close() error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.lost.lines > 0 && f.ready(0) {
		f.tell()
	}
	f.sealed = true
	if f.lost.timer != nil {
		f.lost.timer.Stop()
	}
	return f.shut()
}

// Seal says that nobody waits for this log any more: what is removed from now on is not made anew.
func (f *File) Seal() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.sealed = true
}

// ready makes sure that the file at the path is open and has room for n bytes.
func (f *File) ready(n int) bool {
	f.look()
	if f.file == nil && !f.open() {
		return false
	}
	if f.size > 0 && f.size+int64(n) > f.limits.Bytes {
		f.rotate()
	}
	return f.file != nil
}

// look notices what others did to the file.
func (f *File) look() {
	if f.file == nil {
		return
	}
	var now unix.Stat_t
	err := unix.Lstat(f.path, &now)
	switch {
	case errors.Is(err, unix.ENOENT), errors.Is(err, unix.ENOTDIR), err == nil && (now.Dev != f.inode.Dev || now.Ino != f.inode.Ino):
		if !f.sealed {
			f.shut()
		}
	case err == nil:
		f.size = now.Size
	}
}

func (f *File) shut() error {
	if f.file == nil {
		return nil
	}
	err := f.file.Close()
	f.file = nil
	return err
}

func (f *File) open() bool {
	now := f.now()
	if f.sealed || now.Before(f.retry) {
		return false
	}
	file, err := create(f.path)
	if err != nil {
		f.lost.cause, f.retry = err, now.Add(retryEvery)
		return false
	}
	if err := unix.Fstat(int(file.Fd()), &f.inode); err != nil || f.inode.Mode&unix.S_IFMT != unix.S_IFREG {
		file.Close()
		f.lost.cause, f.retry = fmt.Errorf("%s is not a regular file", f.path), now.Add(retryEvery)
		return false
	}
	f.file, f.size = file, f.inode.Size
	return true
}

// create opens a log file, and makes its folder when that was removed. It follows no link and waits for no pipe.
func create(path string) (*os.File, error) {
	const flags = os.O_CREATE | os.O_WRONLY | os.O_APPEND | unix.O_NOFOLLOW | unix.O_NONBLOCK
	file, err := os.OpenFile(path, flags, 0o640)
	if !errors.Is(err, fs.ErrNotExist) {
		return file, err
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return nil, err
	}
	return os.OpenFile(path, flags, 0o640)
}

// append writes data, and returns how much of it: all, or the whole lines there was room for.
func (f *File) append(data []byte) int {
	n, err := f.file.Write(data)
	if err != nil {
		f.lost.cause = err
		whole := bytes.LastIndexByte(data[:n], '\n') + 1
		if whole == n || f.file.Truncate(f.size+int64(whole)) == nil {
			n = whole
		}
	}
	f.size += int64(n)
	return n
}

// lose counts lines that were dropped, and sees to it that this is told even if nothing is written any more.
func (f *File) lose(lines int) {
	if f.lost.lines == 0 {
		f.lost.since = f.now()
	}
	f.lost.lines += lines
	if f.lost.timer == nil && !f.sealed {
		f.lost.timer = time.AfterFunc(retryEvery, f.retell)
	}
}

// tell writes a line about what was lost. It returns whether nothing remains to be told.
func (f *File) tell() bool {
	if f.lost.lines == 0 {
		return true
	}
	now := f.now()
	text := fmt.Sprintf("slipway: %d log lines lost since %s: %v", f.lost.lines, f.lost.since.UTC().Format(time.RFC3339), f.lost.cause)
	line := appendLine(nil, (&clock{}).at(now), Stderr, true, []byte(text))
	if f.append(line) < len(line) {
		return false
	}
	f.lost.lines = 0
	return true
}

// retell is the timer of a loss.
func (f *File) retell() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.lost.timer = nil
	if f.sealed || f.lost.lines == 0 || f.ready(0) && f.tell() {
		return
	}
	f.lost.timer = time.AfterFunc(retryEvery, f.retell)
}
