// Package shim is containerd's runc task service with three additions: it writes the containers' output to CRI log
// files itself, so that logs outlive the agent and containerd, it notes how containers end for when nobody is there to
// be told, and it leaves no socket behind when its group of containers ends.
//
// It must not know Pods: a group is what the annotation io.containerd.runc.v2.group says.
package shim

import (
	"context"
	"fmt"
	"path/filepath"
	"sync"
	"time"

	eventstypes "github.com/containerd/containerd/api/events"
	taskapi "github.com/containerd/containerd/api/runtime/task/v3"
	"github.com/containerd/containerd/v2/cmd/containerd-shim-runc-v2/task"
	"github.com/containerd/containerd/v2/core/events"
	"github.com/containerd/containerd/v2/pkg/protobuf/types"
	"github.com/containerd/containerd/v2/pkg/shim"
	"github.com/containerd/containerd/v2/pkg/shutdown"
	"github.com/containerd/errdefs"
	"github.com/containerd/errdefs/pkg/errgrpc"
	"github.com/containerd/log"
	"github.com/containerd/ttrpc"

	"github.com/slipway-dev/slipway/nodeagent/runtime/bundle/crilog"
)

const (
	// drainBeforeExit is how long the news of an exit waits for the last log lines. A process that left the
	// container but holds its output open must not delay it longer.
	drainBeforeExit   = 250 * time.Millisecond
	drainBeforeDelete = 2 * time.Second
)

// StdinPipe as the stdin address asks for a standard input that stays open and empty.
const StdinPipe = "slipway-stdin:"

// Service is the task service of one group of containers.
type Service struct {
	taskapi.TTRPCTaskService

	mu         sync.Mutex
	outputs    map[string]*output // by container id
	containers map[string]struct{}
	creating   int
	closed     bool
	socket     socket
}

// New returns the service behind the listening socket with the given file descriptor.
func New(ctx context.Context, publisher shim.Publisher, sd shutdown.Service, socketFD int) (*Service, error) {
	s := &Service{
		outputs:    map[string]*output{},
		containers: map[string]struct{}{},
		socket:     socketOf(socketFD),
	}
	inner, err := task.NewTaskService(ctx, exitPublisher{Publisher: publisher, service: s}, sd)
	if err != nil {
		return nil, err
	}
	s.TTRPCTaskService = inner
	return s, nil
}

// RegisterTTRPC serves the task service.
func (s *Service) RegisterTTRPC(server *ttrpc.Server) error {
	taskapi.RegisterTTRPCTaskService(server, s)
	return nil
}

// Create makes a container. When its stdout is a log address, this shim reads both its outputs.
func (s *Service) Create(ctx context.Context, r *taskapi.CreateTaskRequest) (*taskapi.CreateTaskResponse, error) {
	if err := s.enter(); err != nil {
		return nil, err
	}
	out, err := redirect(r)
	if err != nil {
		s.leave("", nil)
		return nil, errgrpc.ToGRPC(fmt.Errorf("prepare log of %s: %w", r.ID, err))
	}
	resp, err := s.TTRPCTaskService.Create(ctx, r)
	if out != nil {
		out.release()
	}
	if err != nil {
		s.leave("", nil)
		return nil, err
	}
	s.leave(r.ID, out)
	if out != nil && !r.Terminal {
		widen(resp.Pid)
	}
	return resp, nil
}

// enter notes that a container is being made, which keeps the shim from ending.
func (s *Service) enter() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return errgrpc.ToGRPC(fmt.Errorf("shim is shutting down: %w", errdefs.ErrUnavailable))
	}
	s.creating++
	return nil
}

func (s *Service) leave(id string, out *output) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.creating--
	if id == "" {
		return
	}
	s.containers[id] = struct{}{}
	if out != nil {
		s.outputs[id] = out
	}
}

// redirect puts pipes of this shim's in place of the log addresses in r.
func redirect(r *taskapi.CreateTaskRequest) (*output, error) {
	if r.Stdin == StdinPipe {
		r.Stdin = filepath.Join(r.Bundle, "stdin.pipe")
		if err := makePipe(r.Stdin); err != nil {
			return nil, err
		}
	}
	t, ok, err := parseTarget(r.Stdout)
	if err != nil || !ok {
		return nil, err
	}
	streams := []crilog.Stream{crilog.Stdout, crilog.Stderr}
	if r.Terminal {
		streams = streams[:1]
	}
	out, err := openOutput(r.Bundle, t, streams...)
	if err != nil {
		return nil, err
	}
	r.Stdout, r.Stderr = out.pipes[0], ""
	if !r.Terminal {
		r.Stderr = out.pipes[1]
	}
	return out, nil
}

// Delete removes a container or one of its further processes.
func (s *Service) Delete(ctx context.Context, r *taskapi.DeleteRequest) (*taskapi.DeleteResponse, error) {
	resp, err := s.TTRPCTaskService.Delete(ctx, r)
	if err != nil || r.ExecID != "" {
		return resp, err
	}
	s.mu.Lock()
	out := s.outputs[r.ID]
	delete(s.outputs, r.ID)
	delete(s.containers, r.ID)
	s.mu.Unlock()
	if out != nil {
		out.drained(drainBeforeDelete)
		out.file.Seal()
	}
	return resp, nil
}

// Shutdown ends the shim when it has no containers left. Its socket goes first: who comes next with a container of
// this group starts a new shim instead of meeting a dying one.
func (s *Service) Shutdown(ctx context.Context, r *taskapi.ShutdownRequest) (*types.Empty, error) {
	s.mu.Lock()
	if len(s.containers) > 0 || s.creating > 0 {
		s.mu.Unlock()
		return &types.Empty{}, nil
	}
	s.closed = true
	s.socket.remove()
	s.mu.Unlock()
	return s.TTRPCTaskService.Shutdown(ctx, r)
}

// exitPublisher holds back the news that a container exited until its log is complete.
type exitPublisher struct {
	shim.Publisher
	service *Service
}

func (p exitPublisher) Publish(ctx context.Context, topic string, event events.Event) error {
	if exit, ok := event.(*eventstypes.TaskExit); ok && exit.ID == exit.ContainerID {
		p.service.mu.Lock()
		out := p.service.outputs[exit.ContainerID]
		p.service.mu.Unlock()
		if out != nil {
			if err := out.note.end(exit.ExitStatus, exit.ExitedAt.AsTime()); err != nil {
				log.G(ctx).WithError(err).Warn("note the exit of " + exit.ContainerID)
			}
			out.drained(drainBeforeExit)
		}
	}
	return p.Publisher.Publish(ctx, topic, event)
}
