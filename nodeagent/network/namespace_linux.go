package network

import (
	"errors"
	"fmt"
	"os"
	"runtime"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

const (
	nsfsMagic = 0x6e736673 // a pinned namespace's filesystem
	shmBytes  = 64 << 20   // what container runtimes give /dev/shm
)

// podSysctls are set inside a Pod's network namespace, as container runtimes do: any user may ping and bind low
// ports. None of them may be one that takes the kernel's link lock (disable_ipv6 does): those spin while it is taken.
var podSysctls = []struct{ name, value string }{
	{"net/ipv4/conf/all/accept_redirects", "0"},
	{"net/ipv4/conf/default/accept_redirects", "0"},
	{"net/ipv4/ip_unprivileged_port_start", "0"},
	{"net/ipv4/ping_group_range", "0 2147483647"},
}

// namespaces are the pins of one Pod; an empty path means the namespace is not the Pod's own.
type namespaces struct {
	net, ipc, uts string
	hostname      string
	did           func(what string)
}

// create makes the namespaces and pins them. The handle is bound to the new network namespace; it is nil without one.
func (n namespaces) create() (*netlink.Handle, error) {
	var handle *netlink.Handle
	var err error
	done := make(chan struct{})
	go func() {
		defer close(done)
		onOwnThread(func() { handle, err = n.createHere() })
	}()
	<-done
	return handle, err
}

// onOwnThread runs f on a thread that ends with the calling goroutine. That must not be the main thread: it never
// ends, and /proc/self would for ever show the namespaces f moved it to.
func onOwnThread(f func()) {
	runtime.LockOSThread()
	if unix.Gettid() != unix.Getpid() {
		f()
		return
	}
	done := make(chan struct{})
	go func() { // on another thread, since this goroutine holds the main one
		defer close(done)
		runtime.LockOSThread()
		f()
	}()
	<-done
	runtime.UnlockOSThread()
}

// createHere moves the calling thread into new namespaces.
func (n namespaces) createHere() (*netlink.Handle, error) {
	flags := 0
	for path, flag := range map[string]int{n.net: unix.CLONE_NEWNET, n.ipc: unix.CLONE_NEWIPC, n.uts: unix.CLONE_NEWUTS} {
		if path != "" {
			flags |= flag
		}
	}
	if err := unix.Unshare(flags); err != nil {
		return nil, fmt.Errorf("create namespaces: %w", err)
	}
	if n.uts != "" {
		if err := unix.Sethostname([]byte(n.hostname)); err != nil {
			return nil, fmt.Errorf("set hostname %q: %w", n.hostname, err)
		}
	}
	for path, name := range map[string]string{n.net: "net", n.ipc: "ipc", n.uts: "uts"} {
		if path == "" {
			continue
		}
		if err := pin("/proc/thread-self/ns/"+name, path); err != nil {
			return nil, err
		}
		n.did("pin " + name)
	}
	if n.net == "" {
		return nil, nil
	}
	for _, s := range podSysctls {
		if err := writeSysctl(s.name, s.value); err != nil {
			return nil, err
		}
	}
	handle, err := netlink.NewHandle(unix.NETLINK_ROUTE)
	if err != nil {
		return nil, fmt.Errorf("open netlink in the Pod's namespace: %w", err)
	}
	return handle, nil
}

// pin keeps a namespace alive at path.
func pin(namespace, path string) error {
	file, err := os.OpenFile(path, os.O_CREATE|os.O_RDONLY, 0o600)
	if err != nil {
		return err
	}
	if err := file.Close(); err != nil {
		return err
	}
	if err := unix.Mount(namespace, path, "", unix.MS_BIND, ""); err != nil {
		return fmt.Errorf("pin %s at %s: %w", namespace, path, err)
	}
	return nil
}

// pinned says whether path holds a namespace.
func pinned(path string) bool {
	var stat unix.Statfs_t
	return unix.Statfs(path, &stat) == nil && stat.Type == nsfsMagic
}

// mountShm puts a tmpfs at dir for /dev/shm.
func mountShm(dir string) error {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	opts := fmt.Sprintf("mode=1777,size=%d", shmBytes)
	if err := unix.Mount("shm", dir, "tmpfs", unix.MS_NOEXEC|unix.MS_NOSUID|unix.MS_NODEV, opts); err != nil {
		return fmt.Errorf("mount shm at %s: %w", dir, err)
	}
	return nil
}

// isTmpfs says whether dir is a mounted tmpfs of its own.
func isTmpfs(dir string) bool {
	var stat, parent unix.Stat_t
	var fs unix.Statfs_t
	if unix.Stat(dir, &stat) != nil || unix.Stat(dir+"/..", &parent) != nil || unix.Statfs(dir, &fs) != nil {
		return false
	}
	return fs.Type == unix.TMPFS_MAGIC && stat.Dev != parent.Dev
}

// unmount takes away every mount at path; there may be none.
func unmount(path string) error {
	for {
		err := unix.Unmount(path, unix.MNT_DETACH|unix.UMOUNT_NOFOLLOW)
		switch {
		case errors.Is(err, unix.EINVAL), errors.Is(err, unix.ENOENT):
			return nil
		case err != nil:
			return fmt.Errorf("unmount %s: %w", path, err)
		}
	}
}

// writeSysctl sets a value in the calling thread's network namespace.
func writeSysctl(name, value string) error {
	if err := os.WriteFile("/proc/sys/"+name, []byte(value), 0o644); err != nil {
		return fmt.Errorf("set %s to %s: %w", name, value, err)
	}
	return nil
}
