package shim

import (
	"fmt"
	"net/url"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/slipway-dev/slipway/nodeagent/runtime/bundle/crilog"
)

// LogScheme begins the stdout address of a container whose output this shim writes to a log file:
// "slipway-log:///var/log/pods/x/0.log?bytes=10485760&files=5&exit=/var/lib/x/0.exit".
const LogScheme = "slipway-log"

// target is where a container's log goes.
type target struct {
	path   string
	limits crilog.Limits
	exit   string // file for a note of the exit; empty: none is kept
}

// parseTarget reads a stdout address. ok is false when the address is not of LogScheme.
func parseTarget(address string) (t target, ok bool, err error) {
	if !strings.HasPrefix(address, LogScheme+":") {
		return target{}, false, nil
	}
	u, err := url.Parse(address)
	if err != nil {
		return target{}, true, fmt.Errorf("parse log address: %w", err)
	}
	if !filepath.IsAbs(u.Path) {
		return target{}, true, fmt.Errorf("parse log address %q: the path is not absolute", address)
	}
	query := u.Query()
	t = target{path: u.Path, limits: crilog.DefaultLimits, exit: query.Get("exit")}
	if v := query.Get("bytes"); v != "" {
		if t.limits.Bytes, err = strconv.ParseInt(v, 10, 64); err != nil {
			return target{}, true, fmt.Errorf("parse log address: bytes: %w", err)
		}
	}
	if v := query.Get("files"); v != "" {
		if t.limits.Files, err = strconv.Atoi(v); err != nil {
			return target{}, true, fmt.Errorf("parse log address: files: %w", err)
		}
	}
	return t, true, nil
}

// output is one container's way from its pipes to its log file.
type output struct {
	holders []*os.File // keep the pipes open until the container's writers are there
	pipes   []string
	file    *crilog.File
	note    note
	done    chan struct{}
}

// openOutput makes one named pipe per stream in dir and begins copying them to the log. release must be called when
// the writers have opened the pipes, or never will.
func openOutput(dir string, t target, streams ...crilog.Stream) (_ *output, err error) {
	o := &output{note: note(t.exit).begin(), done: make(chan struct{})}
	var readers []*os.File
	defer func() {
		if err != nil {
			o.release()
			for _, r := range readers {
				r.Close()
			}
		}
	}()
	for _, stream := range streams {
		path := filepath.Join(dir, string(stream)+".pipe")
		if err := makePipe(path); err != nil {
			return nil, err
		}
		o.pipes = append(o.pipes, path)
		holder, err := os.OpenFile(path, os.O_RDWR, 0)
		if err != nil {
			return nil, err
		}
		o.holders = append(o.holders, holder)
		reader, err := os.OpenFile(path, os.O_RDONLY|unix.O_NONBLOCK, 0)
		if err != nil {
			return nil, err
		}
		readers = append(readers, reader)
	}
	o.file = crilog.Open(t.path, t.limits)
	var wg sync.WaitGroup
	for i, reader := range readers {
		wg.Go(func() {
			crilog.Copy(o.file, streams[i], reader)
			reader.Close()
		})
	}
	go func() {
		wg.Wait()
		o.file.Close()
		close(o.done)
	}()
	return o, nil
}

// widen makes the pipes a container's first process writes to hold more than the usual 64 KiB, as far as the system
// lets it: that much a container may write ahead before it waits for this shim, which on a busy machine may wait for a
// processor itself. Only what is in a pipe takes memory.
func widen(pid uint32) {
	for _, fd := range []int{1, 2} {
		pipe, err := os.OpenFile(fmt.Sprintf("/proc/%d/fd/%d", pid, fd), os.O_WRONLY|unix.O_NONBLOCK, 0)
		if err != nil {
			continue // ended already
		}
		for _, size := range []int{1 << 20, 256 << 10} {
			if _, err := unix.FcntlInt(pipe.Fd(), unix.F_SETPIPE_SZ, size); err == nil {
				break
			}
		}
		pipe.Close()
	}
}

func (o *output) release() {
	for _, path := range o.pipes {
		os.Remove(path)
	}
	for _, holder := range o.holders {
		holder.Close()
	}
	o.holders, o.pipes = nil, nil
}

// drained waits until everything written is in the log file, at most for the time given.
func (o *output) drained(atMost time.Duration) {
	timer := time.NewTimer(atMost)
	defer timer.Stop()
	select {
	case <-o.done:
	case <-timer.C:
	}
}

func makePipe(path string) error {
	if err := unix.Mkfifo(path, 0o600); err != nil {
		return &os.PathError{Op: "mkfifo", Path: path, Err: err}
	}
	return nil
}
