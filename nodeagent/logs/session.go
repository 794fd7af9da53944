package logs

import (
	"bytes"
	"context"
	"errors"
	"io"
	"math"
	"time"

	"github.com/fsnotify/fsnotify"
	corev1 "k8s.io/api/core/v1"
)

// session is one reading of one attempt's log.
type session struct {
	files  *files
	out    *printer
	alive  func() bool
	buffer [readSize]byte
	held   int // bytes of an incomplete line at the beginning of buffer
}

// readSize is more than the longest line of a log file: 16 KiB with a head.
const readSize = 64 << 10

// run reads what there is, and with Follow what comes.
func (s *session) run(ctx context.Context, opts *corev1.PodLogOptions) error {
	wake, stop := s.watch(opts.Follow)
	defer stop()
	list, err := s.files.after(nil)
	if err != nil {
		return err
	}
	defer func() { closeAll(list) }()
	if opts.TailLines != nil {
		if list, err = seekTail(list, *opts.TailLines); err != nil {
			return err
		}
	}
	if !opts.Follow {
		return s.present(ctx, list)
	}
	for {
		alive := s.alive() // asked before reading: what it wrote before it ended is there
		if list, err = s.drain(ctx, list); err != nil {
			return err
		}
		if !alive {
			return s.out.finish()
		}
		if err := s.out.flush(); err != nil {
			return err
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-wake:
		}
	}
}

// present prints what was there when the files were opened: a container that writes faster than is read must not keep
// the reader for ever.
func (s *session) present(ctx context.Context, list []*file) error {
	for _, f := range list {
		s.held = 0
		if err := s.copy(ctx, f, f.entry.info.Size()); err != nil {
			return err
		}
	}
	return s.out.finish()
}

// drain prints everything in list and in files that appeared after it; what remains is the newest file, open at its
// end.
func (s *session) drain(ctx context.Context, list []*file) ([]*file, error) {
	for {
		var last *file
		for i, f := range list {
			if err := s.copy(ctx, f, math.MaxInt64); err != nil {
				return list, err
			}
			if i < len(list)-1 {
				s.held = 0
			}
			last = f
		}
		newer, err := s.files.after(last)
		if err != nil || len(newer) == 0 {
			return list, err
		}
		if last != nil { // a line may have been added before it was rotated
			if err := s.copy(ctx, last, math.MaxInt64); err != nil {
				closeAll(newer)
				return list, err
			}
			s.held = 0
		}
		closeAll(list)
		list = newer
	}
}

// copy prints the complete lines from f's position to its end, or to the offset given.
func (s *session) copy(ctx context.Context, f *file, end int64) error {
	at, err := f.Seek(0, io.SeekCurrent)
	if err != nil {
		return err
	}
	if info, err := f.Stat(); err == nil && info.Size() < at { // emptied by somebody: begin anew
		if at, err = f.Seek(0, io.SeekStart); err != nil {
			return err
		}
		s.held = 0
	}
	for at < end {
		n, err := f.Read(s.buffer[s.held:min(int64(readSize), int64(s.held)+end-at)])
		at += int64(n)
		if err := s.lines(s.held + n); err != nil {
			return err
		}
		switch {
		case errors.Is(err, io.EOF):
			return nil
		case err != nil:
			return err
		case ctx.Err() != nil:
			return ctx.Err()
		}
	}
	return nil
}

// lines prints the complete lines in the first n bytes of the buffer and moves the rest to its beginning.
func (s *session) lines(n int) error {
	rest := s.buffer[:n]
	for {
		i := bytes.IndexByte(rest, '\n')
		if i < 0 {
			break
		}
		if err := s.out.line(rest[:i]); err != nil {
			return err
		}
		rest = rest[i+1:]
	}
	if len(rest) == readSize {
		rest = nil // no line of the shim's is so long
	}
	s.held = copy(s.buffer[:], rest)
	return nil
}

// pollPeriod is how often a follower looks even when no file changed: the container may have ended.
const pollPeriod = 200 * time.Millisecond

// watch returns a channel that receives when the files may have changed. Where they cannot be watched, such as when
// the system's inotify instances are used up, they are looked at regularly.
func (s *session) watch(follow bool) (<-chan struct{}, func()) {
	wake := make(chan struct{}, 1)
	if !follow {
		return wake, func() {}
	}
	notify := func() {
		select {
		case wake <- struct{}{}:
		default:
		}
	}
	ticker := time.NewTicker(pollPeriod)
	done := make(chan struct{})
	var changes chan fsnotify.Event
	var faults chan error
	watcher, err := fsnotify.NewWatcher()
	if err == nil && s.files.dir() != "" && watcher.Add(s.files.dir()) == nil {
		changes, faults = watcher.Events, watcher.Errors
	}
	go func() {
		defer ticker.Stop()
		for {
			select {
			case <-done:
				return
			case <-ticker.C:
			case err := <-faults: // such as a full queue: what changed is looked for
				_ = err
			case _, open := <-changes:
				if !open {
					changes, faults = nil, nil
				}
			}
			notify()
		}
	}()
	return wake, func() {
		close(done)
		if watcher != nil {
			_ = watcher.Close()
		}
	}
}
