package runspec

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/containerd/containerd/v2/pkg/cap"
	"github.com/containerd/containerd/v2/pkg/oci"
	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

const cgroupRoot = "/sys/fs/cgroup"

// Host is what the machine allows.
type Host struct {
	cgroups        bool // mounted at all
	cgroup2        bool // the unified hierarchy only
	swapAccounting bool
	x32            bool // the kernel takes system calls of the x32 ABI
	minOOMScore    int
	capabilities   []string // what this process has, and so may give
	devices        []specs.LinuxDevice
}

// DetectHost looks at the machine this runs on.
func DetectHost(ctx context.Context) (Host, error) {
	h := Host{x32: hasX32()}
	var st unix.Statfs_t
	if err := unix.Statfs(cgroupRoot, &st); err == nil {
		h.cgroups = true
		h.cgroup2 = st.Type == unix.CGROUP2_SUPER_MAGIC
	}
	if h.cgroup2 {
		h.swapAccounting = true
	} else if _, err := os.Stat(filepath.Join(cgroupRoot, "memory", "memory.memsw.limit_in_bytes")); err == nil {
		h.swapAccounting = true
	}
	var err error
	if h.capabilities, err = cap.Current(); err != nil {
		return Host{}, fmt.Errorf("read capabilities: %w", err)
	}
	h.minOOMScore = -1000
	if !slices.Contains(h.capabilities, "CAP_SYS_RESOURCE") {
		data, err := os.ReadFile("/proc/self/oom_score_adj")
		if err != nil {
			return Host{}, err
		}
		if h.minOOMScore, err = strconv.Atoi(string(bytes.TrimSpace(data))); err != nil {
			return Host{}, fmt.Errorf("read oom_score_adj: %w", err)
		}
	}
	spec := &specs.Spec{Linux: &specs.Linux{}}
	if err := oci.WithHostDevices(ctx, nil, nil, spec); err != nil {
		return Host{}, fmt.Errorf("list devices: %w", err)
	}
	h.devices = spec.Linux.Devices
	return h, nil
}

// OOMKills counts how often the kernel killed a process of a cgroup for memory. The count lives as long as the
// cgroup, so it tells of what happened while nobody watched.
func (h Host) OOMKills(cgroup string) int {
	file := filepath.Join(cgroupRoot, cgroup, "memory.events")
	if !h.cgroup2 {
		file = filepath.Join(cgroupRoot, "memory", cgroup, "memory.oom_control")
	}
	data, err := os.ReadFile(file)
	if err != nil {
		return 0
	}
	for line := range strings.Lines(string(data)) {
		if count, ok := strings.CutPrefix(line, "oom_kill "); ok {
			n, _ := strconv.Atoi(strings.TrimSpace(count))
			return n
		}
	}
	return 0
}
