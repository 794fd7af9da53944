package agent

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"

	"github.com/slipway-dev/slipway/nodeagent/agent/recipe"
	"github.com/slipway-dev/slipway/nodeagent/agent/termination"
	"github.com/slipway-dev/slipway/nodeagent/engine"
	"github.com/slipway-dev/slipway/nodeagent/lifecycle"
	"github.com/slipway-dev/slipway/nodeagent/logs"
	"github.com/slipway-dev/slipway/nodeagent/volume"
)

// creation is what making one attempt of a container needs to know of the Pod.
type creation struct {
	action    lifecycle.Action
	container corev1.Container
	input     recipe.Input
	pod       *corev1.Pod
}

func (w *worker) createInput(action lifecycle.Action) creation {
	c, _ := containerNamed(w.pod, action.Container)
	name, _ := recipe.Hostname(w.pod, w.a.cfg.Cluster.Domain)
	if w.pod.Spec.HostNetwork {
		name = w.a.machine.Hostname
	}
	return creation{action: action, container: c, pod: w.pod, input: recipe.Input{
		Self: w.self(), Container: c, ID: action.ID, Labels: lifecycle.Labels(w.pod, action, w.o.Sandbox.ID),
		Image: c.Image, LogPath: filepath.Join(w.a.cfg.LogDir, logs.File(w.pod, c.Name, action.Attempt)),
		Cgroup: w.a.cfg.Cgroup, Sandbox: w.sandbox, Hostname: name, Cluster: w.a.cfg.Cluster, NodeMemory: w.a.machine.Memory,
	}}
}

// create makes and starts one attempt of a container.
func (w *worker) create(ctx context.Context, in creation) func() {
	reason, err := w.make(ctx, &in)
	if err != nil {
		if ctx.Err() == nil {
			w.eventOf(in.pod, in.container.Name, corev1.EventTypeWarning, "Failed", "Error: "+err.Error())
		}
		return func() {
			w.o.CreateFails[in.container.Name] = w.failure(in.action.Key(), reason, err)
			delete(w.o.Images, in.container.Name) // it may have been removed meanwhile
		}
	}
	w.eventOf(in.pod, in.container.Name, corev1.EventTypeNormal, "Created", "Created container: "+in.container.Name)
	started := w.start(ctx, in.pod, in.action, in.input.Self.IP)
	return func() {
		delete(w.o.CreateFails, in.container.Name)
		w.count(in.action.Key(), nil)
		started()
	}
}

// make prepares everything and creates the container. An error comes with its waiting reason.
func (w *worker) make(ctx context.Context, in *creation) (reason string, err error) {
	if in.input.Objects, err = w.objects(ctx, in.pod, in.container); err != nil {
		return lifecycle.ReasonConfigError, err
	}
	if in.input.Services, err = w.a.services.Of(ctx, in.pod.Namespace); err != nil {
		return lifecycle.ReasonConfigError, err
	}
	if err := w.mounts(in); err != nil {
		return lifecycle.ReasonConfigError, err
	}
	spec, err := recipe.Container(in.input)
	if err != nil {
		return lifecycle.ReasonConfigError, err
	}
	if err := errors.Join(logs.Claim(filepath.Join(w.a.cfg.LogDir, logs.PodDir(in.pod)), w.a.cfg.DataDir), os.MkdirAll(filepath.Dir(spec.LogPath), 0o755)); err != nil {
		return lifecycle.ReasonCreateError, fmt.Errorf("make the log's folder: %w", err)
	}
	err = w.a.cfg.Engine.Create(ctx, spec)
	if err != nil && ctx.Err() == nil {
		// The next try has the same id: nothing of this one may be in its way.
		err = errors.Join(err, w.a.cfg.Engine.Remove(ctx, spec.ID))
	}
	switch {
	case errors.Is(err, engine.ErrConfig):
		return lifecycle.ReasonConfigError, err
	case err != nil:
		return lifecycle.ReasonCreateError, err
	}
	return "", nil
}

// objects fetches what the container's environment is made of. What does not exist is left out.
func (w *worker) objects(ctx context.Context, pod *corev1.Pod, c corev1.Container) (recipe.Objects, error) {
	out := recipe.Objects{ConfigMaps: map[string]*corev1.ConfigMap{}, Secrets: map[string]*corev1.Secret{}}
	configMaps, secrets := recipe.References(c)
	for _, name := range configMaps {
		cm, err := w.a.refs.ConfigMap(ctx, pod, name)
		if err != nil && !apierrors.IsNotFound(err) {
			return out, err
		}
		out.ConfigMaps[name] = cm
	}
	for _, name := range secrets {
		secret, err := w.a.refs.Secret(ctx, pod, name)
		if err != nil && !apierrors.IsNotFound(err) {
			return out, err
		}
		out.Secrets[name] = secret
	}
	return out, nil
}

// mounts fills in the container's mounts: its volumes, and the files of the agent.
func (w *worker) mounts(in *creation) error {
	env, err := recipe.Env(in.input)
	if err != nil {
		return err
	}
	for i, m := range in.container.VolumeMounts {
		path, err := w.a.volumes.Path(in.pod, m.Name)
		if err != nil {
			return err
		}
		sub := m.SubPath
		if m.SubPathExpr != "" {
			sub = recipe.Expand(m.SubPathExpr, recipe.Lookup(env))
		}
		if sub != "" {
			name := fmt.Sprintf("%s-%d", in.container.Name, i)
			if path, err = w.a.volumes.SubPath(w.podDir(), path, sub, name); err != nil {
				return fmt.Errorf("volume %s: %w", m.Name, err)
			}
		}
		in.input.Mounts = append(in.input.Mounts, engine.Mount{Source: path, Target: m.MountPath, ReadOnly: m.ReadOnly || volume.Projects(in.pod, m.Name), Propagation: recipe.Propagation(m.MountPropagation)})
	}
	message := w.messageFile(in.container.Name, in.action.Attempt)
	if err := os.MkdirAll(filepath.Dir(message), 0o755); err != nil {
		return fmt.Errorf("make the termination message's folder: %w", err)
	}
	if err := os.WriteFile(message, nil, 0o666); err != nil {
		return fmt.Errorf("make the termination message: %w", err)
	}
	if err := os.Chmod(message, 0o666); err != nil { // whoever the container runs as writes it
		return fmt.Errorf("open the termination message to all: %w", err)
	}
	etc := filepath.Join(w.podDir(), "etc")
	in.input.Files = []engine.Mount{
		{Source: filepath.Join(etc, "hosts"), Target: "/etc/hosts"},
		{Source: filepath.Join(etc, "resolv.conf"), Target: "/etc/resolv.conf"},
		{Source: message, Target: messagePath(in.container)},
	}
	if in.input.Sandbox.Shm != "" {
		in.input.Files = append(in.input.Files, engine.Mount{Source: in.input.Sandbox.Shm, Target: "/dev/shm"})
	}
	return nil
}

func messagePath(c corev1.Container) string {
	if c.TerminationMessagePath != "" {
		return filepath.Clean(c.TerminationMessagePath)
	}
	return corev1.TerminationMessagePathDefault
}

// start runs a created container, and its postStart hook: that of a container an earlier agent started, too, when it
// is not known to have run to its end.
func (w *worker) start(ctx context.Context, pod *corev1.Pod, action lifecycle.Action, ip string) func() {
	w.mu.Lock()
	w.own[action.ID] = true
	w.mu.Unlock()
	err := w.a.cfg.Engine.Start(ctx, action.ID)
	hooked := false
	if err == nil {
		w.eventOf(pod, action.Container, corev1.EventTypeNormal, "Started", "Started container "+action.Container)
		w.postStart(ctx, pod, ip, action)
		hooked = ctx.Err() == nil
	}
	refreshErr := w.a.refresh(ctx)
	failed := errors.Is(err, engine.ErrStart)
	if failed {
		w.eventOf(pod, action.Container, corev1.EventTypeWarning, "Failed", "Error: "+err.Error())
	}
	if lost := errors.Join(err, refreshErr); lost != nil && !failed && ctx.Err() == nil {
		w.a.log.Warn("start container", "namespace", pod.Namespace, "pod", pod.Name, "container", action.Container, "err", lost)
		rest(ctx, firstPause)
	}
	return func() {
		if hooked {
			w.o.Hooked[action.ID] = struct{}{}
		}
		if failed {
			w.o.StartFails[action.ID] = lifecycle.Failure{Reason: lifecycle.ReasonStartError, Message: err.Error(), At: time.Now()}
		}
	}
}

// remove removes an attempt, its log and its termination message.
func (w *worker) remove(ctx context.Context, pod *corev1.Pod, action lifecycle.Action) error {
	if err := w.a.cfg.Engine.Remove(ctx, action.ID); err != nil {
		return err
	}
	if pod.Name == "" {
		return nil
	}
	log := filepath.Join(w.a.cfg.LogDir, logs.File(pod, action.Container, action.Attempt))
	rotated, err := filepath.Glob(log + ".*")
	if err != nil {
		return err
	}
	for _, path := range append(rotated, log, w.messageFile(action.Container, action.Attempt)) {
		if err := os.Remove(path); err != nil && !errors.Is(err, os.ErrNotExist) {
			return err
		}
	}
	return nil
}

// readMessages reads the termination messages of containers that ended since the last turn.
func (w *worker) readMessages() {
	for _, s := range w.o.Containers {
		if _, read := w.o.Messages[s.ID]; read || s.State != engine.Exited {
			continue
		}
		c, _ := containerNamed(w.pod, s.Labels[lifecycle.LabelContainer])
		attempt := filepath.Join(w.podDir(), "containers", c.Name, s.Labels[lifecycle.LabelAttempt])
		log := ""
		if s.ExitCode != 0 && c.TerminationMessagePolicy == corev1.TerminationMessageFallbackToLogsOnError {
			log = s.LogPath
		}
		w.o.Messages[s.ID] = termination.Message(attempt, log)
	}
}
