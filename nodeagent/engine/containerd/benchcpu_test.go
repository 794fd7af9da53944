package containerd

import (
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// cpuMeter adds up the processor time of containerd, shims, runc, containers and this process. It tells more than the
// clock on a machine that has other things to do.
type cpuMeter struct{ dirs []string }

func newCPUMeter(b *testing.B, containerd int) cpuMeter {
	b.Helper()
	root := "/sys/fs/cgroup"
	if _, err := os.Stat(filepath.Join(root, "cpuacct")); err == nil {
		root = filepath.Join(root, "cpuacct")
	}
	own := filepath.Join(root, benchCgroup)
	if err := os.MkdirAll(own, 0o755); err != nil {
		b.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(own, "cgroup.procs"), []byte(strconv.Itoa(containerd)), 0); err != nil {
		b.Fatal(err)
	}
	return cpuMeter{[]string{own, filepath.Join(root, testCgroup)}}
}

func (m cpuMeter) read() time.Duration {
	var self unix.Rusage
	unix.Getrusage(unix.RUSAGE_SELF, &self)
	total := time.Duration(self.Utime.Nano() + self.Stime.Nano())
	for _, dir := range m.dirs {
		if data, err := os.ReadFile(filepath.Join(dir, "cpuacct.usage")); err == nil {
			ns, _ := strconv.ParseInt(strings.TrimSpace(string(data)), 10, 64)
			total += time.Duration(ns)
		} else if data, err := os.ReadFile(filepath.Join(dir, "cpu.stat")); err == nil {
			us, _ := strconv.ParseInt(strings.Fields(string(data))[1], 10, 64)
			total += time.Duration(us) * time.Microsecond
		}
	}
	return total
}
