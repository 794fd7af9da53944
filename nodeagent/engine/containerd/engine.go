// Package containerd is an engine.Engine on containerd, by its client library and not by CRI.
//
// It keeps the containers' states in memory, fed by containerd's events and by a look at everything after each gap,
// so that listing costs nothing. It must not know Pods or what should run.
package containerd

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"github.com/containerd/containerd/api/types/runc/options"
	"github.com/containerd/containerd/v2/client"
	"github.com/containerd/containerd/v2/core/containers"
	"github.com/containerd/containerd/v2/pkg/namespaces"
	"github.com/containerd/log"
	"github.com/containerd/typeurl/v2"
	"github.com/sirupsen/logrus"
	"google.golang.org/grpc"
	"google.golang.org/grpc/backoff"

	"github.com/slipway-dev/slipway/nodeagent/engine"
	"github.com/slipway-dev/slipway/nodeagent/engine/fault"
	"github.com/slipway-dev/slipway/nodeagent/engine/imagestore"
	"github.com/slipway-dev/slipway/nodeagent/engine/runspec"
)

// Config says which containerd to use and how.
type Config struct {
	Address    string // containerd's socket
	Namespace  string // in containerd; empty: "slipway"
	Shim       string // path of the shim
	Runc       string // path of runc
	StateDir   string // for exit records; kept over a reboot
	RunDir     string // for runc's state and pipes; need not be kept. Empty: a folder below /run/slipway
	Registries []Registry
	LogLimits  LogLimits
	PIDs       int64 // processes and threads of a container that does not say how many it may have; 0: no limit
	Log        *slog.Logger

	intercept grpc.UnaryClientInterceptor // of tests
}

// Registry says how a registry is reached.
type Registry = imagestore.Registry

// LogLimits bound one container's log files. Zero values mean the shim's defaults, 10 MiB in each of 5 files.
type LogLimits struct {
	Bytes int64
	Files int
}

// Engine runs containers on containerd.
type Engine struct {
	*imagestore.Store

	cfg     Config
	client  *client.Client
	quiet   *log.Entry
	host    runspec.Host
	snap    string // name of the snapshotter
	layers  string // folder of its layers, as containerd says; empty: it does not
	runtime containers.RuntimeInfo

	cache   cache
	slots   chan struct{}      // bounds concurrent creation
	undoing sync.Mutex         // held while what is left of containers is removed
	strays  map[shim]time.Time // shims that hold nothing, since when; guarded by undoing
	watcher watchers
	hurry   chan struct{} // asks for a look at everything soon

	stop  context.CancelFunc
	ended sync.WaitGroup
}

var _ engine.Engine = (*Engine)(nil)

// Version returns the version of containerd: "2.4.2".
func (e *Engine) Version(ctx context.Context) (string, error) {
	version, err := e.client.Version(ctx)
	if err != nil {
		return "", fault.Classify("ask containerd for its version", err)
	}
	return strings.TrimPrefix(version.Version, "v"), nil
}

// New connects to containerd and learns what runs there. It works until ctx ends or Close is called.
func New(ctx context.Context, cfg Config) (*Engine, error) {
	cfg, err := complete(cfg)
	if err != nil {
		return nil, err
	}
	e := &Engine{cfg: cfg, quiet: quietLogger(), hurry: make(chan struct{}, 1)}
	e.cache.entries = map[string]*entry{}
	e.slots = make(chan struct{}, creations())
	if e.host, err = runspec.DetectHost(ctx); err != nil {
		return nil, err
	}
	runc, err := typeurl.MarshalAny(&options.Options{BinaryName: cfg.Runc, Root: filepath.Join(cfg.RunDir, "runc")})
	if err != nil {
		return nil, fmt.Errorf("encode runtime options: %w", err)
	}
	e.runtime = containers.RuntimeInfo{Name: cfg.Shim, Options: runc}
	e.client, err = client.New(cfg.Address, client.WithDefaultNamespace(cfg.Namespace), client.WithExtraDialOpts(dialOptions(cfg.intercept)))
	if err != nil {
		return nil, fmt.Errorf("connect to containerd at %s: %w", cfg.Address, err)
	}
	ctx = e.in(ctx)
	if e.snap, err = e.snapshotter(ctx); err != nil {
		return nil, errors.Join(err, e.client.Close())
	}
	e.Store = imagestore.New(imagestore.Config{
		Client: e.client, Snapshotter: e.snap, Context: e.in, Registries: cfg.Registries, Log: cfg.Log,
	})
	if err := e.DropLeases(ctx); err != nil {
		cfg.Log.Warn("what an earlier process was pulling stays on the disk for a day", "err", err)
	}
	ctx, e.stop = context.WithCancel(ctx)
	if err := e.follow(ctx); err != nil {
		e.stop()
		return nil, errors.Join(err, e.client.Close())
	}
	return e, nil
}

// dialOptions make the connection come back soon after containerd does.
func dialOptions(more grpc.UnaryClientInterceptor) []grpc.DialOption {
	retry := backoff.Config{BaseDelay: 20 * time.Millisecond, Multiplier: 1.6, Jitter: 0.2, MaxDelay: 500 * time.Millisecond}
	calls := []grpc.UnaryClientInterceptor{bound}
	if more != nil {
		calls = append(calls, more)
	}
	return []grpc.DialOption{
		grpc.WithConnectParams(grpc.ConnectParams{Backoff: retry, MinConnectTimeout: time.Second}),
		grpc.WithChainUnaryInterceptor(calls...),
	}
}

func complete(cfg Config) (Config, error) {
	if cfg.Namespace == "" {
		cfg.Namespace = "slipway"
	}
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	if cfg.RunDir == "" {
		cfg.RunDir = filepath.Join("/run/slipway", filepath.Base(cfg.StateDir))
	}
	for _, dir := range []string{filepath.Join(cfg.StateDir, "exits"), filepath.Join(cfg.RunDir, "exec")} {
		if err := os.MkdirAll(dir, 0o700); err != nil {
			return cfg, fmt.Errorf("prepare container engine: %w", err)
		}
	}
	return cfg, nil
}

// Close ends the engine; containers go on.
func (e *Engine) Close() error {
	e.stop()
	e.ended.Wait()
	return e.client.Close()
}

// in puts the containerd namespace into ctx, and a logger that keeps the client library quiet: what it has to say is
// in the errors.
func (e *Engine) in(ctx context.Context) context.Context {
	return namespaces.WithNamespace(log.WithLogger(ctx, e.quiet), e.cfg.Namespace)
}

func quietLogger() *log.Entry {
	logger := logrus.New()
	logger.SetOutput(io.Discard)
	return logrus.NewEntry(logger)
}

// snapshotterRoot is what containerd's snapshotters call their folder.
const snapshotterRoot = "root"

// LayersDir returns the folder that holds images and the containers' writable layers; empty when containerd does not
// say where it is.
func (e *Engine) LayersDir() string { return e.layers }

// LayerUsage returns what a container wrote into its own layer, in bytes and in files. Counting takes a while.
func (e *Engine) LayerUsage(ctx context.Context, id string) (bytes, inodes int64, err error) {
	usage, err := e.client.SnapshotService(e.snap).Usage(e.in(ctx), id)
	if err != nil {
		return 0, 0, fault.Classify("measure the layer of container "+id, err)
	}
	return usage.Size, usage.Inodes, nil
}

// snapshotter is overlayfs where the kernel and the file system can, else plain copies.
func (e *Engine) snapshotter(ctx context.Context) (string, error) {
	plugins, err := e.client.IntrospectionService().Plugins(ctx, "type==io.containerd.snapshotter.v1")
	if err != nil {
		return "", fault.Classify("ask containerd for its snapshotters", err)
	}
	for _, name := range []string{"overlayfs", "native"} {
		for _, p := range plugins.Plugins {
			if p.ID == name && p.InitErr == nil {
				if name == "native" {
					e.cfg.Log.Warn("overlayfs cannot be used here: images are copied for every container")
				}
				e.layers = p.Exports[snapshotterRoot]
				return name, nil
			}
		}
	}
	return "", errors.New("containerd has neither the overlayfs nor the native snapshotter")
}
