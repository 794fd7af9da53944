package imagestore

import (
	"context"
	"io"
	"sync/atomic"
	"time"

	"github.com/containerd/containerd/v2/core/content"
	"github.com/containerd/containerd/v2/core/images"
	"github.com/containerd/containerd/v2/core/remotes"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/slipway-dev/slipway/nodeagent/engine"
)

// progressEvery is how often a pull reports.
const progressEvery = 100 * time.Millisecond

// meter counts the bytes of a pull.
type meter struct {
	done, total atomic.Int64
}

func (m *meter) progress() engine.Progress {
	total := m.total.Load()
	return engine.Progress{Done: min(m.done.Load(), total), Total: total}
}

// handler adds what an image consists of to the total; what is already here counts as done.
func (m *meter) handler(store content.InfoProvider) func(images.Handler) images.Handler {
	return func(next images.Handler) images.Handler {
		return images.HandlerFunc(func(ctx context.Context, desc ocispec.Descriptor) ([]ocispec.Descriptor, error) {
			if _, err := store.Info(ctx, desc.Digest); err == nil {
				m.done.Add(desc.Size)
			}
			m.total.Add(desc.Size)
			return next.Handle(ctx, desc)
		})
	}
}

// wrap counts what a resolver's fetchers read.
func (m *meter) wrap(r remotes.Resolver) remotes.Resolver { return meteredResolver{r, m} }

type meteredResolver struct {
	remotes.Resolver
	meter *meter
}

func (r meteredResolver) Fetcher(ctx context.Context, ref string) (remotes.Fetcher, error) {
	fetcher, err := r.Resolver.Fetcher(ctx, ref)
	if err != nil {
		return nil, err
	}
	return remotes.FetcherFunc(func(ctx context.Context, desc ocispec.Descriptor) (io.ReadCloser, error) {
		body, err := fetcher.Fetch(ctx, desc)
		if err != nil {
			return nil, err
		}
		counted := &meteredBody{ReadCloser: body, meter: r.meter}
		if seeker, ok := body.(io.Seeker); ok {
			return struct {
				*meteredBody
				io.Seeker
			}{counted, seeker}, nil
		}
		return counted, nil
	}), nil
}

type meteredBody struct {
	io.ReadCloser
	meter *meter
}

func (b *meteredBody) Read(p []byte) (int, error) {
	n, err := b.ReadCloser.Read(p)
	b.meter.done.Add(int64(n))
	return n, err
}

// optionalTicker ticks only when somebody wants to know.
type optionalTicker struct {
	c    <-chan time.Time
	stop func()
}

func ticker(wanted func(engine.Progress)) optionalTicker {
	if wanted == nil {
		return optionalTicker{stop: func() {}}
	}
	t := time.NewTicker(progressEvery)
	return optionalTicker{c: t.C, stop: t.Stop}
}
