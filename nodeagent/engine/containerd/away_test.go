package containerd

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
	"google.golang.org/grpc"

	"github.com/slipway-dev/slipway/nodeagent/engine"
	"github.com/slipway-dev/slipway/nodeagent/engine/enginetest"
	"github.com/slipway-dev/slipway/nodeagent/runtime"
	"github.com/slipway-dev/slipway/testing/need"
)

// stopContainerd kills containerd, and nobody restarts it.
func stopContainerd(t *testing.T, n *node) {
	t.Helper()
	n.runtime.Close()
	pid := n.runtime.PID()
	if err := unix.Kill(pid, unix.SIGKILL); err != nil {
		t.Fatal(err)
	}
	until(t, "containerd has ended", func() bool { return unix.Kill(pid, 0) != nil })
}

// until waits for what no event tells of.
func until(t *testing.T, what string, is func() bool) {
	t.Helper()
	deadline := time.After(20 * time.Second)
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for !is() {
		select {
		case <-tick.C:
		case <-deadline:
			t.Fatalf("not seen: %s", what)
		}
	}
}

func TestExitWhileContainerdIsAwayKeepsItsCode(t *testing.T) {
	n := startNode(t)
	b := enginetest.NewBox(t, n.suite())
	c := b.Spec("sleep")
	b.Start(c)
	b.AwaitLine(c.LogPath, "waiting")
	pid := b.Await(c.ID, engine.Running).PID
	stopContainerd(t, n)
	if err := unix.Kill(pid, unix.SIGTERM); err != nil { // the program ends with 0 on it
		t.Fatal(err)
	}
	until(t, "the process has ended", func() bool { return !running(pid) })
	ended := time.Now()
	n.restart(t)
	got := b.Await(c.ID, engine.Exited)
	if got.ExitCode != 0 || got.Lost != "" {
		t.Errorf("exit code %d (%s), want 0", got.ExitCode, got.Lost)
	}
	if d := ended.Sub(got.FinishedAt).Abs(); d > 5*time.Second {
		t.Errorf("finished at %v, want about %v", got.FinishedAt, ended)
	}
}

// running says whether a process runs; a zombie does not.
func running(pid int) bool {
	data, err := os.ReadFile(filepath.Join("/proc", strconv.Itoa(pid), "stat"))
	if err != nil {
		return false
	}
	state := string(data[strings.LastIndexByte(string(data), ')')+1:])
	return !strings.HasPrefix(state, " Z")
}

func TestContainersOfAKilledShimEndAndSayWhy(t *testing.T) {
	n := startNode(t)
	b := enginetest.NewBox(t, n.suite())
	first, second := b.Spec("sleep"), b.Spec("stubborn")
	second.Group = first.Group
	b.Start(first)
	b.Start(second)
	pids := []int{b.Await(first.ID, engine.Running).PID, b.Await(second.ID, engine.Running).PID}
	if err := unix.Kill(parent(t, pids[0]), unix.SIGKILL); err != nil {
		t.Fatal(err)
	}
	for i, c := range []engine.Container{first, second} {
		got := b.Await(c.ID, engine.Exited)
		if got.ExitCode != 137 || !strings.Contains(got.Lost, "shim") || got.StartedAt.IsZero() {
			t.Errorf("%+v, want 137 and that its shim was killed", got)
		}
		if running(pids[i]) {
			t.Errorf("process %d still runs", pids[i])
		}
	}
	third := b.Spec("exit", "3")
	third.Group = first.Group
	if got := b.Finish(third); got.ExitCode != 3 || got.Lost != "" {
		t.Errorf("the next container of the group ends as %+v", got)
	}
	for _, c := range []engine.Container{first, second, third} {
		if err := n.engine.Remove(t.Context(), c.ID); err != nil {
			t.Fatal(err)
		}
	}
	n.nothingLeft(t)
}

func TestLostStateEndsWhatRan(t *testing.T) {
	n := startNode(t)
	b := enginetest.NewBox(t, n.suite())
	c := b.Spec("stubborn")
	b.Start(c)
	pid := b.Await(c.ID, engine.Running).PID
	stopContainerd(t, n)
	state := filepath.Join(filepath.Dir(n.runtime.Address()), "state")
	bundles, _ := filepath.Glob(filepath.Join(state, "io.containerd.runtime.v2.task", "slipway", "*", "rootfs"))
	for _, rootfs := range bundles {
		if err := unix.Unmount(rootfs, unix.MNT_DETACH); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.RemoveAll(state); err != nil {
		t.Fatal(err)
	}
	n.restart(t)
	if got := b.Await(c.ID, engine.Exited); got.ExitCode != 137 || got.Lost == "" {
		t.Errorf("%+v, want 137 and that it was lost", got)
	}
	if running(pid) {
		t.Errorf("process %d runs on, unseen", pid)
	}
	if got := b.Finish(b.Spec("exit", "6")); got.ExitCode != 6 {
		t.Errorf("a new container ended as %+v", got)
	}
}

func TestDamagedMetadataBeginsAnew(t *testing.T) {
	n := startNode(t)
	b := enginetest.NewBox(t, n.suite())
	c := b.Spec("stubborn")
	b.Start(c)
	pid := b.Await(c.ID, engine.Running).PID
	stopContainerd(t, n)
	path := filepath.Join(n.dir, "containerd", "root", "io.containerd.metadata.v1.bolt", "meta.db")
	info, err := os.Stat(path)
	if err != nil {
		t.Fatal(err)
	}
	f, err := os.OpenFile(path, os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	for page := int64(2); page < info.Size()/4096; page++ { // everything but the two pages that say where things are
		if _, err := f.WriteAt([]byte(strings.Repeat("\xff", 4096)), page*4096); err != nil {
			t.Fatal(err)
		}
	}
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
	n.restart(t)
	until(t, "the container is forgotten", func() bool { _, ok := b.Status(c.ID); return !ok })
	until(t, "its process has ended", func() bool { return !running(pid) })
	until(t, "the image is forgotten", func() bool {
		_, err := n.engine.Image(t.Context(), testImage)
		return errors.Is(err, engine.ErrImageNotFound)
	})
	n.load(t)
	if got := b.Finish(b.Spec("exit", "6")); got.ExitCode != 6 {
		t.Errorf("a new container ended as %+v", got)
	}
	if _, err := os.Stat(filepath.Join(n.dir, "containerd", "root.damaged")); err != nil {
		t.Errorf("what containerd had is not kept: %v", err)
	}
}

func TestContainersStayWhenContainerdIsUpgraded(t *testing.T) {
	n := startNode(t)
	b := enginetest.NewBox(t, n.suite())
	c := b.Spec("lines", "1000000", "5ms")
	b.Start(c)
	before := b.Await(c.ID, engine.Running)
	other := t.TempDir()
	if err := os.CopyFS(other, os.DirFS(need.Runtime(t))); err != nil {
		t.Fatal(err)
	}
	n.runtime.Close()
	pid := n.runtime.PID()
	upgraded, err := runtime.Start(context.WithoutCancel(t.Context()), runtime.Config{BundleDir: other, StateDir: filepath.Join(n.dir, "containerd")})
	if err != nil {
		t.Fatal(err)
	}
	n.runtime = upgraded
	if upgraded.PID() == pid {
		t.Error("the old containerd goes on")
	}
	n.adopt(t, b)
	after, ok := b.Status(c.ID)
	if !ok || after.State != engine.Running || after.PID != before.PID || !after.StartedAt.Equal(before.StartedAt) {
		t.Errorf("before %+v, after %+v", before, after)
	}
	seen := len(b.Log(c.LogPath))
	b.AwaitLine(c.LogPath, "line "+strconv.Itoa(seen+20))
}

func TestCommandsOfAKilledProcessAreEnded(t *testing.T) {
	n := startNode(t)
	b := enginetest.NewBox(t, n.suite())
	c := b.Spec("sleep")
	b.Start(c)
	b.Await(c.ID, engine.Running)
	victim, mark := n.newEngine(t), "mark-"+c.ID
	returned := make(chan struct{})
	go func() {
		defer close(returned)
		_, _ = victim.Exec(context.Background(), c.ID, engine.Exec{Command: []string{"/app", "sleep", "100000h", mark}})
	}()
	until(t, "the command runs", func() bool { return processes(t, mark) == 1 })
	n.adopt(t, b)
	until(t, "the command has ended", func() bool { return processes(t, mark) == 0 })
	<-returned
	victim.Close()
	if got, _ := b.Status(c.ID); got.State != engine.Running {
		t.Errorf("the container is %+v", got)
	}
}

func TestTornRecordIsFoundOutAgain(t *testing.T) {
	n := startNode(t)
	b := enginetest.NewBox(t, n.suite())
	c := b.Spec("sleep")
	b.Start(c)
	before := b.Await(c.ID, engine.Running)
	for _, torn := range []string{"", `{"started":"2026-`} {
		if err := os.WriteFile(n.engine.recordPath(c.ID), []byte(torn), 0o600); err != nil {
			t.Fatal(err)
		}
		n.adopt(t, b)
		after, _ := b.Status(c.ID)
		if after.State != engine.Running || after.StartedAt.Sub(before.StartedAt).Abs() > 2*time.Second {
			t.Errorf("before %+v, after %+v", before, after)
		}
	}
}

func TestForgottenContainerIsEndedAndSwept(t *testing.T) {
	n := startNode(t)
	b := enginetest.NewBox(t, n.suite())
	stays, c := b.Spec("sleep"), b.Spec("stubborn")
	b.Start(stays)
	b.Start(c)
	b.Await(stays.ID, engine.Running)
	pid := b.Await(c.ID, engine.Running).PID
	ctx := n.engine.in(t.Context())
	if err := n.engine.client.ContainerService().Delete(ctx, c.ID); err != nil {
		t.Fatal(err)
	}
	if _, err := n.engine.look(ctx); err != nil {
		t.Fatal(err)
	}
	if running(pid) {
		t.Errorf("process %d runs on, unseen", pid)
	}
	for _, path := range []string{n.engine.recordPath(c.ID), "/sys/fs/cgroup" + c.Cgroup + "/" + c.ID, "/sys/fs/cgroup/memory" + c.Cgroup + "/" + c.ID} {
		if _, err := os.Stat(path); err == nil {
			t.Errorf("%s is left", path)
		}
	}
	if got, _ := b.Status(stays.ID); got.State != engine.Running {
		t.Errorf("the other container is %+v", got)
	}
}

// TestContainerWhoseShimDiedBeforeItsStartIsMadeAgain: nothing ran, so nothing is told as ended.
func TestContainerWhoseShimDiedBeforeItsStartIsMadeAgain(t *testing.T) {
	n := startNode(t)
	b := enginetest.NewBox(t, n.suite())
	c := b.Spec("exit", "5")
	b.Create(c)
	created := b.Await(c.ID, engine.Created)
	if err := unix.Kill(parent(t, created.PID), unix.SIGKILL); err != nil {
		t.Fatal(err)
	}
	until(t, "it is not listed any more", func() bool {
		got, ok := b.Status(c.ID)
		if ok && got.State != engine.Created {
			t.Fatalf("it is %+v", got)
		}
		return !ok
	})
	if got := b.Finish(c); got.ExitCode != 5 {
		t.Errorf("made again it ends as %+v", got)
	}
}

func TestEveryCallButWaitingHasAnEnd(t *testing.T) {
	for method, want := range map[string]bool{
		"/containerd.services.tasks.v1.Tasks/Create": true, "/containerd.services.tasks.v1.Tasks/List": true,
		"/containerd.services.images.v1.Images/List": true, "/containerd.services.tasks.v1.Tasks/Wait": false,
	} {
		err := bound(t.Context(), method, nil, nil, nil, func(ctx context.Context, _ string, _, _ any, _ *grpc.ClientConn, _ ...grpc.CallOption) error {
			if _, ok := ctx.Deadline(); ok != want {
				t.Errorf("%s has a deadline: %v, want %v", method, ok, want)
			}
			return nil
		})
		if err != nil {
			t.Error(err)
		}
	}
}
