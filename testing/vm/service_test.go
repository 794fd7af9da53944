//go:build vm

package vm

import (
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// service returns slipway's process as systemd knows it.
func (m *Machine) service() string {
	m.t.Helper()
	return strings.TrimSpace(m.Run("systemctl", "show", "--property=MainPID", "--value", "slipway"))
}

// serviceUp waits until another process than before has told systemd that it is ready.
func (m *Machine) serviceUp(before string) {
	m.t.Helper()
	m.Eventually("slipway runs again", func() error {
		state := strings.TrimSpace(m.Run("systemctl", "show", "--property=ActiveState", "--value", "slipway"))
		if now := m.service(); now == before || now == "0" || state != "active" {
			return fmt.Errorf("it is %s, process %s", state, now)
		}
		return nil
	})
}

// unchanged does something to slipway, and reports what it did to containers and to names.
func (m *Machine) unchanged(t *testing.T, what func()) {
	before := m.allReady()
	gap := make(chan string)
	go func() {
		out, err := m.TryRun("guest", "dns", "10.96.0.10:53", "web.vm.svc.cluster.local", "40s")
		if err != nil {
			out += err.Error()
		}
		gap <- strings.TrimSpace(out)
	}()
	what()
	t.Logf("cluster DNS did not answer for %s (emulated)", <-gap)
	var after map[string]Pod
	m.Eventually("every container as it was", func() (err error) {
		if after, err = m.Pods("vm"); err != nil {
			return err
		}
		if diff := cmp.Diff(before, after); diff != "" {
			return errors.New(diff)
		}
		return nil
	})
}

func crash(t *testing.T, m *Machine) {
	m.unchanged(t, func() {
		before := m.service()
		m.Run("systemctl", "kill", "--signal=KILL", "slipway")
		m.serviceUp(before)
	})
}

// upgrade replaces slipway and containerd while Pods run. The new containerd takes over the shims.
func upgrade(t *testing.T, m *Machine) {
	m.unchanged(t, func() {
		before, containerd := m.service(), m.Run("pidof", "containerd")
		m.Run("sh", "-c", "cd "+programs+" && for f in slipway runtime/*; do cp $f $f.new && mv $f.new $f; done")
		m.Run("systemctl", "daemon-reload")
		m.Run("systemctl", "restart", "slipway")
		m.serviceUp(before)
		if now := m.Run("pidof", "containerd"); now == containerd {
			t.Errorf("containerd is process %s still", strings.TrimSpace(now))
		}
	})
	limits(t, m) // systemd has been over the control groups, too
}

// purged takes down what systemd would start again after a crash.
func purged(t *testing.T, m *Machine) {
	t.Log(m.Run("slipway", "down", "--purge", "--yes"))
	if state, err := m.TryRun("systemctl", "is-active", "slipway"); err == nil || strings.TrimSpace(state) != "inactive" {
		t.Errorf("the service is %s after slipway down", strings.TrimSpace(state))
	}
	left := m.Run("sh", "-c", "ls -d "+dataDir+" /run/slipway* /sys/fs/cgroup/slipway* /var/log/pods/* 2>/dev/null; pidof slipway containerd; grep slipway /proc/mounts; true")
	if left != "" {
		t.Errorf("left behind:\n%s", left)
	}
	if kept := m.Run("ls", "/srv/keep"); strings.TrimSpace(kept) != "n" {
		t.Errorf("the hostPath volume holds %q, want what the Pod put there", kept)
	}
}
