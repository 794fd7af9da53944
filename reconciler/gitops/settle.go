package gitops

import (
	"context"
	"fmt"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/slipway-dev/slipway/apiserver/api"
	slipwayv1 "github.com/slipway-dev/slipway/apiserver/api/v1alpha1"
	"github.com/slipway-dev/slipway/apiserver/store"
	"github.com/slipway-dev/slipway/reconciler/gitops/health"
	"github.com/slipway-dev/slipway/reconciler/gitops/plan"
)

// assessed are the kinds whose objects can be other than current.
var assessed = map[*api.Kind]bool{api.Deployments: true, api.ReplicaSets: true, api.Pods: true, api.Services: true}

// assess looks how the tree's objects are doing and tells what is new.
func (e *Engine) assess(ctx context.Context, c *commit) error {
	if !c.planned {
		return nil
	}
	live, err := e.assessable(ctx, c.tree)
	if err != nil {
		return err
	}
	var pods *health.Pods
	before, now := c.health, time.Now()
	c.proof = 0
	c.health = map[plan.Ref]health.Health{}
	for i := range c.tree.Wants {
		ref := c.tree.Wants[i].Ref
		if !assessed[ref.Row()] || c.refused[ref] != "" || c.failed[ref].line != "" || c.waiting[ref] {
			continue
		}
		h := health.Of(live[ref], nil, now)
		// Pods tell why a workload is not current yet, and whether one that just became so is to be believed.
		if (h.Status != health.Current || before[ref].Status != health.Current) && h.Status != health.NotFound && (ref.Row() == api.Deployments || ref.Row() == api.ReplicaSets) {
			if pods == nil {
				all, err := e.pods(ctx)
				if err != nil {
					return err
				}
				pods = &all
			}
			of := pods.Of(live[ref])
			h = health.Of(live[ref], of, now)
			c.prove(of, now)
		}
		if p, ok := live[ref].(*corev1.Pod); ok {
			c.prove([]*corev1.Pod{p}, now)
		}
		c.health[ref] = h.Steady(before[ref])
	}
	if err := e.assessLeaving(ctx, c); err != nil {
		return err
	}
	e.tellWorkloads(c)
	return nil
}

// assessable returns the tree's objects, as they are, of the kinds that can be other than current.
func (e *Engine) assessable(ctx context.Context, t *plan.Tree) (map[plan.Ref]api.Object, error) {
	live := map[plan.Ref]api.Object{}
	kinds := map[*api.Kind]bool{}
	for i := range t.Wants {
		if kind := t.Wants[i].Row(); assessed[kind] {
			kinds[kind] = true
		}
	}
	for kind := range kinds {
		list, err := e.client.List(ctx, kind, store.ListOptions{})
		if err != nil {
			return nil, fmt.Errorf("list %s: %w", kind, err)
		}
		for _, obj := range list.Items {
			if ref := plan.RefOf(kind, obj); t.Refs[ref] {
				live[ref] = obj
			}
		}
	}
	return live, nil
}

// assessLeaving looks at what was deleted and takes its time: Pods that end, namespaces that are emptied.
func (e *Engine) assessLeaving(ctx context.Context, c *commit) error {
	for ref := range c.leaving {
		obj, err := e.client.Get(ctx, ref.Row(), ref.Namespace, ref.Name)
		switch {
		case apierrors.IsNotFound(err) || err == nil && obj.GetDeletionTimestamp() == nil:
			delete(c.leaving, ref)
			e.tellWorkload(c, ref, health.Health{Status: health.Current, Message: "deleted"})
		case err != nil:
			return fmt.Errorf("get %s: %w", ref, err)
		default:
			c.health[ref] = health.Of(obj, nil, time.Now())
			e.tellWorkload(c, ref, c.health[ref])
		}
	}
	return nil
}

// prove notes when to look again at Pods that crashed: nothing tells that they went on running.
func (c *commit) prove(pods []*corev1.Pod, now time.Time) {
	for _, p := range pods {
		if left := health.Proof(p, now); left > 0 && (c.proof == 0 || left < c.proof) {
			c.proof = left
		}
	}
}

func (e *Engine) tellWorkload(c *commit, ref plan.Ref, h health.Health) {
	if h != c.told[ref] {
		c.told[ref] = h
		e.tell(Progress{Step: StepWorkload, Revision: c.tree.Revision, Ref: ref, Health: h})
	}
}

// tellWorkloads tells of every workload that came further, until the commit has ended. Later it tells only of what is
// stuck, and when it is well again.
func (e *Engine) tellWorkloads(c *commit) {
	for i := range c.tree.Wants {
		ref := c.tree.Wants[i].Ref
		h, ok := c.health[ref]
		if !ok || h == c.told[ref] {
			continue
		}
		_, known := c.told[ref]
		over := final(c.status.Phase) && c.status.Phase != slipwayv1.RolloutFailed && !h.Stuck && !c.told[ref].Stuck
		if ref.Row() == api.Services || !known && h.Status == health.Current || over {
			c.told[ref] = h
			continue
		}
		e.tellWorkload(c, ref, h)
	}
}

// pods looks at every ReplicaSet and Pod there is, to find causes in.
func (e *Engine) pods(ctx context.Context) (health.Pods, error) {
	sets, err := store.All[*appsv1.ReplicaSet](ctx, e.client, store.ListOptions{})
	if err != nil {
		return health.Pods{}, fmt.Errorf("list replica sets: %w", err)
	}
	pods, err := store.All[*corev1.Pod](ctx, e.client, store.ListOptions{})
	if err != nil {
		return health.Pods{}, fmt.Errorf("list pods: %w", err)
	}
	return health.NewPods(sets, pods), nil
}

// report brings the record and the Source up to date and tells of a new phase.
func (e *Engine) report(ctx context.Context, c *commit) error {
	before := c.record.Status.Phase
	message := c.record.Status.Message
	c.judge()
	phase := c.status.Phase
	if err := e.save(ctx, c); err != nil {
		return err
	}
	if err := e.setSource(ctx, c.source); err != nil {
		return err
	}
	if phase == slipwayv1.RolloutFailed && before != phase {
		e.warn("RolloutFailed", c.tree.Revision.Short()+": "+c.status.Message)
	}
	news := Progress{Revision: c.tree.Revision, Status: c.status, Text: c.status.Message}
	switch {
	case phase == before && message == c.status.Message && c.announced:
		return nil
	case phase == slipwayv1.RolloutAwaiting:
		news.Step = StepAwaiting
	case phase == slipwayv1.RolloutRefused:
		news.Step, news.Lines = StepRefused, []string{c.status.Message}
	case final(phase):
		news.Step = StepSettled
	default:
		return nil
	}
	c.announced = true
	e.tell(news)
	return nil
}

// source sets what the state of c means for its Source.
func (c *commit) source(s *slipwayv1.SourceStatus) {
	s.Awaiting = ""
	switch {
	case c.question != "":
		s.Awaiting = c.tree.Revision.ID
	case c.planned:
		s.AwaitingOf = 0
	}
	lines := c.lines()
	switch {
	case c.refusal != "":
		condition(s, ConditionValid, metav1.ConditionFalse, "Refused", c.refusal)
		return
	case c.question != "":
		condition(s, ConditionApplied, metav1.ConditionFalse, "Awaiting", c.question)
	case len(lines) > 0:
		condition(s, ConditionApplied, metav1.ConditionFalse, "NotApplied", lines[0])
	case c.underWay() > 0:
		condition(s, ConditionApplied, metav1.ConditionFalse, "Applying", "")
	default:
		s.Applied, s.AppliedAs = c.tree.Revision.ID, c.tree.Revision.Short()
		condition(s, ConditionApplied, metav1.ConditionTrue, "Applied", "")
	}
	late := c.late()
	stuck := false
	for _, ref := range late {
		stuck = stuck || c.health[ref].Stuck || c.health[ref].Status == health.Failed
	}
	switch {
	case c.status.Phase == slipwayv1.RolloutFailed:
		condition(s, ConditionHealthy, metav1.ConditionFalse, "Failed", c.status.Message)
	case stuck:
		condition(s, ConditionHealthy, metav1.ConditionFalse, "Failed", c.failure(late))
	case len(late) > 0:
		condition(s, ConditionHealthy, metav1.ConditionUnknown, "Progressing", "")
	default:
		condition(s, ConditionHealthy, metav1.ConditionTrue, "Healthy", "")
	}
}
