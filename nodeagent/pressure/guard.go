package pressure

import (
	"context"
	"fmt"
	"log/slog"
	"maps"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"
)

// Periods.
const (
	defaultPeriod = 10 * time.Second
	defaultHold   = 5 * time.Minute // as the kubelet's transition period
	calmLooks     = 2               // without a Pod ended, a condition ends near its threshold when it was not seen so often
	attention     = 5               // while a condition holds, looks are so much more frequent
	// measuring bounds the share of time that is spent on measuring Pods with limits of their own: one part in so many.
	measuring = 50
)

// Node is what a Guard looks at and acts through.
type Node interface {
	// Levels returns how much is left.
	Levels() (Levels, error)
	// Reclaim frees the disk of what nobody needs, until enough says so or there is nothing more.
	Reclaim(ctx context.Context, enough func() (bool, error)) error
	// Pods returns the Pods that are not over.
	Pods() []*corev1.Pod
	// Usage returns what a Pod uses of a signal's resource.
	Usage(ctx context.Context, pod *corev1.Pod, s Signal) (Usage, error)
	// Evict ends a Pod at once and returns when it is off the node, or has not gone for long.
	Evict(ctx context.Context, pod types.UID, message string) error
}

// Config says what to guard and how.
type Config struct {
	Node       Node
	Thresholds []Threshold
	Period     time.Duration // between looks; 0: 10 s
	Hold       time.Duration // how long a condition stays after it was last seen, once a Pod was ended for it; 0: 5 min
	// Before are conditions the Node had when this began: they are held, too.
	Before Conditions
	// Changed is told when the node's conditions are others; it should make them known before it returns.
	Changed func(Conditions)
	// Event records something about the node.
	Event func(eventType, reason, message string)
	Log   *slog.Logger
}

// Guard watches over one node.
type Guard struct {
	cfg        Config
	marks      map[corev1.NodeConditionType]mark
	limitsDue  time.Time
	helpless   bool // it was told that there is no Pod to end
	mu         sync.Mutex
	conditions Conditions
}

// New returns a Guard that has not begun to work.
func New(cfg Config) *Guard {
	if cfg.Period == 0 {
		cfg.Period = defaultPeriod
	}
	if cfg.Hold == 0 {
		cfg.Hold = defaultHold
	}
	if cfg.Changed == nil {
		cfg.Changed = func(Conditions) {}
	}
	if cfg.Event == nil {
		cfg.Event = func(string, string, string) {}
	}
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	g := &Guard{cfg: cfg, marks: map[corev1.NodeConditionType]mark{}, conditions: maps.Clone(cfg.Before)}
	for c, why := range cfg.Before {
		g.marks[c] = mark{at: time.Now(), why: why, ended: true}
	}
	return g
}

// Conditions returns what the node is short of.
func (g *Guard) Conditions() Conditions {
	g.mu.Lock()
	defer g.mu.Unlock()
	return maps.Clone(g.conditions)
}

// Run guards until ctx ends.
func (g *Guard) Run(ctx context.Context) error {
	ticker := time.NewTicker(g.cfg.Period)
	defer ticker.Stop()
	for {
		again, err := g.turn(ctx)
		if err != nil && ctx.Err() == nil {
			g.cfg.Log.Warn("look after memory, disk and process ids", "err", err)
		}
		if again && err == nil && ctx.Err() == nil {
			continue
		}
		period := g.cfg.Period
		if len(g.marks) > 0 {
			period /= attention
		}
		ticker.Reset(period)
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-ticker.C:
		}
	}
}

// turn looks once and ends at most one Pod. It says whether to look again at once, because one was ended.
func (g *Guard) turn(ctx context.Context) (again bool, err error) {
	if ended, err := g.enforceLimits(ctx); ended || err != nil {
		return ended, err
	}
	levels, err := g.cfg.Node.Levels()
	if err != nil {
		return false, err
	}
	d := g.look(levels)
	if len(d.short) == 0 {
		g.helpless = false
		return false, nil
	}
	worst := d.short[0]
	if worst.Signal.disk() {
		enough := func() (bool, error) {
			levels, err := g.cfg.Node.Levels()
			return err == nil && !worst.short(levels.Of[worst.Signal]), err
		}
		if err := g.cfg.Node.Reclaim(ctx, enough); err != nil {
			return false, fmt.Errorf("free the disk: %w", err)
		}
		if levels, err = g.cfg.Node.Levels(); err != nil {
			return false, err
		}
		if !worst.short(levels.Of[worst.Signal]) {
			return false, nil
		}
	}
	return g.evict(ctx, worst, levels)
}

// look decides, and makes known what changed.
func (g *Guard) look(levels Levels) decision {
	d := decide(observed{now: time.Now(), levels: levels, thresholds: g.cfg.Thresholds, marks: g.marks,
		hold: g.cfg.Hold, calm: min(calmLooks*g.cfg.Period, g.cfg.Hold)})
	g.marks = d.marks
	g.mu.Lock()
	before := g.conditions
	g.conditions = maps.Clone(d.conditions)
	g.mu.Unlock()
	if maps.Equal(before, d.conditions) {
		return d
	}
	g.cfg.Changed(maps.Clone(d.conditions))
	for _, t := range d.short {
		c := t.Signal.condition()
		if _, had := before[c]; !had {
			before = maps.Clone(before)
			if before == nil {
				before = Conditions{}
			}
			before[c] = ""
			level := levels.Of[t.Signal]
			g.cfg.Event(corev1.EventTypeWarning, "EvictionThresholdMet", fmt.Sprintf("%s: %s (%s)", c, t.why(level), t.left(level)))
		}
	}
	for c := range before {
		if _, has := d.conditions[c]; !has {
			g.cfg.Event(corev1.EventTypeNormal, "PressureEnded", fmt.Sprintf("%s is over", c))
		}
	}
	return d
}

// evict ends the Pod whose turn it is.
func (g *Guard) evict(ctx context.Context, t Threshold, levels Levels) (bool, error) {
	var pods []candidate
	for _, pod := range g.cfg.Node.Pods() {
		usage, err := g.cfg.Node.Usage(ctx, pod, t.Signal)
		if err != nil {
			g.cfg.Log.Warn("measure a Pod", "namespace", pod.Namespace, "pod", pod.Name, "err", err)
		}
		pods = append(pods, candidate{pod: pod, usage: usage, used: usage.on(t.Signal, levels.Shared)})
	}
	first := choose(t.Signal, worth(t, levels.Of[t.Signal], pods))
	if first == nil {
		if !g.helpless {
			g.helpless = true
			g.cfg.Log.Warn("the node is short, and there is no Pod whose end would help", "why", t.why(levels.Of[t.Signal]), "left", t.left(levels.Of[t.Signal]))
		}
		return false, nil
	}
	m := g.marks[t.Signal.condition()]
	m.ended = true
	g.marks[t.Signal.condition()] = m
	return true, g.cfg.Node.Evict(ctx, first.pod.UID, first.message(t, levels.Of[t.Signal]))
}

// enforceLimits ends a Pod that is above a limit of its own. Measuring takes a while, so it is not done in every turn.
func (g *Guard) enforceLimits(ctx context.Context) (bool, error) {
	began := time.Now()
	if began.Before(g.limitsDue) {
		return false, nil
	}
	over, message := g.overLimit(ctx)
	g.limitsDue = time.Now().Add(measuring * time.Since(began))
	if over == nil {
		return false, nil
	}
	return true, g.cfg.Node.Evict(ctx, over.UID, message)
}

// overLimit returns the first Pod that is above a limit of its own, and why.
func (g *Guard) overLimit(ctx context.Context) (*corev1.Pod, string) {
	for _, pod := range g.cfg.Node.Pods() {
		if !limited(pod) {
			continue
		}
		usage, err := g.cfg.Node.Usage(ctx, pod, NodeDisk)
		if err != nil {
			g.cfg.Log.Warn("measure a Pod", "namespace", pod.Namespace, "pod", pod.Name, "err", err)
			continue
		}
		if message := overrun(pod, usage); message != "" {
			return pod, message
		}
	}
	return nil, ""
}
