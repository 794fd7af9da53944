package runtime

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"strconv"
	"time"

	"golang.org/x/sys/unix"
)

// record is what a starter of containerd leaves for the next one, in a file.
type record struct {
	PID   int    `json:"pid"`
	Start uint64 `json:"start"` // clock ticks since boot, tells a reused pid
	Boot  string `json:"boot"`  // id of the boot the ticks count from
	Build string `json:"build"` // of program and configuration; another one is not readopted
}

func readRecord(path string) (record, error) {
	data, err := os.ReadFile(path)
	if err != nil {
		return record{}, err
	}
	var rec record
	if err := json.Unmarshal(data, &rec); err != nil {
		return record{}, fmt.Errorf("read %s: %w", path, err)
	}
	return rec, nil
}

func writeRecord(path string, rec record) error {
	data, err := json.Marshal(rec)
	if err != nil {
		return err
	}
	tmp := path + ".new"
	f, err := os.OpenFile(tmp, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return err
	}
	_, err = f.Write(data)
	if err = errors.Join(err, f.Sync(), f.Close()); err != nil {
		return err
	}
	return os.Rename(tmp, path)
}

// process is a containerd, child of ours or not.
type process struct {
	pid    int
	pidfd  *os.File
	exited chan struct{} // closed when it is gone
}

// openProcess follows the process with the record's id. It fails when that is another process by now.
func openProcess(rec record) (*process, error) {
	if rec.PID <= 0 || rec.Boot != bootID() {
		return nil, os.ErrProcessDone
	}
	fd, err := unix.PidfdOpen(rec.PID, unix.PIDFD_NONBLOCK)
	if err != nil {
		return nil, fmt.Errorf("open process %d: %w", rec.PID, err)
	}
	start, err := startTime(rec.PID)
	if err != nil || start != rec.Start {
		unix.Close(fd)
		return nil, os.ErrProcessDone
	}
	return followProcess(rec.PID, fd), nil
}

func followProcess(pid, fd int) *process {
	p := &process{pid: pid, pidfd: os.NewFile(uintptr(fd), "pidfd"), exited: make(chan struct{})}
	go p.follow()
	return p
}

func (p *process) follow() {
	defer close(p.exited)
	conn, err := p.pidfd.SyscallConn()
	if err != nil {
		return
	}
	_ = conn.Read(func(fd uintptr) bool {
		ready := []unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}
		n, err := unix.Poll(ready, 0)
		return n > 0 || err != nil && !errors.Is(err, unix.EINTR)
	})
	// A child of ours stays a zombie until waited for; another's is not ours to wait for, which is no matter.
	_, _ = unix.Wait4(p.pid, nil, 0, nil)
	p.pidfd.Close()
}

func (p *process) signal(sig unix.Signal) error {
	select {
	case <-p.exited:
		return os.ErrProcessDone
	default:
	}
	return unix.Kill(p.pid, sig)
}

// stopWait is how long containerd gets to end by itself.
const stopWait = 10 * time.Second

func (p *process) stop(ctx context.Context) error {
	_ = p.signal(unix.SIGTERM)
	timer := time.NewTimer(stopWait)
	defer timer.Stop()
	select {
	case <-p.exited:
		return nil
	case <-timer.C:
	case <-ctx.Done():
	}
	return p.kill()
}

// kill ends a containerd that does not listen. Shims and containers go on.
func (p *process) kill() error {
	_ = p.signal(unix.SIGKILL)
	select {
	case <-p.exited:
		return nil
	case <-time.After(stopWait):
		return fmt.Errorf("stop containerd: process %d does not end", p.pid)
	}
}

// startTime reads field 22 of /proc/PID/stat; the command before it may hold spaces and brackets.
func startTime(pid int) (uint64, error) {
	data, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/stat")
	if err != nil {
		return 0, err
	}
	i := bytes.LastIndexByte(data, ')')
	fields := bytes.Fields(data[i+1:])
	if i < 0 || len(fields) < 20 {
		return 0, fmt.Errorf("read start time of process %d: unexpected format", pid)
	}
	if fields[0][0] == 'Z' {
		return 0, os.ErrProcessDone
	}
	return strconv.ParseUint(string(fields[19]), 10, 64)
}

func bootID() string {
	data, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	if err != nil {
		return ""
	}
	return string(bytes.TrimSpace(data))
}
