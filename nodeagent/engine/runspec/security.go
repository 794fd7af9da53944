package runspec

import (
	"slices"
	"strings"

	"github.com/opencontainers/runtime-spec/specs-go"

	"github.com/slipway-dev/slipway/nodeagent/engine"
)

// defaultCapabilities are those every container runtime gives to a container that asks for nothing.
func defaultCapabilities() []string {
	return []string{
		"CAP_AUDIT_WRITE", "CAP_CHOWN", "CAP_DAC_OVERRIDE", "CAP_FOWNER", "CAP_FSETID", "CAP_KILL", "CAP_MKNOD",
		"CAP_NET_BIND_SERVICE", "CAP_NET_RAW", "CAP_SETFCAP", "CAP_SETGID", "CAP_SETPCAP", "CAP_SETUID", "CAP_SYS_CHROOT",
	}
}

// capabilities follows the order in which Kubernetes reads the lists: ALL first, added or dropped, then single names.
func capabilities(s engine.Security, host Host) *specs.LinuxCapabilities {
	set := defaultCapabilities()
	switch {
	case s.Privileged, hasAll(s.AddCapabilities):
		set = slices.Clone(host.capabilities)
	case hasAll(s.DropCapabilities):
		set = nil
	}
	if !s.Privileged {
		if hasAll(s.DropCapabilities) {
			set = nil
		}
		for _, name := range s.AddCapabilities {
			if name = capability(name); name != "CAP_ALL" && !slices.Contains(set, name) {
				set = append(set, name)
			}
		}
		for _, name := range s.DropCapabilities {
			name = capability(name)
			set = slices.DeleteFunc(set, func(c string) bool { return c == name })
		}
	}
	slices.Sort(set)
	return &specs.LinuxCapabilities{Bounding: set, Permitted: set, Effective: set}
}

func hasAll(names []string) bool {
	return slices.ContainsFunc(names, func(n string) bool { return capability(n) == "CAP_ALL" })
}

func capability(name string) string {
	return "CAP_" + strings.TrimPrefix(strings.ToUpper(name), "CAP_")
}

// filterArches leaves in a seccomp filter the architectures that matter. runc translates the filter for each of them
// at every start, and that is most of what a start costs; system calls of an architecture that is left out are
// refused altogether. The kernel's x32 calls matter only where the kernel has them, 32-bit calls only to images with
// 32-bit programs.
func filterArches(arches []specs.Arch, x32, programs32 bool) []specs.Arch {
	return slices.DeleteFunc(slices.Clone(arches), func(a specs.Arch) bool {
		switch a {
		case specs.ArchX32:
			return !x32
		case specs.ArchX86, specs.ArchARM:
			return !programs32
		}
		return false
	})
}
