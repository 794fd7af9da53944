package cgroup

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// host makes a folder that looks like a host's control groups: folders only, as the files in real ones do not hold
// up their removal.
func host(t *testing.T, dirs ...string) string {
	t.Helper()
	mount := t.TempDir()
	for _, dir := range dirs {
		if err := os.MkdirAll(filepath.Join(mount, dir), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	return mount
}

func left(t *testing.T, mount string) []string {
	t.Helper()
	var dirs []string
	err := filepath.WalkDir(mount, func(path string, e os.DirEntry, err error) error {
		if relative, _ := filepath.Rel(mount, path); err == nil && e.IsDir() && relative != "." {
			dirs = append(dirs, relative)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return dirs
}

func TestRemoveInEveryHierarchy(t *testing.T) {
	mount := host(t, "memory/slipway/burstable/pod1/c1", "memory/slipway/burstable/pod2", "pids/slipway/burstable/pod1", "cpu/other")
	tree := At(mount, "/slipway")
	if err := tree.Remove(t.Context(), "burstable/pod1"); err != nil {
		t.Fatal(err)
	}
	want := []string{"cpu", "cpu/other", "memory", "memory/slipway", "memory/slipway/burstable", "memory/slipway/burstable/pod2", "pids", "pids/slipway", "pids/slipway/burstable"}
	if diff := cmp.Diff(want, left(t, mount)); diff != "" {
		t.Errorf("what is left (-want +got):\n%s", diff)
	}
	if err := tree.Remove(t.Context(), ""); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff([]string{"cpu", "cpu/other", "memory", "pids"}, left(t, mount)); diff != "" {
		t.Errorf("what is left (-want +got):\n%s", diff)
	}
}

func TestRemoveInTheUnifiedHierarchy(t *testing.T) {
	mount := host(t, "slipway/besteffort/pod1/c1", "system.slice/slipway")
	if err := os.WriteFile(filepath.Join(mount, "cgroup.controllers"), nil, 0o644); err != nil {
		t.Fatal(err)
	}
	if err := At(mount, "/slipway").Remove(t.Context(), ""); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff([]string{"system.slice", "system.slice/slipway"}, left(t, mount)); diff != "" {
		t.Errorf("what is left (-want +got):\n%s", diff)
	}
}

func TestList(t *testing.T) {
	mount := host(t, "memory/slipway/burstable/podb", "memory/slipway/besteffort/poda", "pids/slipway/burstable/podb", "pids/slipway/burstable/other")
	got, err := At(mount, "/slipway").List("pod")
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff([]string{"a", "b"}, got); diff != "" {
		t.Errorf("list (-want +got):\n%s", diff)
	}
}
