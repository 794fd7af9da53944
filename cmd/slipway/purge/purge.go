// Package purge removes a data directory: it says what would go, then removes just that. What Slipway did not put there
// stays, links are removed and not followed, and nothing is removed while something is mounted below.
//
// It must not be used while a Slipway runs on the directory: the caller holds its lock.
package purge

import (
	"bufio"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
)

// marker is the file that makes a directory one of Slipway's; it goes last, so that a purge that was cut short can be
// done again.
const marker = "format"

// lock is held by whoever uses the directory.
const lock = "lock"

// parts are what Slipway keeps in its directory, by the patterns of their names.
var parts = []struct {
	what     string
	patterns []string
}{
	{"the store: every object and its history", []string{"etcd", "etcd.*", "store-made"}},
	{"snapshots of the store", []string{"snapshots"}},
	{"the repository that was followed", []string{"git"}},
	{"volumes of Pods", []string{"pods"}},
	{"images, and what the container runtime keeps", []string{"containerd"}},
	{"records of containers", []string{"engine", "archives.json", "archives.json.*"}},
	{"the certificate authority", []string{"pki"}},
	{"keys of stored Secrets", []string{"secrets.key", "secrets.key.*"}},
	{"credentials of people", []string{"kubeconfig", ".kubeconfig-*"}},
	{"a format that was being written", []string{".format"}},
	{"the log", []string{"slipway.log", "slipway.log.*"}},
}

// Item is an entry of the directory that would go.
type Item struct {
	Name  string
	What  string
	Bytes int64 // on disk
}

// Plan is what a purge would remove.
type Plan struct {
	Dir   string
	Items []Item   // sorted by name
	Kept  []string // what is not Slipway's
}

// Look says what a purge of a data directory would remove. It refuses a directory that is not one of Slipway's, and one
// named through a link.
func Look(dir string) (Plan, error) {
	dir, err := filepath.Abs(dir)
	if err != nil {
		return Plan{}, err
	}
	info, err := os.Lstat(dir)
	switch {
	case err != nil:
		return Plan{}, err
	case info.Mode()&fs.ModeSymlink != 0:
		return Plan{}, fmt.Errorf("%s is a link: name the directory itself", dir)
	case !info.IsDir():
		return Plan{}, fmt.Errorf("%s is no directory", dir)
	}
	entries, err := os.ReadDir(dir)
	if err != nil {
		return Plan{}, err
	}
	if err := checkMarker(dir, entries); err != nil {
		return Plan{}, err
	}
	p := Plan{Dir: dir}
	for _, e := range entries {
		what := whatIs(e.Name())
		switch {
		case e.Name() == marker || e.Name() == lock:
		case what == "":
			p.Kept = append(p.Kept, e.Name())
		default:
			p.Items = append(p.Items, Item{e.Name(), what, size(filepath.Join(dir, e.Name()))})
		}
	}
	return p, nil
}

// checkMarker says whether a directory is one of Slipway's: it has the marker, or only the lock of one whose removal was
// cut short.
func checkMarker(dir string, entries []fs.DirEntry) error {
	i := slices.IndexFunc(entries, func(e fs.DirEntry) bool { return e.Name() == marker })
	if i < 0 && len(entries) == 1 && entries[0].Name() == lock {
		return nil
	}
	if i < 0 || !entries[i].Type().IsRegular() {
		return fmt.Errorf("%s is not a data directory of Slipway: it has no file %s", dir, marker)
	}
	text, err := os.ReadFile(filepath.Join(dir, marker))
	if err != nil {
		return err
	}
	if _, err := strconv.Atoi(strings.TrimSpace(string(text))); err != nil {
		return fmt.Errorf("%s is not a data directory of Slipway: its file %s holds no version", dir, marker)
	}
	return nil
}

func whatIs(name string) string {
	for _, p := range parts {
		for _, pattern := range p.patterns {
			if ok, err := path.Match(pattern, name); ok && err == nil {
				return p.what
			}
		}
	}
	return ""
}

// size is what a tree takes on disk, as far as it can be read.
func size(root string) (bytes int64) {
	_ = filepath.WalkDir(root, func(_ string, e fs.DirEntry, err error) error {
		if err != nil {
			return nil // what cannot be read is not counted
		}
		if info, err := e.Info(); err == nil {
			if st, ok := info.Sys().(*syscall.Stat_t); ok {
				bytes += st.Blocks * 512
			}
		}
		return nil
	})
	return bytes
}

// Remove removes the items, then marker and lock, then the directory when nothing else is in it. It removes nothing
// while something is mounted below the directory. Cut short, it can be done again.
func (p Plan) Remove() error {
	mounted, err := mountsBelow(p.Dir)
	if err != nil {
		return err
	}
	if len(mounted) > 0 {
		return fmt.Errorf("nothing was removed: unmount %s first", strings.Join(mounted, ", "))
	}
	root, err := os.OpenRoot(p.Dir)
	if err != nil {
		return err
	}
	defer root.Close()
	for _, item := range p.Items {
		if err := root.RemoveAll(item.Name); err != nil {
			return fmt.Errorf("remove %s: %w", filepath.Join(p.Dir, item.Name), err)
		}
	}
	for _, name := range []string{marker, lock} {
		if err := root.Remove(name); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("remove %s: %w", filepath.Join(p.Dir, name), err)
		}
	}
	err = os.Remove(p.Dir)
	if errors.Is(err, unix.ENOTEMPTY) && len(p.Kept) > 0 || errors.Is(err, unix.EBUSY) { // others' files, or a disk of its own
		return nil
	}
	return err
}

// mountsBelow lists what is mounted below dir, not at it.
func mountsBelow(dir string) ([]string, error) {
	file, err := os.Open("/proc/self/mountinfo")
	if err != nil {
		return nil, fmt.Errorf("look for mounts: %w", err)
	}
	defer file.Close()
	unescape := strings.NewReplacer(`\040`, " ", `\011`, "\t", `\012`, "\n", `\134`, `\`) // as the kernel writes them
	var found []string
	lines := bufio.NewScanner(file)
	lines.Buffer(nil, 1<<20)
	for lines.Scan() {
		if fields := strings.Fields(lines.Text()); len(fields) > 4 {
			if target := unescape.Replace(fields[4]); strings.HasPrefix(target, strings.TrimSuffix(dir, "/")+"/") {
				found = append(found, target)
			}
		}
	}
	return slices.Compact(found), lines.Err()
}

// String is the plan as people read it, one line an item.
func (p Plan) String() string {
	var b strings.Builder
	fmt.Fprintf(&b, "%s holds\n", p.Dir)
	width := 0
	for _, item := range p.Items {
		width = max(width, len(item.Name))
	}
	for _, item := range p.Items {
		fmt.Fprintf(&b, "  %-*s  %9s  %s\n", width, item.Name, inWords(item.Bytes), item.What)
	}
	for _, name := range p.Kept {
		fmt.Fprintf(&b, "  %s is not Slipway's and stays\n", name)
	}
	return b.String()
}

func inWords(bytes int64) string {
	units := []string{"kB", "MB", "GB", "TB"}
	n := float64(bytes) / 1000
	i := 0
	for ; n >= 1000 && i < len(units)-1; i++ {
		n /= 1000
	}
	return fmt.Sprintf("%.1f %s", n, units[i])
}
