// Package gitops makes what runs match a commit: snapshot and live state become a plan, the plan is applied in order
// by server-side apply, what Git made and no longer has is pruned, and the outcome is watched until it settles. It
// owns Source and Rollout objects and the annotations slipway.dev/source and slipway.dev/origin.
//
// It must not create or change anything that is not written in the tree, and never deletes what it did not make.
package gitops

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"path"
	"strings"
	"sync"

	"golang.org/x/sync/errgroup"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/types"

	"github.com/slipway-dev/slipway/apiserver/api"
	slipwayv1 "github.com/slipway-dev/slipway/apiserver/api/v1alpha1"
	"github.com/slipway-dev/slipway/apiserver/event"
	"github.com/slipway-dev/slipway/apiserver/store"
	"github.com/slipway-dev/slipway/gitsource"
	"github.com/slipway-dev/slipway/gitsource/manifest"
	"github.com/slipway-dev/slipway/reconciler/gitops/plan"
	"github.com/slipway-dev/slipway/reconciler/loop"
)

// AnnotationConfirm on a Source holds the revision whose deletions a person has confirmed.
const AnnotationConfirm = "slipway.dev/confirm"

// DefaultSource is the name of the Source that `slipway up` makes.
const DefaultSource = "default"

// ErrDifferentSource says that the store already follows another source. The error that wraps it names both.
var ErrDifferentSource = errors.New("this data directory follows a different source")

// Config says what an Engine follows.
type Config struct {
	Name          string               // of the Source object; empty: DefaultSource
	Spec          slipwayv1.SourceSpec // where snapshots come from
	ReplaceSource bool                 // take a store over that remembers a different source
	Observe       func(Progress)       // nil: nobody watches; called by one goroutine at a time, must not block long
}

// Engine makes the store match the newest snapshot of one source.
type Engine struct {
	client  store.Client
	events  event.Recorder
	log     *slog.Logger
	config  Config
	changes *changes
	memory  recall
	reader  *manifest.Reader

	telling sync.Mutex

	sourceMu sync.Mutex
	source   *slipwayv1.Source // as last stored
}

// New returns an engine that reads and writes with client.
func New(client store.Client, events event.Recorder, log *slog.Logger, config Config) *Engine {
	if config.Name == "" {
		config.Name = DefaultSource
	}
	return &Engine{client: client, events: events, log: log.With("source", config.Name), config: config,
		changes: newChanges(), reader: manifest.NewReader(), memory: recall{of: map[plan.Ref]applied{}}}
}

// Run follows updates until ctx ends, then returns nil. It returns an error that wraps ErrDifferentSource before
// anything is changed when the store follows another source.
func (e *Engine) Run(ctx context.Context, updates <-chan gitsource.Update) error {
	if err := e.claim(ctx); err != nil {
		return fmt.Errorf("claim source %s: %w", e.config.Name, err)
	}
	group, ctx := errgroup.WithContext(ctx)
	group.Go(func() error { return loop.Run(ctx, e.client, e.log, e.changes.watcher()) })
	group.Go(func() error {
		e.follow(ctx, updates)
		return nil
	})
	return group.Wait()
}

var (
	errSuperseded = errors.New("a newer commit came first")
	errStopped    = errors.New("the engine stops")
)

// follow hands each snapshot to a holder of its own and ends the one before it first: the newest commit wins.
func (e *Engine) follow(ctx context.Context, updates <-chan gitsource.Update) {
	stop := func(error) {}
	defer func() { stop(errStopped) }()
	last := ""
	for {
		select {
		case <-ctx.Done():
			return
		case u, ok := <-updates:
			if !ok {
				<-ctx.Done()
				return
			}
			u = newest(u, updates)
			t := e.receive(ctx, u, last)
			if u.Snapshot != nil {
				last = u.Snapshot.Revision.ID
			}
			if t != nil {
				stop(errSuperseded)
				stop = e.start(ctx, t)
			}
		}
	}
}

// newest returns the last snapshot that is already there: older ones need not be looked at.
func newest(u gitsource.Update, updates <-chan gitsource.Update) gitsource.Update {
	for {
		select {
		case next, ok := <-updates:
			if !ok {
				return u
			}
			if next.Note == "" {
				next.Note = u.Note
			}
			if next.Snapshot == nil && u.Snapshot != nil {
				next.Snapshot = u.Snapshot
			}
			u = next
		default:
			return u
		}
	}
}

// start runs a holder for t and returns how to end it, which waits until it has ended.
func (e *Engine) start(ctx context.Context, t *plan.Tree) (stop func(error)) {
	ctx, cancel := context.WithCancelCause(ctx)
	done := make(chan struct{})
	go func() {
		defer close(done)
		e.hold(ctx, newCommit(t))
	}()
	return func(cause error) {
		cancel(cause)
		<-done
	}
}

// receive takes an update and returns the tree to apply, or nil when there is none: the source could not be read,
// nothing is new, or the tree has errors. Then what was applied before stays and is still held.
func (e *Engine) receive(ctx context.Context, u gitsource.Update, last string) *plan.Tree {
	if u.Note != "" {
		e.tell(Progress{Step: StepNote, Text: u.Note})
	}
	if u.Err != nil || u.Snapshot != nil {
		e.fetched(ctx, u.Err)
	}
	if u.Snapshot == nil {
		return nil
	}
	if u.Snapshot.Revision.ID == last {
		return nil
	}
	e.tell(Progress{Step: StepReceived, Revision: u.Snapshot.Revision})
	t := plan.Read(e.reader, u.Snapshot, e.config.Spec.Path)
	if len(t.Problems) == 0 && len(t.Wants) == 0 {
		if p, err := e.plan(ctx, t); err == nil && p.Refusal != "" {
			t.Problems = []string{p.Refusal}
		}
	}
	if len(t.Problems) > 0 {
		e.refuse(ctx, t)
		return nil
	}
	return t
}

// Plan says what a snapshot would change, without changing anything. Problems are static errors: with any of them
// nothing would be applied.
func (e *Engine) Plan(ctx context.Context, snap *gitsource.Snapshot) (p plan.Plan, problems []string, err error) {
	t := plan.Read(e.reader, snap, e.config.Spec.Path)
	if len(t.Problems) > 0 {
		return plan.Plan{}, t.Problems, nil
	}
	p, err = e.plan(ctx, t)
	return p, nil, err
}

func (e *Engine) plan(ctx context.Context, t *plan.Tree) (plan.Plan, error) {
	o, err := e.observe(ctx, t, false)
	if err != nil {
		return plan.Plan{}, fmt.Errorf("observe: %w", err)
	}
	return plan.Of(o), nil
}

// Confirm lets the deletions of revision go ahead. Revision may be shortened to 7 characters or more.
func (e *Engine) Confirm(ctx context.Context, revision string) error {
	src, err := store.Get[*slipwayv1.Source](ctx, e.client, "", e.config.Name)
	if err != nil {
		return fmt.Errorf("confirm %s: %w", revision, err)
	}
	switch awaiting := src.Status.Awaiting; {
	case awaiting == "":
		return fmt.Errorf("confirm %s: nothing waits for confirmation", revision)
	case !isNamed(awaiting, revision):
		return fmt.Errorf("confirm %s: it is %s that waits for confirmation", revision, awaiting)
	}
	return e.annotate(ctx, fmt.Sprintf("%q", src.Status.Awaiting))
}

// isNamed says whether text names revision: in full or by a beginning of at least 7 characters.
func isNamed(revision, text string) bool {
	text = strings.TrimPrefix(text, "dir-")
	return len(text) >= 7 && strings.HasPrefix(strings.TrimPrefix(revision, "dir-"), text)
}

// annotate sets the confirm annotation to a JSON value; null removes it.
func (e *Engine) annotate(ctx context.Context, value string) error {
	data := fmt.Sprintf(`{"metadata":{"annotations":{%q:%s}}}`, AnnotationConfirm, value)
	_, err := e.client.Patch(ctx, api.Sources, "", e.config.Name, store.Patch{Type: types.MergePatchType, Data: []byte(data), FieldManager: "slipway"})
	if err != nil {
		return fmt.Errorf("annotate source %s: %w", e.config.Name, err)
	}
	return nil
}

// confirmed says whether a person confirmed the deletions of revision, and how many objects there were when deletions
// began to wait.
func (e *Engine) confirmed(ctx context.Context, revision string) (confirmed bool, asked int, err error) {
	src, err := store.Get[*slipwayv1.Source](ctx, e.client, "", e.config.Name)
	if err != nil {
		return false, 0, fmt.Errorf("get source %s: %w", e.config.Name, err)
	}
	return isNamed(revision, src.Annotations[AnnotationConfirm]), src.Status.AwaitingOf, nil
}

// claim makes the Source object, or checks that the one that is there means the same source.
func (e *Engine) claim(ctx context.Context) error {
	e.sourceMu.Lock()
	defer e.sourceMu.Unlock()
	src, err := store.Get[*slipwayv1.Source](ctx, e.client, "", e.config.Name)
	if apierrors.IsNotFound(err) {
		fresh := &slipwayv1.Source{Spec: e.config.Spec}
		fresh.Name = e.config.Name
		obj, err := e.client.Create(ctx, withKind(fresh), store.CreateOptions{FieldManager: "slipway"})
		return e.keep(obj, err)
	}
	if err != nil {
		return err
	}
	e.source = src
	if src.Spec == e.config.Spec {
		return nil
	}
	if !same(src.Spec, e.config.Spec) && !e.config.ReplaceSource {
		return fmt.Errorf("%w: it follows %s, and was asked to follow %s: use another data directory, or take this one over with --replace-source",
			ErrDifferentSource, describe(src.Spec), describe(e.config.Spec))
	}
	next := src.DeepCopy()
	next.Spec = e.config.Spec
	obj, err := e.client.Update(ctx, next, store.UpdateOptions{FieldManager: "slipway"})
	return e.keep(obj, err)
}

// keep remembers the stored Source. The caller holds sourceMu.
func (e *Engine) keep(obj api.Object, err error) error {
	if err != nil {
		return err
	}
	src, ok := obj.(*slipwayv1.Source)
	if !ok {
		return fmt.Errorf("store returned %T, want a Source", obj)
	}
	e.source = src
	return nil
}

func withKind[T api.Object](obj T) T {
	obj.GetObjectKind().SetGroupVersionKind(api.KindFor[T]().GroupVersionKind)
	return obj
}

// same says whether two specs mean the same source. A branch that was left to the remote may be named later.
func same(a, b slipwayv1.SourceSpec) bool {
	if a.Branch == "" || b.Branch == "" {
		a.Branch, b.Branch = "", ""
	}
	a.Path, b.Path = path.Clean(a.Path), path.Clean(b.Path)
	return a == b
}

func describe(s slipwayv1.SourceSpec) string {
	text := s.URL
	if s.Dir != "" {
		text = s.Dir
	}
	if text == "" {
		text = "nothing"
	}
	if s.Branch != "" {
		text += " branch " + s.Branch
	}
	if s.Path != "" {
		text += " folder " + s.Path
	}
	return text
}

// warn records an event about the Source.
func (e *Engine) warn(reason, message string) {
	e.sourceMu.Lock()
	src := e.source
	e.sourceMu.Unlock()
	if src != nil {
		e.events.Event(src, corev1.EventTypeWarning, reason, message)
	}
}
