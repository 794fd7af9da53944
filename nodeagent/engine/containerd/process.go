package containerd

import (
	"bytes"
	"os"
	"strconv"
	"time"
)

// ticksPerSecond is the kernel's USER_HZ, the unit of times in /proc, the same on every architecture we build for.
const ticksPerSecond = 100

// began returns when a process was made, or otherwise when that cannot be read.
func began(pid int, otherwise time.Time) time.Time {
	stat, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/stat")
	if err != nil {
		return otherwise
	}
	fields := bytes.Fields(stat[bytes.LastIndexByte(stat, ')')+1:])
	if len(fields) < 20 {
		return otherwise
	}
	ticks, err := strconv.ParseInt(string(fields[19]), 10, 64)
	if err != nil {
		return otherwise
	}
	uptime, err := os.ReadFile("/proc/uptime")
	if err != nil {
		return otherwise
	}
	seconds, err := strconv.ParseFloat(string(bytes.Fields(uptime)[0]), 64)
	if err != nil {
		return otherwise
	}
	age := time.Duration(seconds*float64(time.Second)) - time.Duration(ticks)*time.Second/ticksPerSecond
	return time.Now().Add(-max(age, 0))
}
