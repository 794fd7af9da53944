// Package runspec turns a container as the engine is told of it into the specification that runc reads. Build is
// pure: what the image and the machine say is given to it.
//
// It must not know containerd, Pods, or how a container is made.
package runspec

import (
	"cmp"
	"fmt"
	"path"
	"path/filepath"
	"slices"
	"strings"

	"github.com/containerd/containerd/v2/contrib/seccomp"
	"github.com/opencontainers/runtime-spec/specs-go"

	"github.com/slipway-dev/slipway/nodeagent/engine"
)

// groupAnnotation tells the shim which containers share it.
const groupAnnotation = "io.containerd.runc.v2.group"

const defaultPath = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

// Image is what an image says of how it is run.
type Image struct {
	Entrypoint, Cmd, Env      []string
	User, WorkDir, StopSignal string
	Programs32                bool // it holds 32-bit programs
	Accounts                  Accounts
}

// Build returns the runtime specification of a container. Errors are of class engine.ErrConfig.
func Build(c engine.Container, image Image, host Host) (*specs.Spec, error) {
	args := processArgs(c, image)
	if len(args) == 0 || args[0] == "" {
		return nil, fmt.Errorf("%w: no command: neither the container nor its image names one", engine.ErrConfig)
	}
	user, err := resolveUser(c.Security, image.User, image.Accounts)
	if err != nil {
		return nil, err
	}
	spec := &specs.Spec{
		Version:  specs.Version,
		Hostname: c.Hostname,
		Root:     &specs.Root{Path: "rootfs", Readonly: c.Security.ReadOnlyRoot},
		Process: &specs.Process{
			Terminal:        c.TTY,
			User:            user,
			Args:            args,
			Env:             processEnv(c, image),
			Cwd:             cmp.Or(c.WorkDir, image.WorkDir, "/"),
			NoNewPrivileges: c.Security.NoNewPrivileges,
			Capabilities:    capabilities(c.Security, host),
			OOMScoreAdj:     oomScore(c.Resources, host),
		},
		Mounts: mounts(c, host),
		Linux: &specs.Linux{
			CgroupsPath: path.Join("/", c.Cgroup, c.ID),
			Namespaces:  linuxNamespaces(c.Namespaces, host),
			Resources:   resources(c.Resources, host),
		},
	}
	if c.Group != "" {
		spec.Annotations = map[string]string{groupAnnotation: c.Group}
	}
	if c.Namespaces.UTS != "" {
		spec.Hostname = "" // a shared UTS namespace has its name
	}
	secure(spec, c.Security, host, image.Programs32)
	return spec, nil
}

// secure sets what a container may see and do of the kernel.
func secure(spec *specs.Spec, s engine.Security, host Host, programs32 bool) {
	if s.Privileged {
		spec.Linux.Devices = host.devices
		spec.Linux.Resources.Devices = []specs.LinuxDeviceCgroup{{Allow: true, Access: "rwm"}}
		return
	}
	spec.Linux.Resources.Devices = []specs.LinuxDeviceCgroup{{Allow: false, Access: "rwm"}}
	if !s.UnmaskedProc {
		spec.Linux.MaskedPaths = maskedPaths()
		spec.Linux.ReadonlyPaths = readonlyPaths()
	}
	if s.SeccompDefault {
		filter := seccomp.DefaultProfile(spec)
		filter.Architectures = filterArches(filter.Architectures, host.x32, programs32)
		spec.Linux.Seccomp = filter
	}
}

// maskedPaths are those of /proc and /sys that tell a container about its host.
func maskedPaths() []string {
	return []string{
		"/proc/acpi", "/proc/asound", "/proc/interrupts", "/proc/kcore", "/proc/keys", "/proc/latency_stats",
		"/proc/sched_debug", "/proc/scsi", "/proc/timer_list", "/proc/timer_stats",
		"/sys/devices/virtual/powercap", "/sys/firmware",
	}
}

// readonlyPaths are those of /proc by which a container could change its host.
func readonlyPaths() []string {
	return []string{"/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"}
}

// processArgs follows Kubernetes: a command replaces entry point and arguments of the image.
func processArgs(c engine.Container, image Image) []string {
	switch {
	case len(c.Command) > 0:
		return slices.Concat(c.Command, c.Args)
	case len(c.Args) > 0:
		return slices.Concat(image.Entrypoint, c.Args)
	default:
		return slices.Concat(image.Entrypoint, image.Cmd)
	}
}

// processEnv lays the container's variables over the image's; of equal names the last counts.
func processEnv(c engine.Container, image Image) []string {
	env := []string{defaultPath}
	if c.TTY {
		env = append(env, "TERM=xterm")
	}
	at := map[string]int{}
	var out []string
	for _, v := range slices.Concat(env, image.Env, c.Env) {
		name, _, _ := strings.Cut(v, "=")
		if i, ok := at[name]; ok {
			out[i] = v
			continue
		}
		at[name] = len(out)
		out = append(out, v)
	}
	return out
}

// linuxNamespaces lists the namespaces to make or join; one that is not listed is the node's.
func linuxNamespaces(ns engine.Namespaces, host Host) []specs.LinuxNamespace {
	list := []specs.LinuxNamespace{{Type: specs.MountNamespace}}
	if host.cgroup2 {
		list = append(list, specs.LinuxNamespace{Type: specs.CgroupNamespace})
	}
	for _, n := range []struct {
		kind specs.LinuxNamespaceType
		path string
	}{
		{specs.NetworkNamespace, ns.Network}, {specs.IPCNamespace, ns.IPC},
		{specs.UTSNamespace, ns.UTS}, {specs.PIDNamespace, ns.PID},
	} {
		if n.path != "host" {
			list = append(list, specs.LinuxNamespace{Type: n.kind, Path: n.path})
		}
	}
	return list
}

func resources(r engine.Resources, host Host) *specs.LinuxResources {
	out := &specs.LinuxResources{}
	if host.cgroup2 {
		// Out of memory, a container ends as a whole, as under the kubelet: one that has lost some process by chance
		// would go on half alive.
		out.Unified = map[string]string{"memory.oom.group": "1"}
	}
	if r.CPUShares != 0 || r.CPUQuota != 0 {
		out.CPU = &specs.LinuxCPU{}
		if r.CPUShares != 0 {
			out.CPU.Shares = &r.CPUShares
		}
		if r.CPUQuota != 0 {
			period := r.CPUPeriod
			if period == 0 {
				period = 100_000
			}
			out.CPU.Quota, out.CPU.Period = &r.CPUQuota, &period
		}
	}
	if r.MemoryBytes != 0 {
		out.Memory = &specs.LinuxMemory{Limit: &r.MemoryBytes}
		if host.swapAccounting {
			out.Memory.Swap = &r.MemoryBytes // memory and swap together: no swap
		}
	}
	if r.PIDs != 0 {
		out.Pids = &specs.LinuxPids{Limit: &r.PIDs}
	}
	return out
}

// oomScore clamps the score to what the host lets us set: without CAP_SYS_RESOURCE it cannot go below our own, and
// runc fails with an obscure error on the attempt.
func oomScore(r engine.Resources, host Host) *int {
	score := max(r.OOMScoreAdj, host.minOOMScore)
	score = min(score, 1000)
	return &score
}

// mounts are the kernel's file systems and the container's own mounts. One of the container's replaces a default at
// the same place; a mount comes after those that hold its place.
func mounts(c engine.Container, host Host) []specs.Mount {
	list := defaultMounts(c, host)
	for _, m := range c.Mounts {
		m.Target = filepath.Clean(m.Target)
		list = slices.DeleteFunc(list, func(d specs.Mount) bool { return d.Destination == m.Target })
		list = append(list, mountOf(m))
	}
	slices.SortStableFunc(list, func(a, b specs.Mount) int { return depth(a.Destination) - depth(b.Destination) })
	return list
}

func depth(p string) int {
	return len(strings.FieldsFunc(p, func(r rune) bool { return r == '/' }))
}

func mountOf(m engine.Mount) specs.Mount {
	access := "rw"
	if m.ReadOnly {
		access = "ro"
	}
	if m.Source == "" {
		options := []string{"nosuid", "nodev", "mode=1777", access}
		if m.SizeBytes > 0 {
			options = append(options, fmt.Sprintf("size=%d", m.SizeBytes))
		}
		return specs.Mount{Destination: m.Target, Type: "tmpfs", Source: "tmpfs", Options: options}
	}
	return specs.Mount{
		Destination: m.Target, Type: "bind", Source: m.Source,
		Options: []string{"rbind", cmp.Or(m.Propagation, "rprivate"), access},
	}
}

func defaultMounts(c engine.Container, host Host) []specs.Mount {
	access := "ro"
	if c.Security.Privileged {
		access = "rw"
	}
	list := []specs.Mount{
		{Destination: "/proc", Type: "proc", Source: "proc", Options: []string{"nosuid", "noexec", "nodev"}},
		{Destination: "/dev", Type: "tmpfs", Source: "tmpfs", Options: []string{"nosuid", "strictatime", "mode=755", "size=65536k"}},
		{Destination: "/dev/pts", Type: "devpts", Source: "devpts",
			Options: []string{"nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620", "gid=5"}},
		{Destination: "/dev/mqueue", Type: "mqueue", Source: "mqueue", Options: []string{"nosuid", "noexec", "nodev"}},
		{Destination: "/dev/shm", Type: "tmpfs", Source: "shm",
			Options: []string{"nosuid", "noexec", "nodev", "mode=1777", "size=65536k"}},
		{Destination: "/sys", Type: "sysfs", Source: "sysfs", Options: []string{"nosuid", "noexec", "nodev", access}},
	}
	if host.cgroups {
		list = append(list, specs.Mount{Destination: "/sys/fs/cgroup", Type: "cgroup", Source: "cgroup",
			Options: []string{"nosuid", "noexec", "nodev", "relatime", access}})
	}
	return list
}
