package keeper

import (
	"errors"
	"fmt"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"

	"github.com/slipway-dev/slipway/apiserver/store/kv"
)

// Reserve is how much of the disk writes leave free: two segments of etcd's log, 64 MB each. etcd makes each before
// the last is used up, and does not survive that there is no room for it.
const Reserve = 128 << 20

// reserveInodes is how many files writes leave room for: a segment of etcd's log in the making, a snapshot, what the
// database is copied to, and their folders.
const reserveInodes = 64

// lookEvery is for how long what the disk has free is believed.
const lookEvery = 10 * time.Millisecond

// SpaceError refuses a write because the disk is nearly full. Nothing was written.
type SpaceError struct {
	Dir        string
	Free, Need uint64 // bytes
	// Inodes is how many files may still be made, NeedInodes how many there must be room for; both are zero when it is
	// bytes that are short.
	Inodes, NeedInodes uint64
}

// Error names the directory, what it has and what it needs.
func (e *SpaceError) Error() string {
	if e.NeedInodes > 0 {
		return fmt.Sprintf("the disk of %s has %d inodes free and writes need %d: remove files; reading goes on", e.Dir, e.Inodes, e.NeedInodes)
	}
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
	var few *SpaceError
	if errors.As(err, &few) {
		s.short.Store(few)
		return
	}
	if err != nil || free >= s.reserve {
		s.short.Store(nil)
		return
	}
	s.short.Store(&SpaceError{Dir: s.dir, Free: free, Need: s.reserve})
}

// freeOf asks the kernel what the disk of a directory has free for this user. Where hardly a file can be made any more
// it returns a *SpaceError.
func freeOf(dir string) (uint64, error) {
	var fs unix.Statfs_t
	if err := unix.Statfs(dir, &fs); err != nil {
		return 0, fmt.Errorf("look at the disk of %s: %w", dir, err)
	}
	return freeIn(dir, fs)
}

func freeIn(dir string, fs unix.Statfs_t) (uint64, error) {
	free := fs.Bavail * uint64(fs.Bsize)
	if fs.Files > 0 && fs.Ffree < reserveInodes { // zero: a filesystem that does not count them
		return free, &SpaceError{Dir: dir, Free: free, Inodes: fs.Ffree, NeedInodes: reserveInodes}
	}
	return free, nil
}
