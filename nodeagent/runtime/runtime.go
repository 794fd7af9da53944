// Package runtime starts and keeps alive the container runtime of a node: containerd from the bundle, with its own
// root, state and socket. containerd runs in its own session and cgroup and outlives the process that started it; the
// next one finds it again.
//
// A containerd that is not ours is only checked, never stopped or configured. The package must not know containers or
// images.
package runtime

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"sync"
	"time"
)

// Namespace is the containerd namespace that holds all containers and images of Slipway.
const Namespace = "slipway"

// Names of the programs in the bundle.
const (
	containerdName = "containerd"
	shimName       = "containerd-shim-slipway-v1"
	runcName       = "runc"
)

// Config says which runtime to run and where.
type Config struct {
	BundleDir string // holds containerd, runc and the shim
	StateDir  string // for everything containerd keeps; one runtime per folder
	Address   string // socket of a containerd that is not ours; empty: run the bundle's
	Log       *slog.Logger

	answerCheck time.Duration // of tests
}

// Runtime is a containerd that answers.
type Runtime struct {
	cfg   Config
	paths paths

	cancel context.CancelFunc
	ended  chan struct{} // closed when supervision has ended

	mu   sync.Mutex
	proc *process // nil with a foreign containerd

	idle map[int]uint64 // shims without a process at the last look, with their start times; of the supervisor
}

// Start runs containerd, or finds the one that runs already, and returns when it answers. Until ctx ends it is
// restarted when it dies; it is left running when ctx ends.
func Start(ctx context.Context, cfg Config) (*Runtime, error) {
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	if cfg.answerCheck == 0 {
		cfg.answerCheck = answerCheck
	}
	var err error
	if cfg.BundleDir, err = filepath.Abs(cfg.BundleDir); err != nil {
		return nil, fmt.Errorf("resolve bundle folder: %w", err)
	}
	for _, name := range []string{shimName, runcName} {
		if _, err := os.Stat(filepath.Join(cfg.BundleDir, name)); err != nil {
			return nil, fmt.Errorf("find %s of the runtime bundle: %w", name, err)
		}
	}
	if cfg.Address != "" {
		if err := checkForeign(ctx, cfg.Address); err != nil {
			return nil, err
		}
		return &Runtime{cfg: cfg}, nil
	}
	if cfg.StateDir, err = filepath.Abs(cfg.StateDir); err != nil {
		return nil, fmt.Errorf("resolve state folder: %w", err)
	}
	r := &Runtime{cfg: cfg, paths: pathsOf(cfg.StateDir), ended: make(chan struct{})}
	if err := r.prepare(); err != nil {
		return nil, err
	}
	proc, err := r.launch(ctx)
	if err != nil {
		return nil, err
	}
	r.proc = proc
	ctx, r.cancel = context.WithCancel(ctx)
	go r.supervise(ctx)
	return r, nil
}

// Address is the path of containerd's socket.
func (r *Runtime) Address() string {
	if r.cfg.Address != "" {
		return r.cfg.Address
	}
	return r.paths.socket
}

// Shim is the path of the shim, to be given to containerd as a container's runtime.
func (r *Runtime) Shim() string { return filepath.Join(r.cfg.BundleDir, shimName) }

// Runc is the path of runc.
func (r *Runtime) Runc() string { return filepath.Join(r.cfg.BundleDir, runcName) }

// PID is containerd's process id; zero while it is down or when it is not ours.
func (r *Runtime) PID() int {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.proc == nil {
		return 0
	}
	return r.proc.pid
}

// Close ends the supervision and leaves containerd running.
func (r *Runtime) Close() {
	if r.cancel == nil {
		return
	}
	r.cancel()
	<-r.ended
}

// Stop ends the supervision and containerd, and removes what it held outside the state folder. Containers should
// have been removed before. A foreign containerd goes on.
func (r *Runtime) Stop(ctx context.Context) error {
	if r.cancel == nil {
		return nil
	}
	r.Close()
	r.mu.Lock()
	proc := r.proc
	r.proc = nil
	r.mu.Unlock()
	var errs []error
	if proc != nil {
		errs = append(errs, proc.stop(ctx))
	}
	errs = append(errs, r.cleanUp())
	return errors.Join(errs...)
}

// prepare makes the folders and writes the configuration.
func (r *Runtime) prepare() error {
	for _, dir := range []string{r.paths.state, r.paths.run} {
		if err := os.MkdirAll(dir, 0o711); err != nil {
			return fmt.Errorf("prepare containerd: %w", err)
		}
	}
	score := 0
	if mayLowerOOMScore() {
		score = scoreLast
	}
	if err := os.WriteFile(r.paths.config, []byte(renderConfig(r.paths, score)), 0o600); err != nil {
		return fmt.Errorf("write containerd configuration: %w", err)
	}
	return nil
}
