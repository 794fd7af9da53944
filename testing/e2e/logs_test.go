package e2e

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/slipway-dev/slipway/testing/cluster"
	"github.com/slipway-dev/slipway/testing/images"
	"github.com/slipway-dev/slipway/testing/need"
)

const writerPods = `apiVersion: v1
kind: Pod
metadata: {name: writer}
spec:
  restartPolicy: Never
  volumes: [{name: stop, hostPath: {path: @STOP@}}]
  containers:
    - name: writer
      image: test.local/testpod:1
      args: [steady, "@RATE@", /stop/now]
      volumeMounts: [{name: stop, mountPath: /stop}]
---
apiVersion: v1
kind: Pod
metadata: {name: again}
spec:
  containers: [{name: again, image: test.local/testpod:1, args: [lines, "30000"]}]
`

// A writer's line is 100 bytes long; its log file is about half as long again.
const (
	writerRate = 2_000_000 // bytes per second
	perSecond  = writerRate / 100
)

// outage is how long slipway is away, told by the lines written meanwhile: 8 seconds, or SLIPWAY_TEST_OUTAGE.
func outage(t *testing.T) int {
	text := os.Getenv("SLIPWAY_TEST_OUTAGE")
	if text == "" {
		return 8 * perSecond
	}
	d, err := time.ParseDuration(text)
	if err != nil {
		t.Fatal(err)
	}
	return int(d.Seconds() * perSecond)
}

func testpodArchive(t *testing.T) string {
	t.Helper()
	image, err := images.Testpod(t.Context(), "test.local/testpod:1")
	if err != nil {
		t.Fatal(err)
	}
	archive := filepath.Join(t.TempDir(), "testpod.tar")
	if err := images.WriteArchive(archive, image); err != nil {
		t.Fatal(err)
	}
	return archive
}

// TestLogsThroughOutages: a container that writes all the time is never blocked, and none of its lines is missing, in
// the files and in `kubectl logs`, while slipway is killed and stays away, and containerd is killed.
func TestLogsThroughOutages(t *testing.T) {
	need.Runtime(t)
	dir, stop := t.TempDir(), t.TempDir()
	pods := strings.NewReplacer("@STOP@", stop, "@RATE@", strconv.Itoa(writerRate)).Replace(writerPods)
	write(t, dir, "pods.yaml", pods)
	args := []string{dir, "--images", testpodArchive(t), "--container-log-max-size", "1Mi", "--container-log-max-files", "1000"}
	s := cluster.Up(t, args...)
	s.WaitOutput("following ", 1)
	s.Eventually("the writer to run", func() error {
		if phase, err := s.TryKubectl("get", "pod", "writer", "-o", "jsonpath={.status.phase}"); err != nil || phase != "Running" {
			return errorString(phase)
		}
		return nil
	})
	w := writerOf(t, s)
	identity := w.identity()
	w.await(perSecond)

	s.Kill()
	w.await(outage(t))
	s.Start(args...)
	s.WaitOutput("following ", 1)
	exchangeContainerd(t, s)
	follow := w.follow()
	w.await(2 * perSecond)

	if diff := cmp.Diff(identity, w.identity()); diff != "" {
		t.Errorf("the container (-before +after):\n%s", diff)
	}
	write(t, stop, "now", "")
	s.Eventually("the writer to end", func() error {
		if phase := s.Kubectl("get", "pod", "writer", "-o", "jsonpath={.status.phase}"); phase != "Succeeded" {
			return errorString(phase)
		}
		return nil
	})
	lines := w.lines()
	t.Logf("%s, in %d files", lines[len(lines)-1], len(w.files()))
	if account := fmt.Sprintf("wrote %d lines, found the pipe full 0 times,", len(lines)-1); !strings.HasPrefix(lines[len(lines)-1], account) {
		t.Errorf("the writer's own account is %q, want %q", lines[len(lines)-1], account)
	}
	if n := len(w.files()); n < 5 {
		t.Errorf("%d files: the log was not rotated", n)
	}
	complete(t, "the files", lines)
	complete(t, "kubectl logs", w.kubectl())
	complete(t, "kubectl logs -f", follow())
	if diff := cmp.Diff(lines, w.kubectl()); diff != "" {
		t.Error("kubectl logs differs from the files")
	}
	w.options(lines)
	previous(t, s)
}

// logWriter is the Pod that writes.
type logWriter struct {
	t    *testing.T
	s    *cluster.Slipway
	path string // of its log
}

func writerOf(t *testing.T, s *cluster.Slipway) *logWriter {
	uid := s.Kubectl("get", "pod", "writer", "-o", "jsonpath={.metadata.uid}")
	return &logWriter{t, s, filepath.Join("/var/log/pods", "default_writer_"+uid, "writer", "0.log")}
}

func (w *logWriter) identity() string {
	return w.s.Kubectl("get", "pod", "writer", "-o", "jsonpath={.status.containerStatuses[0].containerID} {.status.containerStatuses[0].restartCount} {.status.startTime}")
}

// files returns the log files, oldest first: their names are in order.
func (w *logWriter) files() []string {
	rotated, err := filepath.Glob(w.path + ".*")
	if err != nil {
		w.t.Fatal(err)
	}
	slices.Sort(rotated)
	return append(rotated, w.path)
}

// lines returns the text of all lines in the files.
func (w *logWriter) lines() []string {
	w.t.Helper()
	var out []string
	for _, path := range w.files() {
		data, err := os.ReadFile(path)
		if err != nil {
			w.t.Fatal(err)
		}
		for line := range strings.Lines(string(data)) {
			fields := strings.SplitN(strings.TrimSuffix(line, "\n"), " ", 4)
			if len(fields) != 4 || fields[1] != "stdout" || fields[2] != "F" {
				w.t.Fatalf("%s: line %q", path, line)
			}
			out = append(out, fields[3])
		}
	}
	return out
}

// newest returns the number of the last line written.
func (w *logWriter) newest() (int, error) {
	data, err := os.ReadFile(w.path)
	if err != nil {
		return 0, err
	}
	data = data[:bytes.LastIndexByte(data, '\n')+1]
	fields := strings.Fields(string(data[bytes.LastIndexByte(bytes.TrimSuffix(data, []byte{'\n'}), '\n')+1:]))
	if len(fields) < 4 {
		return 0, errors.New("no line")
	}
	return strconv.Atoi(fields[3])
}

// await waits until that many more lines were written.
func (w *logWriter) await(more int) {
	w.t.Helper()
	begin := -1
	for begin < more {
		before := begin
		w.s.Eventually("the writer to go on", func() error { // each step within the patience of the tests
			n, err := w.newest()
			if err != nil {
				return err
			}
			if begin < 0 {
				begin, more = n, more+n
			}
			if n < more && n < before+10*perSecond || n == before {
				return fmt.Errorf("at line %d", n)
			}
			begin = n
			return nil
		})
	}
}

// kubectl returns the lines of `kubectl logs` with the arguments given.
func (w *logWriter) kubectl(args ...string) []string {
	w.t.Helper()
	out := w.s.Kubectl(append([]string{"logs", "writer"}, args...)...)
	return strings.Split(strings.TrimSuffix(out, "\n"), "\n")
}

// follow starts `kubectl logs -f`; the function returned waits for its end and returns the lines.
func (w *logWriter) follow() func() []string {
	w.t.Helper()
	cmd := w.s.KubectlCommand(w.t.Context(), "logs", "-f", "writer")
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		w.t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		w.t.Fatal(err)
	}
	all := make(chan []string, 1)
	go func() {
		var lines []string
		for scanner := bufio.NewScanner(stdout); scanner.Scan(); {
			lines = append(lines, scanner.Text())
		}
		all <- lines
	}()
	return func() []string {
		lines := <-all
		if err := cmd.Wait(); err != nil {
			w.t.Errorf("kubectl logs -f: %v", err)
		}
		return lines
	}
}

// options tries those of `kubectl logs`, on lines of several files.
func (w *logWriter) options(lines []string) {
	w.t.Helper()
	count := len(lines)
	for _, n := range []int{1, 10, 40_000} {
		if diff := cmp.Diff(lines[count-n:], w.kubectl("--tail", strconv.Itoa(n))); diff != "" {
			w.t.Errorf("--tail %d differs", n)
		}
	}
	stamped := w.kubectl("--timestamps")
	at := count - 30_000
	if len(stamped) != count || !strings.HasSuffix(stamped[at], "Z "+lines[at]) {
		w.t.Fatalf("--timestamps: %d lines, one is %q", len(stamped), stamped[min(at, len(stamped)-1)])
	}
	second := stamped[at][:len("2006-01-02T15:04:05")] // kubectl sends no fractions
	at, _ = slices.BinarySearchFunc(stamped, second, func(line, second string) int { return strings.Compare(line[:len(second)], second) })
	if diff := cmp.Diff(lines[at:], w.kubectl("--since-time", second+"Z")); diff != "" {
		w.t.Error("--since-time differs")
	}
	if diff := cmp.Diff(lines, w.kubectl("--since", "1h")); diff != "" {
		w.t.Error("--since differs")
	}
	if got, want := strings.Join(w.kubectl("--limit-bytes", "3000000"), "\n"), strings.Join(lines, "\n")[:3_000_000]; got+"\n" != want && got != want {
		w.t.Errorf("--limit-bytes: %d bytes", len(got))
	}
}

// complete checks that no number is missing and none comes twice.
func complete(t *testing.T, what string, lines []string) {
	t.Helper()
	if len(lines) == 0 {
		t.Errorf("%s: nothing", what)
		return
	}
	for i, line := range lines[:len(lines)-1] {
		if number, _, _ := strings.Cut(line, " "); number != fmt.Sprintf("%010d", i) {
			t.Errorf("%s: line %d is %.40q", what, i, line)
			return
		}
	}
}

// previous reads the log of an attempt that ended, which has more than one file.
func previous(t *testing.T, s *cluster.Slipway) {
	t.Helper()
	s.Eventually("the log of the attempt before", func() error {
		out, err := s.TryKubectl("logs", "--previous", "again")
		if err != nil {
			return errorString(out)
		}
		lines := strings.Split(strings.TrimSuffix(out, "\n"), "\n")
		if len(lines) != 30_000 || lines[0] != "line 0" || lines[29_999] != "line 29999" {
			return fmt.Errorf("%d lines, from %q to %q", len(lines), lines[0], lines[len(lines)-1])
		}
		return nil
	})
}

// exchangeContainerd kills slipway's containerd and waits until there is another.
func exchangeContainerd(t *testing.T, s *cluster.Slipway) {
	t.Helper()
	before := containerdPID(s)
	if before == 0 {
		t.Fatal("no containerd runs")
	}
	killContainerd(t, s)
	s.Eventually("another containerd", func() error {
		if pid := containerdPID(s); pid == 0 || pid == before {
			return fmt.Errorf("pid %d", pid)
		}
		return nil
	})
}

func containerdPID(s *cluster.Slipway) int {
	found := 0
	_ = fs.WalkDir(os.DirFS("/proc"), ".", func(path string, d fs.DirEntry, _ error) error {
		if path == "." {
			return nil
		}
		if pid, err := strconv.Atoi(d.Name()); err == nil {
			text, _ := os.ReadFile(filepath.Join("/proc", path, "cmdline"))
			command, rest, _ := strings.Cut(string(text), "\x00")
			if filepath.Base(command) == "containerd" && strings.Contains(rest, s.Data) {
				found = pid
			}
		}
		if d.IsDir() {
			return fs.SkipDir
		}
		return nil
	})
	return found
}
