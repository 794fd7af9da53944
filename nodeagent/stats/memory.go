package stats

import (
	"bufio"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
)

// Machine reads numbers of the whole machine. Proc is where its proc file system is: "/proc".
type Machine struct{ Proc string }

// Memory returns what the machine has and what it could give to a process without swapping.
func (m Machine) Memory() (Level, error) {
	fields, err := fieldsOf(filepath.Join(m.Proc, "meminfo"))
	if err != nil {
		return Level{}, fmt.Errorf("read memory: %w", err)
	}
	total, available := fields["MemTotal:"], fields["MemAvailable:"]
	if total == 0 {
		return Level{}, fmt.Errorf("read memory: no MemTotal in %s/meminfo", m.Proc)
	}
	return Level{Available: available << 10, Capacity: total << 10}, nil
}

// PIDs returns how many processes and threads there may be, and how many more.
func (m Machine) PIDs() (Level, error) {
	limit := int64(0)
	for _, name := range []string{"pid_max", "threads-max"} {
		n, err := number(filepath.Join(m.Proc, "sys/kernel", name))
		if err != nil {
			return Level{}, fmt.Errorf("read limit of process ids: %w", err)
		}
		if limit == 0 || n < limit {
			limit = n
		}
	}
	text, err := os.ReadFile(filepath.Join(m.Proc, "loadavg"))
	if err != nil {
		return Level{}, fmt.Errorf("count processes: %w", err)
	}
	fields := strings.Fields(string(text)) // "0.20 0.18 0.12 1/80 11206": one runs, of 80
	if len(fields) < 4 {
		return Level{}, fmt.Errorf("count processes: %s/loadavg is %q", m.Proc, text)
	}
	_, all, _ := strings.Cut(fields[3], "/")
	running, err := strconv.ParseInt(all, 10, 64)
	if err != nil {
		return Level{}, fmt.Errorf("count processes: %w", err)
	}
	return Level{Available: limit - running, Capacity: limit}, nil
}

// Groups reads control groups, of any version. Mount is where the host has them: "/sys/fs/cgroup".
type Groups struct{ Mount string }

// unlimited is above every limit that means something; version 1 writes its largest number for none.
const unlimited = 1 << 60

// unified reports whether the host has version 2 alone.
func (g Groups) unified() bool {
	_, err := os.Stat(filepath.Join(g.Mount, "cgroup.controllers"))
	return err == nil
}

// Memory returns the memory of a group ("/slipway/burstable/pod1") that cannot be taken back at once: its working
// set. A group that is not there uses nothing.
func (g Groups) Memory(path string) (int64, error) {
	dir, usageFile, inactive := filepath.Join(g.Mount, "memory", path), "memory.usage_in_bytes", "total_inactive_file"
	if g.unified() {
		dir, usageFile, inactive = filepath.Join(g.Mount, path), "memory.current", "inactive_file"
	}
	usage, err := number(filepath.Join(dir, usageFile))
	if errors.Is(err, fs.ErrNotExist) {
		return 0, nil
	}
	if err != nil {
		return 0, fmt.Errorf("read memory of %s: %w", path, err)
	}
	stat, err := fieldsOf(filepath.Join(dir, "memory.stat"))
	if err != nil {
		return 0, fmt.Errorf("read memory of %s: %w", path, err)
	}
	return max(usage-stat[inactive], 0), nil
}

// MemoryRoom returns what the tightest limit of a group and those above it leaves, up to the topmost one that is seen
// here, which in a container has a limit, too; false when there is none.
func (g Groups) MemoryRoom(path string) (Level, bool, error) {
	root, limitFile := filepath.Join(g.Mount, "memory"), "memory.limit_in_bytes"
	if g.unified() {
		root, limitFile = g.Mount, "memory.max"
	}
	var tightest Level
	found := false
	for p := filepath.Join("/", path, "end"); p != "/"; {
		p = filepath.Dir(p)
		limit, err := number(filepath.Join(root, p, limitFile))
		if errors.Is(err, fs.ErrNotExist) || err == nil && limit >= unlimited {
			continue
		}
		if err != nil {
			return Level{}, false, fmt.Errorf("read memory limit of %s: %w", p, err)
		}
		used, err := g.Memory(p)
		if err != nil {
			return Level{}, false, err
		}
		if left := max(limit-used, 0); !found || left < tightest.Available {
			tightest, found = Level{Available: left, Capacity: limit}, true
		}
	}
	return tightest, found, nil
}

// PIDs returns how many processes and threads a group has. A group that is not there has none.
func (g Groups) PIDs(path string) (int64, error) {
	dir := filepath.Join(g.Mount, "pids", path)
	if g.unified() {
		dir = filepath.Join(g.Mount, path)
	}
	n, err := number(filepath.Join(dir, "pids.current"))
	if errors.Is(err, fs.ErrNotExist) {
		return 0, nil
	}
	if err != nil {
		return 0, fmt.Errorf("count processes of %s: %w", path, err)
	}
	return n, nil
}

// number reads a file that holds one; "max" is unlimited.
func number(path string) (int64, error) {
	text, err := os.ReadFile(path)
	if err != nil {
		return 0, err
	}
	if strings.TrimSpace(string(text)) == "max" {
		return unlimited, nil
	}
	return strconv.ParseInt(strings.TrimSpace(string(text)), 10, 64)
}

// fieldsOf reads a file of lines that each hold a name and a number.
func fieldsOf(path string) (map[string]int64, error) {
	file, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer file.Close()
	fields := map[string]int64{}
	lines := bufio.NewScanner(file)
	for lines.Scan() {
		if f := strings.Fields(lines.Text()); len(f) >= 2 {
			if n, err := strconv.ParseInt(f[1], 10, 64); err == nil {
				fields[f[0]] = n
			}
		}
	}
	return fields, lines.Err()
}
