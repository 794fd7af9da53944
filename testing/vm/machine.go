// Package vm runs a virtual machine for tests that need a whole one: systemd, cgroup v2, reboots, power cuts, a clock
// of its own. It is emulated by QEMU (no KVM is asked for) and made from Debian packages by rootfs.sh.
//
// Its tests have the build tag vm: `make test-vm` runs them, `make test` does not. The package knows the machine and
// nothing of Slipway, which cluster.go alone brings in.
package vm

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/slipway-dev/slipway/testing/need"
)

// patience is how long anything may take before it counts as not happening: emulation is slow.
const patience = 4 * time.Minute

// Machine is a virtual machine with a disk of its own, running or not.
type Machine struct {
	APIPort int // of this host, leading to port 6443 in the machine

	t         *testing.T
	dir       string
	agentPort int
	qemu      *exec.Cmd
	client    *http.Client
	api       *http.Client // with a credential; nil before Slipway is installed
}

// New makes a machine that is off. When the test ends its power is cut.
func New(t *testing.T) *Machine {
	t.Helper()
	m := &Machine{t: t, dir: t.TempDir(), client: &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}}
	base := filepath.Join(need.ModuleRoot(), "build", "vm")
	m.must("go", "build", "-o", filepath.Join(m.dir, "guest"), "github.com/slipway-dev/slipway/testing/vm/guest")
	modules, err := filepath.Glob(filepath.Join(base, "modules", "*.ko"))
	if err != nil || len(modules) == 0 {
		t.Fatalf("%s holds no kernel modules: run `make test-vm`, which makes the machine's disk", base)
	}
	if err := writeInitrd(filepath.Join(m.dir, "initrd"), filepath.Join(m.dir, "guest"), modules); err != nil {
		t.Fatalf("write initrd: %v", err)
	}
	// What is written goes to a file of its own. QEMU keeps the map of new clusters in memory until the machine asks
	// for a flush: what was not synced before a power cut is gone.
	m.must("qemu-img", "create", "-q", "-f", "qcow2", "-F", "raw", "-b", filepath.Join(base, "root.raw"), filepath.Join(m.dir, "disk"))
	m.APIPort, m.agentPort = freePort(t), freePort(t)
	t.Cleanup(func() {
		if t.Failed() {
			console, _ := os.ReadFile(m.console()) // nothing to show then
			t.Logf("end of the console:\n%s", console[max(0, len(console)-4000):])
			m.explain()
		}
		m.PowerCut()
	})
	return m
}

func (m *Machine) console() string { return filepath.Join(m.dir, "console") }

func (m *Machine) must(name string, args ...string) {
	m.t.Helper()
	cmd := exec.Command(name, args...)
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		m.t.Fatalf("%s: %v\n%s", cmd, err, out)
	}
}

// Start turns the machine on and returns when its system runs.
func (m *Machine) Start() {
	m.t.Helper()
	began := time.Now()
	base := filepath.Join(need.ModuleRoot(), "build", "vm")
	m.qemu = exec.Command("qemu-system-x86_64", "-accel", "tcg,thread=multi", "-cpu", "Westmere-v1", "-smp", "2", "-m", "2048",
		"-nodefaults", "-no-user-config", "-display", "none", "-serial", "file:"+m.console(),
		"-kernel", filepath.Join(base, "vmlinuz"), "-initrd", filepath.Join(m.dir, "initrd"),
		"-append", "console=ttyS0 quiet net.ifnames=0 mitigations=off systemd.show_status=0",
		"-drive", "if=virtio,format=qcow2,cache=writeback,file="+filepath.Join(m.dir, "disk"), "-device", "virtio-rng",
		"-netdev", fmt.Sprintf("user,id=out,hostfwd=tcp:127.0.0.1:%d-:6443,hostfwd=tcp:127.0.0.1:%d-:9000", m.APIPort, m.agentPort),
		"-device", "virtio-net,netdev=out")
	m.qemu.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	var said bytes.Buffer
	m.qemu.Stderr = &said
	if err := m.qemu.Start(); err != nil {
		m.t.Fatalf("start the machine: %v", err)
	}
	m.Eventually("the machine answers", func() error {
		_, err := m.TryRun("true")
		if err != nil && said.Len() > 0 {
			err = fmt.Errorf("%w (QEMU says: %s)", err, said.String())
		}
		return err
	})
	m.t.Logf("the machine is up after %s", time.Since(began).Round(time.Second))
}

// PowerCut ends the machine in the middle of what it does. What it has not synced is lost.
func (m *Machine) PowerCut() {
	if m.qemu == nil {
		return
	}
	_ = m.qemu.Process.Kill()
	_ = m.qemu.Wait() // it was killed
	m.qemu = nil
}

// Reboot ends the machine's system in order and waits until it is up again.
func (m *Machine) Reboot() {
	m.t.Helper()
	before := m.Run("cat", "/proc/sys/kernel/random/boot_id")
	_, _ = m.TryRun("systemctl", "--no-block", "reboot") // the answer may not make it out
	m.Eventually("the machine is up again", func() error {
		now, err := m.TryRun("cat", "/proc/sys/kernel/random/boot_id")
		if err == nil && now == before {
			err = errors.New("it has not gone down yet")
		}
		return err
	})
}

// Run runs a command in the machine and returns what it printed.
func (m *Machine) Run(args ...string) string {
	m.t.Helper()
	out, err := m.TryRun(args...)
	if err != nil {
		m.t.Fatalf("in the machine: %s: %v\n%s", strings.Join(args, " "), err, out)
	}
	return out
}

// TryRun is Run where an error is no failure.
func (m *Machine) TryRun(args ...string) (string, error) {
	body, err := json.Marshal(args)
	if err != nil {
		return "", err
	}
	out, header, err := m.call(http.MethodPost, "run", bytes.NewReader(body))
	if exit := header.Get("Exit-Code"); err == nil && exit != "exit status 0" {
		err = errors.New(exit)
	}
	return string(out), err
}

// Get reads a file in the machine.
func (m *Machine) Get(path string) []byte {
	m.t.Helper()
	data, _, err := m.call(http.MethodGet, "file?path="+url.QueryEscape(path), nil)
	if err != nil {
		m.t.Fatalf("in the machine: read %s: %v", path, err)
	}
	return data
}

// Put writes a file in the machine, for good.
func (m *Machine) Put(path string, data []byte) {
	m.t.Helper()
	if _, _, err := m.call(http.MethodPut, "file?path="+url.QueryEscape(path), bytes.NewReader(data)); err != nil {
		m.t.Fatalf("in the machine: write %s: %v", path, err)
	}
}

func (m *Machine) call(method, path string, body io.Reader) ([]byte, http.Header, error) {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	request, err := http.NewRequestWithContext(ctx, method, fmt.Sprintf("http://127.0.0.1:%d/%s", m.agentPort, path), body)
	if err != nil {
		return nil, nil, err
	}
	response, err := m.client.Do(request)
	if err != nil {
		return nil, nil, err
	}
	defer response.Body.Close()
	data, err := io.ReadAll(response.Body)
	if err == nil && response.StatusCode != http.StatusOK {
		err = fmt.Errorf("%s: %s", response.Status, data)
	}
	return data, response.Header, err
}

// Step is one part of a test on one machine. The next one runs whatever became of it.
func (m *Machine) Step(name string, work func(t *testing.T)) {
	whole := m.t
	defer func() { m.t = whole }()
	whole.Run(name, func(t *testing.T) {
		m.t = t
		began := time.Now()
		work(t)
		t.Logf("took %s", time.Since(began).Round(time.Second))
	})
}

// Eventually tries check until it returns nil; what says what is waited for.
func (m *Machine) Eventually(what string, check func() error) {
	m.t.Helper()
	deadline := time.NewTimer(patience)
	defer deadline.Stop()
	tick := time.NewTicker(200 * time.Millisecond)
	defer tick.Stop()
	for {
		err := check()
		if err == nil {
			return
		}
		select {
		case <-tick.C:
		case <-deadline.C:
			m.t.Fatalf("waited %s in vain: %s: %v", patience, what, err)
		}
	}
}

func freePort(t *testing.T) int {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close()
	_, port, err := net.SplitHostPort(listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	n, err := strconv.Atoi(port)
	if err != nil {
		t.Fatal(err)
	}
	return n
}
