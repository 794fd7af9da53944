package runtime

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// cleanUp removes what an ended containerd may have left: shims, mounts, the run folder, cgroups.
func (r *Runtime) cleanUp() error {
	r.killShims()
	var errs []error
	mounts, err := mountsBelow(r.paths.run, r.paths.state)
	if err != nil {
		errs = append(errs, err)
	}
	for _, target := range slices.Backward(mounts) {
		if err := unix.Unmount(target, unix.MNT_DETACH); err != nil {
			errs = append(errs, fmt.Errorf("unmount %s: %w", target, err))
		}
	}
	if len(errs) > 0 {
		return errors.Join(errs...) // what is mounted must not be deleted
	}
	os.Remove(r.paths.record)
	if err := os.RemoveAll(r.paths.run); err != nil {
		errs = append(errs, fmt.Errorf("clean up containerd: %w", err))
	}
	_ = unix.Rmdir(runBase)
	leaveCgroups()
	return errors.Join(errs...)
}

// killShims ends the shims of this runtime that are still there, and what they run.
func (r *Runtime) killShims() {
	for _, pid := range r.shims() {
		for _, child := range children(pid) {
			_ = unix.Kill(child, unix.SIGKILL)
		}
		_ = unix.Kill(pid, unix.SIGKILL)
	}
	// Their end is seen within milliseconds; mounts and cgroups are free only then.
	for range 200 {
		if len(r.shims()) == 0 {
			return
		}
		time.Sleep(5 * time.Millisecond)
	}
}

// shims finds shims by their program and by the socket in their arguments.
func (r *Runtime) shims() []int { return processes(shimName, r.paths.socket) }

// endStrays ends every containerd on this configuration but the recorded one: its starter died before it could write
// the record. Two would wait for each other's databases.
func (r *Runtime) endStrays(ctx context.Context, recorded int) error {
	for _, pid := range processes(containerdName, r.paths.config) {
		start, err := startTime(pid)
		if err != nil || pid == recorded {
			continue
		}
		proc, err := openProcess(record{PID: pid, Start: start, Boot: bootID()})
		if err != nil {
			continue // it has ended
		}
		r.cfg.Log.Info("a containerd nobody knows of runs: ending it", "pid", pid)
		if err := proc.stop(ctx); err != nil {
			return err
		}
	}
	return nil
}

// processes finds processes by the name of their program and one of their arguments.
func processes(program, argument string) []int {
	entries, err := os.ReadDir("/proc")
	if err != nil {
		return nil
	}
	var pids []int
	for _, entry := range entries {
		pid, err := strconv.Atoi(entry.Name())
		if err != nil {
			continue
		}
		args, err := os.ReadFile(filepath.Join("/proc", entry.Name(), "cmdline"))
		if err != nil {
			continue
		}
		argv := strings.Split(string(args), "\x00")
		if filepath.Base(argv[0]) == program && slices.Contains(argv, argument) {
			pids = append(pids, pid)
		}
	}
	return pids
}

func children(pid int) []int {
	data, err := os.ReadFile(fmt.Sprintf("/proc/%d/task/%d/children", pid, pid))
	if err != nil {
		return nil
	}
	var pids []int
	for _, field := range strings.Fields(string(data)) {
		if child, err := strconv.Atoi(field); err == nil {
			pids = append(pids, child)
		}
	}
	return pids
}

// mountsBelow lists mount points in the folders given, in the order they were mounted.
func mountsBelow(dirs ...string) ([]string, error) {
	f, err := os.Open("/proc/self/mountinfo")
	if err != nil {
		return nil, err
	}
	defer f.Close()
	var found []string
	lines := bufio.NewScanner(f)
	lines.Buffer(nil, 1<<20)
	for lines.Scan() {
		fields := strings.Fields(lines.Text())
		if len(fields) < 5 {
			continue
		}
		target := unescapeMount(fields[4])
		for _, dir := range dirs {
			if strings.HasPrefix(target, dir+"/") {
				found = append(found, target)
			}
		}
	}
	return found, lines.Err()
}

// unescapeMount undoes the kernel's octal escapes of space, tab, newline and backslash.
func unescapeMount(s string) string {
	return strings.NewReplacer(`\040`, " ", `\011`, "\t", `\012`, "\n", `\134`, `\`).Replace(s)
}
