//go:build linux

// Package networktest runs tests that change links, routes and packet filters in network and mount namespaces of
// their own, so that the machine they run on is not touched and nothing is left behind.
package networktest

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"syscall"
	"testing"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"
)

const inside = "SLIPWAY_NETWORKTEST_INSIDE"

// Main is for TestMain: run by root, it runs the test binary again in its own namespaces. Run by others, it runs the
// tests as they are; those that call need.Root skip.
func Main(m *testing.M) {
	if os.Geteuid() != 0 {
		os.Exit(m.Run())
	}
	if os.Getenv(inside) == "" {
		os.Exit(again())
	}
	if err := prepare(); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	os.Exit(m.Run())
}

func again() int {
	cmd := exec.Command("/proc/self/exe", os.Args[1:]...)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
	cmd.Env = append(os.Environ(), inside+"=1")
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: unix.CLONE_NEWNET | unix.CLONE_NEWNS | unix.CLONE_NEWIPC, Pdeathsig: syscall.SIGKILL}
	err := cmd.Run()
	var exit *exec.ExitError
	switch {
	case err == nil:
		return 0
	case errors.As(err, &exit):
		return exit.ExitCode()
	}
	fmt.Fprintln(os.Stderr, err)
	return 1
}

func prepare() error {
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		return fmt.Errorf("make mounts private: %w", err)
	}
	lo, err := netlink.LinkByName("lo")
	if err != nil {
		return fmt.Errorf("find lo: %w", err)
	}
	return netlink.LinkSetUp(lo)
}

// In runs f in the network namespace at path. Sockets f opens stay in that namespace.
func In(t testing.TB, path string, f func()) {
	t.Helper()
	err := onOwnThread(func() error {
		ns, err := netns.GetFromPath(path)
		if err != nil {
			return err
		}
		defer ns.Close()
		if err := netns.Set(ns); err != nil {
			return err
		}
		f()
		return nil
	})
	if err != nil {
		t.Fatalf("enter %s: %v", path, err)
	}
}

// onOwnThread runs f on a thread that ends afterwards, and never on the main one, which cannot end.
func onOwnThread(f func() error) error {
	done := make(chan error)
	go func() {
		err := errors.New("the test ended there")
		defer func() { done <- err }() // also after FailNow
		runtime.LockOSThread()
		if unix.Gettid() == unix.Getpid() {
			err = onOwnThread(f) // on another thread: this goroutine holds the main one
			runtime.UnlockOSThread()
			return
		}
		err = f()
	}()
	return <-done
}

// Listen listens on a TCP address in the namespace at path until the test ends.
func Listen(t testing.TB, path, address string) net.Listener {
	t.Helper()
	var l net.Listener
	var err error
	In(t, path, func() { l, err = net.Listen("tcp4", address) })
	if err != nil {
		t.Fatalf("listen on %s: %v", address, err)
	}
	t.Cleanup(func() { l.Close() })
	return l
}

// ListenPacket listens on a UDP address in the namespace at path until the test ends.
func ListenPacket(t testing.TB, path, address string) net.PacketConn {
	t.Helper()
	var c net.PacketConn
	var err error
	In(t, path, func() { c, err = net.ListenPacket("udp4", address) })
	if err != nil {
		t.Fatalf("listen on %s: %v", address, err)
	}
	t.Cleanup(func() { c.Close() })
	return c
}

// Dial calls an address ("tcp4" or "udp4") from the namespace at path.
func Dial(ctx context.Context, t testing.TB, path, network, address string) (net.Conn, error) {
	t.Helper()
	var c net.Conn
	var err error
	In(t, path, func() { c, err = (&net.Dialer{}).DialContext(ctx, network, address) })
	if err == nil {
		t.Cleanup(func() { c.Close() })
	}
	return c, err
}

// Host makes another machine: a namespace with one link to this one. Its address is the second of cidr, this end's
// the first, which is its default route. It returns the namespace's path.
func Host(t testing.TB, name string, cidr netip.Prefix) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), name)
	file, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	file.Close()
	err = onOwnThread(func() error {
		if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
			return err
		}
		return unix.Mount("/proc/thread-self/ns/net", path, "", unix.MS_BIND, "")
	})
	if err != nil {
		t.Fatalf("make host %s: %v", name, err)
	}
	t.Cleanup(func() {
		if link, err := netlink.LinkByName(name); err == nil {
			_ = netlink.LinkDel(link)
		}
		_ = unix.Unmount(path, unix.MNT_DETACH)
	})
	connect(t, name, path, cidr)
	return path
}

func connect(t testing.TB, name, path string, cidr netip.Prefix) {
	t.Helper()
	ns, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer ns.Close()
	attrs := netlink.NewLinkAttrs()
	attrs.Name = name
	veth := netlink.NewVeth(attrs)
	veth.PeerName, veth.PeerNamespace = "eth0", netlink.NsFd(int(ns.Fd()))
	near, far := cidr.Masked().Addr().Next(), cidr.Masked().Addr().Next().Next()
	must(t, netlink.LinkAdd(veth))
	must(t, configure(veth, netip.PrefixFrom(near, cidr.Bits())))
	In(t, path, func() {
		lo, _ := netlink.LinkByName("lo")
		eth, _ := netlink.LinkByName("eth0")
		must(t, netlink.LinkSetUp(lo))
		must(t, configure(eth, netip.PrefixFrom(far, cidr.Bits())))
		must(t, netlink.RouteAdd(&netlink.Route{LinkIndex: eth.Attrs().Index, Gw: near.AsSlice()}))
	})
}

func configure(link netlink.Link, addr netip.Prefix) error {
	ipnet := &net.IPNet{IP: addr.Addr().AsSlice(), Mask: net.CIDRMask(addr.Bits(), 32)}
	if err := netlink.AddrAdd(link, &netlink.Addr{IPNet: ipnet}); err != nil {
		return err
	}
	return netlink.LinkSetUp(link)
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Error(err)
	}
}
