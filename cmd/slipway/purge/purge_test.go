package purge

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"

	"github.com/slipway-dev/slipway/testing/need"
)

// tree makes files, by path; content "->X" is a link to X.
func tree(t *testing.T, files map[string]string) string {
	t.Helper()
	dir := t.TempDir()
	for name, content := range files {
		path := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
			t.Fatal(err)
		}
		var err error
		if target, ok := strings.CutPrefix(content, "->"); ok {
			err = os.Symlink(target, path)
		} else {
			err = os.WriteFile(path, []byte(content), 0o600)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

// data is a data directory with a file of somebody else's.
func data(t *testing.T) string {
	return tree(t, map[string]string{
		"data/format": "1\n", "data/lock": "", "data/etcd/member/snap/db": strings.Repeat("x", 10000), "data/pods/u/volumes/v": "x",
		"data/kubeconfig": "x", "data/.kubeconfig-1": "x", "data/slipway.log": "x", "data/slipway.log.1": "x", "data/notes.txt": "mine",
	}) + "/data"
}

func TestLookNamesWhatWouldGo(t *testing.T) {
	p, err := Look(data(t))
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, item := range p.Items {
		names = append(names, item.Name)
	}
	if diff := cmp.Diff([]string{".kubeconfig-1", "etcd", "kubeconfig", "pods", "slipway.log", "slipway.log.1"}, names); diff != "" {
		t.Errorf("would go (-want +got):\n%s", diff)
	}
	if diff := cmp.Diff([]string{"notes.txt"}, p.Kept); diff != "" {
		t.Errorf("stays (-want +got):\n%s", diff)
	}
	for _, want := range []string{"the store: every object and its history", "notes.txt is not Slipway's and stays", "kB"} {
		if !strings.Contains(p.String(), want) {
			t.Errorf("%q is not said in\n%s", want, p)
		}
	}
}

func TestLookRefuses(t *testing.T) {
	linked := tree(t, map[string]string{"link": "->" + data(t)}) + "/link"
	for name, c := range map[string]struct{ dir, want string }{
		"a link to a data directory":             {linked, "is a link"},
		"somebody's folder":                      {tree(t, map[string]string{"etcd/db": "x", "letter.txt": "x"}), "has no file format"},
		"a folder with another format":           {tree(t, map[string]string{"format": "of my letters", "etcd/db": "x"}), "holds no version"},
		"a format that is a link":                {tree(t, map[string]string{"format": "->/etc/hostname"}), "has no file format"},
		"an empty folder":                        {t.TempDir(), "has no file format"},
		"a folder that is not there":             {filepath.Join(t.TempDir(), "none"), "no such file"},
		"a file":                                 {tree(t, map[string]string{"f": ""}) + "/f", "is no directory"},
		"the root of the file system":            {"/", "has no file format"},
		"a folder that only has a lock and more": {tree(t, map[string]string{"lock": "", "etcd/db": "x"}), "has no file format"},
	} {
		t.Run(name, func(t *testing.T) {
			if p, err := Look(c.dir); err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("got %v and %v, want an error with %q", p, err, c.want)
			}
		})
	}
}

func TestRemove(t *testing.T) {
	dir := data(t)
	outside := tree(t, map[string]string{"kept/file": "x"})
	for _, link := range []string{"etcd/out", "pods/u/out", "git"} {
		if err := os.Symlink(outside+"/kept", filepath.Join(dir, link)); err != nil {
			t.Fatal(err)
		}
	}
	remove(t, dir)
	if _, err := os.Stat(outside + "/kept/file"); err != nil {
		t.Errorf("a link was followed: %v", err)
	}
	if left := names(t, dir); !cmp.Equal(left, []string{"notes.txt"}) {
		t.Errorf("%v is left, want notes.txt only", left)
	}
}

// TestRemoveAgain finds a directory as it is after every point at which removing may have been cut short.
func TestRemoveAgain(t *testing.T) {
	for name, files := range map[string]map[string]string{
		"all is there":           {"format": "1", "lock": "", "etcd/db": "", "pods/p": ""},
		"half of the store":      {"format": "1", "lock": "", "etcd/wal/0": ""},
		"only marker and lock":   {"format": "1", "lock": ""},
		"the marker has gone":    {"lock": ""},
		"the lock was not there": {"format": "1"},
	} {
		t.Run(name, func(t *testing.T) {
			dir := tree(t, files)
			remove(t, dir)
			if _, err := os.Lstat(dir); err == nil {
				t.Errorf("%s is left, with %v", dir, names(t, dir))
			}
		})
	}
}

// TestRemoveWaitsForMounts has a directory of the same disk mounted below, which no device number gives away.
func TestRemoveWaitsForMounts(t *testing.T) {
	need.Root(t)
	dir := data(t)
	precious := tree(t, map[string]string{"file": "x"})
	at := filepath.Join(dir, "pods", "u", "my mount")
	if err := os.Mkdir(at, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := unix.Mount(precious, at, "", unix.MS_BIND, ""); err != nil {
		t.Fatal(err)
	}
	mounted := true
	t.Cleanup(func() {
		if mounted {
			_ = unix.Unmount(at, unix.MNT_DETACH) // the test has failed already
		}
	})
	p, err := Look(dir)
	if err != nil {
		t.Fatal(err)
	}
	before := names(t, dir)
	if err := p.Remove(); err == nil || !strings.Contains(err.Error(), at) {
		t.Errorf("got %v, want an error naming %s", err, at)
	}
	if _, err := os.Stat(filepath.Join(precious, "file")); err != nil {
		t.Errorf("what is mounted was removed: %v", err)
	}
	if diff := cmp.Diff(before, names(t, dir)); diff != "" {
		t.Errorf("something was removed:\n%s", diff)
	}
	if err := unix.Unmount(at, 0); err != nil {
		t.Fatal(err)
	}
	mounted = false
	remove(t, dir)
}

func remove(t *testing.T, dir string) {
	t.Helper()
	p, err := Look(dir)
	if err != nil {
		t.Fatal(err)
	}
	if err := p.Remove(); err != nil {
		t.Fatal(err)
	}
}

func names(t *testing.T, dir string) []string {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	var all []string
	for _, e := range entries {
		all = append(all, e.Name())
	}
	return all
}
