package cgroup

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// Kill kills every process of a group and of those below it, and returns when none is left. A group that is not there
// is no error. The path must name a group below the tree's: killing a whole tree is refused.
func (t Tree) Kill(ctx context.Context, path string) error {
	full := filepath.Join(t.path, path)
	if full == "/" || full == "." || filepath.Clean("/"+path) == "/" {
		return fmt.Errorf("kill control group %q: it is not one container's", full)
	}
	hierarchies, err := t.hierarchies()
	if err != nil {
		return err
	}
	for pause := time.Millisecond; ; pause = min(2*pause, 50*time.Millisecond) {
		left := 0
		for _, h := range hierarchies {
			n, err := kill(filepath.Join(h, full))
			if err != nil {
				return fmt.Errorf("kill control group %s: %w", full, err)
			}
			left += n
		}
		if left == 0 {
			return nil
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("kill control group %s: %d processes stay: %w", full, left, ctx.Err())
		case <-time.After(pause):
		}
	}
}

// kill signals what is in a group and below, and returns how many processes that were. Only living ones count: a
// zombie waits for a parent that may be anybody.
func kill(dir string) (int, error) {
	if _, err := os.Stat(dir); errors.Is(err, fs.ErrNotExist) {
		return 0, nil
	}
	count := 0
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		switch {
		case errors.Is(err, fs.ErrNotExist):
			return nil
		case err != nil:
			return err
		case d.IsDir() || d.Name() != "cgroup.procs":
			return nil
		}
		data, err := os.ReadFile(path)
		if errors.Is(err, fs.ErrNotExist) || errors.Is(err, unix.ENODEV) || errors.Is(err, unix.EOPNOTSUPP) {
			return nil
		}
		if err != nil {
			return err
		}
		for _, field := range strings.Fields(string(data)) {
			// 0 is a process of another process namespace, which has no number here.
			if pid, err := strconv.Atoi(field); err == nil && pid > 0 && alive(pid) && unix.Kill(pid, unix.SIGKILL) == nil {
				count++
			}
		}
		return nil
	})
	return count, err
}

func alive(pid int) bool {
	data, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/stat")
	if err != nil {
		return false
	}
	after := data[strings.LastIndexByte(string(data), ')')+1:]
	return len(after) > 1 && after[1] != 'Z' && after[1] != 'X'
}
