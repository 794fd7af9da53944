package network_test

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/vishvananda/netlink"

	"github.com/slipway-dev/slipway/nodeagent/network"
	"github.com/slipway-dev/slipway/nodeagent/network/networktest"
	"github.com/slipway-dev/slipway/testing/need"
)

// victimEnv makes this test program set up or tear down a sandbox and kill itself after one of the changes: "OP N DIR".
const victimEnv = "SLIPWAY_NETWORK_VICTIM"

func TestMain(m *testing.M) {
	if order := os.Getenv(victimEnv); order != "" {
		if err := victim(context.Background(), order); err != nil {
			fmt.Println(err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	networktest.Main(m)
}

// pods of a victim: one stays untouched, the other is worked on when the victim is killed.
var (
	staying = network.Pod{ID: "stays", Hostname: "stays", HostPorts: []network.HostPort{{HostPort: 8080, PodPort: 80, Protocol: "TCP"}}}
	moving  = network.Pod{ID: "moves", Hostname: "moves", HostIPC: true, HostPorts: []network.HostPort{{HostPort: 8081, PodPort: 80, Protocol: "TCP"}}}
)

func victim(ctx context.Context, order string) error {
	var op, dir string
	var at int
	if _, err := fmt.Sscanf(order, "%s %d %s", &op, &at, &dir); err != nil {
		return err
	}
	count, armed := 0, false
	cfg := network.Told(network.Config{RunDir: dir, PodCIDR: podCIDR, ClusterCIDRs: cluster}, func(what string) {
		if !armed {
			return
		}
		if count++; count == at {
			fmt.Println(what)
			syscall.Kill(os.Getpid(), syscall.SIGKILL)
		}
	})
	n, err := network.Open(ctx, cfg)
	if err != nil {
		return err
	}
	if _, err := n.Setup(ctx, staying); err != nil {
		return err
	}
	if op == "teardown" {
		if _, err := n.Setup(ctx, moving); err != nil {
			return err
		}
		armed = true
		return n.Teardown(ctx, moving.ID)
	}
	armed = true
	_, err = n.Setup(ctx, moving)
	return err
}

// kill runs a victim. It returns the change after which it was killed, "" when there are fewer changes.
func kill(t *testing.T, op string, at int, dir string) string {
	t.Helper()
	cmd := exec.Command("/proc/self/exe")
	cmd.Env = append(os.Environ(), victimEnv+"="+op+" "+strconv.Itoa(at)+" "+dir)
	cmd.Stderr = os.Stderr
	out, err := cmd.Output()
	if status, ok := cmd.ProcessState.Sys().(syscall.WaitStatus); ok && status.Signaled() && status.Signal() == syscall.SIGKILL {
		return strings.TrimSpace(string(out))
	}
	if err != nil {
		t.Fatalf("victim of %s %d: %v: %s", op, at, err, out)
	}
	return ""
}

// TestSandboxAfterItsMakerWasKilledAnywhere kills a process after each change of setting up and of tearing down a
// sandbox. The next one must be able to set it up whole or to take it away, and the other Pod must not notice.
func TestSandboxAfterItsMakerWasKilledAnywhere(t *testing.T) {
	need.Root(t)
	for _, op := range []string{"setup", "teardown"} {
		for at := 1; ; at++ {
			dir := t.TempDir()
			what := kill(t, op, at, dir)
			name := fmt.Sprintf("%s killed after %d %s", op, at, what)
			t.Run(name, func(t *testing.T) { afterKill(t, dir, op) })
			if what == "" {
				if at < 6 {
					t.Errorf("%s has only %d changes", op, at-1)
				}
				break
			}
		}
	}
}

func afterKill(t *testing.T, dir, op string) {
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	n, err := network.Open(ctx, network.Config{RunDir: dir, PodCIDR: podCIDR, ClusterCIDRs: cluster})
	if err != nil {
		t.Fatal(err)
	}
	closed(t, n)
	stays := setup(t, n, staying)
	if stays.IP != "10.244.0.2" {
		t.Errorf("the other Pod's address is now %s", stays.IP)
	}
	go serve(networktest.Listen(t, stays.NetNS, ":80"))
	if op == "setup" {
		moves := setup(t, n, moving)
		go serve(networktest.Listen(t, moves.NetNS, ":80"))
		for _, c := range []struct{ from, to, want string }{
			{stays.NetNS, moves.IP + ":80", stays.IP}, {moves.NetNS, stays.IP + ":80", moves.IP}, {here, "10.244.0.1:8081", "10.244.0.1"},
		} {
			if got := call(t, c.from, c.to); got != c.want {
				t.Errorf("call of %s: %q, want %q", c.to, got, c.want)
			}
		}
	}
	if err := n.Teardown(ctx, moving.ID); err != nil {
		t.Fatal(err)
	}
	if got := call(t, here, "10.244.0.1:8080"); got != "10.244.0.1" {
		t.Errorf("the other Pod's host port answers %q", got)
	}
	if got := call(t, here, "10.244.0.1:8081"); !strings.HasPrefix(got, "error") {
		t.Errorf("the host port of what is gone answers %q", got)
	}
	if ids, err := n.List(ctx); err != nil || len(ids) != 1 {
		t.Errorf("sandboxes %v (%v), want the other Pod's", ids, err)
	}
	mounts, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil || strings.Contains(string(mounts), dir+"/pods/"+moving.ID) {
		t.Errorf("mounts of the sandbox that is gone are left (%v)", err)
	}
}

func TestLinkWithoutASandboxIsRemoved(t *testing.T) {
	need.Root(t)
	dir := t.TempDir()
	n, err := network.Open(t.Context(), network.Sweeping(network.Config{RunDir: dir, PodCIDR: podCIDR, ClusterCIDRs: cluster}, 20*time.Millisecond))
	if err != nil {
		t.Fatal(err)
	}
	closed(t, n)
	stays := setup(t, n, staying)
	lost := setup(t, n, moving)
	held, err := os.Open(lost.NetNS) // something keeps its namespace, and so its link
	if err != nil {
		t.Fatal(err)
	}
	defer held.Close()
	check(t, netlink.LinkAdd(&netlink.Bridge{LinkAttrs: netlink.LinkAttrs{Name: "slw-not-ours"}}))
	t.Cleanup(func() {
		_ = netlink.LinkDel(&netlink.Bridge{LinkAttrs: netlink.LinkAttrs{Name: "slw-not-ours"}})
	})
	links := func() (names []string) {
		list, err := netlink.LinkList()
		check(t, err)
		for _, l := range list {
			if strings.HasPrefix(l.Attrs().Name, "slw") {
				names = append(names, l.Attrs().Name)
			}
		}
		return names
	}
	if got := links(); len(got) != 3 {
		t.Fatalf("links %v, want two of Pods and a foreign one", got)
	}
	for _, name := range []string{"net", "uts"} {
		check(t, syscall.Unmount(filepath.Join(dir, "pods", moving.ID, name), syscall.MNT_DETACH))
	}
	check(t, os.RemoveAll(filepath.Join(dir, "pods", moving.ID)))
	deadline := time.After(10 * time.Second)
	for len(links()) != 2 {
		select {
		case <-deadline:
			t.Fatalf("links %v", links())
		case <-time.After(5 * time.Millisecond):
		}
	}
	go serve(networktest.Listen(t, stays.NetNS, ":80"))
	if got := call(t, here, stays.IP+":80"); got != "10.244.0.1" {
		t.Errorf("the other Pod answers %q", got)
	}
}
