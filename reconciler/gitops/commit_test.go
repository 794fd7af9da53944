package gitops

import (
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/slipway-dev/slipway/apiserver/api"
	slipwayv1 "github.com/slipway-dev/slipway/apiserver/api/v1alpha1"
	"github.com/slipway-dev/slipway/reconciler/gitops/health"
	"github.com/slipway-dev/slipway/reconciler/gitops/plan"
)

func deploymentRef(name string) plan.Ref {
	return plan.Ref{GroupVersionKind: api.Deployments.GroupVersionKind, Namespace: "shop", Name: name}
}

func TestJudge(t *testing.T) {
	web, db := deploymentRef("web"), deploymentRef("db")
	current := health.Health{Status: health.Current}
	starting := health.Health{Status: health.InProgress, Message: "0 of 1 ready"}
	crashing := health.Health{Status: health.InProgress, Message: "0 of 1 ready", Cause: "Pod web-a: container app: CrashLoopBackOff: exit 1"}
	stuck := crashing
	stuck.Stuck = true
	type state struct{ Phase, Message string }
	tests := []struct {
		name   string
		change func(*commit)
		want   state
	}{
		{"before the first plan", func(c *commit) { c.planned = false }, state{slipwayv1.RolloutApplying, ""}},
		{"a tree that is refused", func(c *commit) { c.refusal = "empty" }, state{slipwayv1.RolloutRefused, "empty"}},
		{"everything is current", func(c *commit) { c.health[web] = current }, state{slipwayv1.RolloutSucceeded, "3 created, 1 unchanged"}},
		{"a question is open", func(c *commit) { c.question = "really?" }, state{slipwayv1.RolloutAwaiting, "really?"}},
		{"a write is tried again", func(c *commit) { c.failed[web] = failure{line: "web.yaml:1: no space"} }, state{slipwayv1.RolloutApplying, "web.yaml:1: no space"}},
		{"a write failed for good", func(c *commit) { c.failed[web] = failure{line: "web.yaml:1: immutable", final: true} }, state{slipwayv1.RolloutFailed, "web.yaml:1: immutable"}},
		{"a workload starts", func(c *commit) { c.health[web] = starting }, state{slipwayv1.RolloutSettling, ""}},
		{"a workload crashed once", func(c *commit) { c.health[web] = crashing }, state{slipwayv1.RolloutSettling, "Deployment shop/web: " + crashing.Cause}},
		{"one is stuck, another still comes", func(c *commit) { c.health[web], c.health[db] = stuck, starting }, state{slipwayv1.RolloutSettling, "Deployment shop/web: " + crashing.Cause}},
		{"all that are late are stuck", func(c *commit) { c.health[web], c.health[db] = stuck, current }, state{slipwayv1.RolloutFailed, "Deployment shop/web: " + crashing.Cause}},
		{"one refused, others current", func(c *commit) { c.refused[db], c.health[web] = "db.yaml:1: taken", current }, state{slipwayv1.RolloutFailed, "db.yaml:1: taken"}},
		{"something pruned is not gone yet", func(c *commit) {
			c.leaving[web], c.health[web] = true, health.Health{Status: health.Terminating, Message: "is being deleted"}
		}, state{slipwayv1.RolloutSettling, "Deployment shop/web: is being deleted"}},
		{"failed does not go back to settling", func(c *commit) { c.status.Phase, c.health[web] = slipwayv1.RolloutFailed, starting }, state{slipwayv1.RolloutFailed, ""}},
		{"failed may still succeed", func(c *commit) { c.status.Phase, c.health[web] = slipwayv1.RolloutFailed, current }, state{slipwayv1.RolloutSucceeded, "3 created, 1 unchanged"}},
		{"succeeded stays so", func(c *commit) { c.status.Phase, c.health[web] = slipwayv1.RolloutSucceeded, stuck }, state{slipwayv1.RolloutSucceeded, "3 created, 1 unchanged"}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			c := newCommit(&plan.Tree{})
			c.planned, c.status.Created, c.status.Unchanged = true, 3, 1
			tt.change(c)
			for range 2 { // judging again changes nothing
				c.judge()
				if d := cmp.Diff(tt.want, state{c.status.Phase, c.status.Message}); d != "" {
					t.Errorf("judge (-want +got):\n%s", d)
				}
			}
			if got := !c.status.EndedAt.IsZero(); got != final(tt.want.Phase) {
				t.Errorf("ended = %t in phase %s", got, tt.want.Phase)
			}
		})
	}
}

// Somebody who keeps changing an object is answered later and later; an object left alone is put back at once.
func TestDriftIsAnsweredLaterEachTime(t *testing.T) {
	c := newCommit(&plan.Tree{})
	ref := deploymentRef("web")
	now := time.Unix(1000, 0)
	var delays []time.Duration
	for range 5 {
		c.drifted(ref, now)
		wait := c.ripe(now)
		delays = append(delays, wait)
		now = now.Add(wait)
		c.ripe(now)
		if !c.scope[ref] {
			t.Fatal("the object is not put back")
		}
		delete(c.scope, ref)
	}
	want := []time.Duration{0, 200 * time.Millisecond, 400 * time.Millisecond, 800 * time.Millisecond, 1600 * time.Millisecond}
	if d := cmp.Diff(want, delays); d != "" {
		t.Errorf("delays (-want +got):\n%s", d)
	}
	now = now.Add(time.Hour)
	if c.drifted(ref, now); c.ripe(now) != 0 || !c.scope[ref] {
		t.Error("after a quiet hour the object is not put back at once")
	}
}

// After a commit succeeded nothing is told of its workloads but that one is stuck, once, and that it is well again.
func TestACrashLoopAfterSuccessIsToldOnce(t *testing.T) {
	web := deploymentRef("web")
	var told []string
	e := &Engine{config: Config{Observe: func(p Progress) { told = append(told, string(p.Health.Status)+" "+p.Health.Cause) }}}
	c := newCommit(&plan.Tree{Wants: []plan.Want{{Ref: web}}})
	c.status.Phase = slipwayv1.RolloutSucceeded
	current := health.Health{Status: health.Current, Ready: 1, Wanted: 1}
	crashed := health.Health{Status: health.InProgress, Wanted: 1, Cause: "exit 1", Weight: 1}
	stuck := health.Health{Status: health.InProgress, Wanted: 1, Cause: "crash loop", Weight: 9, Stuck: true}
	for _, h := range []health.Health{current, crashed, current, crashed, stuck, stuck, current, crashed, current} {
		c.health[web] = h
		e.tellWorkloads(c)
	}
	if d := cmp.Diff([]string{"InProgress crash loop", "Current "}, told); d != "" {
		t.Errorf("told (-want +got):\n%s", d)
	}
}
