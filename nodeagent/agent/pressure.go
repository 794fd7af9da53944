package agent

import (
	"context"
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/slipway-dev/slipway/apiserver/api"
	"github.com/slipway-dev/slipway/apiserver/store"
	"github.com/slipway-dev/slipway/nodeagent/agent/recipe"
	"github.com/slipway-dev/slipway/nodeagent/agent/registration"
	"github.com/slipway-dev/slipway/nodeagent/cgroup"
	"github.com/slipway-dev/slipway/nodeagent/lifecycle"
	"github.com/slipway-dev/slipway/nodeagent/logs"
	"github.com/slipway-dev/slipway/nodeagent/pressure"
	"github.com/slipway-dev/slipway/nodeagent/stats"
)

// Guard says what of the machine is guarded, and how.
type Guard struct {
	ImagesDir string // on the file system of images and containers' layers
	// Collect removes images that nobody needs, until enough says so or none is left.
	Collect func(ctx context.Context, enough func() (bool, error)) error
	// Layer returns what a container wrote into its own layer.
	Layer func(ctx context.Context, id string) (bytes, inodes int64, err error)
	// Tell is told in a line for people what the node is short of, and when that is over; nil: nobody is.
	Tell func(line string, over bool)

	Thresholds   []pressure.Threshold
	Period, Hold time.Duration // 0: the usual
}

// Bounds of waiting for what a guard had done.
const (
	evictLimit   = 30 * time.Second
	reclaimLimit = 10 * time.Second
	tellLimit    = 2 * time.Second
)

// newGuard returns the guard, nil when there is none. Conditions the Node has from before go on being held.
func (a *Agent) newGuard(ctx context.Context) *pressure.Guard {
	if a.cfg.Guard == nil {
		return nil
	}
	before := pressure.Conditions{}
	if node, err := store.Get[*corev1.Node](ctx, a.cfg.Client, "", a.cfg.NodeName); err == nil {
		for _, c := range node.Status.Conditions {
			if c.Status == corev1.ConditionTrue && c.Type != corev1.NodeReady {
				_, before[c.Type], _ = strings.Cut(c.Message, ": ")
			}
		}
	}
	_, disk := before[corev1.NodeDiskPressure]
	a.short.Store(disk)
	g := a.cfg.Guard
	return pressure.New(pressure.Config{Node: guarded{a}, Thresholds: g.Thresholds, Period: g.Period, Hold: g.Hold, Before: before,
		Changed: func(c pressure.Conditions) { a.pressureChanged(ctx, c) }, Event: a.NodeEvent, Log: a.log})
}

func (a *Agent) runGuard(ctx context.Context) {
	if a.guard != nil {
		_ = a.guard.Run(ctx)
	}
}

// pressure returns what the node is short of, and why.
func (a *Agent) pressure() registration.Pressure {
	if a.guard == nil {
		return nil
	}
	return registration.Pressure(a.guard.Conditions())
}

// pressureChanged makes the node's conditions known. It waits until the Node has them, so that no Pod is sent here in
// place of one that is ended next.
func (a *Agent) pressureChanged(ctx context.Context, conditions pressure.Conditions) {
	a.tellPressure(conditions)
	_, disk := conditions[corev1.NodeDiskPressure]
	a.short.Store(disk)
	a.mu.Lock()
	for _, w := range a.workers {
		w.wake()
	}
	a.mu.Unlock()
	select {
	case a.pressed <- struct{}{}:
	default:
	}
	ctx, cancel := context.WithTimeout(ctx, tellLimit)
	defer cancel()
	until(ctx, func() bool {
		node, err := store.Get[*corev1.Node](ctx, a.cfg.Client, "", a.cfg.NodeName)
		if err != nil {
			return false
		}
		return !slices.ContainsFunc(node.Status.Conditions, func(c corev1.NodeCondition) bool {
			_, want := conditions[c.Type]
			return c.Type != corev1.NodeReady && want != (c.Status == corev1.ConditionTrue)
		})
	})
}

func (a *Agent) tellPressure(conditions pressure.Conditions) {
	if a.cfg.Guard.Tell == nil {
		return
	}
	if len(conditions) == 0 {
		a.cfg.Guard.Tell("the node has enough memory, disk and process ids again", true)
		return
	}
	for _, c := range []corev1.NodeConditionType{corev1.NodeMemoryPressure, corev1.NodeDiskPressure, corev1.NodePIDPressure} {
		if why, has := conditions[c]; has {
			a.cfg.Guard.Tell(fmt.Sprintf("%s: %s; what is not needed is removed, then Pods are ended", c, why), false)
		}
	}
}

// until looks every few milliseconds until is says so or ctx ends.
func until(ctx context.Context, is func() bool) {
	ticker := time.NewTicker(20 * time.Millisecond)
	defer ticker.Stop()
	for !is() {
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
		}
	}
}

// guarded is the agent as a guard sees it.
type guarded struct{ a *Agent }

// Levels reads the machine.
func (g guarded) Levels() (pressure.Levels, error) {
	machine := stats.Machine{Proc: "/proc"}
	levels := pressure.Levels{Of: map[pressure.Signal]stats.Level{}}
	memory, err := machine.Memory()
	if err != nil {
		return levels, err
	}
	room, limited, err := stats.Groups{Mount: cgroup.Mount}.MemoryRoom(g.a.cfg.Cgroup)
	if err != nil {
		return levels, err
	}
	if limited && room.Available < memory.Available {
		memory = room
	}
	node, err := stats.ReadFileSystem(g.a.cfg.DataDir)
	if err != nil {
		return levels, err
	}
	images, err := stats.ReadFileSystem(g.a.cfg.Guard.ImagesDir)
	if err != nil {
		return levels, err
	}
	pids, err := machine.PIDs()
	levels.Shared = node.Device == images.Device
	levels.Of = map[pressure.Signal]stats.Level{
		pressure.Memory: memory, pressure.NodeDisk: node.Bytes, pressure.NodeInodes: node.Inodes,
		pressure.ImageDisk: images.Bytes, pressure.ImageInodes: images.Inodes, pressure.PIDs: pids,
	}
	return levels, err
}

// Reclaim frees the disk of ended containers, then of images.
func (g guarded) Reclaim(ctx context.Context, enough func() (bool, error)) error {
	waiting, cancel := context.WithTimeout(ctx, reclaimLimit)
	defer cancel()
	until(waiting, func() bool { return g.a.ended() == 0 })
	return g.a.cfg.Guard.Collect(ctx, enough)
}

// ended counts the containers that are not kept while the disk is short.
func (a *Agent) ended() int {
	a.mu.Lock()
	defer a.mu.Unlock()
	count := 0
	for uid, list := range a.containers {
		w := a.workers[uid]
		if w == nil || over(w.lastPod()) {
			count += len(list)
			continue
		}
		names := map[string]bool{}
		for _, c := range list {
			names[c.Labels[lifecycle.LabelContainer]] = true
		}
		count += len(list) - len(names)
	}
	return count
}

func over(pod *corev1.Pod) bool {
	return pod.Status.Phase == corev1.PodSucceeded || pod.Status.Phase == corev1.PodFailed
}

// Pods returns the Pods of this node that are not over.
func (g guarded) Pods() []*corev1.Pod {
	g.a.mu.Lock()
	defer g.a.mu.Unlock()
	var pods []*corev1.Pod
	for _, w := range g.a.workers {
		if pod := w.lastPod(); pod.Name != "" && w.taken && !over(pod) {
			pods = append(pods, pod)
		}
	}
	return pods
}

// Usage measures a Pod.
func (g guarded) Usage(ctx context.Context, pod *corev1.Pod, s pressure.Signal) (pressure.Usage, error) {
	group := filepath.Join(g.a.cfg.Cgroup, recipe.CgroupOf(pod))
	groups := stats.Groups{Mount: cgroup.Mount}
	usage := pressure.Usage{Containers: map[string]pressure.Part{}, Volumes: map[string]int64{}}
	var err error
	switch s {
	case pressure.PIDs:
		usage.Whole, err = groups.PIDs(group)
		return usage, err
	case pressure.Memory:
		for _, c := range g.a.containersOf(pod.UID) {
			used, err := groups.Memory(filepath.Join(group, c.ID))
			if err != nil {
				return usage, err
			}
			part := usage.Containers[c.Labels[lifecycle.LabelContainer]]
			part.Own += used
			usage.Containers[c.Labels[lifecycle.LabelContainer]] = part
		}
		usage.Whole, err = groups.Memory(group)
		return usage, err
	}
	return usage, g.diskUsage(ctx, pod, s == pressure.NodeInodes || s == pressure.ImageInodes, &usage)
}

// diskUsage measures layers, logs and emptyDirs of a Pod, in bytes or in inodes.
func (g guarded) diskUsage(ctx context.Context, pod *corev1.Pod, inodes bool, usage *pressure.Usage) error {
	count := func(s stats.Size) int64 {
		if inodes {
			return s.Inodes
		}
		return s.Bytes
	}
	for _, c := range g.a.containersOf(pod.UID) {
		name := c.Labels[lifecycle.LabelContainer]
		bytes, files, err := g.a.cfg.Guard.Layer(ctx, c.ID)
		if err != nil {
			return err
		}
		part := usage.Containers[name]
		part.Own += count(stats.Size{Bytes: bytes, Inodes: files})
		usage.Containers[name] = part
	}
	beside, err := g.logsBeside()
	if err != nil {
		return err
	}
	for _, c := range slices.Concat(pod.Spec.InitContainers, pod.Spec.Containers) {
		if !beside {
			break
		}
		size, err := stats.FolderSize(ctx, filepath.Join(g.a.cfg.LogDir, logs.PodDir(pod), c.Name))
		if err != nil {
			return err
		}
		part := usage.Containers[c.Name]
		part.Log = count(size)
		usage.Containers[c.Name] = part
	}
	for _, v := range pod.Spec.Volumes {
		if v.EmptyDir == nil || v.EmptyDir.Medium == corev1.StorageMediumMemory {
			continue
		}
		path, err := g.a.volumes.Path(pod, v.Name)
		if err != nil {
			return err
		}
		size, err := stats.FolderSize(ctx, path)
		if err != nil {
			return err
		}
		usage.Volumes[v.Name] = count(size)
	}
	return nil
}

// logsBeside reports whether logs are on the file system of the Pods' files: elsewhere they do not make it short.
func (g guarded) logsBeside() (bool, error) {
	logs, err := stats.ReadFileSystem(g.a.cfg.LogDir)
	if err != nil {
		return false, err
	}
	files, err := stats.ReadFileSystem(g.a.cfg.DataDir)
	return logs.Device == files.Device, err
}

// Evict ends a Pod and waits until it is off the node, for a bounded time.
func (g guarded) Evict(ctx context.Context, uid types.UID, message string) error {
	g.a.mu.Lock()
	w := g.a.workers[uid]
	g.a.mu.Unlock()
	if w == nil {
		return nil
	}
	w.evict(message)
	select {
	case <-w.evicted:
	case <-ctx.Done():
	case <-time.After(evictLimit):
		pod := w.lastPod()
		return fmt.Errorf("end Pod %s/%s: it is still there after %s", pod.Namespace, pod.Name, evictLimit)
	}
	return nil
}

// evict makes the worker end its Pod, once.
func (w *worker) evict(message string) {
	w.mu.Lock()
	first := w.eviction == nil
	if first {
		w.eviction = &lifecycle.Eviction{Message: message, Grace: time.Second}
	}
	w.mu.Unlock()
	if first {
		w.event("", corev1.EventTypeWarning, lifecycle.ReasonEvicted, message)
		w.wake()
	}
}

// ImagesInUse returns the names and ids of images that containers were made of or Pods name that are not over. It is
// known once the Pods of this node are.
func (a *Agent) ImagesInUse() (names []string, known bool) {
	a.mu.Lock()
	defer a.mu.Unlock()
	for _, list := range a.containers {
		for _, c := range list {
			names = append(names, c.Image, c.ImageID)
		}
	}
	for _, w := range a.workers {
		pod := w.lastPod()
		if over(pod) {
			continue
		}
		for _, c := range slices.Concat(pod.Spec.InitContainers, pod.Spec.Containers) {
			names = append(names, c.Image)
		}
	}
	return names, a.podsKnown
}

// NodeEvent records an Event about this node.
func (a *Agent) NodeEvent(eventType, reason, message string) {
	node, err := store.Get[*corev1.Node](context.Background(), a.cfg.Client, "", a.cfg.NodeName)
	if err != nil {
		node = api.Nodes.New().(*corev1.Node)
		node.Name = a.cfg.NodeName
	}
	a.cfg.Events.Event(node, eventType, reason, message)
}
