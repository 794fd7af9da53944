package local

import (
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"
	"time"
)

// TestInotifyLimits reaches the kernel's own limits, in a user namespace that has limits of its own: the directory is
// polled, which is said with the limit's name, saves are seen, and when there is room it is watched again.
func TestInotifyLimits(t *testing.T) {
	const marker = "SLIPWAY_TEST_INOTIFY"
	knob := os.Getenv(marker)
	if knob == "" {
		for _, knob := range []string{"max_inotify_instances", "max_inotify_watches"} {
			t.Run(knob, func(t *testing.T) {
				cmd := exec.Command("/proc/self/exe", "-test.run=^TestInotifyLimits$", "-test.timeout=60s")
				cmd.Env = append(os.Environ(), marker+"="+knob)
				ids := []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getuid(), Size: 1}}
				groups := []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getgid(), Size: 1}}
				cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWUSER, UidMappings: ids, GidMappings: groups, Pdeathsig: syscall.SIGKILL}
				if out, err := cmd.CombinedOutput(); err != nil {
					t.Errorf("%v\n%s", err, out)
				}
			})
		}
		return
	}
	limit := func(n string) {
		t.Helper()
		must(t, os.WriteFile("/proc/sys/user/"+knob, []byte(n), 0))
	}
	limit("0")
	dir := t.TempDir()
	write(t, dir, map[string]string{"a.yaml": "1", "sub/b.yaml": "1"})
	w := watch(t, dir, Options{Poll: 10 * time.Millisecond, retry: 100 * time.Millisecond})
	want := "the limit fs.inotify." + strings.Replace(knob, "inotify", "user", 1) + " = "
	if u := w.next(); !strings.HasPrefix(u.Note, "polling every 10ms: "+want) || !strings.Contains(u.Note, "sysctl -w") {
		t.Errorf("note %q, want %q", u.Note, want)
	}
	write(t, dir, map[string]string{"sub/b.yaml": "2"})
	if u := w.next(); u.Note != "" || content(u.Snapshot)["sub/b.yaml"] != "2" {
		t.Errorf("while polled: %+v", u)
	}
	limit("100")
	if u := w.next(); u.Note != "watching again: a save is seen at once" {
		t.Errorf("with room: %+v", u)
	}
	write(t, dir, map[string]string{"sub/b.yaml": "3"})
	if u := w.next(); u.Note != "" || content(u.Snapshot)["sub/b.yaml"] != "3" {
		t.Errorf("while watched: %+v", u)
	}
}
