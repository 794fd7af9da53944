package shim

import (
	"os"

	"golang.org/x/sys/unix"
)

// socket is the file of the socket this shim listens on.
type socket struct {
	path  string
	inode uint64
}

// socketOf finds the file behind a listening descriptor; the zero socket when there is none.
func socketOf(fd int) socket {
	addr, err := unix.Getsockname(fd)
	if err != nil {
		return socket{}
	}
	u, ok := addr.(*unix.SockaddrUnix)
	if !ok || u.Name == "" || u.Name[0] == '@' {
		return socket{}
	}
	return socket{path: u.Name, inode: inodeOf(u.Name)}
}

// remove deletes the file unless another shim has put its own in its place.
func (s socket) remove() {
	if s.path != "" && s.inode != 0 && inodeOf(s.path) == s.inode {
		os.Remove(s.path)
	}
}

func inodeOf(path string) uint64 {
	var st unix.Stat_t
	if unix.Lstat(path, &st) != nil {
		return 0
	}
	return st.Ino
}
