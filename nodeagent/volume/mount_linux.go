package volume

import (
	"bufio"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// tmpfs is what one is mounted with.
type tmpfs struct {
	size  int64 // zero: the kernel's default
	mode  os.FileMode
	group *int64 // nil: root's
}

func (t tmpfs) options() string {
	mode := t.mode.Perm()
	if t.mode&os.ModeSetgid != 0 {
		mode |= 0o2000
	}
	options := fmt.Sprintf("mode=%04o", uint32(mode))
	if t.size > 0 {
		options += ",size=" + strconv.FormatInt(t.size, 10)
	}
	if t.group != nil {
		options += ",gid=" + strconv.FormatInt(*t.group, 10)
	}
	return options
}

// mountTmpfs mounts a tmpfs on dir, unless one is there.
func mountTmpfs(dir string, t tmpfs) error {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	var st unix.Statfs_t
	var here, parent unix.Stat_t
	if err := errors.Join(unix.Statfs(dir, &st), unix.Stat(dir, &here), unix.Stat(filepath.Dir(dir), &parent)); err != nil {
		return fmt.Errorf("look at %s: %w", dir, err)
	}
	if st.Type == unix.TMPFS_MAGIC && here.Dev != parent.Dev {
		return nil
	}
	if err := unix.Mount("tmpfs", dir, "tmpfs", unix.MS_NOSUID|unix.MS_NODEV, t.options()); err != nil {
		return fmt.Errorf("mount tmpfs on %s: %w", dir, err)
	}
	return nil
}

// unmountBelow unmounts everything mounted on or below dir, the last mounted first.
func unmountBelow(dir string) error {
	points, err := mountsBelow(dir)
	if err != nil || len(points) == 0 {
		return err
	}
	for _, p := range slices.Backward(points) {
		if err := unix.Unmount(p, unix.UMOUNT_NOFOLLOW); err == nil || errors.Is(err, unix.EINVAL) {
			continue
		}
		if err := unix.Unmount(p, unix.MNT_DETACH|unix.UMOUNT_NOFOLLOW); err != nil && !errors.Is(err, unix.EINVAL) {
			return fmt.Errorf("unmount %s: %w", p, err)
		}
	}
	if points, err = mountsBelow(dir); err == nil && len(points) > 0 {
		return fmt.Errorf("still mounted: %s", points[0])
	}
	return err
}

func mountsBelow(dir string) ([]string, error) {
	f, err := os.Open("/proc/self/mountinfo")
	if err != nil {
		return nil, err
	}
	defer f.Close()
	if real, err := filepath.EvalSymlinks(dir); err == nil {
		dir = real
	}
	var points []string
	for s := bufio.NewScanner(f); s.Scan(); {
		fields := strings.Fields(s.Text())
		if len(fields) < 5 {
			continue
		}
		point := unescape(fields[4])
		if point == dir || strings.HasPrefix(point, dir+"/") {
			points = append(points, point)
		}
	}
	return points, nil
}

// unescape undoes the octal escapes of mountinfo.
func unescape(s string) string {
	for _, r := range []struct{ from, to string }{{`\040`, " "}, {`\011`, "\t"}, {`\012`, "\n"}, {`\134`, `\`}} {
		s = strings.ReplaceAll(s, r.from, r.to)
	}
	return s
}

// SubPath returns a host path that stands for sub inside the volume at path, whatever the volume's owner does with
// symbolic links meanwhile: it is resolved once, without leaving the volume, and bound to a place of the agent's.
// Name tells mounts of one Pod apart.
func (v *Volumes) SubPath(podDir, path, sub, name string) (string, error) {
	if !filepath.IsLocal(sub) || !filepath.IsLocal(name) {
		return "", fmt.Errorf("subPath %q leads out of the volume", sub)
	}
	root, err := os.OpenRoot(path)
	if err != nil {
		return "", fmt.Errorf("open the volume: %w", err)
	}
	defer root.Close()
	f, err := openOrMake(root, sub)
	if err != nil {
		return "", fmt.Errorf("subPath %q: %w", sub, err)
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return "", err
	}
	target := filepath.Join(podDir, "subpaths", name)
	if err := bindTarget(target, info.IsDir()); err != nil {
		return "", err
	}
	source := fmt.Sprintf("/proc/self/fd/%d", f.Fd())
	if err := unix.Mount(source, target, "", unix.MS_BIND, ""); err != nil {
		return "", fmt.Errorf("bind subPath %q: %w", sub, err)
	}
	return target, nil
}

// openOrMake opens sub inside root; a path that does not exist becomes a directory.
func openOrMake(root *os.Root, sub string) (*os.File, error) {
	// Not O_PATH: with it the last link of a path is opened itself instead of being followed inside the root.
	f, err := root.OpenFile(sub, unix.O_RDONLY|unix.O_NONBLOCK, 0)
	if errors.Is(err, fs.ErrNotExist) {
		if err := root.MkdirAll(sub, 0o750); err != nil {
			return nil, err
		}
		if err := root.Chmod(sub, 0o777); err != nil { // as an emptyDir: whoever the container runs as may write
			return nil, err
		}
		return root.OpenFile(sub, unix.O_RDONLY|unix.O_NONBLOCK, 0)
	}
	return f, err
}

// bindTarget makes an empty file or directory to mount on, free of an earlier mount.
func bindTarget(target string, dir bool) error {
	if err := os.MkdirAll(filepath.Dir(target), 0o755); err != nil {
		return err
	}
	if err := unix.Unmount(target, unix.MNT_DETACH|unix.UMOUNT_NOFOLLOW); err != nil && !errors.Is(err, unix.EINVAL) && !errors.Is(err, unix.ENOENT) {
		return fmt.Errorf("unmount %s: %w", target, err)
	}
	if err := os.Remove(target); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	if dir {
		return os.Mkdir(target, 0o755)
	}
	return os.WriteFile(target, nil, 0o600)
}
