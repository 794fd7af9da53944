// Package cluster runs the real slipway binary for tests and benchmarks, and asks it questions with kubectl.
package cluster

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/slipway-dev/slipway/testing/need"
)

// patience is how long anything may take before it counts as not happening. It bounds waiting, it measures nothing.
const patience = 90 * time.Second

// T is what is needed of a *testing.T.
type T interface {
	Helper()
	Fatalf(format string, args ...any)
	Errorf(format string, args ...any)
	Logf(format string, args ...any)
	Failed() bool
	Cleanup(func())
	TempDir() string
}

// Slipway is a running `slipway up`.
type Slipway struct {
	Data       string // data directory
	Kubeconfig string
	Binary     string

	t   T
	cmd *exec.Cmd
	out *output
}

// Binary returns bin/slipway, which `make build` makes, or what SLIPWAY_BINARY names: an older build to compare with.
func Binary(t T) string {
	t.Helper()
	path := os.Getenv("SLIPWAY_BINARY")
	if path == "" {
		path = filepath.Join(need.ModuleRoot(), "bin", "slipway")
	}
	if _, err := os.Stat(path); err != nil {
		t.Fatalf("%v: run `make build`", err)
	}
	return path
}

// Up starts `slipway up` with a data directory of its own and the given arguments. When the test ends, Slipway is
// taken down, and what it left behind fails the test.
func Up(t T, args ...string) *Slipway {
	t.Helper()
	s := &Slipway{Data: filepath.Join(t.TempDir(), "data"), Binary: Binary(t), t: t}
	s.Kubeconfig = filepath.Join(s.Data, "kubeconfig")
	t.Cleanup(s.finish)
	s.Start(args...)
	return s
}

// Start starts `slipway up` again on the same data, after Interrupt or Kill.
func (s *Slipway) Start(args ...string) {
	s.t.Helper()
	s.out = &output{}
	s.cmd = exec.Command(s.Binary, append([]string{"up", "--data-dir", s.Data}, args...)...)
	s.cmd.Stdout, s.cmd.Stderr = s.out, s.out
	if err := s.cmd.Start(); err != nil {
		s.t.Fatalf("start slipway: %v", err)
	}
}

// PID returns the process id of slipway.
func (s *Slipway) PID() int { return s.cmd.Process.Pid }

// Interrupt ends slipway as Ctrl-C does and waits for it. Containers go on.
func (s *Slipway) Interrupt() {
	s.t.Helper()
	if err := s.cmd.Process.Signal(syscall.SIGINT); err != nil {
		s.t.Fatalf("interrupt slipway: %v", err)
	}
	s.wait()
}

// Kill ends slipway as a crash does.
func (s *Slipway) Kill() {
	s.t.Helper()
	if err := s.cmd.Process.Kill(); err != nil {
		s.t.Fatalf("kill slipway: %v", err)
	}
	s.wait()
}

func (s *Slipway) wait() {
	_ = s.cmd.Wait() // how it ended is in its output
	s.cmd = nil
}

// Output returns what this run of slipway has printed so far.
func (s *Slipway) Output() string { return s.out.String() }

// WaitOutput waits until slipway has printed text, n times at least.
func (s *Slipway) WaitOutput(text string, n int) {
	s.t.Helper()
	s.Eventually(fmt.Sprintf("slipway prints %q", text), func() error {
		if got := strings.Count(s.Output(), text); got < n {
			return fmt.Errorf("printed %d times of %d", got, n)
		}
		return nil
	})
}

// Kubectl runs the newest kubectl and returns what it printed.
func (s *Slipway) Kubectl(args ...string) string {
	s.t.Helper()
	out, err := s.TryKubectl(args...)
	if err != nil {
		s.t.Fatalf("kubectl %s: %v\n%s", strings.Join(args, " "), err, out)
	}
	return out
}

// TryKubectl is Kubectl where an error is no failure.
func (s *Slipway) TryKubectl(args ...string) (string, error) {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	out, err := s.KubectlCommand(ctx, args...).CombinedOutput()
	return string(out), err
}

// KubectlCommand is a kubectl to be started by the caller.
func (s *Slipway) KubectlCommand(ctx context.Context, args ...string) *exec.Cmd {
	binary := filepath.Join(need.ModuleRoot(), "bin", "kubectl")
	return exec.CommandContext(ctx, binary, append([]string{"--kubeconfig", s.Kubeconfig, "--cache-dir", filepath.Join(s.Data, "kubectl-cache")}, args...)...)
}

// Eventually tries check until it returns nil; what says what is waited for. It looks every 20 ms.
func (s *Slipway) Eventually(what string, check func() error) {
	s.t.Helper()
	Eventually(s.t, what, check)
}

// Eventually tries check until it returns nil.
func Eventually(t T, what string, check func() error) {
	t.Helper()
	deadline := time.NewTimer(patience)
	defer deadline.Stop()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for {
		err := check()
		if err == nil {
			return
		}
		select {
		case <-tick.C:
		case <-deadline.C:
			t.Fatalf("waited %s in vain: %s: %v", patience, what, err)
			return
		}
	}
}

// finish takes everything down and checks that nothing is left.
func (s *Slipway) finish() {
	if s.t.Failed() {
		s.explain()
	}
	out, err := exec.Command(s.Binary, "down", "--data-dir", s.Data).CombinedOutput()
	if err != nil {
		s.t.Errorf("slipway down: %v\n%s", err, out)
	}
	if s.cmd != nil {
		s.wait()
	}
	for _, line := range Leftovers(s.Data) {
		s.t.Errorf("left behind after slipway down: %s", line)
	}
}

// explain logs what is needed to understand a failure.
func (s *Slipway) explain() {
	s.t.Logf("slipway printed:\n%s", s.Output())
	if log, err := os.ReadFile(filepath.Join(s.Data, "slipway.log")); err == nil {
		s.t.Logf("end of slipway.log:\n%s", last(log, 8<<10))
	}
	for _, args := range [][]string{{"get", "pods,deploy,svc,endpointslices", "-A", "-o", "wide"}, {"get", "events", "-A", "--sort-by=.lastTimestamp"}} {
		if out, err := s.TryKubectl(args...); err == nil {
			s.t.Logf("kubectl %s:\n%s", strings.Join(args, " "), last([]byte(out), 8<<10))
		}
	}
}

func last(text []byte, n int) []byte { return text[max(0, len(text)-n):] }

// output collects what a process prints.
type output struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (o *output) Write(p []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.buf.Write(p)
}

func (o *output) String() string {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.buf.String()
}
