package limits

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// lookEvery is the time between two looks: it costs some reads of /proc.
const lookEvery = 2 * time.Second

// Watch looks at the limits until ctx ends, and tells what is new. Dirs are folders whose filesystems are to have
// inodes left. A limit that cannot be looked at is none.
func Watch(ctx context.Context, dirs []string, tell func(Line)) error {
	tick := time.NewTicker(lookEvery)
	defer tick.Stop()
	var told map[string]bool
	for {
		var lines []Line
		lines, told = Plan(told, Look(dirs))
		for _, line := range lines {
			tell(line)
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-tick.C:
		}
	}
}

// Look returns how much of each limit is used.
func Look(dirs []string) []Usage {
	usages := []Usage{descriptors()}
	for _, count := range []func() (Usage, bool){Machine, service} {
		if u, ok := count(); ok {
			usages = append(usages, u)
		}
	}
	seen := map[uint64]bool{}
	for _, dir := range dirs {
		var stat unix.Stat_t
		var fs unix.Statfs_t
		if unix.Stat(dir, &stat) != nil || seen[stat.Dev] || unix.Statfs(dir, &fs) != nil {
			continue
		}
		seen[stat.Dev] = true
		usages = append(usages, Usage{"inodes of the filesystem of " + dir, fs.Files - fs.Ffree, fs.Files, "remove files there"})
	}
	return usages
}

// descriptors counts the open files of this process. When none is left it cannot even count them.
func descriptors() Usage {
	u := Usage{Name: "file descriptors of this process", Raise: "raise its limit (ulimit -n; LimitNOFILE= of the service)"}
	var limit unix.Rlimit
	if unix.Getrlimit(unix.RLIMIT_NOFILE, &limit) != nil {
		return u
	}
	u.Limit, u.Used = limit.Cur, limit.Cur
	if entries, err := os.ReadDir("/proc/self/fd"); err == nil {
		u.Used = uint64(len(entries))
	}
	return u
}

// Machine counts processes and threads of the machine. It returns false when that cannot be done.
func Machine() (Usage, bool) {
	u := Usage{Name: "processes and threads of this machine"}
	text, err := os.ReadFile("/proc/loadavg") // "0.10 0.20 0.30 1/234 5678"
	if err != nil {
		return u, false
	}
	fields := strings.Fields(string(text))
	if len(fields) < 4 {
		return u, false
	}
	_, total, _ := strings.Cut(fields[3], "/")
	if u.Used, err = strconv.ParseUint(total, 10, 64); err != nil {
		return u, false
	}
	for _, knob := range []string{"pid_max", "threads-max"} {
		if limit := number("/proc/sys/kernel/" + knob); limit > 0 && (u.Limit == 0 || limit < u.Limit) {
			u.Limit, u.Raise = limit, fmt.Sprintf("sysctl -w kernel.%s=%d, or find who makes so many", knob, 4*limit)
		}
	}
	return u, u.Limit > 0
}

// service counts processes and threads of the control group this process is in.
func service() (Usage, bool) {
	text, err := os.ReadFile("/proc/self/cgroup")
	if err != nil {
		return Usage{}, false
	}
	for line := range strings.Lines(string(text)) {
		parts := strings.SplitN(strings.TrimSpace(line), ":", 3)
		if len(parts) != 3 || parts[1] != "" && parts[1] != "pids" {
			continue
		}
		dir := filepath.Join("/sys/fs/cgroup", parts[1], parts[2])
		if limit := number(filepath.Join(dir, "pids.max")); limit > 0 {
			used := number(filepath.Join(dir, "pids.current"))
			return Usage{"processes and threads of this service", used, limit, "raise TasksMax= of the service (pids.max of " + dir + ")"}, true
		}
	}
	return Usage{}, false
}

// number reads a file with a number; zero when it has none, such as "max".
func number(path string) uint64 {
	text, err := os.ReadFile(path)
	if err != nil {
		return 0
	}
	n, err := strconv.ParseUint(strings.TrimSpace(string(text)), 10, 64)
	if err != nil {
		return 0
	}
	return n
}
