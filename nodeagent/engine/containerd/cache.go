package containerd

import (
	"maps"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/containerd/containerd/v2/core/containers"
	"github.com/opencontainers/runtime-spec/specs-go"

	"github.com/slipway-dev/slipway/nodeagent/engine"
)

// entry is what is known of one container.
type entry struct {
	status     engine.Status
	cgroup     string
	stopSignal string
	startFault string         // why its command cannot be executed; told by Start
	begun      time.Time      // when containerd was asked to start it, whether or not it did
	process    *specs.Process // nil: not read yet
	task       bool           // containerd may still hold its task
	touched    uint64         // when it last changed, in changes of the cache
}

func (e entry) ended() bool { return e.status.State == engine.Exited }

// exit is how a container ended.
type exit struct {
	code int
	at   time.Time
	oom  bool
	lost string // why that is not known
}

// cache holds the entries of all containers.
type cache struct {
	mu      sync.Mutex
	entries map[string]*entry
	busy    map[string]int      // containers being made
	groups  map[string]string   // their groups
	left    map[string]struct{} // those that failed to be made and could not be removed, yet
	changes uint64
}

// entryOf reads what a container's record in containerd says.
func entryOf(c containers.Container) entry {
	labels := maps.Clone(c.Labels)
	maps.DeleteFunc(labels, func(k, _ string) bool { return strings.HasPrefix(k, "io.slipway.engine/") })
	return entry{
		status: engine.Status{
			ID: c.ID, Labels: labels, State: engine.Created, Image: c.Image, ImageID: c.Labels[labelImageID],
			CreatedAt: c.CreatedAt, LogPath: c.Labels[labelLog],
		},
		cgroup:     c.Labels[labelCgroup],
		stopSignal: c.Labels[labelStopSignal],
		task:       true,
	}
}

// begin notes that a container is being made: a look at containerd would see half of it.
func (c *cache) begin(id, group string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.busy == nil {
		c.busy, c.groups = map[string]int{}, map[string]string{}
	}
	c.busy[id]++
	c.groups[id] = group
}

// making returns the groups of the containers that are being made.
func (c *cache) making() []string {
	c.mu.Lock()
	defer c.mu.Unlock()
	return slices.Collect(maps.Values(c.groups))
}

// tasks counts the containers that have a process.
func (c *cache) tasks() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	count := 0
	for _, e := range c.entries {
		if e.status.PID > 0 {
			count++
		}
	}
	return count
}

func (c *cache) end(id string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.busy[id]--; c.busy[id] == 0 {
		delete(c.busy, id)
		delete(c.groups, id)
	}
}

// leave notes a container to be removed later.
func (c *cache) leave(id string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.left == nil {
		c.left = map[string]struct{}{}
	}
	c.left[id] = struct{}{}
}

// leftovers returns the containers to be removed. One that is being made again is not among them: who makes it
// removes it first.
func (c *cache) leftovers() []string {
	c.mu.Lock()
	defer c.mu.Unlock()
	var ids []string
	for id := range c.left {
		if c.busy[id] == 0 {
			ids = append(ids, id)
		}
	}
	slices.Sort(ids)
	return ids
}

// isLeft says whether a container is still to be removed.
func (c *cache) isLeft(id string) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	_, left := c.left[id]
	return left
}

// unknown says that there is no such container, and that none is being made or waits to be removed.
func (c *cache) unknown(id string) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	_, left := c.left[id]
	return c.entries[id] == nil && c.busy[id] == 0 && !left
}

func (c *cache) get(id string) (entry, bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if e := c.entries[id]; e != nil {
		return *e, true
	}
	return entry{}, false
}

func (c *cache) put(e entry) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.touch(&e)
	c.entries[e.status.ID] = &e
	delete(c.left, e.status.ID) // it was made after all
}

func (c *cache) drop(id string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.changes++
	delete(c.entries, id)
	delete(c.left, id)
}

func (c *cache) touch(e *entry) {
	c.changes++
	e.touched = c.changes
}

// list returns the status of every container, sorted by id. The labels are shared: they are never written.
func (c *cache) list() []engine.Status {
	c.mu.Lock()
	defer c.mu.Unlock()
	list := make([]engine.Status, 0, len(c.entries))
	for _, e := range c.entries {
		list = append(list, e.status)
	}
	slices.SortFunc(list, func(a, b engine.Status) int { return strings.Compare(a.ID, b.ID) })
	return list
}

// starting notes that containerd is about to be asked to start a container.
func (c *cache) starting(id string, at time.Time) (entry, bool) {
	return c.change(id, func(e *entry) { e.begun = at })
}

// started notes that a container runs since it was asked to, unless its end was seen already.
func (c *cache) started(id string, pid int) {
	c.change(id, func(e *entry) {
		e.status.StartedAt = e.begun
		if e.status.State == engine.Created {
			e.status.State, e.status.PID = engine.Running, pid
		}
	})
}

// exited notes a container's end. The first news of it counts.
func (c *cache) exited(id string, x exit) (entry, bool) {
	return c.change(id, func(e *entry) {
		if e.ended() {
			return
		}
		e.end(x)
	})
}

// neverStarted notes that a container's command could not be executed.
func (c *cache) neverStarted(id string) (entry, bool) {
	return c.change(id, func(e *entry) {
		if !e.ended() {
			e.begun = time.Time{}
			e.end(exit{code: exitNeverStarted, at: time.Now()})
		}
	})
}

// end makes an entry one of a container that ended.
func (e *entry) end(x exit) {
	e.status.State, e.status.PID = engine.Exited, 0
	if e.status.StartedAt.IsZero() {
		e.status.StartedAt = e.begun
	}
	e.status.ExitCode, e.status.FinishedAt, e.status.OOMKilled, e.status.Lost = x.code, x.at, x.oom, x.lost
}

func (c *cache) change(id string, do func(*entry)) (entry, bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	e := c.entries[id]
	if e == nil {
		return entry{}, false
	}
	do(e)
	c.touch(e)
	return *e, true
}

// picture is the cache before a look at containerd: what the look finds is news only of what was there then.
type picture struct {
	entries map[string]entry
	busy    map[string]bool
}

func (c *cache) picture() picture {
	c.mu.Lock()
	defer c.mu.Unlock()
	p := picture{entries: make(map[string]entry, len(c.entries)), busy: map[string]bool{}}
	for id, e := range c.entries {
		p.entries[id] = *e
	}
	for id := range c.busy {
		p.busy[id] = true
	}
	return p
}

// changed says whether a container was changed, made or removed since the picture. The cache is locked.
func (c *cache) changed(before picture, id string) bool {
	was, had := before.entries[id]
	now := c.entries[id]
	switch {
	case before.busy[id], c.busy[id] > 0:
		return true
	case now == nil:
		return had
	}
	return !had || now.touched != was.touched
}

// meanwhile says whether a container was changed, made or removed since the picture.
func (c *cache) meanwhile(before picture, id string) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.changed(before, id)
}

// replace takes over what a look at containerd found that began with the picture: a container that changed since is
// left as it is. It returns the ids of those that differ from before.
func (c *cache) replace(found map[string]entry, before picture) []string {
	c.mu.Lock()
	defer c.mu.Unlock()
	var changed []string
	for id, e := range found {
		if c.changed(before, id) {
			continue
		}
		old := c.entries[id]
		if old == nil || old.status.State != e.status.State || old.status.PID != e.status.PID {
			changed = append(changed, id)
		}
		c.touch(&e)
		c.entries[id] = &e
	}
	for id := range before.entries {
		if _, ok := found[id]; !ok && !c.changed(before, id) {
			delete(c.entries, id)
			changed = append(changed, id)
		}
	}
	slices.Sort(changed)
	return changed
}

// stale returns ended containers whose tasks containerd still holds, of those that ended before the time given.
func (c *cache) stale(before time.Time) []string {
	c.mu.Lock()
	defer c.mu.Unlock()
	var ids []string
	for id, e := range c.entries {
		if e.task && e.ended() && e.status.FinishedAt.Before(before) && c.busy[id] == 0 {
			ids = append(ids, id)
		}
	}
	slices.Sort(ids)
	return ids
}
