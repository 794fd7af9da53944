package keeper

import (
	"fmt"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"

	"github.com/slipway-dev/slipway/apiserver/store/kv"
)

// Reserve is how much of the disk writes leave free: two segments of etcd's log, 64 MB each. etcd makes each before
// the last is used up, and does not survive that there is no room for it.
const Reserve = 128 << 20

// lookEvery is for how long what the disk has free is believed.
const lookEvery = 10 * time.Millisecond

// SpaceError refuses a write because the disk is nearly full. Nothing was written.
type SpaceError struct {
	Dir        string
	Free, Need uint64 // bytes
}

// Error names the directory, what it has and what it needs.
func (e *SpaceError) Error() string {
	return fmt.Sprintf("the disk of %s has %d bytes (%d MB) free and writes need %d MB: make room; reading goes on", e.Dir, e.Free, e.Free>>20, e.Need>>20)
}

// Unwrap says that it is a kv.ErrNoSpace.
func (e *SpaceError) Unwrap() error { return kv.ErrNoSpace }

// space watches a disk.
type space struct {
	dir     string
	reserve uint64
	free    func() (uint64, error)
	began   time.Time

	looked atomic.Int64 // when, in nanoseconds after began; 0: never
	short  atomic.Pointer[SpaceError]
	known  atomic.Int64 // size of the database that space was reserved for
}

// check returns a *SpaceError if the disk is nearly full. A disk that cannot be asked is not: writing will tell.
func (s *space) check() error {
	now := int64(time.Since(s.began)) + 1
	if looked := s.looked.Load(); looked == 0 || now-looked > int64(lookEvery) {
		s.looked.Store(now)
		s.look()
	}
	if short := s.short.Load(); short != nil {
		return short
	}
	return nil
}

func (s *space) look() {
	free, err := s.free()
	if err != nil || free >= s.reserve {
		s.short.Store(nil)
		return
	}
	s.short.Store(&SpaceError{Dir: s.dir, Free: free, Need: s.reserve})
}

// freeOf asks the kernel what the disk of a directory has free for this user.
func freeOf(dir string) (uint64, error) {
	var fs unix.Statfs_t
	if err := unix.Statfs(dir, &fs); err != nil {
		return 0, fmt.Errorf("look at the disk of %s: %w", dir, err)
	}
	return fs.Bavail * uint64(fs.Bsize), nil
}
