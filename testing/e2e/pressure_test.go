package e2e

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/slipway-dev/slipway/testing/cluster"
	"github.com/slipway-dev/slipway/testing/images"
	"github.com/slipway-dev/slipway/testing/need"
	"github.com/slipway-dev/slipway/testing/smalldisk"
)

const greedyApp = `apiVersion: apps/v1
kind: Deployment
metadata: {name: greedy, namespace: default}
spec:
  replicas: 1
  selector: {matchLabels: {app: greedy}}
  template:
    metadata: {labels: {app: greedy}}
    spec:
      containers:
        - {name: main, image: "test.local/testpod:1", args: [sleep], volumeMounts: [{name: data, mountPath: /data}]}
      volumes: [{name: data, emptyDir: {}}]
---
apiVersion: v1
kind: Pod
metadata: {name: calm, namespace: default}
spec:
  containers: [{name: main, image: "test.local/testpod:1", args: [sleep]}]
`

// TestPodThatFillsTheDiskIsEvicted lets a Pod fill the data directory's disk nearly, and looks at all that tells of it.
func TestPodThatFillsTheDiskIsEvicted(t *testing.T) {
	need.Runtime(t)
	image, err := images.Testpod(t.Context(), "test.local/testpod:1")
	if err != nil {
		t.Fatal(err)
	}
	archive := filepath.Join(t.TempDir(), "testpod.tar")
	if err := images.WriteArchive(archive, image); err != nil {
		t.Fatal(err)
	}
	repo := t.TempDir()
	write(t, repo, "greedy.yaml", greedyApp)
	disk := smalldisk.Mount(t, 700)
	s := cluster.Up(onDisk{t, disk}, repo, "--images", archive)
	s.WaitOutput("everything is current", 1)

	uid := s.Kubectl("get", "pods", "-l", "app=greedy", "-o", "jsonpath={.items[0].metadata.uid}")
	var fs unix.Statfs_t
	if err := unix.Statfs(disk, &fs); err != nil {
		t.Fatal(err)
	}
	left := int64(fs.Bavail)*fs.Bsize - 150<<20 // the store goes on writing, Pods are not let that far
	if err := os.WriteFile(filepath.Join(s.Data, "pods", uid, "volumes", "data", "blob"), make([]byte, left), 0o644); err != nil {
		t.Fatal(err)
	}
	s.WaitOutput("DiskPressure: nodefs.available is below 192Mi", 1)

	want := func(what string, out func() string, words ...string) {
		t.Helper()
		s.Eventually(what, func() error {
			text := out()
			for _, word := range words {
				if !strings.Contains(text, word) {
					return fmt.Errorf("no %q in\n%s", word, text)
				}
			}
			return nil
		})
	}
	want("the Pod is evicted, and another waits in its place", func() string {
		return s.Kubectl("get", "pods", "-l", "app=greedy", "-o",
			`jsonpath={range .items[*]}{.status.phase} {.status.reason} {.status.message} {.status.conditions[?(@.type=="PodScheduled")].message}{"\n"}{end}`)
	}, "Failed Evicted The node was low on resource: ephemeral-storage (nodefs.available is below 192Mi", "request is 0",
		"Pending   0/1 nodes are available: 1 node(s) had untolerated taint {node.kubernetes.io/disk-pressure: }.")
	if got := s.Kubectl("get", "pod", "calm", "-o", "jsonpath={.status.phase}"); got != "Running" {
		t.Errorf("a Pod that holds nothing is %s", got)
	}
	want("kubectl describe node", func() string { return s.Kubectl("describe", "node") },
		"KubeletHasDiskPressure", "node.kubernetes.io/disk-pressure:NoSchedule", "EvictionThresholdMet")
	want("slipway status", func() string {
		out, _ := exec.Command(s.Binary, "status", "--data-dir", s.Data).CombinedOutput()
		return string(out)
	}, "has DiskPressure: the node is short of disk space: nodefs.available is below 192Mi")
	if err := unix.Statfs(disk, &fs); err != nil || int64(fs.Bavail)*fs.Bsize < left {
		t.Errorf("what the Pod wrote is still on the disk: %d bytes are free (%v)", int64(fs.Bavail)*fs.Bsize, err)
	}
}
