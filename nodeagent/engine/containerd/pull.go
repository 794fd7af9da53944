package containerd

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"sync"

	"github.com/containerd/containerd/v2/client"
	"github.com/containerd/containerd/v2/core/remotes/docker"
	remoteerrors "github.com/containerd/containerd/v2/core/remotes/errors"
	"github.com/containerd/errdefs"

	"github.com/slipway-dev/slipway/nodeagent/engine"
)

// pulls are those under way, by image name.
type pulls struct {
	mu      sync.Mutex
	running map[string]*pull
}

// pull is one fetch that any number of callers wait for. It ends when the last of them goes.
type pull struct {
	waiting int
	cancel  context.CancelFunc
	done    chan struct{}
	meter   *meter
	image   engine.Image
	err     error
}

// Pull fetches an image and unpacks it.
func (e *Engine) Pull(ctx context.Context, ref string, opts engine.PullOptions) (engine.Image, error) {
	name, err := normalise(ref)
	if err != nil {
		return engine.Image{}, err
	}
	p := e.joinPull(ctx, name, opts)
	defer e.leavePull(name, p)
	if opts.Progress != nil {
		defer func() { opts.Progress(p.meter.progress()) }()
	}
	tick := ticker(opts.Progress)
	defer tick.stop()
	for {
		select {
		case <-p.done:
			return p.image, p.err
		case <-ctx.Done():
			return engine.Image{}, fmt.Errorf("pull image %s: %w", name, ctx.Err())
		case <-tick.c:
			opts.Progress(p.meter.progress())
		}
	}
}

func (e *Engine) joinPull(ctx context.Context, name string, opts engine.PullOptions) *pull {
	e.pulls.mu.Lock()
	defer e.pulls.mu.Unlock()
	if p := e.pulls.running[name]; p != nil {
		p.waiting++
		return p
	}
	work, cancel := context.WithCancel(context.WithoutCancel(e.in(ctx)))
	p := &pull{waiting: 1, cancel: cancel, done: make(chan struct{}), meter: &meter{}}
	e.pulls.running[name] = p
	go func() {
		p.image, p.err = e.fetch(work, name, opts, p.meter)
		e.pulls.mu.Lock()
		delete(e.pulls.running, name)
		e.pulls.mu.Unlock()
		close(p.done)
		cancel()
	}()
	return p
}

func (e *Engine) leavePull(name string, p *pull) {
	e.pulls.mu.Lock()
	defer e.pulls.mu.Unlock()
	if p.waiting--; p.waiting > 0 {
		return
	}
	p.cancel()
	if e.pulls.running[name] == p {
		delete(e.pulls.running, name) // who comes now begins anew
	}
}

func (e *Engine) fetch(ctx context.Context, name string, opts engine.PullOptions, m *meter) (engine.Image, error) {
	resolver := docker.NewResolver(docker.ResolverOptions{Hosts: registryHosts(e.cfg.Registries, opts.Auth)})
	img, err := e.client.Pull(ctx, name,
		client.WithResolver(m.wrap(resolver)),
		client.WithPullUnpack,
		client.WithPullSnapshotter(e.snap),
		client.WithImageHandlerWrapper(m.handler(e.client.ContentStore())),
	)
	if err != nil {
		return engine.Image{}, pullError(name, err)
	}
	e.images.forget(name)
	info, err := e.unpacked(ctx, img.Metadata())
	if err != nil {
		return engine.Image{}, err
	}
	return info.Image, nil
}

// pullError tells an image that is not to be had from a registry that cannot be reached.
func pullError(name string, err error) error {
	verb := "pull image " + name
	if errdefs.IsNotFound(err) && !unavailable(err) {
		return fmt.Errorf("%s: %w: %v", verb, engine.ErrImageNotFound, plain(err))
	}
	denied := errdefs.IsUnauthorized(err) || errdefs.IsPermissionDenied(err)
	var unexpected remoteerrors.ErrUnexpectedStatus
	if errors.As(err, &unexpected) {
		denied = unexpected.StatusCode == http.StatusUnauthorized || unexpected.StatusCode == http.StatusForbidden
	}
	if denied || errors.Is(err, docker.ErrInvalidAuthorization) {
		return fmt.Errorf("%s: %w: the registry denies it: %v", verb, engine.ErrImageNotFound, plain(err))
	}
	return classify(verb, err)
}
