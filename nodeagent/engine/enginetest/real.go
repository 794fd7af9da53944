package enginetest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/slipway-dev/slipway/nodeagent/engine"
)

// realRows hold for engines that run processes.
func realRows() []row {
	return []row{
		{"exit codes", exitCodes},
		{"a command that is not there", badCommands},
		{"command and args against the image's", arguments},
		{"environment over the image's", environment},
		{"working folder", workDir},
		{"log lines", logLines},
		{"long and unfinished log lines", logPartial},
		{"bind mounts and tmpfs", mountsRow},
		{"mount over a default one", sharedMemory},
		{"user, groups and root", users},
		{"capabilities", capabilitiesRow},
		{"read-only root", readOnlyRoot},
		{"seccomp and no new privileges", seccompRow},
		{"privileged", privileged},
		{"out of memory", outOfMemory},
		{"oom score is clamped", oomScoreRow},
		{"stop signal", stopSignal},
		{"exec", execRow},
		{"exec ends with its context", execTimeout},
		{"shared process namespace", sharedPID},
		{"standard input that stays open", stdinRow},
		{"terminal", terminal},
		{"many at once", manyAtOnce},
	}
}

func exitCodes(t *testing.T, b *Box) {
	for _, code := range []int{0, 1, 42} {
		got := b.Finish(b.Spec("exit", strconv.Itoa(code)))
		if got.ExitCode != code || got.StartedAt.IsZero() || got.FinishedAt.IsZero() {
			t.Errorf("exit %d gives %+v", code, got)
		}
	}
	c := b.Spec("sleep")
	b.Start(c)
	b.AwaitLine(c.LogPath, "waiting")
	if err := b.Engine.Signal(t.Context(), c.ID, int(syscall.SIGTERM), false); err != nil {
		t.Fatal(err)
	}
	if got := b.Await(c.ID, engine.Exited); got.ExitCode != 0 {
		t.Errorf("a container that ends on SIGTERM has exit code %d", got.ExitCode)
	}
}

func badCommands(t *testing.T, b *Box) {
	for command, text := range map[string]string{
		"nosuch":      `exec: "nosuch": executable file not found in $PATH`,
		"/no/such":    "no such file or directory",
		"/etc/passwd": "permission denied",
	} {
		c := b.Spec()
		c.Command = []string{command}
		b.Create(c)
		if got, _ := b.Status(c.ID); got.State != engine.Created {
			t.Errorf("before its start the container is %s", got.State)
		}
		err := b.Engine.Start(t.Context(), c.ID)
		wantClass(t, err, engine.ErrStart)
		wantText(t, err, text)
		got, ok := b.Status(c.ID)
		if !ok || got.State != engine.Exited || got.ExitCode != 128 || got.FinishedAt.IsZero() {
			t.Errorf("after a start that failed: %+v", got)
		}
	}
}

func arguments(t *testing.T, b *Box) {
	tests := map[string]struct {
		command, args, want []string
	}{
		"args follow the image's entry point":  {nil, []string{"args", "a", "b c"}, []string{"a", "b c"}},
		"command replaces it":                  {[]string{"/app", "args", "x"}, nil, []string{"x"}},
		"command and args":                     {[]string{"/app", "args"}, []string{"y"}, []string{"y"}},
		"nothing is expanded or split by them": {nil, []string{"args", "$HOME", "*"}, []string{"$HOME", "*"}},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			b := newBox(t, b.Suite)
			c := b.Spec(tt.args...)
			c.Command = tt.command
			b.Finish(c)
			if diff := cmp.Diff(tt.want, b.Text(c.LogPath)); diff != "" {
				t.Errorf("arguments (-want +got):\n%s", diff)
			}
		})
	}
}

func environment(t *testing.T, b *Box) {
	c := b.Spec("env")
	c.Env = []string{"A=1", "B=two words", "A=2", "EMPTY="}
	b.Finish(c)
	got := values(b.Text(c.LogPath))
	for name, want := range map[string]string{"A": "2", "B": "two words", "EMPTY": "", "PATH": "/usr/bin:/bin:/"} {
		if v, ok := got[name]; !ok || v != want {
			t.Errorf("%s=%q (%v), want %q", name, v, ok, want)
		}
	}
}

func workDir(t *testing.T, b *Box) {
	c := b.Spec("id")
	c.WorkDir = "/made/for/it"
	b.Finish(c)
	if got := values(b.Text(c.LogPath))["dir"]; got != c.WorkDir {
		t.Errorf("working folder is %q, want %q", got, c.WorkDir)
	}
}

func logLines(t *testing.T, b *Box) {
	c := b.Spec("lines", "100")
	b.Finish(c)
	lines := b.Log(c.LogPath)
	if len(lines) != 100 {
		t.Fatalf("%d lines when the end is known, want 100", len(lines))
	}
	for i, line := range lines {
		if line.Stream != "stdout" || line.Tag != "F" || line.Text != fmt.Sprintf("line %d", i) {
			t.Fatalf("line %d is %+v", i, line)
		}
		if i > 0 && line.At.Before(lines[i-1].At) {
			t.Errorf("line %d is older than the one before", i)
		}
	}
	c = b.Spec("lines", "2", "0s", "stderr")
	b.Finish(c)
	if lines := b.Log(c.LogPath); len(lines) != 2 || lines[1].Stream != "stderr" {
		t.Errorf("standard error: %+v", lines)
	}
}

func logPartial(t *testing.T, b *Box) {
	c := b.Spec("partial", "40000")
	b.Finish(c)
	lines := b.Log(c.LogPath)
	var tags, text strings.Builder
	for _, line := range lines {
		tags.WriteString(line.Tag)
		text.WriteString(line.Text)
	}
	if tags.String() != "PPF" || text.String() != strings.Repeat("x", 40000) {
		t.Errorf("tags are %s and the text has %d bytes, want PPF and 40000", tags.String(), text.Len())
	}
}

func mountsRow(t *testing.T, b *Box) {
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "in"), []byte("from outside\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	c := b.Spec("cat", "/data/in", "/proc/self/mountinfo")
	c.Mounts = []engine.Mount{
		{Source: dir, Target: "/data", ReadOnly: true}, {Target: "/scratch", SizeBytes: 1 << 20},
		{Source: filepath.Join(dir, "in"), Target: "/etc/one/file"},
	}
	b.Finish(c)
	text := strings.Join(b.Text(c.LogPath), "\n")
	for _, want := range []string{"from outside", " /data ro,", " /scratch rw,", "size=1024k", " /etc/one/file rw,"} {
		if !strings.Contains(text, want) {
			t.Errorf("%q is not in\n%s", want, text)
		}
	}
	c = b.Spec("write", "/data/out", "x")
	c.Mounts = []engine.Mount{{Source: dir, Target: "/data"}}
	if got := b.Finish(c); got.ExitCode != 0 {
		t.Errorf("writing to a mount: %v", b.Text(c.LogPath))
	}
	if data, err := os.ReadFile(filepath.Join(dir, "out")); err != nil || string(data) != "x" {
		t.Errorf("the container wrote %q (%v)", data, err)
	}
	c = b.Spec("sleep")
	c.Mounts = []engine.Mount{{Source: filepath.Join(dir, "missing"), Target: "/data"}}
	err := b.Engine.Create(t.Context(), c)
	wantClass(t, err, engine.ErrConfig)
	wantText(t, err, "missing")
	if _, ok := b.Status(c.ID); ok {
		t.Error("a container that could not be made is left")
	}
}

func sharedMemory(t *testing.T, b *Box) {
	dir := t.TempDir()
	c := b.Spec("write", "/dev/shm/x", "shared")
	c.Mounts = []engine.Mount{{Source: dir, Target: "/dev/shm"}}
	b.Finish(c)
	if data, err := os.ReadFile(filepath.Join(dir, "x")); err != nil || string(data) != "shared" {
		t.Errorf("/dev/shm holds %q (%v)", data, err)
	}
}

// id runs the test program's "id" and returns what it prints.
func stopSignal(t *testing.T, b *Box) {
	c := b.Spec("sleep")
	c.StopSignal = "SIGUSR1"
	b.Start(c)
	b.AwaitLine(c.LogPath, "waiting")
	if err := b.Engine.Signal(t.Context(), c.ID, 0, false); err != nil {
		t.Fatal(err)
	}
	b.Await(c.ID, engine.Exited)
	if text := b.Text(c.LogPath); text[len(text)-1] != "got user defined signal 1" {
		t.Errorf("it said %q", text)
	}
}

func execRow(t *testing.T, b *Box) {
	c := b.Spec("sleep")
	c.Env = []string{"FROM=container"}
	b.Start(c)
	var out, errs bytes.Buffer
	run := func(args ...string) int {
		t.Helper()
		out.Reset()
		errs.Reset()
		code, err := b.Engine.Exec(t.Context(), c.ID, engine.Exec{Command: append([]string{"/app"}, args...), Stdout: &out, Stderr: &errs})
		if err != nil {
			t.Fatal(err)
		}
		return code
	}
	if code := run("exit", "7"); code != 7 {
		t.Errorf("exit code %d, want 7", code)
	}
	if code := run("env"); code != 0 || !strings.Contains(out.String(), "FROM=container") {
		t.Errorf("exit code %d, output %q", code, out.String())
	}
	if run("lines", "2000"); strings.Count(out.String(), "\n") != 2000 || !strings.HasSuffix(out.String(), "line 1999\n") {
		t.Errorf("of 2000 lines %d came", strings.Count(out.String(), "\n"))
	}
	if run("lines", "1", "0s", "stderr"); errs.String() != "line 0\n" || out.Len() != 0 {
		t.Errorf("standard error is %q, output %q", errs.String(), out.String())
	}
	_, err := b.Engine.Exec(t.Context(), c.ID, engine.Exec{Command: []string{"nosuch"}})
	wantClass(t, err, engine.ErrStart)
	wantText(t, err, `exec: "nosuch": executable file not found in $PATH`)
	code, err := b.Engine.Exec(t.Context(), c.ID, engine.Exec{Command: []string{"/app", "lines", "20000"}, Stdout: failingWriter{}})
	if err != nil || code != 0 {
		t.Errorf("with a writer that takes nothing: %d, %v", code, err)
	}
}

// failingWriter takes nothing.
type failingWriter struct{}

func (failingWriter) Write([]byte) (int, error) { return 0, errors.New("full") }

func execTimeout(t *testing.T, b *Box) {
	c := b.Spec("sleep")
	b.Start(c)
	ctx, cancel := context.WithCancel(t.Context())
	out := &firstWrite{wrote: make(chan struct{})}
	ended := make(chan error, 1)
	go func() {
		_, err := b.Engine.Exec(ctx, c.ID, engine.Exec{Command: []string{"/app", "stubborn"}, Stdout: out})
		ended <- err
	}()
	<-out.wrote
	cancel()
	if err := <-ended; !errors.Is(err, context.Canceled) {
		t.Errorf("got %v, want the context's error", err)
	}
	var pids bytes.Buffer
	if _, err := b.Engine.Exec(t.Context(), c.ID, engine.Exec{Command: []string{"/app", "pids"}, Stdout: &pids}); err != nil {
		t.Fatal(err)
	}
	if got := strings.TrimSpace(pids.String()); got != "2" {
		t.Errorf("%s processes are in the container, want its own and the one that counts", got)
	}
}

// firstWrite tells of the first output.
type firstWrite struct {
	once  sync.Once
	wrote chan struct{}
}

func (w *firstWrite) Write(p []byte) (int, error) {
	w.once.Do(func() { close(w.wrote) })
	return len(p), nil
}

func sharedPID(t *testing.T, b *Box) {
	first := b.Spec("sleep")
	b.Start(first)
	second := b.Spec("pids")
	second.Group = first.Group
	second.Namespaces.PID = fmt.Sprintf("/proc/%d/ns/pid", b.Await(first.ID, engine.Running).PID)
	b.Finish(second)
	if diff := cmp.Diff([]string{"2"}, b.Text(second.LogPath)); diff != "" {
		t.Errorf("processes seen (-want +got):\n%s", diff)
	}
	if got := b.Await(first.ID, engine.Running); got.State != engine.Running {
		t.Error("the first container did not survive the second")
	}
}

func manyAtOnce(t *testing.T, b *Box) {
	const many = 20
	specs := make([]engine.Container, many)
	var wg sync.WaitGroup
	errs := make([]error, many)
	for i := range specs {
		specs[i] = b.Spec("exit", strconv.Itoa(i))
		t.Cleanup(func() { _ = b.Engine.Remove(context.Background(), specs[i].ID) })
		wg.Go(func() {
			errs[i] = b.Engine.Create(t.Context(), specs[i])
			if errs[i] == nil {
				errs[i] = b.Engine.Start(t.Context(), specs[i].ID)
			}
		})
	}
	wg.Wait()
	if err := errors.Join(errs...); err != nil {
		t.Fatal(err)
	}
	for i, c := range specs {
		if got := b.Await(c.ID, engine.Exited); got.ExitCode != i {
			t.Errorf("container %d has exit code %d", i, got.ExitCode)
		}
	}
}

func stdinRow(t *testing.T, b *Box) {
	if got := b.Finish(b.Spec("cat", "/dev/stdin")); got.ExitCode != 0 {
		t.Errorf("without a standard input: exit code %d", got.ExitCode)
	}
	open := b.Spec("cat", "/dev/stdin")
	open.Stdin = true
	b.Start(open)
	b.Finish(b.Spec("exit", "0")) // time enough to end, if it did
	if got, _ := b.Status(open.ID); got.State != engine.Running {
		t.Errorf("with one it is %s (exit code %d), want it to wait", got.State, got.ExitCode)
	}
}

func terminal(t *testing.T, b *Box) {
	c := b.Spec("lines", "3")
	c.TTY = true
	b.Finish(c)
	if diff := cmp.Diff([]string{"line 0\r", "line 1\r", "line 2\r"}, b.Text(c.LogPath)); diff != "" {
		t.Errorf("lines (-want +got):\n%s", diff)
	}
}
