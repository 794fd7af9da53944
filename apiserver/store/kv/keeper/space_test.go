package keeper

import (
	"errors"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/slipway-dev/slipway/apiserver/store/kv"
)

func TestAFewInodesAreAFullDisk(t *testing.T) {
	const room = 1 << 30
	for name, tt := range map[string]struct {
		fs   unix.Statfs_t
		want string
	}{
		"enough":                        {unix.Statfs_t{Bavail: room, Bsize: 1, Files: 1000, Ffree: 100}, ""},
		"few":                           {unix.Statfs_t{Bavail: room, Bsize: 1, Files: 1000, Ffree: 5}, "the disk of /data has 5 inodes free and writes need 64: remove files; reading goes on"},
		"a filesystem that counts none": {unix.Statfs_t{Bavail: room, Bsize: 1}, ""},
	} {
		s := space{dir: "/data", reserve: Reserve, free: func() (uint64, error) { return freeIn("/data", tt.fs) }, began: time.Now()}
		got := ""
		if err := s.check(); err != nil {
			if got = err.Error(); !errors.Is(err, kv.ErrNoSpace) {
				t.Errorf("%s: %v is no lack of space", name, err)
			}
		}
		if got != tt.want {
			t.Errorf("%s: %q, want %q", name, got, tt.want)
		}
	}
}
