package logs

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"io"
	"os"
	"time"

	"github.com/fsnotify/fsnotify"
	corev1 "k8s.io/api/core/v1"
)

// session is one reading of one attempt's log.
type session struct {
	files *files
	out   *printer
	alive func() bool
	rest  []byte // an incomplete line at the end of the file being read
}

// run reads what there is, and with Follow what comes.
func (s *session) run(ctx context.Context, opts *corev1.PodLogOptions) error {
	wake, stop := s.watch(opts.Follow)
	defer stop()
	list, err := s.files.open()
	if err != nil {
		return err
	}
	defer func() { closeAll(list) }()
	if opts.TailLines != nil {
		if list, err = seekTail(list, int(*opts.TailLines)); err != nil {
			return err
		}
	}
	for {
		alive := opts.Follow && s.alive() // asked before reading: what it wrote before it ended is there
		if list, err = s.drain(ctx, list); err != nil {
			return err
		}
		if !opts.Follow || !alive {
			return s.out.flush()
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-wake:
		}
	}
}

// drain prints everything in list and in files that appeared after it; what remains is the newest file, open at its
// end.
func (s *session) drain(ctx context.Context, list []*os.File) ([]*os.File, error) {
	for {
		for i, f := range list {
			if err := s.copy(ctx, f); err != nil {
				return list, err
			}
			if i < len(list)-1 {
				s.rest = nil
			}
		}
		var newer []*os.File
		var err error
		if len(list) == 0 {
			newer, err = s.files.open()
		} else {
			newer, err = s.files.after(list[len(list)-1])
		}
		if err != nil || len(newer) == 0 {
			return list, err
		}
		if len(list) > 0 { // a line may have been added before it was rotated
			if err := s.copy(ctx, list[len(list)-1]); err != nil {
				closeAll(newer)
				return list, err
			}
			s.rest = nil
		}
		closeAll(list)
		list = newer
	}
}

// copy prints the complete lines from f's position to its end.
func (s *session) copy(ctx context.Context, f *os.File) error {
	buffer := make([]byte, 64<<10)
	for {
		n, err := f.Read(buffer)
		s.rest = append(s.rest, buffer[:n]...)
		for {
			i := bytes.IndexByte(s.rest, '\n')
			if i < 0 {
				break
			}
			if err := s.out.line(s.rest[:i]); err != nil {
				return err
			}
			s.rest = s.rest[i+1:]
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
}

// pollPeriod is how often a follower looks even when no file changed: the container may have ended.
const pollPeriod = 200 * time.Millisecond

// watch returns a channel that receives when the files may have changed.
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
	watcher, err := fsnotify.NewWatcher()
	if err == nil && s.files.dir() != "" && watcher.Add(s.files.dir()) == nil {
		changes = watcher.Events
	}
	go func() {
		defer ticker.Stop()
		for {
			select {
			case <-done:
				return
			case <-ticker.C:
			case _, open := <-changes:
				if !open {
					changes = nil
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

// seekTail positions the files at the last n complete log lines and closes those before them.
func seekTail(list []*os.File, n int) ([]*os.File, error) {
	if n == 0 && len(list) > 0 {
		last := list[len(list)-1]
		closeAll(list[:len(list)-1])
		_, err := last.Seek(0, io.SeekEnd)
		return []*os.File{last}, err
	}
	for i := len(list) - 1; i >= 0; i-- {
		starts, err := lineStarts(list[i], n)
		if err != nil {
			return list, err
		}
		offset := int64(0)
		if len(starts) == n {
			offset = starts[0]
		}
		if _, err := list[i].Seek(offset, io.SeekStart); err != nil {
			return list, err
		}
		if len(starts) == n {
			closeAll(list[:i])
			return list[i:], nil
		}
		n -= len(starts)
	}
	return list, nil
}

// lineStarts returns where the last n lines of f begin. Pieces of one long line count as one.
func lineStarts(f *os.File, n int) ([]int64, error) {
	var starts []int64
	var offset int64
	joined := map[string]bool{} // by stream
	r := bufio.NewReaderSize(f, 64<<10)
	for {
		head, err := r.ReadSlice('\n')
		length := int64(len(head))
		if len(head) > 0 {
			stream, more := partial(head)
			if !joined[stream] {
				starts = append(starts, offset)
			}
			if len(starts) > n {
				starts = starts[1:]
			}
			joined[stream] = more
		}
		for errors.Is(err, bufio.ErrBufferFull) {
			head, err = r.ReadSlice('\n')
			length += int64(len(head))
		}
		offset += length
		if errors.Is(err, io.EOF) {
			return starts, nil
		}
		if err != nil {
			return nil, err
		}
	}
}
