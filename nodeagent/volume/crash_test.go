package volume

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"

	"github.com/slipway-dev/slipway/nodeagent/volume/downward"
	"github.com/slipway-dev/slipway/testing/need"
)

// What a process leaves that is killed at any step of making volumes is made whole by the next one.
func TestHalfMadeVolumesAreMadeWhole(t *testing.T) {
	need.Root(t)
	config := map[string]*corev1.ConfigMap{"settings": {Data: map[string]string{"color": "blue"}}}
	projected := vol(corev1.VolumeSource{ConfigMap: &corev1.ConfigMapVolumeSource{LocalObjectReference: corev1.LocalObjectReference{Name: "settings"}}})
	empty := vol(corev1.VolumeSource{EmptyDir: &corev1.EmptyDirVolumeSource{}})
	memory := vol(corev1.VolumeSource{EmptyDir: &corev1.EmptyDirVolumeSource{Medium: corev1.StorageMediumMemory}})
	emptyMode := func(t *testing.T, dir string) {
		if info, err := os.Stat(dir); err != nil || info.Mode().Perm() != 0o777 {
			t.Errorf("mode %v (%v), want 0777", info.Mode(), err)
		}
		if rest, _ := filepath.Glob(dir + ".*"); len(rest) > 0 {
			t.Errorf("left: %v", rest)
		}
	}
	content := func(t *testing.T, dir string) {
		if got, err := os.ReadFile(filepath.Join(dir, "color")); err != nil || string(got) != "blue" {
			t.Errorf("content %q, %v", got, err)
		}
		entries, err := os.ReadDir(dir)
		if err != nil {
			t.Fatal(err)
		}
		if len(entries) != 3 { // the file, ..data and what that leads to
			t.Errorf("left: %v", entries)
		}
	}
	tests := map[string]struct {
		volume corev1.Volume
		made   bool // before the damage
		damage func(dir string) error
		check  func(*testing.T, string)
	}{
		"nothing":                 {empty, false, func(string) error { return nil }, emptyMode},
		"no mode yet":             {empty, false, func(dir string) error { return os.MkdirAll(dir+".next", 0o700) }, emptyMode},
		"not mounted yet":         {memory, false, func(dir string) error { return os.MkdirAll(dir, 0o755) }, emptyMode},
		"files not written":       {projected, true, func(dir string) error { return os.MkdirAll(filepath.Join(dir, "..20half", "sub"), 0o755) }, content},
		"not swapped":             {projected, true, func(dir string) error { return os.Symlink("..20half", filepath.Join(dir, "..data_tmp")) }, nil},
		"names not linked":        {projected, true, func(dir string) error { return os.Remove(filepath.Join(dir, "color")) }, content},
		"the old one not removed": {projected, true, func(dir string) error { return os.CopyFS(filepath.Join(dir, "..20old"), os.DirFS(dir+"/..data/")) }, content},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			root, p := t.TempDir(), pod(tt.volume)
			dir, err := New(root, nil).Path(p, "v")
			if err != nil {
				t.Fatal(err)
			}
			source := &objects{configMaps: config}
			v := New(root, source)
			t.Cleanup(func() {
				if err := v.Teardown(t.Context(), p.UID); err != nil {
					t.Error(err)
				}
			})
			if tt.made {
				if _, err := v.Sync(t.Context(), downward.Self{Pod: p}); err != nil {
					t.Fatal(err)
				}
			}
			if err := tt.damage(dir); err != nil {
				t.Fatal(err)
			}
			if _, err := New(root, source).Sync(t.Context(), downward.Self{Pod: p}); err != nil {
				t.Fatal(err)
			}
			if tt.check != nil {
				tt.check(t, dir)
				return
			}
			config["settings"].Data["color"] = "green"
			defer func() { config["settings"].Data["color"] = "blue" }()
			if _, err := New(root, source).Sync(t.Context(), downward.Self{Pod: p}); err != nil {
				t.Fatal(err)
			}
			if got, _ := os.ReadFile(filepath.Join(dir, "color")); strings.TrimSpace(string(got)) != "green" {
				t.Errorf("content %q, want the new one", got)
			}
		})
	}
}
