package containerd

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"sync"
	"time"

	"github.com/containerd/containerd/api/services/tasks/v1"
	"github.com/containerd/typeurl/v2"
	"github.com/google/uuid"
	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/slipway-dev/slipway/nodeagent/engine"
	"github.com/slipway-dev/slipway/nodeagent/engine/fault"
)

// execDrain is how long output is waited for after the command ended: a child of it may hold the pipe.
const execDrain = 500 * time.Millisecond

// execSeparator stands between the container and the command in the name of a command's folder.
const execSeparator = "."

// Exec runs a command in a running container. When ctx ends first, the command is killed.
func (e *Engine) Exec(ctx context.Context, id string, x engine.Exec) (int, error) {
	ctx = e.in(ctx)
	verb := "execute in container " + id
	process, err := e.execProcess(ctx, id, x.Command)
	if err != nil {
		return 0, fmt.Errorf("%s: %w", verb, err)
	}
	encoded, err := typeurl.MarshalAnyToProto(process)
	if err != nil {
		return 0, fmt.Errorf("%s: %w", verb, err)
	}
	execID := uuid.NewString()
	out, err := openExecOutput(filepath.Join(e.execDir(), id+execSeparator+execID), x.Stdout, x.Stderr)
	if err != nil {
		return 0, fmt.Errorf("%s: %w", verb, err)
	}
	defer out.close()
	service := e.client.TaskService()
	_, err = service.Exec(ctx, &tasks.ExecProcessRequest{
		ContainerID: id, ExecID: execID, Spec: encoded, Stdout: out.paths[0], Stderr: out.paths[1],
	})
	if err != nil {
		return 0, fault.Classify(verb, err)
	}
	defer e.deleteExec(ctx, id, execID)
	if _, err = service.Start(ctx, &tasks.StartRequest{ContainerID: id, ExecID: execID}); err != nil {
		if fault.Unavailable(err) || ctx.Err() != nil || fault.NotFound(err) {
			return 0, fault.Classify(verb, err)
		}
		return 0, fmt.Errorf("%s: %w: %s", verb, engine.ErrStart, cmp.Or(fault.Command(err), fault.Runc(err)))
	}
	resp, err := service.Wait(ctx, &tasks.WaitRequest{ContainerID: id, ExecID: execID})
	if err != nil {
		return 0, fault.Classify(verb, err)
	}
	out.drain()
	return int(resp.ExitStatus), nil
}

// execProcess is the container's own process with another command.
func (e *Engine) execProcess(ctx context.Context, id string, command []string) (*specs.Process, error) {
	st, ok := e.cache.get(id)
	if !ok {
		return nil, engine.ErrNotFound
	}
	if st.status.State != engine.Running {
		return nil, fmt.Errorf("it is %s, not running", st.status.State)
	}
	if len(command) == 0 {
		return nil, errors.New("no command")
	}
	if st.process == nil {
		record, err := e.client.ContainerService().Get(ctx, id)
		if err != nil {
			return nil, fault.Classify("read its specification", err)
		}
		var spec specs.Spec
		if err := typeurl.UnmarshalTo(record.Spec, &spec); err != nil {
			return nil, fmt.Errorf("read its specification: %w", err)
		}
		st.process = spec.Process
		e.cache.change(id, func(en *entry) { en.process = spec.Process })
	}
	process := *st.process
	process.Args = command
	process.Terminal = false
	return &process, nil
}

// deleteExec ends and forgets a command, also when the caller has gone.
func (e *Engine) deleteExec(ctx context.Context, id, execID string) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), 5*time.Second)
	defer cancel()
	service := e.client.TaskService()
	request := &tasks.DeleteProcessRequest{ContainerID: id, ExecID: execID}
	if _, err := service.DeleteProcess(ctx, request); err == nil || fault.NotFound(err) {
		return
	}
	_, _ = service.Kill(ctx, &tasks.KillRequest{ContainerID: id, ExecID: execID, Signal: uint32(unix.SIGKILL)})
	_, _ = service.Wait(ctx, &tasks.WaitRequest{ContainerID: id, ExecID: execID})
	if _, err := service.DeleteProcess(ctx, request); err != nil && !fault.NotFound(err) {
		e.cfg.Log.Debug("command could not be deleted", "container", id, "err", fault.Plain(err))
	}
}

// execOutput carries a command's output from named pipes to the caller's writers.
type execOutput struct {
	dir     string
	paths   [2]string
	holders []*os.File
	readers []*os.File
	copies  sync.WaitGroup
}

func openExecOutput(dir string, stdout, stderr io.Writer) (_ *execOutput, err error) {
	o := &execOutput{dir: dir}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			o.close()
		}
	}()
	for i, w := range []io.Writer{stdout, stderr} {
		if w == nil {
			w = io.Discard
		}
		path := filepath.Join(dir, fmt.Sprintf("%d", i+1))
		if err := unix.Mkfifo(path, 0o600); err != nil {
			return nil, &os.PathError{Op: "mkfifo", Path: path, Err: err}
		}
		// Held open for writing, so that reading does not end before the command has opened it.
		holder, err := os.OpenFile(path, os.O_RDWR|unix.O_NONBLOCK, 0)
		if err != nil {
			return nil, err
		}
		o.holders = append(o.holders, holder)
		reader, err := os.OpenFile(path, os.O_RDONLY|unix.O_NONBLOCK, 0)
		if err != nil {
			return nil, err
		}
		o.readers, o.paths[i] = append(o.readers, reader), path
		o.copies.Go(func() {
			if _, err := io.Copy(w, reader); err != nil {
				_, _ = io.Copy(io.Discard, reader) // the caller wants no more; the command must not block
			}
		})
	}
	return o, nil
}

// drain waits for the rest of the output once the command has ended.
func (o *execOutput) drain() {
	for _, h := range o.holders {
		h.Close()
	}
	o.holders = nil
	for _, r := range o.readers {
		_ = r.SetReadDeadline(time.Now().Add(execDrain))
	}
	o.copies.Wait()
}

// close ends the copying; the writers are not used afterwards.
func (o *execOutput) close() {
	for _, r := range o.readers {
		_ = r.SetReadDeadline(time.Now())
	}
	o.copies.Wait()
	for _, f := range append(o.holders, o.readers...) {
		f.Close()
	}
	os.RemoveAll(o.dir)
}
