package gitops

import (
	"context"
	"errors"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/slipway-dev/slipway/apiserver/api"
	slipwayv1 "github.com/slipway-dev/slipway/apiserver/api/v1alpha1"
	"github.com/slipway-dev/slipway/reconciler/gitops/plan"
)

// breath is how long the holder collects changes before it looks at them, at least.
const breath = 20 * time.Millisecond

// hold brings c into the store, watches it settle, and keeps it so until ctx ends.
func (e *Engine) hold(ctx context.Context, c *commit) {
	defer e.leave(ctx, c)
	for ctx.Err() == nil {
		wait := c.ripe(time.Now())
		if err := e.turn(ctx, c); err != nil && ctx.Err() == nil {
			if c.errors++; c.errors&(c.errors-1) == 0 {
				e.log.Warn("apply", "revision", c.tree.Revision.Short(), "tries", c.errors, "err", err)
			}
			wait = backoff(c.errors - 1)
		} else {
			c.errors = 0
			if later := c.ripe(time.Now()); later > 0 || len(c.scope) > 0 {
				wait = max(later, time.Millisecond)
			}
			if c.proof > 0 && (wait == 0 || c.proof < wait) {
				wait = c.proof
			}
		}
		if !e.wait(ctx, c, wait, max(breath, 10*c.look)) {
			return
		}
	}
}

// wait returns when there is something to do for c: a change that concerns it, or wait is over (zero: no limit).
// More is how long changes are collected, so that the engine takes at most a tenth of a core. It returns false when
// ctx has ended.
func (e *Engine) wait(ctx context.Context, c *commit, wait, more time.Duration) bool {
	var end time.Time
	if wait > 0 {
		end = time.Now().Add(wait)
	}
	for {
		if !e.pause(ctx, wait, more) {
			return false
		}
		now := time.Now()
		if e.digest(c, e.changes.take(), now) || wait > 0 && !now.Before(end) {
			return true
		}
		if wait > 0 {
			wait = end.Sub(now)
		}
	}
}

// pause waits for a change or until wait is over (zero: no limit), then a little longer for what comes with it.
func (e *Engine) pause(ctx context.Context, wait, more time.Duration) bool {
	var due <-chan time.Time
	if wait > 0 {
		timer := time.NewTimer(wait)
		defer timer.Stop()
		due = timer.C
	}
	select {
	case <-ctx.Done():
		return false
	case <-due:
		return true
	case <-e.changes.signal:
	}
	timer := time.NewTimer(min(more, time.Second))
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return false
	case <-timer.C:
		return true
	}
}

// turn does what there is to do now: the whole tree, or the part that needs it, and the record of it.
func (e *Engine) turn(ctx context.Context, c *commit) error {
	if c.record == nil {
		if err := e.begin(ctx, c); err != nil {
			return err
		}
	}
	var err error
	switch {
	case c.full:
		err = e.applyAll(ctx, c)
	case len(c.scope) > 0:
		err = e.applySome(ctx, c)
	}
	if err != nil {
		return err
	}
	started := time.Now()
	if err := e.assess(ctx, c); err != nil {
		return err
	}
	c.look = time.Since(started)
	return e.report(ctx, c)
}

// begin opens the commit's record.
func (e *Engine) begin(ctx context.Context, c *commit) error {
	err := e.setSource(ctx, func(s *slipwayv1.SourceStatus) {
		s.Seen = c.tree.Revision.ID
		condition(s, ConditionValid, metav1.ConditionTrue, "Valid", "")
	})
	if err != nil {
		return err
	}
	ro, err := e.openRecord(ctx, c.tree.Revision)
	if err != nil {
		return err
	}
	c.record, c.status = ro, ro.DeepCopy().Status
	return nil
}

// applyAll plans the whole tree and carries the plan out.
func (e *Engine) applyAll(ctx context.Context, c *commit) error {
	confirmed, asked, err := e.confirmed(ctx, c.tree.Revision.ID)
	if err != nil {
		return err
	}
	o, err := e.observe(ctx, c.tree, confirmed)
	if err != nil {
		return err
	}
	o.Asked = asked
	p := plan.Of(o)
	if text := p.String(); text != c.shown {
		c.shown = text
		e.tell(Progress{Step: StepPlanned, Revision: c.tree.Revision, Plan: &p})
	}
	if c.refusal = p.Refusal; c.refusal != "" {
		c.full = false
		return nil
	}
	if p.Question != "" { // before anything is made: the next look counts with it
		if err := e.setSource(ctx, func(s *slipwayv1.SourceStatus) { s.AwaitingOf = p.Asked }); err != nil {
			return err
		}
	}
	c.describe(p)
	if !final(c.status.Phase) && p.Counts() != (plan.Counts{Unchanged: p.Counts().Unchanged}) {
		c.status.Phase, c.status.Message = slipwayv1.RolloutApplying, p.Counts().String()
		if err := e.save(ctx, c); err != nil {
			return err
		}
	}
	out := e.carryOut(ctx, c.tree, p)
	if err := ctx.Err(); err != nil {
		c.count(out)
		return err
	}
	clear(c.refused)
	clear(c.waiting)
	clear(c.failed)
	clear(c.scope)
	c.absorb(p, out, time.Now())
	c.count(out)
	c.full, c.planned, c.question = false, true, p.Question
	if confirmed && p.Question == "" {
		return e.annotate(ctx, "null")
	}
	return nil
}

// applySome plans the part of the tree that changed outside Git, or could not be written before.
func (e *Engine) applySome(ctx context.Context, c *commit) error {
	for ref := range c.waiting {
		c.scope[ref] = true
	}
	o, err := e.observeSome(ctx, c.tree, c.scope)
	if err != nil {
		return err
	}
	o.Blocked, o.Awaiting = c.blocked(), c.question != ""
	p := plan.Of(o)
	out := e.carryOut(ctx, c.tree, p)
	if err := ctx.Err(); err != nil {
		return err
	}
	before := len(c.refused) + len(c.failed) + len(c.waiting)
	for ref, d := range out.done {
		if d.putsBack {
			delete(out.done, ref)
			c.attempts[ref] = attempt{n: c.attempts[ref].n, last: time.Now()}
			e.events.Event(d.written, corev1.EventTypeNormal, "PutBack", "changed outside Git and put back: "+d.String())
		}
	}
	clear(c.scope)
	c.absorb(p, out, time.Now())
	c.count(out)
	if len(c.refused)+len(c.failed)+len(c.waiting) < before {
		c.unblock()
	}
	return nil
}

// digest decides what the changes seen by the watches ask for, and whether they concern c at all.
func (e *Engine) digest(c *commit, seen map[plan.Ref]change, now time.Time) (concerns bool) {
	late := len(c.late()) > 0
	for ref, ch := range seen {
		switch kind := ref.Row(); {
		case kind == api.Sources:
			if c.question != "" && isNamed(c.tree.Revision.ID, ch.object.GetAnnotations()[AnnotationConfirm]) {
				c.full, concerns = true, true
			}
		case c.tree.Refs[ref]:
			concerns = true
			if e.strays(c.tree.Want(ref), ch) {
				c.drifted(ref, now)
			}
		case c.leaving[ref]:
			concerns = true
		case late && (kind == api.Pods || kind == api.ReplicaSets):
			concerns = true
		}
		if ch.deleted && len(c.waiting) > 0 {
			concerns = true
			for waiting := range c.waiting {
				c.scope[waiting] = true
			}
		}
		if ch.deleted && c.question != "" { // what stood in the way may be gone
			c.full, concerns = true, true
		}
	}
	return concerns
}

// strays says whether what a watch saw of w is not what Git's apply left.
func (e *Engine) strays(w *plan.Want, ch change) bool {
	known, ok := e.memory.get(w.Ref)
	switch {
	case !ok: // refused, failed or waiting: whatever changed may be what was in the way
		return true
	case ch.deleted:
		return true
	case revisionOf(ch.object) <= known.revision:
		return false
	}
	return !known.holds(w, ch.object)
}

// leave ends c's record when a newer commit came before it was settled.
func (e *Engine) leave(ctx context.Context, c *commit) {
	if !errors.Is(context.Cause(ctx), errSuperseded) || c.record == nil || final(c.status.Phase) {
		return
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), 5*time.Second)
	defer cancel()
	c.status.Phase, c.status.Message = slipwayv1.RolloutSuperseded, errSuperseded.Error()
	c.status.EndedAt = metav1.Now().Rfc3339Copy()
	e.logError(ctx, e.save(ctx, c))
	e.tell(Progress{Step: StepSuperseded, Revision: c.tree.Revision, Status: c.status})
}

func (e *Engine) save(ctx context.Context, c *commit) error {
	ro, err := e.saveRecord(ctx, c.record, c.status)
	if err != nil {
		return err
	}
	c.record, c.status = ro, ro.DeepCopy().Status
	return nil
}
