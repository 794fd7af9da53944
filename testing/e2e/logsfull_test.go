package e2e

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/slipway-dev/slipway/testing/cluster"
	"github.com/slipway-dev/slipway/testing/need"
)

// TestLogsOnAFullDisk: when the disk of the logs is full, a container goes on without waiting, and how many of its
// lines are lost stands in the log as soon as there is room again, to the line.
func TestLogsOnAFullDisk(t *testing.T) {
	need.Runtime(t)
	const logs = "/var/log/pods"
	if err := errors.Join(os.MkdirAll(logs, 0o755), unix.Mount("tmpfs", logs, "tmpfs", 0, "size=4m")); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := unix.Unmount(logs, unix.MNT_DETACH); err != nil {
			t.Error(err)
		}
	})
	dir, stop := t.TempDir(), t.TempDir()
	write(t, dir, "pods.yaml", strings.NewReplacer("@STOP@", stop, "@RATE@", "200000").Replace(writerPods[:strings.Index(writerPods, "---")]))
	s := cluster.Up(t, dir, "--images", testpodArchive(t), "--container-log-max-size", "1Mi", "--container-log-max-files", "1000")
	s.WaitOutput("everything is current", 1)
	w := writerOf(t, s)
	w.await(1000)
	filler := filepath.Join(logs, "filler")
	if err := os.WriteFile(filler, make([]byte, 3<<20), 0o600); err != nil {
		t.Fatal(err)
	}
	s.Eventually("the disk to be full", func() error {
		var fs unix.Statfs_t
		if err := unix.Statfs(logs, &fs); err != nil || fs.Bavail > 0 {
			return errors.Join(err, fmt.Errorf("%d blocks free", fs.Bavail))
		}
		return nil
	})
	began := w.written()
	s.Eventually("the writer to go on", func() error {
		if n := w.written() - began; n < 100_000 {
			return fmt.Errorf("%d bytes", n)
		}
		return nil
	})
	if err := os.Remove(filler); err != nil {
		t.Fatal(err)
	}
	s.Eventually("the loss to be told", func() error {
		out, err := s.TryKubectl("logs", "writer")
		if err != nil || !strings.Contains(out, "log lines lost since ") {
			return errorString("no such line")
		}
		return nil
	})
	write(t, stop, "now", "")
	s.Eventually("the writer to end", func() error {
		if phase := s.Kubectl("get", "pod", "writer", "-o", "jsonpath={.status.phase}"); phase != "Succeeded" {
			return errorString(phase)
		}
		return nil
	})
	lines := w.kubectl()
	account := lines[len(lines)-1]
	t.Log(account)
	var total, full, lost, kept int
	if _, err := fmt.Sscanf(account, "wrote %d lines, found the pipe full %d times", &total, &full); err != nil || full != 0 {
		t.Errorf("the writer's own account is %q (%v)", account, err)
	}
	for _, line := range lines[:len(lines)-1] {
		var n int
		if _, err := fmt.Sscanf(line, "slipway: %d log lines lost since ", &n); err == nil {
			t.Log(line)
			lost += n
		} else if n, err := strconv.Atoi(line[:10]); err == nil && n >= kept {
			kept++
		}
	}
	if lost == 0 || lost+kept != total {
		t.Errorf("%d lines were written, %d are there and %d are told to be lost", total, kept, lost)
	}
}

// written returns how many bytes the writer's process has written, by the kernel's count.
func (w *logWriter) written() int {
	w.t.Helper()
	paths, err := filepath.Glob("/proc/[0-9]*/cmdline")
	if err != nil {
		w.t.Fatal(err)
	}
	for _, path := range paths {
		if text, err := os.ReadFile(path); err != nil || !strings.Contains(string(text), "\x00steady\x00") {
			continue
		}
		io, err := os.ReadFile(filepath.Join(filepath.Dir(path), "io"))
		if err != nil {
			w.t.Fatal(err)
		}
		for line := range strings.Lines(string(io)) {
			if n, ok := strings.CutPrefix(line, "wchar: "); ok {
				count, err := strconv.Atoi(strings.TrimSpace(n))
				if err != nil {
					w.t.Fatal(err)
				}
				return count
			}
		}
	}
	w.t.Fatal("the writer does not run")
	return 0
}
