package runtime

import (
	"bufio"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/slipway-dev/slipway/testing/need"
)

// starterEnv makes this test program start containerd in the folder named and wait to be killed.
const starterEnv = "SLIPWAY_TEST_STARTER"

func TestMain(m *testing.M) {
	if dir := os.Getenv(starterEnv); dir != "" {
		r, err := Start(context.Background(), Config{BundleDir: os.Getenv("SLIPWAY_TEST_BUNDLE"), StateDir: dir})
		if err != nil {
			fmt.Println(err)
			os.Exit(1)
		}
		fmt.Println(r.PID())
		select {}
	}
	os.Exit(m.Run())
}

func start(t *testing.T, dir string) *Runtime {
	t.Helper()
	r, err := Start(t.Context(), Config{BundleDir: need.Runtime(t), StateDir: dir})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := r.Stop(context.Background()); err != nil {
			t.Errorf("stop: %v", err)
		}
	})
	return r
}

func TestRuntimeIsFoundAgainAfterItsStarterWasKilled(t *testing.T) {
	dir := t.TempDir()
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), starterEnv+"="+dir, "SLIPWAY_TEST_BUNDLE="+need.Runtime(t))
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	line, err := bufio.NewReader(out).ReadString('\n')
	if err != nil {
		t.Fatal(err)
	}
	cmd.Process.Kill()
	cmd.Wait()

	r := start(t, dir)
	if got, want := fmt.Sprint(r.PID()), strings.TrimSpace(line); got != want {
		t.Errorf("containerd is process %s, want %s", got, want)
	}
}

func TestRuntimeIsFoundAgainWithoutItsRecord(t *testing.T) {
	dir := t.TempDir()
	first := start(t, dir)
	pid := first.PID()
	first.Close()
	if err := os.Remove(first.paths.record); err != nil {
		t.Fatal(err)
	}
	second := start(t, dir)
	if second.PID() == pid {
		t.Error("a containerd of unknown build was readopted")
	}
	if err := unix.Kill(pid, 0); err == nil {
		t.Errorf("process %d still runs beside %d", pid, second.PID())
	}
}

// TestRuntimeEndsAStray has a record that names a containerd of before, as when a starter is killed between starting
// the next one and writing it down.
func TestRuntimeEndsAStray(t *testing.T) {
	dir := t.TempDir()
	first := start(t, dir)
	pid := first.PID()
	first.Close()
	dead := exec.Command("true")
	if err := dead.Run(); err != nil {
		t.Fatal(err)
	}
	if err := writeRecord(first.paths.record, record{PID: dead.Process.Pid, Start: 1, Boot: bootID(), Build: "before"}); err != nil {
		t.Fatal(err)
	}
	second := start(t, dir)
	if err := unix.Kill(pid, 0); err == nil {
		t.Errorf("process %d still runs beside %d", pid, second.PID())
	}
}

func TestRuntimeRestartsContainerd(t *testing.T) {
	r := start(t, t.TempDir())
	pid := r.PID()
	if err := unix.Kill(pid, unix.SIGKILL); err != nil {
		t.Fatal(err)
	}
	deadline := time.After(20 * time.Second)
	for r.PID() == pid || r.PID() == 0 {
		select {
		case <-deadline:
			t.Fatal("containerd did not come back")
		case <-time.After(10 * time.Millisecond):
		}
	}
	if err := answers(t.Context(), r.Address()); err != nil {
		t.Error(err)
	}
}

func TestRuntimeHasItsOwnSessionAndCgroup(t *testing.T) {
	r := start(t, t.TempDir())
	if sid, err := unix.Getsid(r.PID()); err != nil || sid != r.PID() {
		t.Errorf("session is %d (%v), want %d", sid, err, r.PID())
	}
	data, err := os.ReadFile(fmt.Sprintf("/proc/%d/cgroup", r.PID()))
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(data)) {
		if !strings.HasSuffix(strings.TrimSpace(line), ":/"+cgroupName) {
			t.Errorf("cgroup is %q, want /%s", strings.TrimSpace(line), cgroupName)
		}
	}
}

func TestStopLeavesNothing(t *testing.T) {
	dir := t.TempDir()
	r := start(t, dir)
	pid := r.PID()
	if err := r.Stop(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := unix.Kill(pid, 0); err == nil {
		t.Error("containerd still runs")
	}
	for _, path := range []string{r.paths.run, r.paths.record} {
		if _, err := os.Lstat(path); err == nil {
			t.Errorf("%s is left", path)
		}
	}
}

func TestStartSaysWhatIsMissing(t *testing.T) {
	_, err := Start(t.Context(), Config{BundleDir: t.TempDir(), StateDir: t.TempDir()})
	if err == nil || !strings.Contains(err.Error(), shimName) {
		t.Errorf("got %v, want an error naming %s", err, shimName)
	}
}

func TestRecentEnough(t *testing.T) {
	for version, want := range map[string]bool{
		"1.7.20": false, "2.2.9": false, "2.3.0": true, "v2.4.2": true, "3.0.0": true, "": false, "dev": false,
	} {
		if got := recentEnough(version); got != want {
			t.Errorf("recentEnough(%q) = %v, want %v", version, got, want)
		}
	}
}

func TestNextDelay(t *testing.T) {
	delay := firstDelay
	for range 10 {
		delay = nextDelay(delay, time.Second)
	}
	if delay != maxDelay {
		t.Errorf("after many failures the delay is %v, want %v", delay, maxDelay)
	}
	if delay = nextDelay(delay, 2*stableAfter); delay != firstDelay {
		t.Errorf("after a stable run the delay is %v, want %v", delay, firstDelay)
	}
}

func TestOpenProcessRefusesAReusedPID(t *testing.T) {
	start, err := startTime(os.Getpid())
	if err != nil {
		t.Fatal(err)
	}
	if _, err := openProcess(record{PID: os.Getpid(), Start: start + 1, Boot: bootID()}); err == nil {
		t.Error("a process with another start time was taken")
	}
	if _, err := openProcess(record{PID: os.Getpid(), Start: start, Boot: "other"}); err == nil {
		t.Error("a process of another boot was taken")
	}
}

func TestBoundLogKeepsTheEnd(t *testing.T) {
	path := filepath.Join(t.TempDir(), "log")
	if err := os.WriteFile(path, []byte("0123456789"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := boundLog(path, 4); err != nil {
		t.Fatal(err)
	}
	kept, err := os.ReadFile(path + ".1")
	if err != nil || string(kept) != "6789" {
		t.Errorf("kept %q (%v), want the last 4 bytes", kept, err)
	}
	if info, err := os.Stat(path); err != nil || info.Size() != 0 {
		t.Errorf("the log is not empty: %v", err)
	}
}

func TestForeignContainerdIsUsedAndLeftAlone(t *testing.T) {
	own := start(t, t.TempDir())
	pid := own.PID()
	foreign, err := Start(t.Context(), Config{BundleDir: need.Runtime(t), Address: own.Address()})
	if err != nil {
		t.Fatal(err)
	}
	if err := foreign.Stop(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := answers(t.Context(), own.Address()); err != nil || own.PID() != pid {
		t.Errorf("the foreign containerd was touched: %v", err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), time.Second)
	defer cancel()
	if _, err := Start(ctx, Config{BundleDir: need.Runtime(t), Address: filepath.Join(t.TempDir(), "none.sock")}); err == nil {
		t.Error("a socket that is not there was taken")
	}
}
