package enginetest

import (
	"strconv"
	"strings"
	"testing"

	"github.com/slipway-dev/slipway/nodeagent/engine"
)

func (b *Box) id(security engine.Security) map[string]string {
	b.t.Helper()
	c := b.Spec("id")
	c.Security = security
	b.Finish(c)
	return values(b.Text(c.LogPath))
}

func users(t *testing.T, b *Box) {
	number := func(n int64) *int64 { return &n }
	tests := map[string]struct {
		security         engine.Security
		uid, gid, groups string
	}{
		"the image's, root":                 {engine.Security{}, "0", "0", "[0]"},
		"a user the image knows":            {engine.Security{UID: number(1000)}, "1000", "1000", "[1000 2000]"},
		"a user it does not know":           {engine.Security{UID: number(4711)}, "4711", "0", "[0]"},
		"group and more groups":             {engine.Security{UID: number(4711), GID: number(5), Groups: []int64{7, 6}}, "4711", "5", "[5 6 7]"},
		"a known user with another group":   {engine.Security{UID: number(1000), GID: number(5)}, "1000", "5", "[5 2000]"},
		"not root and so it is not refused": {engine.Security{UID: number(1000), NonRoot: true}, "1000", "1000", "[1000 2000]"},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			got := newBox(t, b.Suite).id(tt.security)
			if got["uid"] != tt.uid || got["gid"] != tt.gid || got["groups"] != tt.groups {
				t.Errorf("got %v, want uid %s, gid %s, groups %s", got, tt.uid, tt.gid, tt.groups)
			}
		})
	}
	c := b.Spec("id")
	c.Security.NonRoot = true
	wantClass(t, b.Engine.Create(t.Context(), c), engine.ErrConfig)
}

func capabilitiesRow(t *testing.T, b *Box) {
	const netAdmin, chown = 1 << 12, 1 << 0
	tests := map[string]struct {
		security engine.Security
		want     func(uint64) bool
	}{
		"default":          {engine.Security{}, func(c uint64) bool { return c == 0xa80425fb }},
		"none":             {engine.Security{DropCapabilities: []string{"ALL"}}, func(c uint64) bool { return c == 0 }},
		"none and one":     {engine.Security{DropCapabilities: []string{"ALL"}, AddCapabilities: []string{"NET_ADMIN"}}, func(c uint64) bool { return c == netAdmin }},
		"one less":         {engine.Security{DropCapabilities: []string{"CHOWN"}}, func(c uint64) bool { return c == 0xa80425fb&^chown }},
		"one more":         {engine.Security{AddCapabilities: []string{"NET_ADMIN"}}, func(c uint64) bool { return c == 0xa80425fb|netAdmin }},
		"all of this host": {engine.Security{AddCapabilities: []string{"ALL"}}, func(c uint64) bool { return c&0xa80425fb == 0xa80425fb && c&netAdmin != 0 }},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			got := newBox(t, b.Suite).id(tt.security)
			caps, err := strconv.ParseUint(got["CapEff"], 16, 64)
			if err != nil || !tt.want(caps) {
				t.Errorf("capabilities are %s (%v)", got["CapEff"], err)
			}
		})
	}
}

func readOnlyRoot(t *testing.T, b *Box) {
	c := b.Spec("write", "/tmp/x", "y")
	c.Security.ReadOnlyRoot = true
	if got := b.Finish(c); got.ExitCode != 1 {
		t.Errorf("exit code %d, want 1", got.ExitCode)
	}
	if text := strings.Join(b.Text(c.LogPath), "\n"); !strings.Contains(text, "read-only file system") {
		t.Errorf("it said %q", text)
	}
	if got := b.Finish(b.Spec("write", "/tmp/x", "y")); got.ExitCode != 0 {
		t.Error("the root of an ordinary container cannot be written")
	}
}

func seccompRow(t *testing.T, b *Box) {
	strict := b.id(engine.Security{SeccompDefault: true, NoNewPrivileges: true})
	if strict["Seccomp"] != "2" || strict["NoNewPrivs"] != "1" {
		t.Errorf("with the default profile: %v", strict)
	}
	open := b.id(engine.Security{})
	if open["Seccomp"] != "0" || open["NoNewPrivs"] != "0" {
		t.Errorf("without one: %v", open)
	}
	c := b.Spec("keyring")
	if got := b.Finish(c); got.ExitCode == 0 {
		t.Error("a forbidden system call went through")
	}
	c = b.Spec("keyring")
	c.Security.SeccompDefault = false
	if got := b.Finish(c); got.ExitCode != 0 {
		t.Errorf("without the profile the system call fails: %v", b.Text(c.LogPath))
	}
}

func privileged(t *testing.T, b *Box) {
	c := b.Spec("write", "/proc/sys/kernel/domainname", "slipway-test")
	c.Namespaces.Network = "host"
	if got := b.Finish(c); got.ExitCode == 0 {
		t.Error("an ordinary container wrote to /proc/sys")
	}
	c = b.Spec("write", "/proc/sys/kernel/domainname", "slipway-test") // of its own UTS namespace
	c.Security = engine.Security{Privileged: true}
	if got := b.Finish(c); got.ExitCode != 0 {
		t.Errorf("a privileged container could not: %v", b.Text(c.LogPath))
	}
}

func outOfMemory(t *testing.T, b *Box) {
	c := b.Spec("memory", "200")
	c.Resources.MemoryBytes = 48 << 20
	got := b.Finish(c)
	if !got.OOMKilled || got.ExitCode != 137 {
		t.Errorf("exit code %d, out of memory %v; want 137 and true", got.ExitCode, got.OOMKilled)
	}
}

func oomScoreRow(t *testing.T, b *Box) {
	for _, score := range []int{-998, 500} {
		c := b.Spec("id")
		c.Resources.OOMScoreAdj = score
		if got := b.Finish(c); got.ExitCode != 0 {
			t.Errorf("score %d: exit code %d", score, got.ExitCode)
		}
		if got := values(b.Text(c.LogPath))["oom"]; score > 0 && got != strconv.Itoa(score) {
			t.Errorf("score is %s, want %d", got, score)
		}
	}
}
