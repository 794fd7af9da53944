// Package probe asks containers how they are: HTTP, TCP, gRPC and exec probes for startup, readiness and liveness,
// with the kubelet's thresholds and periods. Until its first success a readiness or startup probe looks again after
// 20 ms, doubling to its period, so that a container is known to be ready soon after it is.
//
// It must not decide what follows from an answer, nor start or stop containers.
package probe

import (
	"context"
	"fmt"
	"math/rand/v2"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
)

// State is what the probes of one running container say.
type State struct {
	Started bool   // the startup probe succeeded, or there is none
	Ready   bool   // the readiness probe's opinion; true when there is none
	Failed  bool   // startup or liveness gave up
	Message string // Failed: why
	Grace   *int64 // Failed: terminationGracePeriodSeconds of the probe that gave up
}

// Target is one running container.
type Target struct {
	ID        string // container id
	Container corev1.Container
	IP        string // the Pod's address
	StartedAt time.Time
	// Adopted is the state known from before the agent started, nil for a container it started itself.
	Adopted *State
	// Exec runs a command in the container.
	Exec func(ctx context.Context, command []string) (exitCode int, output []byte, err error)
	// Unhealthy is told of every failure that counts, in the kubelet's words.
	Unhealthy func(message string)
}

// Set runs the probes of one Pod's containers. Its methods may be called from one goroutine at a time.
type Set struct {
	changed func()
	mu      sync.Mutex
	running map[string]*runner
	wg      sync.WaitGroup
}

// NewSet returns an empty Set that calls changed, from any goroutine, when a State changed.
func NewSet(changed func()) *Set { return &Set{changed: changed, running: map[string]*runner{}} }

// Sync starts the probes of targets that are new and ends those of containers no longer named.
func (s *Set) Sync(ctx context.Context, targets []Target) {
	named := map[string]bool{}
	for _, t := range targets {
		named[t.ID] = true
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	for id, r := range s.running {
		if !named[id] {
			r.cancel()
			delete(s.running, id)
		}
	}
	for _, t := range targets {
		if s.running[t.ID] == nil {
			s.running[t.ID] = s.start(ctx, t)
		}
	}
}

// States returns the present state by container id.
func (s *Set) States() map[string]State {
	s.mu.Lock()
	defer s.mu.Unlock()
	out := make(map[string]State, len(s.running))
	for id, r := range s.running {
		out[id] = r.state
	}
	return out
}

// Close ends all probes and waits for them.
func (s *Set) Close() {
	s.Sync(context.Background(), nil)
	s.wg.Wait()
}

// runner runs the probes of one container.
type runner struct {
	Target
	set    *Set
	state  State
	cancel context.CancelFunc
}

func (s *Set) start(ctx context.Context, t Target) *runner {
	ctx, cancel := context.WithCancel(ctx)
	c := t.Container
	r := &runner{Target: t, set: s, cancel: cancel, state: State{Started: c.StartupProbe == nil, Ready: c.ReadinessProbe == nil}}
	if a := t.Adopted; a != nil {
		r.state.Started = r.state.Started || a.Started
		r.state.Ready = r.state.Ready || a.Ready
	}
	if c.StartupProbe != nil || c.ReadinessProbe != nil || c.LivenessProbe != nil {
		started := r.state.Started
		s.wg.Go(func() { r.run(ctx, started) })
	}
	return r
}

// run waits for the startup probe, then runs the other two beside each other.
func (r *runner) run(ctx context.Context, started bool) {
	if !started && !r.loop(ctx, startup) {
		return
	}
	var wg sync.WaitGroup
	defer wg.Wait()
	if r.Container.ReadinessProbe != nil {
		wg.Go(func() { r.loop(ctx, readiness) })
	}
	if r.Container.LivenessProbe != nil {
		wg.Go(func() { r.loop(ctx, liveness) })
	}
}

// kind is which probe of a container.
type kind string

const (
	startup   kind = "Startup"
	readiness kind = "Readiness"
	liveness  kind = "Liveness"
)

func (r *runner) probe(k kind) *corev1.Probe {
	switch k {
	case startup:
		return r.Container.StartupProbe
	case readiness:
		return r.Container.ReadinessProbe
	}
	return r.Container.LivenessProbe
}

// firstLook is how soon a probe that never succeeded looks again.
const firstLook = 20 * time.Millisecond

// adoptedJitter bounds how long after the agent's restart the first probe runs.
const adoptedJitter = 2 * time.Second

// loop runs one probe until ctx ends. For startup it ends with the first verdict, true for started.
func (r *runner) loop(ctx context.Context, k kind) bool {
	p := r.probe(k)
	l := newTally(p, k)
	if !sleep(ctx, r.firstDelay(p, l.period)) {
		return false
	}
	l.counted = time.Now().Add(-l.period)
	if r.Adopted != nil && k == readiness {
		l.succeeded = r.Adopted.Ready
	}
	for {
		answer := r.check(ctx, p)
		if ctx.Err() != nil {
			return false
		}
		verdict := l.add(answer, time.Now())
		if verdict.tell && r.Unhealthy != nil {
			r.Unhealthy(fmt.Sprintf("%s probe %s: %s", k, answer.verb(), answer.output))
		}
		if r.conclude(k, p, verdict) {
			return verdict.good
		}
		if !sleep(ctx, l.next()) {
			return false
		}
	}
}

// firstDelay is how long to wait before the first look.
func (r *runner) firstDelay(p *corev1.Probe, period time.Duration) time.Duration {
	initial := time.Duration(p.InitialDelaySeconds) * time.Second
	delay := min(max(time.Until(r.StartedAt.Add(initial)), 0), initial) // the clock may have been set back since
	if r.Adopted != nil {
		delay += rand.N(min(period, adoptedJitter))
	}
	return delay
}

// conclude puts a verdict into the container's state; true when the probe has nothing more to find out.
func (r *runner) conclude(k kind, p *corev1.Probe, v verdict) bool {
	switch {
	case v.good && k == startup:
		r.set.update(r, func(s *State) { s.Started = true })
		return true
	case k == readiness && (v.good || v.bad):
		r.set.update(r, func(s *State) { s.Ready = v.good })
	case v.bad && k != readiness:
		r.set.update(r, func(s *State) {
			s.Failed, s.Grace = true, p.TerminationGracePeriodSeconds
			s.Message = fmt.Sprintf("Container %s failed %s probe, will be restarted", r.Container.Name, lower(k))
		})
		return true
	}
	return false
}

func lower(k kind) string {
	if k == startup {
		return "startup"
	}
	return "liveness"
}

// update changes a runner's state and tells when that made a difference.
func (s *Set) update(r *runner, change func(*State)) {
	s.mu.Lock()
	before := r.state
	change(&r.state)
	differs := before != r.state
	s.mu.Unlock()
	if differs {
		s.changed()
	}
}

func sleep(ctx context.Context, d time.Duration) bool {
	if d <= 0 {
		return ctx.Err() == nil
	}
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-ctx.Done():
		return false
	}
}
