package e2e

import (
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/nftables"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/slipway-dev/slipway/testing/cluster"
	"github.com/slipway-dev/slipway/testing/images"
	"github.com/slipway-dev/slipway/testing/need"
	"github.com/slipway-dev/slipway/testing/smalldisk"
)

// downPod has what a Pod can leave behind: a network, a mount, a log.
const downPod = `apiVersion: v1
kind: Pod
metadata: {name: one, namespace: default}
spec:
  containers:
    - {name: main, image: "test.local/testpod:1", args: [sleep], volumeMounts: [{name: memory, mountPath: /memory}]}
  volumes: [{name: memory, emptyDir: {medium: Memory}}]
`

// onePod starts slipway with one Pod, its data on a disk of its own, and waits for it.
func onePod(t *testing.T) (s *cluster.Slipway, disk string, args []string) {
	t.Helper()
	need.Runtime(t)
	image, err := images.Testpod(t.Context(), "test.local/testpod:1")
	if err != nil {
		t.Fatal(err)
	}
	archive := filepath.Join(t.TempDir(), "testpod.tar")
	if err := images.WriteArchive(archive, image); err != nil {
		t.Fatal(err)
	}
	tree := t.TempDir()
	write(t, tree, "pod.yaml", downPod)
	disk = smalldisk.Mount(t, 600)
	args = []string{tree, "--images", archive}
	s = cluster.Up(onDisk{t, disk}, args...)
	s.WaitOutput("everything is current", 1)
	return s, disk, args
}

// down runs `slipway down`, which must leave nothing on the machine.
func down(t *testing.T, s *cluster.Slipway, more ...string) string {
	t.Helper()
	out, err := exec.Command(s.Binary, append([]string{"down", "--data-dir", s.Data}, more...)...).CombinedOutput()
	if err != nil {
		t.Fatalf("slipway down: %v\n%s", err, out)
	}
	for _, left := range cluster.Leftovers(s.Data) {
		t.Errorf("left behind after slipway down: %s", left)
	}
	return string(out)
}

// TestDownAfterCrashes finds everything removable in the states that crashes leave.
func TestDownAfterCrashes(t *testing.T) {
	for name, crash := range map[string]func(t *testing.T, s *cluster.Slipway, disk string){
		"slipway and containerd are gone": func(t *testing.T, s *cluster.Slipway, _ string) {
			s.Kill()
			killContainerd(t, s)
		},
		"the network is gone": func(t *testing.T, s *cluster.Slipway, _ string) {
			s.Kill()
			removeNetwork(t)
		},
		"the disk is full": func(t *testing.T, s *cluster.Slipway, disk string) {
			s.Kill()
			killContainerd(t, s)
			smalldisk.Fill(t, disk)
		},
	} {
		t.Run(name, func(t *testing.T) {
			s, disk, _ := onePod(t)
			crash(t, s, disk)
			if out := down(t, s); !strings.Contains(out, "removed 1 containers in 1 pods") {
				t.Errorf("down said\n%s", out)
			}
		})
	}
}

// TestPurge leaves nothing of a data directory in use, and the next up begins anew.
func TestPurge(t *testing.T) {
	s, disk, args := onePod(t)
	out := down(t, s, "--purge", "--yes")
	if _, err := os.Lstat(s.Data); err == nil {
		left, _ := os.ReadDir(s.Data) // shown only
		t.Errorf("%v is left of the data directory:\n%s", left, out)
	}
	if left, err := os.ReadDir(disk); err != nil || len(left) > 0 {
		t.Errorf("beside the data directory is left: %v (%v)", left, err)
	}
	s.Start(args...)
	s.WaitOutput("everything is current", 1)
	if out := s.Output(); !strings.Contains(out, "+ Pod default/one") {
		t.Errorf("the next up did not begin anew:\n%s", out)
	}
}

func killContainerd(t *testing.T, s *cluster.Slipway) {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(s.Data, "containerd", "containerd.json"))
	if err != nil {
		t.Fatal(err)
	}
	var record struct{ PID int }
	if err := json.Unmarshal(text, &record); err != nil || record.PID == 0 {
		t.Fatalf("read containerd's pid from %s: %v", text, err)
	}
	if err := unix.Kill(record.PID, unix.SIGKILL); err != nil {
		t.Fatal(err)
	}
}

// removeNetwork removes every link of Slipway's and every packet filter rule.
func removeNetwork(t *testing.T) {
	t.Helper()
	links, err := netlink.LinkList()
	if err != nil {
		t.Fatal(err)
	}
	for _, link := range links {
		if name := link.Attrs().Name; strings.HasPrefix(name, "slipway") || strings.HasPrefix(name, "slw") {
			if err := netlink.LinkDel(link); err != nil {
				t.Fatal(err)
			}
		}
	}
	conn, err := nftables.New()
	if err != nil {
		t.Fatal(err)
	}
	conn.FlushRuleset()
	if err := conn.Flush(); err != nil {
		t.Fatal(err)
	}
}
