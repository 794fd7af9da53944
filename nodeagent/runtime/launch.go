package runtime

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	containerd "github.com/containerd/containerd/v2/client"
	"golang.org/x/sys/unix"
)

const (
	answerWait  = 30 * time.Second // until a containerd that runs must answer
	answerEvery = 5 * time.Millisecond
	logBytes    = 10 << 20
)

// launch finds the containerd that runs or starts one, and waits until it answers.
func (r *Runtime) launch(ctx context.Context) (*process, error) {
	build, err := r.build()
	if err != nil {
		return nil, err
	}
	proc, err := r.adopt(ctx, build)
	if err != nil {
		return nil, err
	}
	if proc != nil {
		if err := r.waitAnswer(ctx, proc); err == nil || ctx.Err() != nil {
			return proc, err
		}
		r.cfg.Log.Warn("containerd runs but does not answer: restarting it", "pid", proc.pid)
		if err := proc.kill(); err != nil {
			return nil, err
		}
	}
	if damage := r.checkDatabases(); damage != nil {
		kept, err := r.setAside()
		if err != nil {
			return nil, errors.Join(damage, fmt.Errorf("set aside what containerd had: %w", err))
		}
		r.cfg.Log.Error("containerd's knowledge of containers and images is lost and begun anew: containers are made again, images must be loaded or pulled again",
			"damage", damage, "kept", kept)
	}
	if proc, err = r.spawn(build); err != nil {
		return nil, err
	}
	return proc, r.waitAnswer(ctx, proc)
}

// build identifies the program and its configuration.
func (r *Runtime) build() (string, error) {
	path := filepath.Join(r.cfg.BundleDir, containerdName)
	info, err := os.Stat(path)
	if err != nil {
		return "", fmt.Errorf("find containerd of the runtime bundle: %w", err)
	}
	config, err := os.ReadFile(r.paths.config)
	if err != nil {
		return "", fmt.Errorf("read containerd configuration: %w", err)
	}
	sum := sha256.Sum256(fmt.Appendf(config, "%s %d %d", path, info.Size(), info.ModTime().UnixNano()))
	return hex.EncodeToString(sum[:8]), nil
}

// adopt returns the containerd that an earlier process started, or nil. One of another build is stopped: shims and
// containers live on, and the new one takes them over.
func (r *Runtime) adopt(ctx context.Context, build string) (*process, error) {
	rec, err := readRecord(r.paths.record)
	if err != nil {
		rec = record{}
	}
	proc, gone := openProcess(rec)
	if err := r.endStrays(ctx, rec.PID); err != nil {
		return nil, err
	}
	if gone != nil {
		return nil, nil
	}
	if rec.Build != build {
		r.cfg.Log.Info("containerd is of another build: restarting it", "pid", rec.PID)
		return nil, proc.stop(ctx)
	}
	r.cfg.Log.Info("found containerd running", "pid", rec.PID)
	return proc, nil
}

func (r *Runtime) spawn(build string) (*process, error) {
	log, err := openLog(r.paths.log)
	if err != nil {
		return nil, fmt.Errorf("open containerd's log: %w", err)
	}
	defer log.Close()
	cmd := exec.Command(filepath.Join(r.cfg.BundleDir, containerdName), "--config", r.paths.config)
	cmd.Stdout, cmd.Stderr = log, log
	cmd.Dir = "/"
	// runc must be found beside containerd, whatever PATH says.
	cmd.Env = append(os.Environ(), "PATH="+r.cfg.BundleDir+":"+os.Getenv("PATH"))
	cmd.Env = slices.DeleteFunc(cmd.Env, func(v string) bool { return strings.HasPrefix(v, "NOTIFY_SOCKET=") })
	fd := -1
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true, PidFD: &fd}
	if err := cmd.Start(); err != nil {
		return nil, fmt.Errorf("start containerd: %w", err)
	}
	pid := cmd.Process.Pid
	_ = cmd.Process.Release()
	if err := joinCgroup(pid); err != nil {
		r.cfg.Log.Warn("containerd stays in this process's cgroup", "err", err)
	}
	if fd < 0 {
		return nil, errors.New("start containerd: the kernel has no pidfd (Linux 5.4 is needed)")
	}
	if err := unix.SetNonblock(fd, true); err != nil {
		return nil, fmt.Errorf("follow containerd: %w", err)
	}
	proc := followProcess(pid, fd)
	start, err := startTime(pid)
	if err != nil {
		return nil, fmt.Errorf("start containerd: it ended at once: %s", r.lastLog())
	}
	rec := record{PID: pid, Start: start, Boot: bootID(), Build: build}
	if err := writeRecord(r.paths.record, rec); err != nil {
		return nil, errors.Join(fmt.Errorf("record containerd: %w", err), proc.stop(context.Background()))
	}
	return proc, nil
}

// waitAnswer returns when containerd answers, dies, or has not answered for long.
func (r *Runtime) waitAnswer(ctx context.Context, proc *process) error {
	ctx, cancel := context.WithTimeout(ctx, answerWait)
	defer cancel()
	tick := time.NewTicker(answerEvery)
	defer tick.Stop()
	for {
		err := answers(ctx, r.paths.socket)
		if err == nil {
			return nil
		}
		select {
		case <-proc.exited:
			return fmt.Errorf("start containerd: it ended: %s", r.lastLog())
		case <-ctx.Done():
			return fmt.Errorf("wait for containerd at %s: %w", r.paths.socket, err)
		case <-tick.C:
		}
	}
}

func answers(ctx context.Context, socket string) error {
	if _, err := os.Stat(socket); err != nil {
		return err
	}
	client, err := containerd.New(socket, containerd.WithTimeout(time.Second))
	if err != nil {
		return err
	}
	defer client.Close()
	_, err = client.Version(ctx)
	return err
}

// openLog opens the log to append to it; one that has grown too long begins anew, its end kept beside it.
func openLog(path string) (*os.File, error) {
	if err := boundLog(path, logBytes); err != nil {
		return nil, err
	}
	return os.OpenFile(path, os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600)
}

// boundLog empties a log longer than max after copying it. Writers that append go on at its new end.
func boundLog(path string, max int64) error {
	info, err := os.Stat(path)
	if errors.Is(err, os.ErrNotExist) || err == nil && info.Size() <= max {
		return nil
	}
	if err != nil {
		return err
	}
	data, err := tail(path, max)
	if err != nil {
		return err
	}
	if err := os.WriteFile(path+".1", data, 0o600); err != nil {
		return err
	}
	return os.Truncate(path, 0)
}

func tail(path string, max int64) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return nil, err
	}
	from := info.Size() - max
	if from < 0 {
		from = 0
	}
	data := make([]byte, info.Size()-from)
	n, err := f.ReadAt(data, from)
	if n == len(data) {
		err = nil
	}
	return data[:n], err
}

// lastLog is containerd's last word, for an error message.
func (r *Runtime) lastLog() string {
	data, err := tail(r.paths.log, 2000)
	if err != nil {
		return err.Error()
	}
	lines := strings.Split(strings.TrimSpace(string(data)), "\n")
	return lines[len(lines)-1]
}
