package containerd

import (
	"errors"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/slipway-dev/slipway/nodeagent/engine"
	"github.com/slipway-dev/slipway/nodeagent/engine/enginetest"
)

// parent is a process's parent: a container's shim.
func parent(t *testing.T, pid int) int {
	t.Helper()
	data, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/stat")
	if err != nil {
		t.Fatal(err)
	}
	fields := strings.Fields(string(data[strings.LastIndexByte(string(data), ')')+1:]))
	ppid, err := strconv.Atoi(fields[1])
	if err != nil {
		t.Fatal(err)
	}
	return ppid
}

func TestGroupOutlivesItsFirstMember(t *testing.T) {
	n := startNode(t)
	b := enginetest.NewBox(t, n.suite())
	first := b.Spec("sleep")
	b.Start(first)
	shim := parent(t, b.Await(first.ID, engine.Running).PID)

	second := b.Spec("lines", "1000000", "5ms")
	second.Group = first.Group
	b.Start(second)
	if got := parent(t, b.Await(second.ID, engine.Running).PID); got != shim {
		t.Fatalf("the second container has shim %d, the first %d", got, shim)
	}
	if err := n.engine.Remove(t.Context(), first.ID); err != nil {
		t.Fatal(err)
	}
	seen := len(b.Log(second.LogPath))
	b.AwaitLine(second.LogPath, "line "+strconv.Itoa(seen+20))

	third := b.Spec("exit", "5")
	third.Group = first.Group
	b.Create(third)
	if got := b.Await(third.ID, engine.Created); parent(t, got.PID) != shim {
		t.Errorf("the third container has shim %d, want %d", parent(t, got.PID), shim)
	}
	if err := n.engine.Start(t.Context(), third.ID); err != nil {
		t.Fatal(err)
	}
	if got := b.Await(third.ID, engine.Exited); got.ExitCode != 5 {
		t.Errorf("exit code %d, want 5", got.ExitCode)
	}
	killContainerd(t, n)
	seen = len(b.Log(second.LogPath))
	b.AwaitLine(second.LogPath, "line "+strconv.Itoa(seen+20))
	for _, id := range []string{second.ID, third.ID} {
		if err := n.engine.Remove(t.Context(), id); err != nil {
			t.Fatal(err)
		}
	}
	sockets, err := filepath.Glob(filepath.Join(filepath.Dir(n.runtime.Address()), "s", "*"))
	if err != nil || len(sockets) != 0 {
		t.Errorf("shim sockets are left: %v (%v)", sockets, err)
	}
}

// killContainerd kills containerd and waits until the engine is connected to its successor.
func killContainerd(t *testing.T, n *node) {
	t.Helper()
	events := n.engine.Watch(t.Context())
	if err := unix.Kill(n.runtime.PID(), unix.SIGKILL); err != nil {
		t.Fatal(err)
	}
	for event := range events {
		if event.ID == "" {
			return
		}
	}
}

func TestContainersOutliveContainerd(t *testing.T) {
	n := startNode(t)
	b := enginetest.NewBox(t, n.suite())
	runs, ends := b.Spec("lines", "1000000", "5ms"), b.Spec("sleep")
	b.Start(runs)
	b.Start(ends)
	before := b.Await(runs.ID, engine.Running)
	end := b.Await(ends.ID, engine.Running)

	events := n.engine.Watch(t.Context())
	if err := unix.Kill(n.runtime.PID(), unix.SIGKILL); err != nil {
		t.Fatal(err)
	}
	if err := unix.Kill(end.PID, unix.SIGKILL); err != nil { // while nobody watches
		t.Fatal(err)
	}
	for event := range events {
		if event.ID == "" {
			break
		}
	}
	if got := b.Await(ends.ID, engine.Exited); got.ExitCode != 137 {
		t.Errorf("the container that ended meanwhile has exit code %d, want 137", got.ExitCode)
	}
	after, _ := b.Status(runs.ID)
	if after.State != engine.Running || after.PID != before.PID || !after.StartedAt.Equal(before.StartedAt) {
		t.Errorf("before %+v, after %+v", before, after)
	}
	seen := len(b.Log(runs.LogPath))
	b.AwaitLine(runs.LogPath, "line "+strconv.Itoa(seen+20))
	if code, err := n.engine.Exec(t.Context(), runs.ID, engine.Exec{Command: []string{"/app", "exit", "9"}}); err != nil || code != 9 {
		t.Errorf("exec after the restart: %d, %v", code, err)
	}
	if got := b.Finish(b.Spec("exit", "6")); got.ExitCode != 6 {
		t.Errorf("a new container ended as %+v", got)
	}
}

func TestContainersOutliveTheEngine(t *testing.T) {
	n := startNode(t)
	b := enginetest.NewBox(t, n.suite())
	runs, done, ends, oom := b.Spec("sleep"), b.Spec("exit", "4"), b.Spec("sleep"), b.Spec("memory", "200")
	oom.Resources.MemoryBytes = 48 << 20
	b.Start(runs)
	before := b.Await(runs.ID, engine.Running)
	doneBefore := b.Finish(done)
	b.Start(ends)
	pid := b.Await(ends.ID, engine.Running).PID
	b.Create(oom)
	bad := b.Spec()
	bad.Command = []string{"nosuch"}
	b.Create(bad)
	if err := n.engine.Start(t.Context(), bad.ID); err == nil {
		t.Fatal("a missing command was started")
	}
	n.engine.Close()
	if err := unix.Kill(pid, unix.SIGTERM); err != nil {
		t.Fatal(err)
	}

	n.engine = n.newEngine(t)
	b.Engine = n.engine
	after, _ := b.Status(runs.ID)
	if after.State != engine.Running || after.PID != before.PID || !after.StartedAt.Equal(before.StartedAt) || after.Labels["test"] != t.Name() {
		t.Errorf("running: before %+v, after %+v", before, after)
	}
	doneAfter, _ := b.Status(done.ID)
	if doneAfter.State != engine.Exited || doneAfter.ExitCode != 4 || !doneAfter.FinishedAt.Equal(doneBefore.FinishedAt) {
		t.Errorf("ended before: %+v, after %+v", doneBefore, doneAfter)
	}
	if got := b.Await(ends.ID, engine.Exited); got.ExitCode != 0 && got.ExitCode != 143 {
		t.Errorf("ended meanwhile: %+v", got)
	}
	if got, _ := b.Status(bad.ID); got.State != engine.Exited || got.ExitCode != 128 {
		t.Errorf("never started: %+v", got)
	}
	if err := n.engine.Start(t.Context(), oom.ID); err != nil {
		t.Fatal(err)
	}
	if got := b.Await(oom.ID, engine.Exited); !got.OOMKilled {
		t.Errorf("out of memory: %+v", got)
	}
}

func TestLogsRotate(t *testing.T) {
	n := startNode(t)
	b := enginetest.NewBox(t, n.suite())
	c := b.Spec("flood")
	b.Start(c)
	events := make(chan struct{})
	go func() {
		defer close(events)
		b.AwaitThat(c.ID, "running", func(engine.Status) bool {
			files, _ := filepath.Glob(c.LogPath + ".*")
			return len(files) == 2
		})
	}()
	// Every exec is an event, so that the wait above looks again.
	for done := false; !done; {
		select {
		case <-events:
			done = true
		default:
			n.engine.watcher.notify(c.ID)
		}
	}
	if err := n.engine.Signal(t.Context(), c.ID, int(syscall.SIGKILL), false); err != nil {
		t.Fatal(err)
	}
	b.Await(c.ID, engine.Exited)
	files, err := filepath.Glob(c.LogPath + "*")
	if err != nil || len(files) != 3 {
		t.Errorf("%d files (%v), want 3: %v", len(files), err, files)
	}
	for _, file := range files {
		if _, err := enginetest.ReadLog(file); err != nil {
			t.Error(err)
		}
		if info, err := os.Stat(file); err == nil && info.Size() > 1<<20 {
			t.Errorf("%s has %d bytes", file, info.Size())
		}
	}
}

func TestContainerEndsWithItsShim(t *testing.T) {
	n := startNode(t)
	b := enginetest.NewBox(t, n.suite())
	c := b.Spec("sleep")
	b.Start(c)
	pid := b.Await(c.ID, engine.Running).PID
	if err := unix.Kill(parent(t, pid), unix.SIGKILL); err != nil {
		t.Fatal(err)
	}
	if got := b.Await(c.ID, engine.Exited); got.ExitCode != 137 {
		t.Errorf("exit code %d, want 137", got.ExitCode)
	}
	if err := n.engine.Remove(t.Context(), c.ID); err != nil {
		t.Fatal(err)
	}
	if data, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/cmdline"); err == nil && len(data) > 0 {
		t.Errorf("process %d still runs", pid)
	}
}

func TestUnavailableWhileContainerdIsDown(t *testing.T) {
	n := startNode(t)
	b := enginetest.NewBox(t, n.suite())
	runs := b.Spec("sleep")
	b.Start(runs)
	n.runtime.Close() // nobody restarts it
	if err := unix.Kill(n.runtime.PID(), unix.SIGKILL); err != nil {
		t.Fatal(err)
	}
	if err := n.engine.Create(t.Context(), b.Spec("sleep")); !errors.Is(err, engine.ErrUnavailable) {
		t.Errorf("create: %v, want ErrUnavailable", err)
	}
	if got, ok := b.Status(runs.ID); !ok || got.State != engine.Running {
		t.Errorf("what runs is listed as %+v", got)
	}
	events := n.engine.Watch(t.Context())
	n.restart(t)
	for event := range events {
		if event.ID == "" {
			break
		}
	}
	if got := b.Finish(b.Spec("exit", "2")); got.ExitCode != 2 {
		t.Errorf("after its restart a container ends as %+v", got)
	}
}
