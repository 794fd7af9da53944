package local

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strconv"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
)

// openFlags neither follow a link in the last step nor wait for the other end of a pipe.
const openFlags = os.O_RDONLY | unix.O_NOFOLLOW | unix.O_NONBLOCK

// changeTime returns the inode change time in nanoseconds: it cannot be set back by a program.
func changeTime(info fs.FileInfo) int64 {
	if stat, ok := info.Sys().(*syscall.Stat_t); ok {
		return stat.Ctim.Nano()
	}
	return 0
}

// remote are filesystems on which another machine's or the host's changes raise no events here.
var remote = map[uint32]string{
	unix.NFS_SUPER_MAGIC: "NFS", unix.SMB_SUPER_MAGIC: "SMB", unix.SMB2_SUPER_MAGIC: "SMB", unix.CIFS_SUPER_MAGIC: "CIFS",
	unix.FUSE_SUPER_MAGIC: "FUSE", unix.V9FS_MAGIC: "9p", unix.CEPH_SUPER_MAGIC: "CephFS", unix.AFS_SUPER_MAGIC: "AFS",
	0x786f4256: "vboxsf", 0x0bd00bd0: "Lustre",
}

// networkFilesystem names the filesystem dir is on if its changes cannot be watched.
func networkFilesystem(dir string) string {
	var stat unix.Statfs_t
	if err := unix.Statfs(dir, &stat); err != nil {
		return ""
	}
	return remote[uint32(stat.Type)]
}

// exhausted says which limit of the system an error of watching means, its present value and how it is raised; ""
// when it means none.
func exhausted(err error) string {
	knob := ""
	switch {
	case errors.Is(err, unix.ENOSPC):
		knob = "fs.inotify.max_user_watches"
	case errors.Is(err, unix.EMFILE) && !descriptorLeft():
		return "this process has no file descriptor left: raise its limit (ulimit -n, LimitNOFILE)"
	case errors.Is(err, unix.EMFILE):
		knob = "fs.inotify.max_user_instances"
	default:
		return ""
	}
	text, readErr := os.ReadFile("/proc/sys/" + strings.ReplaceAll(knob, ".", "/"))
	present, numberErr := strconv.Atoi(strings.TrimSpace(string(text)))
	if readErr != nil || numberErr != nil {
		return fmt.Sprintf("the limit %s is reached: raise it", knob)
	}
	return fmt.Sprintf("the limit %s = %d is reached: raise it with `sysctl -w %s=%d`", knob, present, knob, 8*present)
}

// descriptorLeft says whether this process may open another file.
func descriptorLeft() bool {
	file, err := os.Open("/dev/null")
	if err != nil {
		return false
	}
	_ = file.Close() // nothing was written
	return true
}
