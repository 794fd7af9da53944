package agent

import (
	"context"
	"errors"
	"fmt"
	"time"

	corev1 "k8s.io/api/core/v1"

	"github.com/slipway-dev/slipway/nodeagent/agent/credential"
	"github.com/slipway-dev/slipway/nodeagent/engine"
	"github.com/slipway-dev/slipway/nodeagent/lifecycle"
)

// ensureImage brings a container's image onto the node as its pull policy says.
func (w *worker) ensureImage(ctx context.Context, pod *corev1.Pod, action lifecycle.Action) func() {
	c, _ := containerNamed(pod, action.Container)
	reason, err := w.lookOrPull(ctx, pod, c)
	if err != nil && ctx.Err() != nil {
		return func() {}
	}
	return func() {
		image := lifecycle.Image{Attempt: action.Attempt, Present: err == nil}
		if err != nil {
			image.Failure = w.imageFailure(pod, c, reason, err)
		}
		w.o.Images[c.Name] = image
	}
}

// lookOrPull returns the waiting reason together with an error.
func (w *worker) lookOrPull(ctx context.Context, pod *corev1.Pod, c corev1.Container) (reason string, err error) {
	if c.ImagePullPolicy != corev1.PullAlways {
		_, err := w.a.cfg.Engine.Image(ctx, c.Image)
		switch {
		case err == nil:
			w.eventOf(pod, c.Name, corev1.EventTypeNormal, "Pulled", fmt.Sprintf("Container image %q already present on machine", c.Image))
			return "", nil
		case errors.Is(err, engine.ErrImageName):
			return lifecycle.ReasonInvalidImageName, err
		case !errors.Is(err, engine.ErrImageNotFound):
			return "ImageInspectError", err
		case c.ImagePullPolicy == corev1.PullNever:
			return lifecycle.ReasonErrImageNeverPull, fmt.Errorf("Container image %q is not present with pull policy of Never", c.Image)
		}
	}
	auth, err := w.auth(ctx, pod)
	if err != nil {
		return lifecycle.ReasonErrImagePull, err
	}
	w.eventOf(pod, c.Name, corev1.EventTypeNormal, "Pulling", fmt.Sprintf("Pulling image %q", c.Image))
	opts := engine.PullOptions{Auth: auth}
	if report := w.a.cfg.PullProgress; report != nil {
		opts.Progress = func(p engine.Progress) { report(c.Image, p) }
	}
	began := time.Now()
	img, err := w.a.cfg.Engine.Pull(ctx, c.Image, opts)
	switch {
	case errors.Is(err, engine.ErrImageName):
		return lifecycle.ReasonInvalidImageName, err
	case err != nil:
		return lifecycle.ReasonErrImagePull, err
	}
	w.eventOf(pod, c.Name, corev1.EventTypeNormal, "Pulled", fmt.Sprintf("Successfully pulled image %q in %s. Image size: %d bytes.",
		c.Image, time.Since(began).Round(time.Millisecond), img.Bytes))
	return "", nil
}

// imageFailure turns an error into what the status says and when to try again: 10 s doubling to 300 s. The first
// failure shows as such, later ones as the back-off they lead to.
func (w *worker) imageFailure(pod *corev1.Pod, c corev1.Container, reason string, err error) lifecycle.Failure {
	key := "image " + c.Name
	if w.o.Images[c.Name].Present {
		delete(w.tries, key)
	}
	pause := min(lifecycle.BackOffStart<<min(w.tries[key], 5), lifecycle.BackOffLimit)
	now := time.Now()
	f := lifecycle.Failure{Reason: reason, Message: err.Error(), At: now, Retry: now.Add(pause)}
	if reason != lifecycle.ReasonErrImagePull {
		w.eventOf(pod, c.Name, corev1.EventTypeWarning, reasonOf(reason), err.Error())
	} else {
		w.eventOf(pod, c.Name, corev1.EventTypeWarning, "Failed", fmt.Sprintf("Failed to pull image %q: %s", c.Image, err))
	}
	w.eventOf(pod, c.Name, corev1.EventTypeWarning, "Failed", "Error: "+reason)
	if w.tries[key] > 0 && reason == lifecycle.ReasonErrImagePull {
		f.Reason = lifecycle.ReasonImagePullBackOff
		f.Message = fmt.Sprintf("Back-off pulling image %q: %s: %s", c.Image, lifecycle.ReasonErrImagePull, err)
		w.eventOf(pod, c.Name, corev1.EventTypeNormal, "BackOff", fmt.Sprintf("Back-off pulling image %q", c.Image))
	}
	w.tries[key]++
	return f
}

// reasonOf is the event's reason for a waiting reason, as the kubelet's.
func reasonOf(waiting string) string {
	if waiting == lifecycle.ReasonErrImageNeverPull {
		return waiting
	}
	return "InspectFailed"
}

// auth returns the credentials of the Pod's pull secrets, by registry host. A secret that is missing is passed over,
// as the kubelet does: the image may be public.
func (w *worker) auth(ctx context.Context, pod *corev1.Pod) (func(host string) (user, password string), error) {
	hosts := map[string][2]string{}
	for _, ref := range pod.Spec.ImagePullSecrets {
		secret, err := w.a.refs.Secret(ctx, pod, ref.Name)
		if err != nil {
			w.eventOf(pod, "", corev1.EventTypeWarning, "FailedToRetrieveImagePullSecret", fmt.Sprintf("Unable to retrieve image pull secret %s", ref.Name))
			continue
		}
		if err := credential.Read(secret, hosts); err != nil {
			return nil, fmt.Errorf("image pull secret %s: %w", ref.Name, err)
		}
	}
	if len(hosts) == 0 {
		return nil, nil
	}
	return func(host string) (string, string) {
		cred := hosts[credential.Host(host)]
		return cred[0], cred[1]
	}, nil
}
