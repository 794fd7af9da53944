package imagestore

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
	"github.com/slipway-dev/slipway/nodeagent/engine/fault"
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
func (s *Store) Pull(ctx context.Context, ref string, opts engine.PullOptions) (_ engine.Image, err error) {
	name, err := normalise(ref)
	if err != nil {
		return engine.Image{}, err
	}
	p := s.joinPull(ctx, name, opts)
	defer s.leavePull(name, p)
	if opts.Progress != nil {
		defer func() {
			last := p.meter.progress()
			last.Ended, last.Err = true, err
			opts.Progress(last)
		}()
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

func (s *Store) joinPull(ctx context.Context, name string, opts engine.PullOptions) *pull {
	s.pulls.mu.Lock()
	defer s.pulls.mu.Unlock()
	if p := s.pulls.running[name]; p != nil {
		p.waiting++
		return p
	}
	work, cancel := context.WithCancel(context.WithoutCancel(s.in(ctx)))
	p := &pull{waiting: 1, cancel: cancel, done: make(chan struct{}), meter: &meter{}}
	s.pulls.running[name] = p
	go func() {
		p.image, p.err = s.fetch(work, name, opts, p.meter)
		s.pulls.mu.Lock()
		delete(s.pulls.running, name)
		s.pulls.mu.Unlock()
		close(p.done)
		cancel()
	}()
	return p
}

func (s *Store) leavePull(name string, p *pull) {
	s.pulls.mu.Lock()
	defer s.pulls.mu.Unlock()
	if p.waiting--; p.waiting > 0 {
		return
	}
	p.cancel()
	if s.pulls.running[name] == p {
		delete(s.pulls.running, name) // who comes now begins anew
	}
}

func (s *Store) fetch(ctx context.Context, name string, opts engine.PullOptions, m *meter) (engine.Image, error) {
	resolver := docker.NewResolver(docker.ResolverOptions{Hosts: registryHosts(s.registries, opts.Auth)})
	img, err := s.client.Pull(ctx, name,
		client.WithResolver(m.wrap(resolver)),
		client.WithPullUnpack,
		client.WithPullSnapshotter(s.snapshotter),
		client.WithImageHandlerWrapper(m.handler(s.client.ContentStore())),
	)
	if err != nil {
		return engine.Image{}, pullError(name, err)
	}
	s.images.forget(name)
	info, err := s.unpacked(ctx, img.Metadata(), s.images.now())
	if err != nil {
		return engine.Image{}, err
	}
	return info.Image, nil
}

// pullError tells an image that is not to be had from a registry that cannot be reached.
func pullError(name string, err error) error {
	verb := "pull image " + name
	if errdefs.IsNotFound(err) && !fault.Unavailable(err) {
		return fmt.Errorf("%s: %w: %w", verb, engine.ErrImageNotFound, fault.Plain(err))
	}
	denied := errdefs.IsUnauthorized(err) || errdefs.IsPermissionDenied(err)
	var unexpected remoteerrors.ErrUnexpectedStatus
	if errors.As(err, &unexpected) {
		denied = unexpected.StatusCode == http.StatusUnauthorized || unexpected.StatusCode == http.StatusForbidden
	}
	if denied || errors.Is(err, docker.ErrInvalidAuthorization) {
		return fmt.Errorf("%s: %w: the registry denies it: %w", verb, engine.ErrImageNotFound, fault.Plain(err))
	}
	return fault.Classify(verb, err)
}
