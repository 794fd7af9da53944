package gitops

import (
	"context"
	"fmt"
	"slices"
	"strings"

	apiequality "k8s.io/apimachinery/pkg/api/equality"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/slipway-dev/slipway/apiserver/api"
	slipwayv1 "github.com/slipway-dev/slipway/apiserver/api/v1alpha1"
	"github.com/slipway-dev/slipway/apiserver/store"
	"github.com/slipway-dev/slipway/gitsource"
	"github.com/slipway-dev/slipway/reconciler/gitops/plan"
)

// Bounds of what is recorded.
const (
	keptRollouts  = 50
	recordedPlan  = 200
	recordedLines = 100
	recordedBytes = 500 // of a line
)

// Conditions of a Source.
const (
	ConditionFetched = "Fetched" // the source can be read
	ConditionValid   = "Valid"   // the newest tree has no errors
	ConditionApplied = "Applied" // all of it is in the store
	ConditionHealthy = "Healthy" // every object of it is current
)

// setSource changes the Source's status. It writes only when that makes a difference.
func (e *Engine) setSource(ctx context.Context, change func(*slipwayv1.SourceStatus)) error {
	e.sourceMu.Lock()
	defer e.sourceMu.Unlock()
	for {
		next := e.source.DeepCopy()
		change(&next.Status)
		if apiequality.Semantic.DeepEqual(next.Status, e.source.Status) {
			return nil
		}
		obj, err := e.client.Update(ctx, next, store.UpdateOptions{Subresource: "status", FieldManager: "slipway"})
		if err == nil || !apierrors.IsConflict(err) {
			return e.keep(obj, wrap(err, "update status of source %s", e.config.Name))
		}
		src, err := store.Get[*slipwayv1.Source](ctx, e.client, "", e.config.Name)
		if err != nil {
			return fmt.Errorf("get source %s: %w", e.config.Name, err)
		}
		e.source = src
	}
}

func wrap(err error, format string, args ...any) error {
	if err == nil {
		return nil
	}
	return fmt.Errorf(format+": %w", append(args, err)...)
}

func condition(s *slipwayv1.SourceStatus, kind string, status metav1.ConditionStatus, reason, message string) {
	meta.SetStatusCondition(&s.Conditions, metav1.Condition{Type: kind, Status: status, Reason: reason, Message: message})
}

// fetched records whether the source can be read.
func (e *Engine) fetched(ctx context.Context, problem error) {
	before := metav1.ConditionTrue
	err := e.setSource(ctx, func(s *slipwayv1.SourceStatus) {
		if c := meta.FindStatusCondition(s.Conditions, ConditionFetched); c != nil {
			before = c.Status
		}
		if problem != nil {
			condition(s, ConditionFetched, metav1.ConditionFalse, "FetchFailed", problem.Error())
			return
		}
		condition(s, ConditionFetched, metav1.ConditionTrue, "Fetched", "")
	})
	e.logError(ctx, err)
	switch {
	case problem != nil:
		e.tell(Progress{Step: StepFetch, Text: problem.Error()})
	case before == metav1.ConditionFalse:
		e.tell(Progress{Step: StepFetch})
	}
}

// refuse records a tree with static errors. Nothing else happens: the last good state stays.
func (e *Engine) refuse(ctx context.Context, t *plan.Tree) {
	last := t.Problems[len(t.Problems)-1]
	ro, err := e.openRecord(ctx, t.Revision)
	if err == nil {
		status := &ro.DeepCopy().Status
		status.Phase, status.Message = slipwayv1.RolloutRefused, last
		status.Errors = tail(t.Problems, recordedLines)
		status.NotActedOn = head(t.Notes, recordedLines)
		ended(status)
		_, err = e.saveRecord(ctx, ro, *status)
	}
	e.logError(ctx, err)
	e.logError(ctx, e.setSource(ctx, func(s *slipwayv1.SourceStatus) {
		s.Seen = t.Revision.ID
		condition(s, ConditionValid, metav1.ConditionFalse, "Refused", last)
	}))
	e.warn("CommitRefused", t.Revision.Short()+": "+last)
	e.tell(Progress{Step: StepRefused, Revision: t.Revision, Lines: t.Problems})
}

// ended sets the end of a rollout once.
func ended(s *slipwayv1.RolloutStatus) {
	if s.EndedAt.IsZero() {
		s.EndedAt = metav1.Now().Rfc3339Copy()
	}
}

func head(lines []string, n int) []string { return bounded(lines[:min(len(lines), n)]) }
func tail(lines []string, n int) []string { return bounded(lines[max(0, len(lines)-n):]) }

// bounded cuts lines that are too long to be kept.
func bounded(lines []string) []string {
	var out []string
	for _, line := range lines {
		if len(line) > recordedBytes {
			line = strings.ToValidUTF8(line[:recordedBytes], "") + "…"
		}
		out = append(out, line)
	}
	return out
}

// openRecord returns the newest Rollout if it is revision's, else a new one, and forgets those beyond the last 50.
func (e *Engine) openRecord(ctx context.Context, rev gitsource.Revision) (*slipwayv1.Rollout, error) {
	all, err := store.All[*slipwayv1.Rollout](ctx, e.client, store.ListOptions{})
	if err != nil {
		return nil, fmt.Errorf("list rollouts: %w", err)
	}
	all = slices.DeleteFunc(slices.Clone(all), func(r *slipwayv1.Rollout) bool { return r.Spec.Source != e.config.Name })
	slices.SortFunc(all, func(a, b *slipwayv1.Rollout) int { return number(a, e.config.Name) - number(b, e.config.Name) })
	next := 1
	if len(all) > 0 {
		newest := all[len(all)-1]
		if newest.Spec.Revision == rev.ID {
			return newest, nil
		}
		next = number(newest, e.config.Name) + 1
	}
	for ; len(all) >= keptRollouts; all = all[1:] {
		if _, err := e.client.Delete(ctx, api.Rollouts, "", all[0].Name, store.DeleteOptions{UID: all[0].UID}); err != nil && !apierrors.IsNotFound(err) {
			return nil, fmt.Errorf("delete rollout %s: %w", all[0].Name, err)
		}
	}
	ro := &slipwayv1.Rollout{Spec: slipwayv1.RolloutSpec{Source: e.config.Name, Revision: rev.ID, Head: rev.Head, Dirty: rev.Dirty,
		Subject: rev.Subject, Author: rev.Author, Time: metav1.NewTime(rev.Time)}}
	ro.Name = fmt.Sprintf("%s-%06d", e.config.Name, next)
	obj, err := e.client.Create(ctx, withKind(ro), store.CreateOptions{FieldManager: "slipway"})
	if err != nil {
		return nil, fmt.Errorf("create rollout %s: %w", ro.Name, err)
	}
	return asRollout(obj)
}

// number is a Rollout's place in the history of its source.
func number(r *slipwayv1.Rollout, source string) int {
	n := 0
	if _, err := fmt.Sscanf(strings.TrimPrefix(r.Name, source+"-"), "%d", &n); err != nil {
		return 0
	}
	return n
}

// saveRecord writes status when it differs from what is stored.
func (e *Engine) saveRecord(ctx context.Context, ro *slipwayv1.Rollout, status slipwayv1.RolloutStatus) (*slipwayv1.Rollout, error) {
	if status.StartedAt.IsZero() {
		status.StartedAt = metav1.Now().Rfc3339Copy()
	}
	if apiequality.Semantic.DeepEqual(status, ro.Status) {
		return ro, nil
	}
	next := ro.DeepCopy()
	next.Status = status
	obj, err := e.client.Update(ctx, next, store.UpdateOptions{Subresource: "status", FieldManager: "slipway"})
	if err != nil {
		return ro, fmt.Errorf("update status of rollout %s: %w", ro.Name, err)
	}
	return asRollout(obj)
}

func asRollout(obj api.Object) (*slipwayv1.Rollout, error) {
	ro, ok := obj.(*slipwayv1.Rollout)
	if !ok {
		return nil, fmt.Errorf("store returned %T, want a Rollout", obj)
	}
	return ro, nil
}

// logError logs what keeps the engine from recording: the work itself goes on.
func (e *Engine) logError(ctx context.Context, err error) {
	if err != nil && ctx.Err() == nil {
		e.log.Warn("record", "err", err)
	}
}
