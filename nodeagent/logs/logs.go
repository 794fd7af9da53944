// Package logs reads the containers' log files: CRI lines under <root>/<namespace>_<name>_<uid>/<container>/, one
// file per attempt with its rotated predecessors beside it. It answers what `kubectl logs` asks for, with the
// kubelet's words where there is nothing to answer.
//
// It must not write logs: the shim of a container does, so that lines are kept while the agent is away.
package logs

import (
	"context"
	"errors"
	"fmt"
	"io"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"

	"github.com/slipway-dev/slipway/nodeagent/lifecycle"
)

// Reader reads the logs of one node.
type Reader struct {
	root    string
	running func(containerID string) bool
}

// New returns a Reader of the files under root, such as /var/log/pods. Running tells whether a container, by its
// engine id, may still write: a reader that follows ends when it does not.
func New(root string, running func(containerID string) bool) *Reader {
	return &Reader{root: root, running: running}
}

// PodDir returns the folder of a Pod's logs below the root.
func PodDir(pod *corev1.Pod) string {
	return fmt.Sprintf("%s_%s_%s", pod.Namespace, pod.Name, pod.UID)
}

// File returns the path, below the root, of the log of one attempt of a container.
func File(pod *corev1.Pod, container string, attempt int) string {
	return filepath.Join(PodDir(pod), container, strconv.Itoa(attempt)+".log")
}

// Logs returns the log of a container as opts ask for it. With Follow it ends when the container has ended and all
// is read, or with ctx. The error is a *apierrors.StatusError, 400 when there is no such log.
func (r *Reader) Logs(ctx context.Context, pod *corev1.Pod, opts *corev1.PodLogOptions) (io.ReadCloser, error) {
	container, err := choose(pod, opts.Container)
	if err != nil {
		return nil, err
	}
	attempt, err := attemptOf(pod, container, opts.Previous)
	if err != nil {
		return nil, err
	}
	files, err := openFiles(r.root, File(pod, container, attempt))
	if err != nil {
		return nil, apierrors.NewInternalError(err)
	}
	id := lifecycle.ContainerID(pod.UID, container, attempt)
	ctx, cancel := context.WithCancel(ctx)
	reader, writer := io.Pipe()
	s := &session{files: files, out: newPrinter(writer, opts, time.Now()), alive: func() bool { return r.running(id) }}
	go func() {
		defer files.close()
		err := s.run(ctx, opts)
		if errors.Is(err, errFull) {
			err = nil
		}
		_ = writer.CloseWithError(err)
	}()
	return &closer{PipeReader: reader, cancel: cancel}, nil
}

// closer ends the reading goroutine when the consumer is done.
type closer struct {
	*io.PipeReader
	cancel context.CancelFunc
}

func (c *closer) Close() error {
	c.cancel()
	return c.PipeReader.Close()
}

// choose returns the container that is meant.
func choose(pod *corev1.Pod, name string) (string, error) {
	var mains, inits []string
	for _, c := range pod.Spec.Containers {
		mains = append(mains, c.Name)
	}
	for _, c := range pod.Spec.InitContainers {
		inits = append(inits, c.Name)
	}
	switch {
	case name == "" && len(mains) == 1:
		return mains[0], nil
	case name == "":
		message := fmt.Sprintf("a container name must be specified for pod %s, choose one of: [%s]", pod.Name, strings.Join(mains, " "))
		if len(inits) > 0 {
			message += fmt.Sprintf(" or one of the init containers: [%s]", strings.Join(inits, " "))
		}
		return "", apierrors.NewBadRequest(message)
	case !slices.Contains(mains, name) && !slices.Contains(inits, name):
		return "", apierrors.NewBadRequest(fmt.Sprintf("container %s is not valid for pod %s", name, pod.Name))
	}
	return name, nil
}

// attemptOf returns the attempt whose log is meant.
func attemptOf(pod *corev1.Pod, container string, previous bool) (int, error) {
	all := slices.Concat(pod.Status.ContainerStatuses, pod.Status.InitContainerStatuses)
	i := slices.IndexFunc(all, func(s corev1.ContainerStatus) bool { return s.Name == container })
	if i < 0 {
		return 0, apierrors.NewBadRequest(fmt.Sprintf("container %q in pod %q is not available", container, pod.Name))
	}
	s := all[i]
	last := s.LastTerminationState.Terminated
	ended := last != nil && last.ContainerID != ""
	switch {
	case previous && !ended:
		return 0, apierrors.NewBadRequest(fmt.Sprintf("previous terminated container %q in pod %q not found", container, pod.Name))
	case !previous && (s.State.Running != nil || s.State.Terminated != nil):
		return int(s.RestartCount), nil
	case !ended:
		return 0, apierrors.NewBadRequest(fmt.Sprintf("container %q in pod %q is waiting to start: %s", container, pod.Name, waitsFor(s.State.Waiting)))
	}
	attempt := int(s.RestartCount)
	if last.ContainerID != lifecycle.ContainerIDPrefix+lifecycle.ContainerID(pod.UID, container, attempt) {
		attempt--
	}
	return max(attempt, 0), nil
}

func waitsFor(w *corev1.ContainerStateWaiting) string {
	switch {
	case w == nil:
		return lifecycle.ReasonContainerCreating
	case w.Reason == lifecycle.ReasonErrImagePull:
		return "image can't be pulled"
	case w.Reason == lifecycle.ReasonImagePullBackOff:
		return "trying and failing to pull image"
	}
	return w.Reason
}
