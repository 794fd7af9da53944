// Package crilog writes a container's output to a log file in the CRI format and rotates it.
//
// A File never makes the container wait for a full disk: lines that cannot be written are dropped and counted, and a
// marker says so when writing works again. It must not know containerd or containers.
package crilog

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"sync"
	"time"
)

// Limits bound what one container's log may hold on disk.
type Limits struct {
	Bytes int64 // of one file, before it is rotated
	Files int   // including the one being written
}

// DefaultLimits are the kubelet's: 10 MiB in each of 5 files.
var DefaultLimits = Limits{Bytes: 10 << 20, Files: 5}

// retryEvery is how long a file that could not be opened is left alone.
const retryEvery = time.Second

// File is a log file shared by a container's streams. Its methods may be called concurrently.
type File struct {
	path   string
	limits Limits
	now    func() time.Time

	mu      sync.Mutex
	file    *os.File
	size    int64
	dropped int       // lines lost since the last successful write
	cause   error     // why
	retry   time.Time // not before this is a failed open tried again
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
	if f.file == nil && !f.open() {
		f.dropped += count
		return
	}
	if f.size > 0 && f.size+int64(len(lines)) > f.limits.Bytes {
		f.rotate()
	}
	if f.dropped > 0 {
		marker := fmt.Sprintf("slipway: %d log lines lost: %v", f.dropped, f.cause)
		if !f.append(appendLine(nil, f.now(), Stderr, true, []byte(marker))) {
			f.dropped += count
			return
		}
		f.dropped = 0
	}
	if !f.append(lines) {
		f.dropped += count
	}
}

// Close closes the file; later writes open it again.
func (f *File) Close() error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.file == nil {
		return nil
	}
	err := f.file.Close()
	f.file = nil
	return err
}

func (f *File) open() bool {
	now := f.now()
	if now.Before(f.retry) {
		return false
	}
	file, err := os.OpenFile(f.path, os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o640)
	if err != nil {
		f.cause, f.retry = err, now.Add(retryEvery)
		return false
	}
	f.file, f.size = file, 0
	if info, err := file.Stat(); err == nil {
		f.size = info.Size()
	}
	return true
}

// append writes all of data or nothing of it.
func (f *File) append(data []byte) bool {
	if f.file == nil {
		return false
	}
	n, err := f.file.Write(data)
	if err != nil {
		f.cause = err
		if n > 0 && f.file.Truncate(f.size) != nil {
			f.size += int64(n)
		}
		return false
	}
	f.size += int64(n)
	return true
}

// rotate moves the file aside and begins a new one. When that is impossible the old one goes on: a log too long is
// better than none.
func (f *File) rotate() {
	rotated := f.path + "." + f.now().UTC().Format("20060102-150405")
	for n := 1; exists(rotated); n++ {
		rotated = f.path + "." + f.now().UTC().Format("20060102-150405") + "-" + strconv.Itoa(n)
	}
	if os.Rename(f.path, rotated) != nil {
		return
	}
	old := f.file
	f.file = nil
	if !f.open() {
		if os.Rename(rotated, f.path) == nil {
			f.file = old
			return
		}
	}
	old.Close()
	f.prune()
}

func (f *File) prune() {
	rotated, err := filepath.Glob(globEscape(f.path) + ".[0-9]*")
	if err != nil {
		return
	}
	slices.SortFunc(rotated, func(a, b string) int { return modTime(a).Compare(modTime(b)) })
	for len(rotated) > max(f.limits.Files-1, 0) {
		os.Remove(rotated[0])
		rotated = rotated[1:]
	}
}

func exists(path string) bool {
	_, err := os.Lstat(path)
	return err == nil
}

func modTime(path string) time.Time {
	info, err := os.Lstat(path)
	if err != nil {
		return time.Time{}
	}
	return info.ModTime()
}

// globEscape makes path match only itself.
func globEscape(path string) string {
	var out []byte
	for _, c := range []byte(path) {
		if c == '*' || c == '?' || c == '[' || c == '\\' {
			out = append(out, '\\')
		}
		out = append(out, c)
	}
	return string(out)
}
