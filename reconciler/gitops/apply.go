package gitops

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"sync"

	"golang.org/x/sync/errgroup"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/types"

	"github.com/slipway-dev/slipway/apiserver/api"
	"github.com/slipway-dev/slipway/apiserver/store"
	"github.com/slipway-dev/slipway/reconciler/gitops/plan"
)

// failure is an action that could not be carried out.
type failure struct {
	line  string // path:line: Kind/namespace/name: why
	final bool   // trying again does not mend it
}

// deed is an action that was carried out.
type deed struct {
	plan.Action
	written  api.Object // the object's last state; nil when it is gone
	putsBack bool       // what it wrote had been written before: somebody else changed it since
}

// outcome collects what became of a plan's actions.
type outcome struct {
	mu     sync.Mutex
	done   map[plan.Ref]deed
	failed map[plan.Ref]failure
}

func (o *outcome) fail(a plan.Action, reason string, final bool) failure {
	a.Reason = reason
	f := failure{line: a.Problem(), final: final}
	o.mu.Lock()
	defer o.mu.Unlock()
	o.failed[a.Ref] = f
	return f
}

// missing returns the first object a needs that could not be written.
func (o *outcome) missing(a plan.Action) (plan.Ref, bool) {
	o.mu.Lock()
	defer o.mu.Unlock()
	for _, need := range a.Want.Needs() {
		if _, ok := o.failed[need]; ok {
			return need, true
		}
	}
	return plan.Ref{}, false
}

// carryOut applies p: level by level, the objects of one level side by side. It stops between writes when ctx ends.
// A write that fails stops what needs it and nothing else.
func (e *Engine) carryOut(ctx context.Context, t *plan.Tree, p plan.Plan) *outcome {
	out := &outcome{done: map[plan.Ref]deed{}, failed: map[plan.Ref]failure{}}
	for rest := p.Actions; len(rest) > 0; {
		n := slices.IndexFunc(rest, func(a plan.Action) bool { return stage(a) != stage(rest[0]) })
		if n < 0 {
			n = len(rest)
		}
		e.level(ctx, t, rest[:n], out)
		rest = rest[n:]
	}
	return out
}

// stage numbers the steps of an apply: writes by level, then deletions by level backwards.
func stage(a plan.Action) int {
	switch a.Op {
	case plan.Create, plan.Update, plan.Replace, plan.Unchanged:
		return plan.Level(a.Ref)
	case plan.Delete, plan.Release:
		return 100 - plan.Level(a.Ref)
	}
	return 200
}

func (e *Engine) level(ctx context.Context, t *plan.Tree, actions []plan.Action, out *outcome) {
	var group errgroup.Group
	group.SetLimit(inFlight)
	for _, a := range actions {
		if ctx.Err() != nil {
			break
		}
		switch {
		case a.Op == plan.Unchanged && a.Want != nil && a.Live != nil:
			e.memory.set(a.Want, a.Live)
		case a.Op == plan.Create, a.Op == plan.Update, a.Op == plan.Release, (a.Op == plan.Delete || a.Op == plan.Replace) && !a.Held:
			group.Go(func() error {
				e.act(ctx, t, a, out)
				return nil
			})
		}
	}
	_ = group.Wait() // its functions return nil: failures are in out
}

// act carries out one action.
func (e *Engine) act(ctx context.Context, t *plan.Tree, a plan.Action, out *outcome) {
	if a.Want != nil {
		if need, missing := out.missing(a); missing {
			f := out.fail(a, fmt.Sprintf("needs %s, which could not be written", need), false)
			e.tell(Progress{Step: StepNotDone, Revision: t.Revision, Action: &a, Text: f.line})
			return
		}
	}
	d := deed{Action: a}
	if a.Want != nil {
		known, ok := e.memory.get(a.Ref)
		d.putsBack = ok && known.hash == a.Want.Hash
	}
	obj, err := e.effect(ctx, t, a)
	if ctx.Err() != nil && err != nil {
		return // a newer commit came first; what was under way is looked at again by it
	}
	if err != nil {
		reason := err.Error()
		if a.Want != nil {
			reason = a.Want.Explain(err)
		}
		f := out.fail(a, reason, isFinal(err))
		e.tell(Progress{Step: StepNotDone, Revision: t.Revision, Action: &a, Text: f.line})
		return
	}
	d.written = obj
	out.mu.Lock()
	out.done[a.Ref] = d
	out.mu.Unlock()
	step := StepDone
	if d.putsBack {
		step = StepPutBack
	}
	e.tell(Progress{Step: step, Revision: t.Revision, Action: &a, Text: a.String()})
}

// effect is the one place where a plan changes anything. It returns the object's last state, nil
// when it is gone.
func (e *Engine) effect(ctx context.Context, t *plan.Tree, a plan.Action) (api.Object, error) {
	switch a.Op {
	case plan.Create, plan.Update:
		obj, err := e.patch(ctx, t, a.Want, store.Patch{})
		if err != nil {
			return nil, err
		}
		e.memory.set(a.Want, obj)
		return obj, nil
	case plan.Release:
		e.memory.forget(a.Ref)
		return e.release(ctx, a.Ref)
	case plan.Delete, plan.Replace:
		e.memory.forget(a.Ref)
		obj, err := e.client.Delete(ctx, a.Ref.Row(), a.Ref.Namespace, a.Ref.Name,
			store.DeleteOptions{UID: a.Live.GetUID(), Propagation: a.Propagation()})
		if apierrors.IsNotFound(err) {
			return nil, nil
		}
		if err != nil || obj.GetDeletionTimestamp() == nil {
			return nil, err
		}
		return obj, nil
	}
	return nil, nil
}

// release applies nothing but the object's name, which takes back every field Git owned.
func (e *Engine) release(ctx context.Context, ref plan.Ref) (api.Object, error) {
	apiVersion, kind := ref.ToAPIVersionAndKind()
	meta := map[string]string{"name": ref.Name}
	if ref.Namespace != "" {
		meta["namespace"] = ref.Namespace
	}
	text, err := json.Marshal(map[string]any{"apiVersion": apiVersion, "kind": kind, "metadata": meta})
	if err != nil {
		return nil, fmt.Errorf("release %s: %w", ref, err)
	}
	return e.client.Patch(ctx, ref.Row(), ref.Namespace, ref.Name,
		store.Patch{Type: types.ApplyYAMLPatchType, Data: text, FieldManager: api.ManagerGit, Force: true})
}
