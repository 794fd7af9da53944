// Package agent makes a node run the Pods bound to it. One worker per Pod observes (the Pod object, the engine's
// containers, probes), lets package lifecycle plan, and carries the plan out; nothing it does depends on memory that
// a restart would lose.
//
// It must not decide what a Pod needs (lifecycle does) nor how containers, networks and volumes are made (engine,
// network and volume do). It reads and writes the API as the node's own identity only.
package agent

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/types"

	"github.com/slipway-dev/slipway/apiserver/api"
	"github.com/slipway-dev/slipway/apiserver/event"
	"github.com/slipway-dev/slipway/apiserver/store"
	"github.com/slipway-dev/slipway/nodeagent/agent/admission"
	"github.com/slipway-dev/slipway/nodeagent/agent/feed"
	"github.com/slipway-dev/slipway/nodeagent/agent/recipe"
	"github.com/slipway-dev/slipway/nodeagent/agent/reference"
	"github.com/slipway-dev/slipway/nodeagent/agent/registration"
	"github.com/slipway-dev/slipway/nodeagent/engine"
	"github.com/slipway-dev/slipway/nodeagent/lifecycle"
	"github.com/slipway-dev/slipway/nodeagent/logs"
	"github.com/slipway-dev/slipway/nodeagent/network"
	"github.com/slipway-dev/slipway/nodeagent/pressure"
	"github.com/slipway-dev/slipway/nodeagent/volume"
)

// Drainer tells when no new connections are led to a Pod that is being deleted any more: the service proxy.
type Drainer interface {
	Settled(ctx context.Context, pod *corev1.Pod) error
}

// Config is what an Agent works with. Client must be bound to the node's identity.
type Config struct {
	NodeName string
	NodeIPs  []string // of the node, the first is the main one
	Client   store.Client
	Engine   engine.Engine
	Network  network.Network
	Proxy    Drainer        // nil: nothing leads connections to Pods
	Events   event.Recorder // nil: none are recorded
	Log      *slog.Logger   // nil: none

	DataDir string // Pods' files are below <DataDir>/pods
	LogDir  string // "/var/log/pods"
	Cgroup  string // holds the Pods' cgroups; empty: "/slipway"

	Cluster    recipe.Cluster
	ResolvConf string // the node's; empty: "/etc/resolv.conf"
	PodCIDR    string // of this node, for its Node object
	MaxPods    int64  // 0: 110
	Versions   registration.Versions
	Labels     map[string]string

	// Guard says how the node is kept from running out of memory, disk and process ids; nil: it is not.
	Guard *Guard

	// PullProgress is told how far a pull got; nil: not wanted. It must not block.
	PullProgress func(image string, p engine.Progress)
}

// Agent runs the Pods of one node.
type Agent struct {
	cfg     Config
	log     *slog.Logger
	machine registration.Machine
	bootID  string
	volumes *volume.Volumes
	refs    *reference.Objects
	logs    *logs.Reader

	services *reference.Services
	silence  silence         // of the engine; of the registration only
	guard    *pressure.Guard // nil: none
	short    atomic.Bool     // the disk is
	pressed  chan struct{}   // what the node is short of changed
	listing  sync.Mutex      // held while the engine is listed, so that an older list never replaces a newer one

	mu         sync.Mutex
	workers    map[types.UID]*worker
	containers map[types.UID][]engine.Status
	running    sync.WaitGroup
	podsKnown  bool
	ctx        context.Context // of Run, for workers
}

// New returns an Agent that has not begun to work.
func New(cfg Config) (*Agent, error) {
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	if cfg.Events == nil {
		cfg.Events = event.Discard
	}
	if cfg.LogDir == "" {
		cfg.LogDir = "/var/log/pods"
	}
	if cfg.Cgroup == "" {
		cfg.Cgroup = "/slipway"
	}
	if cfg.ResolvConf == "" {
		cfg.ResolvConf = "/etc/resolv.conf"
	}
	if cfg.MaxPods == 0 {
		cfg.MaxPods = 110
	}
	pods := filepath.Join(cfg.DataDir, "pods")
	if err := errors.Join(os.MkdirAll(pods, 0o755), os.MkdirAll(cfg.LogDir, 0o755)); err != nil {
		return nil, fmt.Errorf("prepare the node agent's folders: %w", err)
	}
	machine, err := registration.Local(cfg.NodeName, cfg.DataDir, cfg.Versions, cfg.MaxPods)
	if err != nil {
		return nil, err
	}
	machine.IPs, machine.Labels = cfg.NodeIPs, cfg.Labels
	a := &Agent{
		cfg: cfg, log: cfg.Log, machine: machine, bootID: machine.Info.BootID,
		workers: map[types.UID]*worker{}, containers: map[types.UID][]engine.Status{},
		services: reference.NewServices(), pressed: make(chan struct{}, 1),
	}
	a.refs = reference.New(cfg.Client, cfg.Log, a.referenceChanged)
	a.volumes = volume.New(pods, source{a})
	a.logs = logs.New(cfg.LogDir, a.writes)
	return a, nil
}

// Logs returns a container's log, as package logs says.
func (a *Agent) Logs(ctx context.Context, pod *corev1.Pod, opts *corev1.PodLogOptions) (io.ReadCloser, error) {
	return a.logs.Logs(ctx, pod, opts)
}

// Run registers the node and runs its Pods until ctx ends. Containers go on.
func (a *Agent) Run(ctx context.Context) error {
	a.ctx = ctx
	changes := a.cfg.Engine.Watch(ctx) // before the first list, so that nothing is missed between
	// A Pod whose containers are not known would get them a second time.
	for err := a.refresh(ctx); err != nil; err = a.refresh(ctx) {
		a.log.Warn("list containers, trying again", "err", err)
		rest(ctx, engineRetry)
		if ctx.Err() != nil {
			return ctx.Err()
		}
	}
	a.guard = a.newGuard(ctx) // before any Pod is looked at
	var parts sync.WaitGroup
	parts.Go(func() { a.followEngine(ctx, changes) })
	parts.Go(func() { a.services.Follow(ctx, a.cfg.Client, a.log) })
	parts.Go(func() { a.followPods(ctx) })
	parts.Go(func() { a.collectOrphans(ctx) })
	parts.Go(func() { followClock(ctx, time.Now, a.clockSet) })
	parts.Go(func() { _ = registration.Run(ctx, a.registration()) })
	parts.Go(func() { a.runGuard(ctx) })
	parts.Wait()
	a.running.Wait()
	return ctx.Err()
}

func (a *Agent) registration() registration.Config {
	return registration.Config{
		Client: a.cfg.Client, Machine: a.machine, PodCIDR: a.cfg.PodCIDR, Log: a.log,
		Healthy: a.healthy,
		Images:  a.nodeImages, Pressure: a.pressure, Changed: a.pressed,
	}
}

// maxNodeImages bounds the list in a Node's status, as the kubelet.
const maxNodeImages = 50

func (a *Agent) nodeImages(ctx context.Context) []corev1.ContainerImage {
	images, err := a.cfg.Engine.ListImages(ctx)
	if err != nil {
		return nil
	}
	slices.SortStableFunc(images, func(x, y engine.Image) int { return int(min(max(y.Bytes-x.Bytes, -1), 1)) })
	var out []corev1.ContainerImage
	for _, img := range images[:min(len(images), maxNodeImages)] {
		out = append(out, corev1.ContainerImage{Names: []string{img.Ref}, SizeBytes: img.Bytes})
	}
	return out
}

// followPods gives every Pod of this node its worker.
func (a *Agent) followPods(ctx context.Context) {
	opts := store.WatchOptions{Fields: fields.OneTermEqualSelector("spec.nodeName", a.cfg.NodeName)}
	feed.Follow(ctx, a.cfg.Client, api.Pods, opts, a.log, func(c feed.Change) {
		switch {
		case c.Synced:
			a.mu.Lock()
			if !a.podsKnown {
				a.log.Info("the node's pods are known", "pods", len(a.workers))
			}
			a.podsKnown = true
			a.mu.Unlock()
			a.adoptOrphans(ctx)
		case c.Err != nil:
			a.log.Warn("watch Pods, trying again", "err", c.Err)
		default:
			a.podChanged(c.Object.(*corev1.Pod), c.Deleted)
		}
	})
}

func (a *Agent) podChanged(pod *corev1.Pod, deleted bool) {
	a.mu.Lock()
	defer a.mu.Unlock()
	w := a.workers[pod.UID]
	if w == nil {
		if deleted {
			return
		}
		w = a.startWorker(pod)
	}
	w.tell(pod, deleted)
}

// startWorker begins to work on a Pod. The caller holds a.mu.
func (a *Agent) startWorker(pod *corev1.Pod) *worker {
	w := newWorker(a, pod)
	w.taken = pod.Status.StartTime != nil // by an earlier run of the agent
	a.workers[pod.UID] = w
	a.running.Go(func() { w.run(a.ctx) })
	return w
}

// finished ends the work on a Pod of which nothing is left.
func (a *Agent) finished(uid types.UID) {
	a.mu.Lock()
	delete(a.workers, uid)
	a.mu.Unlock()
	a.refs.Forget(uid)
}

// admission decides whether the node takes a worker's Pod. One that was taken before stays, whatever it asks for.
func (a *Agent) admission(w *worker) *lifecycle.Refusal {
	if w.o.Gone || w.pod.Status.StartTime != nil || len(w.o.Containers) > 0 || w.pod.DeletionTimestamp != nil {
		return nil
	}
	if refusal := admission.Pressed(w.pod, a.pressure()); refusal != nil {
		return refusal
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	var others []*corev1.Pod
	for uid, other := range a.workers {
		if uid == w.uid || !other.taken {
			continue
		}
		if pod := other.lastPod(); pod.Status.Phase != corev1.PodSucceeded && pod.Status.Phase != corev1.PodFailed {
			others = append(others, pod)
		}
	}
	refusal := admission.Decide(w.pod, others, a.machine.Allocatable())
	w.taken = refusal == nil
	return refusal
}

// referenceChanged passes on that a ConfigMap or Secret of a Pod changed.
func (a *Agent) referenceChanged(uid types.UID) {
	a.mu.Lock()
	w := a.workers[uid]
	a.mu.Unlock()
	if w != nil {
		w.referenceChanged()
	}
}
