package main

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"
)

const (
	idleSettle  = 10 * time.Second // after start
	idleMeasure = 20 * time.Second
	clockTick   = 100 // per second: what Linux shows to programs
)

// usage is what a process has used.
type usage struct {
	cpu       time.Duration
	rss, peak float64 // MB
}

// measureIdle takes memory and processor time of an empty cluster.
func measureIdle(h *host, s settings, r *report) error {
	fmt.Printf("an empty cluster at rest, %s\n", idleSettle+idleMeasure)
	up, _, _, err := following(h, s)
	if err != nil {
		return err
	}
	daemon, err := containerd()
	if err != nil {
		return err
	}
	if err := pause(h, idleSettle); err != nil {
		return err
	}
	parts := []struct {
		name          string
		pid           int
		memory, share float64 // targets
	}{{"slipway", up.PID(), 100, 0.5}, {"containerd", daemon, 0, 0}}
	before := make([]usage, len(parts))
	began := time.Now()
	for i, part := range parts {
		if before[i], err = used(part.pid); err != nil {
			return err
		}
	}
	if err := pause(h, idleMeasure); err != nil {
		return err
	}
	for i, part := range parts {
		after, err := used(part.pid)
		if err != nil {
			return err
		}
		share := 100 * float64(after.cpu-before[i].cpu) / float64(time.Since(began))
		r.add(figure{What: "idle, " + part.name + ", peak memory (VmHWM)", Target: part.memory, Got: after.peak, Unit: "MB", Note: fmt.Sprintf("%.0f MB now (VmRSS)", after.rss)})
		r.add(figure{What: "idle, " + part.name + ", processor", Target: part.share, Got: share, Unit: "% of a core", Note: fmt.Sprintf("over %s", idleMeasure)})
	}
	return nil
}

func pause(h *host, d time.Duration) error {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-h.ctx.Done():
		return h.ctx.Err()
	}
}

// containerd finds the containerd of this run: the only one in this network namespace.
func containerd() (int, error) {
	own, err := os.Readlink("/proc/self/ns/net")
	if err != nil {
		return 0, fmt.Errorf("find containerd: %w", err)
	}
	paths, _ := filepath.Glob("/proc/[0-9]*/comm") // the pattern is well-formed
	for _, path := range paths {
		name, err := os.ReadFile(path)
		if err != nil || strings.TrimSpace(string(name)) != "containerd" {
			continue
		}
		folder := filepath.Dir(path)
		if namespace, err := os.Readlink(filepath.Join(folder, "ns", "net")); err == nil && namespace == own {
			return strconv.Atoi(filepath.Base(folder))
		}
	}
	return 0, errors.New("find containerd: none runs in this network namespace")
}

// used reads what a process has used from /proc.
func used(pid int) (usage, error) {
	var u usage
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return u, fmt.Errorf("read processor time: %w", err)
	}
	// The command in brackets may hold anything; user and system time are the 12th and 13th fields after it.
	fields := bytes.Fields(stat[bytes.LastIndexByte(stat, ')')+1:])
	if len(fields) < 13 {
		return u, fmt.Errorf("read processor time of %d: unexpected format", pid)
	}
	for _, field := range fields[11:13] {
		ticks, err := strconv.ParseInt(string(field), 10, 64)
		if err != nil {
			return u, fmt.Errorf("read processor time of %d: %w", pid, err)
		}
		u.cpu += time.Duration(ticks) * time.Second / clockTick
	}
	u.rss, u.peak, err = memory(pid)
	return u, err
}

// memory returns VmRSS and VmHWM in MB.
func memory(pid int) (rss, peak float64, err error) {
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		return 0, 0, fmt.Errorf("read memory: %w", err)
	}
	for line := range strings.Lines(string(status)) {
		name, value, _ := strings.Cut(line, ":")
		if name != "VmRSS" && name != "VmHWM" {
			continue
		}
		kilobytes, err := strconv.ParseFloat(strings.TrimSuffix(strings.TrimSpace(value), " kB"), 64)
		if err != nil {
			return 0, 0, fmt.Errorf("read memory of %d: %w", pid, err)
		}
		if name == "VmRSS" {
			rss = kilobytes * 1024 / 1e6
		} else {
			peak = kilobytes * 1024 / 1e6
		}
	}
	return rss, peak, nil
}
