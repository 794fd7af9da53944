package runspec

import (
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/opencontainers/runtime-spec/specs-go"

	"github.com/slipway-dev/slipway/nodeagent/engine"
)

var testHost = Host{
	cgroups: true, swapAccounting: true, minOOMScore: 0,
	capabilities: []string{"CAP_CHOWN", "CAP_NET_ADMIN"},
}

var testAccounts = ParseAccounts(
	strings.NewReader("root:x:0:0:root:/root:/bin/sh\napp:x:1000:1001::/:\nbroken line\n"),
	strings.NewReader("root:x:0:\nweb:x:33:app,other\n"),
)

func specOf(t *testing.T, c engine.Container, image Image) *specs.Spec {
	t.Helper()
	if len(image.Entrypoint) == 0 {
		image.Entrypoint = []string{"/entry"}
	}
	image.Accounts = testAccounts
	spec, err := Build(c, image, testHost)
	if err != nil {
		t.Fatal(err)
	}
	return spec
}

func TestSpecArgs(t *testing.T) {
	image := Image{Entrypoint: []string{"/entry"}, Cmd: []string{"cmd"}}
	tests := map[string]struct {
		command, args, want []string
	}{
		"image":            {nil, nil, []string{"/entry", "cmd"}},
		"args":             {nil, []string{"a"}, []string{"/entry", "a"}},
		"command":          {[]string{"c"}, nil, []string{"c"}},
		"command and args": {[]string{"c"}, []string{"a"}, []string{"c", "a"}},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			spec := specOf(t, engine.Container{Command: tt.command, Args: tt.args}, image)
			if diff := cmp.Diff(tt.want, spec.Process.Args); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
		})
	}
	if _, err := Build(engine.Container{}, Image{}, testHost); !errors.Is(err, engine.ErrConfig) {
		t.Errorf("without any command: %v", err)
	}
}

func TestSpecUsers(t *testing.T) {
	number := func(n int64) *int64 { return &n }
	tests := map[string]struct {
		image    string
		security engine.Security
		want     string // "uid:gid groups" or a part of the error
	}{
		"nothing said":               {"", engine.Security{}, "0:0 [0]"},
		"name":                       {"app", engine.Security{}, "1000:1001 [33 1001]"},
		"number of a known user":     {"1000", engine.Security{}, "1000:1001 [33 1001]"},
		"number of an unknown one":   {"5", engine.Security{}, "5:0 [0]"},
		"name and group name":        {"app:web", engine.Security{}, "1000:33 [33]"},
		"numbers":                    {"5:6", engine.Security{}, "5:6 [6]"},
		"unknown name":               {"who", engine.Security{}, `no user "who"`},
		"unknown group":              {"app:who", engine.Security{}, `no group "who"`},
		"security before image":      {"app:web", engine.Security{UID: number(7)}, "7:0 [0]"},
		"group alone before image":   {"app", engine.Security{GID: number(9)}, "1000:9 [9 33]"},
		"root where none is wanted":  {"root", engine.Security{NonRoot: true}, "runAsNonRoot"},
		"zero where none is wanted":  {"app", engine.Security{NonRoot: true, UID: number(0)}, "runAsNonRoot"},
		"named and none is wanted":   {"app", engine.Security{NonRoot: true}, "1000:1001 [33 1001]"},
		"more groups, without twins": {"app", engine.Security{Groups: []int64{50, 33}}, "1000:1001 [33 50 1001]"},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			u, err := resolveUser(tt.security, tt.image, testAccounts)
			got := fmt.Sprintf("%d:%d %v", u.UID, u.GID, u.AdditionalGids)
			if err != nil {
				got = err.Error()
				if !errors.Is(err, engine.ErrConfig) {
					t.Errorf("%v is not of class ErrConfig", err)
				}
			}
			if !strings.Contains(got, tt.want) {
				t.Errorf("got %s, want %s", got, tt.want)
			}
		})
	}
}

func TestSpecNamespaces(t *testing.T) {
	spec := specOf(t, engine.Container{
		Hostname:   "ignored",
		Namespaces: engine.Namespaces{Network: "/run/net", IPC: "host", UTS: "/run/uts"},
	}, Image{})
	want := []specs.LinuxNamespace{
		{Type: specs.MountNamespace}, {Type: specs.NetworkNamespace, Path: "/run/net"},
		{Type: specs.UTSNamespace, Path: "/run/uts"}, {Type: specs.PIDNamespace},
	}
	if diff := cmp.Diff(want, spec.Linux.Namespaces); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	if spec.Hostname != "" {
		t.Error("a host name is set in a shared namespace: runc refuses that")
	}
}

func TestSpecMountsStandInOrder(t *testing.T) {
	spec := specOf(t, engine.Container{Mounts: []engine.Mount{
		{Source: "/h/deep", Target: "/data/deep/"}, {Source: "/h", Target: "/data", ReadOnly: true, Propagation: "rslave"},
		{Source: "/shm", Target: "/dev/shm"}, {Target: "/cache", SizeBytes: 5},
	}}, Image{})
	at := map[string]int{}
	for i, m := range spec.Mounts {
		if _, ok := at[m.Destination]; ok {
			t.Errorf("%s is mounted twice", m.Destination)
		}
		at[m.Destination] = i
	}
	if at["/data"] > at["/data/deep"] {
		t.Error("/data hides /data/deep")
	}
	want := specs.Mount{Destination: "/data", Type: "bind", Source: "/h", Options: []string{"rbind", "rslave", "ro"}}
	if diff := cmp.Diff(want, spec.Mounts[at["/data"]]); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	if got := spec.Mounts[at["/dev/shm"]]; got.Source != "/shm" || got.Type != "bind" {
		t.Errorf("/dev/shm is %+v", got)
	}
}

func TestSpecResources(t *testing.T) {
	spec := specOf(t, engine.Container{ID: "c", Cgroup: "/slipway/pod1", Resources: engine.Resources{
		CPUShares: 100, CPUQuota: 5000, MemoryBytes: 1 << 20, PIDs: 9, OOMScoreAdj: -998,
	}}, Image{})
	r := spec.Linux.Resources
	if *r.CPU.Shares != 100 || *r.CPU.Quota != 5000 || *r.CPU.Period != 100_000 || *r.Memory.Limit != 1<<20 ||
		*r.Memory.Swap != 1<<20 || *r.Pids.Limit != 9 {
		t.Errorf("resources are %+v", r)
	}
	if *spec.Process.OOMScoreAdj != 0 {
		t.Errorf("score is %d, want it clamped to 0", *spec.Process.OOMScoreAdj)
	}
	if spec.Linux.CgroupsPath != "/slipway/pod1/c" {
		t.Errorf("cgroup is %s", spec.Linux.CgroupsPath)
	}
	none := specOf(t, engine.Container{}, Image{}).Linux.Resources
	if none.CPU != nil || none.Memory != nil || none.Pids != nil || none.Unified != nil {
		t.Errorf("without limits: %+v", none)
	}
	if unified := resources(engine.Resources{}, Host{cgroup2: true}).Unified; unified["memory.oom.group"] != "1" {
		t.Errorf("on cgroup v2: %v, want the container to end as a whole when out of memory", unified)
	}
}

func TestSpecSecurity(t *testing.T) {
	tight := specOf(t, engine.Container{Security: engine.Security{SeccompDefault: true}}, Image{})
	if tight.Linux.Seccomp == nil || len(tight.Linux.MaskedPaths) == 0 || len(tight.Linux.ReadonlyPaths) == 0 {
		t.Error("an ordinary container lacks seccomp or masked paths")
	}
	open := specOf(t, engine.Container{Security: engine.Security{SeccompDefault: true, Privileged: true}}, Image{})
	if open.Linux.Seccomp != nil || len(open.Linux.MaskedPaths) != 0 {
		t.Error("a privileged container is confined")
	}
	if diff := cmp.Diff(testHost.capabilities, open.Process.Capabilities.Effective); diff != "" {
		t.Errorf("capabilities of a privileged container (-want +got):\n%s", diff)
	}
}

func TestFilterArches(t *testing.T) {
	all := []specs.Arch{specs.ArchX86_64, specs.ArchX86, specs.ArchX32}
	if got := filterArches(all, true, true); len(got) != 3 {
		t.Errorf("where all is possible: %v", got)
	}
	if got := filterArches(all, false, false); len(got) != 1 || got[0] != specs.ArchX86_64 {
		t.Errorf("where only 64 bits are: %v", got)
	}
	if len(all) != 3 || all[1] != specs.ArchX86 {
		t.Errorf("the argument was changed: %v", all)
	}
}
