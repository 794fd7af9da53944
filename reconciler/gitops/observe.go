package gitops

import (
	"context"
	"fmt"
	"strconv"
	"sync"

	"golang.org/x/sync/errgroup"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/types"

	corev1 "k8s.io/api/core/v1"

	"github.com/slipway-dev/slipway/apiserver/api"
	"github.com/slipway-dev/slipway/apiserver/store"
	"github.com/slipway-dev/slipway/reconciler/gitops/plan"
)

// inFlight bounds writes and tried writes at one time.
const inFlight = 64

// applied remembers what an apply left behind, so that an object that was not touched since costs nothing.
type applied struct {
	hash       string // of what was written
	uid        types.UID
	generation int64
	revision   uint64
	meta       string
}

func appliedAs(w *plan.Want, obj api.Object) applied {
	return applied{hash: w.Hash, uid: obj.GetUID(), generation: obj.GetGeneration(), revision: revisionOf(obj), meta: w.LiveMeta(obj)}
}

// holds says that live still is what the apply left: the same state, or for kinds that count the generations of
// their spec, the same spec and the same labels and annotations of ours.
func (a applied) holds(w *plan.Want, live api.Object) bool {
	if a.hash != w.Hash || a.uid != live.GetUID() || live.GetDeletionTimestamp() != nil {
		return false
	}
	if a.revision == revisionOf(live) {
		return true
	}
	return w.Row().Status && a.generation > 0 && a.generation == live.GetGeneration() && a.meta == w.LiveMeta(live)
}

func revisionOf(obj api.Object) uint64 {
	n, err := strconv.ParseUint(obj.GetResourceVersion(), 10, 64)
	if err != nil {
		return 0
	}
	return n
}

// recall is what is known of earlier applies.
type recall struct {
	mu sync.Mutex
	of map[plan.Ref]applied
}

func (m *recall) get(ref plan.Ref) (applied, bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	a, ok := m.of[ref]
	return a, ok
}

func (m *recall) set(w *plan.Want, obj api.Object) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.of[w.Ref] = appliedAs(w, obj)
}

func (m *recall) forget(ref plan.Ref) {
	m.mu.Lock()
	defer m.mu.Unlock()
	delete(m.of, ref)
}

// observe gathers what a plan for the whole tree depends on.
func (e *Engine) observe(ctx context.Context, t *plan.Tree, confirmed bool) (plan.Observed, error) {
	o := plan.Observed{Source: e.config.Name, Wants: t.Wants, Tree: t.Refs, NotActedOn: t.Notes, Prune: true, Confirmed: confirmed, Live: map[plan.Ref]api.Object{}}
	leaving, err := e.namespaces(ctx, &o)
	if err != nil {
		return o, err
	}
	for _, kind := range managedKinds() {
		list, err := e.client.List(ctx, kind, store.ListOptions{})
		if err != nil {
			return o, fmt.Errorf("list %s: %w", kind, err)
		}
		for _, obj := range list.Items {
			ref := plan.RefOf(kind, obj)
			mine := plan.MadeFrom(obj, o.Source)
			if mine || o.Tree[ref] {
				o.Live[ref] = obj
			}
			if !mine && leaving[ref.Namespace] && !plan.Derived(obj) {
				ns := o.Namespaces[ref.Namespace]
				ns.Others = append(ns.Others, ref)
				o.Namespaces[ref.Namespace] = ns
			}
		}
	}
	return o, e.tryAll(ctx, t, &o)
}

// observeSome gathers what a plan for a part of the tree depends on.
func (e *Engine) observeSome(ctx context.Context, t *plan.Tree, scope map[plan.Ref]bool) (plan.Observed, error) {
	o := plan.Observed{Source: e.config.Name, Tree: t.Refs, Live: map[plan.Ref]api.Object{}}
	if _, err := e.namespaces(ctx, &o); err != nil {
		return o, err
	}
	for i := range t.Wants {
		w := &t.Wants[i]
		if !scope[w.Ref] {
			continue
		}
		o.Wants = append(o.Wants, *w)
		obj, err := e.client.Get(ctx, w.Row(), w.Namespace, w.Name)
		switch {
		case apierrors.IsNotFound(err):
		case err != nil:
			return o, fmt.Errorf("get %s: %w", w.Ref, err)
		default:
			o.Live[w.Ref] = obj
		}
	}
	return o, e.tryAll(ctx, t, &o)
}

// namespaces lists the namespaces and returns those that were made from the source and have left the tree.
func (e *Engine) namespaces(ctx context.Context, o *plan.Observed) (leaving map[string]bool, err error) {
	list, err := store.All[*corev1.Namespace](ctx, e.client, store.ListOptions{})
	if err != nil {
		return nil, fmt.Errorf("list namespaces: %w", err)
	}
	o.Namespaces, leaving = map[string]plan.Namespace{}, map[string]bool{}
	for _, ns := range list {
		o.Namespaces[ns.Name] = plan.Namespace{Terminating: ns.DeletionTimestamp != nil || ns.Status.Phase == corev1.NamespaceTerminating}
		if plan.MadeFrom(ns, o.Source) && !o.Tree[plan.RefOf(api.Namespaces, ns)] {
			leaving[ns.Name] = true
		}
	}
	return leaving, nil
}

// tryAll previews the apply of every live object that may have to change.
func (e *Engine) tryAll(ctx context.Context, t *plan.Tree, o *plan.Observed) error {
	o.Previews = map[plan.Ref]plan.Preview{}
	var mu sync.Mutex
	group, ctx := errgroup.WithContext(ctx)
	group.SetLimit(inFlight)
	for i := range o.Wants {
		w := &o.Wants[i]
		live := o.Live[w.Ref]
		if live == nil || w.Refused != "" || live.GetDeletionTimestamp() != nil || o.Namespaces[w.Namespace].Terminating || plan.Claimed(live, o.Source) != "" {
			continue
		}
		if known, ok := e.memory.get(w.Ref); ok && known.holds(w, live) {
			continue
		}
		group.Go(func() error {
			preview, err := e.try(ctx, t, w)
			if err != nil {
				return err
			}
			mu.Lock()
			defer mu.Unlock()
			o.Previews[w.Ref] = preview
			return nil
		})
	}
	return group.Wait()
}

// try asks what an apply of w would do. An error means that the question got no answer.
func (e *Engine) try(ctx context.Context, t *plan.Tree, w *plan.Want) (plan.Preview, error) {
	obj, err := e.patch(ctx, t, w, store.Patch{DryRun: true})
	switch {
	case err == nil:
		return plan.Preview{Object: obj}, nil
	case isFinal(err):
		return plan.Preview{Refused: w.Explain(err), Valid: apierrors.IsInvalid(err) && e.couldBeMade(ctx, w)}, nil
	}
	return plan.Preview{}, fmt.Errorf("try %s: %w", w.Ref, err)
}

// couldBeMade says whether w would be taken as a new object, were its name free.
func (e *Engine) couldBeMade(ctx context.Context, w *plan.Want) bool {
	_, err := e.client.Create(ctx, w.Object, store.CreateOptions{FieldManager: api.ManagerGit, DryRun: true})
	return apierrors.IsAlreadyExists(err)
}

// isFinal says that a write was refused for what it is: trying again does not mend it.
func isFinal(err error) bool {
	return apierrors.IsInvalid(err) || apierrors.IsBadRequest(err) || apierrors.IsForbidden(err) && !apierrors.HasStatusCause(err, corev1.NamespaceTerminatingCause) ||
		apierrors.IsRequestEntityTooLargeError(err) || apierrors.IsMethodNotSupported(err)
}

// patch applies w by server-side apply. Git wins over whoever else set a field that is in the tree.
func (e *Engine) patch(ctx context.Context, t *plan.Tree, w *plan.Want, p store.Patch) (api.Object, error) {
	text, err := w.Text(e.config.Name, t.Revision.Short())
	if err != nil {
		return nil, err
	}
	p.Type, p.Data, p.FieldManager, p.Force = types.ApplyYAMLPatchType, text, api.ManagerGit, true
	return e.client.Patch(ctx, w.Row(), w.Namespace, w.Name, p)
}
