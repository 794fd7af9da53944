package runtime

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

const (
	cgroupRoot = "/sys/fs/cgroup"
	// cgroupName is containerd's and the shims' own cgroup, beside those of the Pods.
	cgroupName = "slipway/runtime"
	// capSysResource is the number of CAP_SYS_RESOURCE.
	capSysResource = 24
)

// joinCgroup moves a process to the runtime's cgroup in every hierarchy, so that it neither ends with the cgroup of
// its starter nor counts there.
func joinCgroup(pid int) error {
	roots, err := hierarchies()
	if err != nil {
		return err
	}
	var errs []error
	for _, root := range roots {
		dir := filepath.Join(root, cgroupName)
		if err := makeCgroup(root, dir); err != nil {
			errs = append(errs, err)
			continue
		}
		if err := os.WriteFile(filepath.Join(dir, "cgroup.procs"), []byte(strconv.Itoa(pid)), 0); err != nil {
			errs = append(errs, fmt.Errorf("join cgroup: %w", err))
		}
	}
	return errors.Join(errs...)
}

// makeCgroup makes dir and the folders between root and it. A new cpuset takes no process before it has its parent's
// processors and memory.
func makeCgroup(root, dir string) error {
	if dir == root {
		return nil
	}
	if _, err := os.Stat(dir); err == nil {
		return nil
	}
	if err := makeCgroup(root, filepath.Dir(dir)); err != nil {
		return err
	}
	if err := os.Mkdir(dir, 0o755); err != nil && !errors.Is(err, os.ErrExist) {
		return fmt.Errorf("make cgroup: %w", err)
	}
	for _, name := range []string{"cpuset.cpus", "cpuset.mems"} {
		data, err := os.ReadFile(filepath.Join(filepath.Dir(dir), name))
		if err != nil || len(bytes.TrimSpace(data)) == 0 {
			continue
		}
		if own, err := os.ReadFile(filepath.Join(dir, name)); err == nil && len(bytes.TrimSpace(own)) == 0 {
			if err := os.WriteFile(filepath.Join(dir, name), data, 0); err != nil {
				return fmt.Errorf("set %s: %w", name, err)
			}
		}
	}
	return nil
}

// hierarchies returns where cgroups are mounted: one folder with cgroup v2, one per hierarchy with v1.
func hierarchies() ([]string, error) {
	var st unix.Statfs_t
	if err := unix.Statfs(cgroupRoot, &st); err != nil {
		return nil, fmt.Errorf("find cgroups: %w", err)
	}
	if st.Type == unix.CGROUP2_SUPER_MAGIC {
		return []string{cgroupRoot}, nil
	}
	entries, err := os.ReadDir(cgroupRoot)
	if err != nil {
		return nil, fmt.Errorf("find cgroups: %w", err)
	}
	var roots []string
	for _, entry := range entries {
		dir := filepath.Join(cgroupRoot, entry.Name())
		if _, err := os.Stat(filepath.Join(dir, "cgroup.procs")); err == nil && entry.IsDir() {
			roots = append(roots, dir)
		}
	}
	return roots, nil
}

// leaveCgroups removes the runtime's cgroups that are empty.
func leaveCgroups() {
	roots, err := hierarchies()
	if err != nil {
		return
	}
	for _, root := range roots {
		_ = unix.Rmdir(filepath.Join(root, cgroupName))
		_ = unix.Rmdir(filepath.Join(root, filepath.Dir(cgroupName)))
	}
}

// scoreLast makes the kernel end a process after all containers, as the kubelet's own.
const scoreLast = -999

// Protect makes the kernel end containers before this process when memory runs out, where it may.
func Protect() error {
	if !mayLowerOOMScore() {
		return nil
	}
	if err := os.WriteFile("/proc/self/oom_score_adj", []byte(strconv.Itoa(scoreLast)), 0o644); err != nil {
		return fmt.Errorf("be ended last when memory runs out: %w", err)
	}
	return nil
}

// mayLowerOOMScore tells whether this process has CAP_SYS_RESOURCE; some virtual machines withhold it.
func mayLowerOOMScore() bool {
	data, err := os.ReadFile("/proc/self/status")
	if err != nil {
		return false
	}
	for line := range strings.SplitSeq(string(data), "\n") {
		if hex, ok := strings.CutPrefix(line, "CapEff:"); ok {
			caps, err := strconv.ParseUint(strings.TrimSpace(hex), 16, 64)
			return err == nil && caps&(1<<capSysResource) != 0
		}
	}
	return false
}
