package stats

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// tree writes files below a folder of the test's.
func tree(t *testing.T, files map[string]string) string {
	t.Helper()
	dir := t.TempDir()
	for name, text := range files {
		path := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

func TestMachine(t *testing.T) {
	m := Machine{tree(t, map[string]string{
		"meminfo": "MemTotal:       1000 kB\nMemFree:         100 kB\nMemAvailable:    600 kB\n",
		"loadavg": "0.20 0.18 0.12 1/80 11206\n", "sys/kernel/pid_max": "32768\n", "sys/kernel/threads-max": "1000\n",
	})}
	if got, err := m.Memory(); err != nil || got != (Level{Available: 600 << 10, Capacity: 1000 << 10}) {
		t.Errorf("memory %+v (%v)", got, err)
	}
	if got, err := m.PIDs(); err != nil || got != (Level{Available: 920, Capacity: 1000}) {
		t.Errorf("process ids %+v (%v)", got, err)
	}
	here := Machine{"/proc"}
	if got, err := here.Memory(); err != nil || got.Available <= 0 || got.Available > got.Capacity {
		t.Errorf("this machine's memory %+v (%v)", got, err)
	}
	if got, err := here.PIDs(); err != nil || got.Available <= 0 || got.Available >= got.Capacity {
		t.Errorf("this machine's process ids %+v (%v)", got, err)
	}
}

func TestGroups(t *testing.T) {
	for version, files := range map[string]map[string]string{
		"1": {
			"memory/a/memory.limit_in_bytes": "1000\n", "memory/a/memory.usage_in_bytes": "700\n", "memory/a/memory.stat": "inactive_file 0\ntotal_inactive_file 100\n",
			"memory/a/b/memory.limit_in_bytes": "9223372036854771712\n", "memory/a/b/memory.usage_in_bytes": "500\n", "memory/a/b/memory.stat": "inactive_file 0\ntotal_inactive_file 150\n",
			"pids/a/b/pids.current": "7\n",
		},
		"2": {
			"cgroup.controllers": "memory pids\n",
			"a/memory.max":       "1000\n", "a/memory.current": "700\n", "a/memory.stat": "inactive_file 100\n",
			"a/b/memory.max": "max\n", "a/b/memory.current": "500\n", "a/b/memory.stat": "inactive_file 150\n",
			"a/b/pids.current": "7\n",
		},
	} {
		t.Run("version "+version, func(t *testing.T) {
			g := Groups{tree(t, files)}
			if got, err := g.Memory("/a/b"); err != nil || got != 350 {
				t.Errorf("working set %d (%v), want 350", got, err)
			}
			if got, limited, err := g.MemoryRoom("/a/b"); err != nil || !limited || got != (Level{Available: 400, Capacity: 1000}) {
				t.Errorf("room %+v, limited %v (%v)", got, limited, err)
			}
			if _, limited, err := g.MemoryRoom("/c"); err != nil || limited {
				t.Errorf("a group that is not there: limited %v (%v)", limited, err)
			}
			if version == "2" { // the topmost group of a container
				for name, text := range map[string]string{"memory.max": "900\n", "memory.current": "800\n", "memory.stat": "inactive_file 100\n"} {
					if err := os.WriteFile(filepath.Join(g.Mount, name), []byte(text), 0o644); err != nil {
						t.Fatal(err)
					}
				}
				if got, limited, err := g.MemoryRoom("/a/b"); err != nil || !limited || got != (Level{Available: 200, Capacity: 900}) {
					t.Errorf("room in a container %+v, limited %v (%v)", got, limited, err)
				}
			}
			if got, err := g.PIDs("/a/b"); err != nil || got != 7 {
				t.Errorf("processes %d (%v), want 7", got, err)
			}
			if got, err := g.Memory("/gone"); err != nil || got != 0 {
				t.Errorf("a group that is not there uses %d (%v)", got, err)
			}
		})
	}
}

func TestFolderSize(t *testing.T) {
	dir := tree(t, map[string]string{"a": strings.Repeat("x", 8192), "b/c": strings.Repeat("x", 4096)})
	if err := os.Link(filepath.Join(dir, "a"), filepath.Join(dir, "b", "again")); err != nil {
		t.Fatal(err)
	}
	size, err := FolderSize(t.Context(), dir)
	if err != nil || size.Inodes != 4 || size.Bytes < 12288 || size.Bytes > 12288+3*8192 {
		t.Errorf("size %+v (%v), want two folders and two files of 12 KiB", size, err)
	}
	if size, err := FolderSize(t.Context(), filepath.Join(dir, "none")); err != nil || size != (Size{}) {
		t.Errorf("a folder that is not there has %+v (%v)", size, err)
	}
	fs, err := ReadFileSystem(dir)
	if err != nil || fs.Bytes.Capacity <= 0 || fs.Bytes.Available > fs.Bytes.Capacity || fs.Device == 0 {
		t.Errorf("file system %+v (%v)", fs, err)
	}
}
