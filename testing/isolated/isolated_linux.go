// Package isolated runs a program in network and mount namespaces of its own, so that what it sets up on its host
// (links, packet filter, mounts, /run, /var/log) is seen by nobody else and goes with it.
package isolated

import (
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"os/signal"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

const marker = "SLIPWAY_TEST_ISOLATED"

// NodeIP is the address of the isolated host's outward link.
const NodeIP = "192.0.2.2"

// Main is TestMain for tests that use the whole host: as root it runs them isolated, else as they are (they ask
// testing/need for root and say that it is missing). What is in before is called first, as root and where the
// machine's own network is: the isolated tests reach nothing outside. Its errors are printed; the tests run anyway.
func Main(m *testing.M, before ...func() error) int {
	if os.Geteuid() != 0 {
		return m.Run()
	}
	if os.Getenv(marker) == "" {
		for _, prepare := range before {
			if err := prepare(); err != nil {
				fmt.Fprintln(os.Stderr, "before isolating:", err)
			}
		}
	}
	return Run(m.Run)
}

// Run calls work in a copy of this process that is isolated, and returns its exit code. It needs root.
func Run(work func() int) int {
	if os.Getenv(marker) == "" {
		return again()
	}
	if err := prepare(); err != nil {
		fmt.Fprintln(os.Stderr, "isolate:", err)
		return 1
	}
	return work()
}

// again runs this program once more, in new namespaces.
func again() int {
	cmd := exec.Command("/proc/self/exe", os.Args[1:]...)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
	cmd.Env = append(os.Environ(), marker+"=1")
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: unix.CLONE_NEWNET | unix.CLONE_NEWNS, Pdeathsig: syscall.SIGKILL}
	signals := make(chan os.Signal, 1)
	signal.Notify(signals, os.Interrupt, syscall.SIGTERM)
	if err := cmd.Start(); err != nil {
		fmt.Fprintln(os.Stderr, "isolate:", err)
		return 1
	}
	go func() {
		for s := range signals {
			_ = cmd.Process.Signal(s)
		}
	}()
	err := cmd.Wait()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		fmt.Fprintln(os.Stderr, "isolate:", err)
		return 1
	}
	return cmd.ProcessState.ExitCode()
}

// prepare makes the namespaces look like a small host: a private /run and /var/log, a name server that refuses, the
// loopback link, and a link with an address and a default route that lead nowhere.
func prepare() error {
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		return fmt.Errorf("make mounts private: %w", err)
	}
	if err := forgetMounts("/run/"); err != nil {
		return err
	}
	for _, dir := range []string{"/run", "/var/log"} {
		if err := unix.Mount("tmpfs", dir, "tmpfs", 0, ""); err != nil {
			return fmt.Errorf("mount %s: %w", dir, err)
		}
	}
	// Names outside cannot be asked for: say so at once instead of waiting for an answer.
	if err := os.WriteFile("/run/resolv.conf", []byte("nameserver 127.0.0.1\n"), 0o644); err != nil {
		return fmt.Errorf("write resolv.conf: %w", err)
	}
	if err := unix.Mount("/run/resolv.conf", "/etc/resolv.conf", "", unix.MS_BIND, ""); err != nil {
		return fmt.Errorf("mount resolv.conf: %w", err)
	}
	lo, err := netlink.LinkByName("lo")
	if err != nil {
		return fmt.Errorf("find lo: %w", err)
	}
	veth := &netlink.Veth{LinkAttrs: netlink.LinkAttrs{Name: "eth0"}, PeerName: "outside"}
	if err := errors.Join(netlink.LinkSetUp(lo), netlink.LinkAdd(veth)); err != nil {
		return fmt.Errorf("make links: %w", err)
	}
	outside, err := netlink.LinkByName("outside")
	if err != nil {
		return fmt.Errorf("find link: %w", err)
	}
	address := &netlink.Addr{IPNet: &net.IPNet{IP: net.ParseIP(NodeIP), Mask: net.CIDRMask(24, 32)}}
	if err := errors.Join(netlink.AddrAdd(veth, address), netlink.LinkSetUp(veth), netlink.LinkSetUp(outside)); err != nil {
		return fmt.Errorf("set up links: %w", err)
	}
	if err := netlink.RouteAdd(&netlink.Route{LinkIndex: veth.Attrs().Index, Gw: net.IPv4(192, 0, 2, 1)}); err != nil {
		return fmt.Errorf("add default route: %w", err)
	}
	return nil
}

// forgetMounts takes away what others have mounted below a folder of the host just now; they keep it.
func forgetMounts(below string) error {
	text, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		return err
	}
	lines := strings.Split(strings.TrimSpace(string(text)), "\n")
	for _, line := range slices.Backward(lines) {
		point := strings.Fields(line)[4]
		if !strings.HasPrefix(point, below) {
			continue
		}
		if err := unix.Unmount(point, unix.MNT_DETACH); err != nil && !errors.Is(err, unix.EINVAL) { // EINVAL: went with another
			return fmt.Errorf("unmount %s: %w", point, err)
		}
	}
	return nil
}
