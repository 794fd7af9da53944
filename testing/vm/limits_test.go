//go:build vm

package vm

import (
	"errors"
	"fmt"
	"strconv"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// limits looks at what the kernel was told of keeper's resources.
func limits(t *testing.T, m *Machine) {
	keeper := m.allReady()["keeper"]
	dir := fmt.Sprintf("/sys/fs/cgroup/slipway/burstable/pod%s/%s/", keeper.UID, strings.TrimPrefix(keeper.Container, "containerd://"))
	got := map[string]string{}
	for _, file := range []string{"memory.max", "memory.swap.max", "memory.oom.group", "cpu.max", "cpu.weight", "pids.max"} {
		got[file] = strings.TrimSpace(string(m.Get(dir + file)))
	}
	want := map[string]string{
		"memory.max": "67108864", "memory.swap.max": "0", "memory.oom.group": "1", "cpu.max": "50000 100000",
		"cpu.weight": "35", // of 256 shares, as runc reckons
	}
	pids, err := strconv.Atoi(got["pids.max"])
	if err != nil || pids < 100 {
		t.Errorf("keeper may have %s processes, want a bound that a sound program does not reach", got["pids.max"])
	}
	delete(got, "pids.max") // a share of the machine's
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("keeper's control group (-want +got):\n%s", diff)
	}
}

// hog takes more memory than it may, in a child of its first process.
const hog = `
apiVersion: v1
kind: Pod
metadata: {name: hog, namespace: vm}
spec:
  terminationGracePeriodSeconds: 0
  containers:
  - {name: main, image: test.local/testpod:1, args: [child, memory, "100"], resources: {limits: {memory: 48Mi}}}
`

func outOfMemory(t *testing.T, m *Machine) {
	before, slipway := m.allReady(), m.service()
	m.Put(manifests+"/hog.yaml", []byte(hog))
	const last = `jsonpath={.status.containerStatuses[0].lastState.terminated.reason} {.status.containerStatuses[0].lastState.terminated.exitCode} {.status.containerStatuses[0].restartCount}`
	m.Eventually("hog was ended for its memory and started again", func() error {
		got, err := m.TryKubectl("-n", "vm", "get", "pod", "hog", "-o", last)
		if err != nil || !strings.HasPrefix(got, "OOMKilled 137 ") || strings.HasSuffix(got, " 0") {
			return errors.New(got)
		}
		return nil
	})
	if log := m.Kubectl("-n", "vm", "logs", "hog", "--previous"); strings.Contains(log, "the child ended") {
		t.Errorf("the first process outlived its child, which was out of memory:\n%s", log)
	}
	m.Run("rm", manifests+"/hog.yaml")
	m.Eventually("hog is gone", func() error {
		if out, err := m.TryKubectl("-n", "vm", "get", "pod", "hog"); err == nil {
			return errors.New(out)
		}
		return nil
	})
	if diff := cmp.Diff(before, m.allReady()); diff != "" {
		t.Errorf("other Pods changed meanwhile:\n%s", diff)
	}
	if now := m.service(); now != slipway {
		t.Errorf("slipway was process %s and is %s", slipway, now)
	}
}
