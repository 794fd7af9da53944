package account

import (
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/slipway-dev/slipway/apiserver/api"
	slipwayv1 "github.com/slipway-dev/slipway/apiserver/api/v1alpha1"
	"github.com/slipway-dev/slipway/gitsource"
	"github.com/slipway-dev/slipway/nodeagent/engine"
	"github.com/slipway-dev/slipway/reconciler/gitops"
	"github.com/slipway-dev/slipway/reconciler/gitops/health"
	"github.com/slipway-dev/slipway/reconciler/gitops/plan"
)

var (
	web      = plan.Ref{GroupVersionKind: api.Deployments.GroupVersionKind, Namespace: "shop", Name: "web"}
	revision = gitsource.Revision{ID: "3f2c1ab0000000000000000000000000000000ff", Subject: "Greet people"}
	epoch    = time.Date(2030, 1, 1, 0, 0, 0, 0, time.UTC)
)

// story is one commit from its arrival to its end, with a failure on the way.
func story(a *Account) {
	for _, p := range []gitops.Progress{
		{Step: gitops.StepReceived},
		{Step: gitops.StepPlanned, Plan: &plan.Plan{Actions: []plan.Action{{Op: plan.Create, Ref: web, Origin: "web.yaml:1"}}}},
		{Step: gitops.StepWorkload, Ref: web, Health: health.Health{Status: health.InProgress, Wanted: 2, Message: "0 of 2 ready"}},
		{Step: gitops.StepWorkload, Ref: web, Health: health.Health{Status: health.InProgress, Wanted: 2, Stuck: true, Cause: "Pod web-1: container app: CrashLoopBackOff: exit 1"}},
		{Step: gitops.StepWorkload, Ref: web, Health: health.Health{Status: health.Current, Wanted: 2, Ready: 2}},
		{Step: gitops.StepSettled, Status: slipwayv1.RolloutStatus{Phase: slipwayv1.RolloutSucceeded}},
		{Step: gitops.StepReceived},
		{Step: gitops.StepRefused, Lines: []string{"web.yaml:7: Deployment/shop/web: spec.replicas: must be a number"}},
		{Step: gitops.StepAwaiting, Text: "8 of 12 objects would go"},
	} {
		p.Revision = revision
		a.Progress(p)
	}
}

func TestPlainAccount(t *testing.T) {
	var out strings.Builder
	a := New(&out)
	looked := 0
	a.now = func() time.Time { looked++; return epoch.Add(time.Duration(looked) * 1234 * time.Millisecond) }
	a.Tail = func(gitops.Progress) []string { return []string{"cannot open port"} }
	a.Flags = "--data-dir /srv/a"
	story(a)
	want := `
3f2c1ab  Greet people
  + Deployment shop/web (web.yaml:1)
  1 to create
  … Deployment shop/web 0/2 ready
  ✗ Deployment shop/web 0/2 ready: Pod web-1: container app: CrashLoopBackOff: exit 1
      | cannot open port
  ✓ Deployment shop/web 2/2 ready
  everything is current after 1.23s

3f2c1ab  Greet people
  web.yaml:7: Deployment/shop/web: spec.replicas: must be a number
  refused: 1 problem, nothing was changed
  waiting: 8 of 12 objects would go
  to let it happen: slipway confirm 3f2c1ab0000000000000000000000000000000ff --data-dir /srv/a
`
	if diff := cmp.Diff(want, out.String()); diff != "" {
		t.Errorf("account (-want +got):\n%s", diff)
	}
}

// screen is what a terminal shows after the control sequences that the account uses.
func screen(text string) []string {
	var lines []string
	for _, part := range strings.SplitAfter(text, "\n") {
		for strings.HasPrefix(part, "\033[") && strings.Contains(part, "A\033[J") {
			up := int(part[2] - '0')
			lines = lines[:len(lines)-up]
			part = part[strings.Index(part, "\033[J")+3:]
		}
		if part != "" {
			lines = append(lines, strings.TrimSuffix(part, "\n"))
		}
	}
	return lines
}

func TestTerminalRedrawsWhatIsUnderWay(t *testing.T) {
	var out strings.Builder
	a := New(&out)
	a.fancy, a.width = true, func() int { return 40 }
	a.Pull("docker.io/library/redis:7", engine.Progress{Done: 5_000_000, Total: 10_000_000})
	a.Under("w", "  … Deployment shop/web 0/2 ready")
	a.Say("something else")
	a.Under("w", "  … Deployment shop/web 1/2 ready")
	want := []string{"something else", "  pulling docker.io/library/redis:7 [=…", "  … Deployment shop/web 1/2 ready"}
	if diff := cmp.Diff(want, screen(out.String())); diff != "" {
		t.Errorf("screen (-want +got):\n%s", diff)
	}
	a.Pull("docker.io/library/redis:7", engine.Progress{Done: 10_000_000, Total: 10_000_000, Ended: true})
	a.Under("w", "")
	want = []string{"something else", dim + "  pulled docker.io/library/redis:7, 10.0 MB\033[0m"}
	if diff := cmp.Diff(want, screen(out.String())); diff != "" {
		t.Errorf("screen (-want +got):\n%s", diff)
	}
}

func TestPlainPullSaysStartAndEnd(t *testing.T) {
	var out strings.Builder
	a := New(&out)
	for _, p := range []engine.Progress{
		{Done: 1, Total: 1}, // the list of what it consists of
		{Done: 1, Total: 4_000_000},
		{Done: 4_000_000, Total: 4_000_000}, // not unpacked yet
		{Done: 4_000_000, Total: 4_000_000},
		{Done: 4_000_000, Total: 4_000_000, Ended: true},
	} {
		a.Pull("redis:7", p)
	}
	for _, p := range []engine.Progress{{}, {Ended: true, Err: errors.New("no such image")}, {Done: 1, Total: 1, Ended: true}} {
		a.Pull("redis:8", p) // fails; then is here already
	}
	if diff := cmp.Diff("  pulling redis:7\n  pulled redis:7, 4.0 MB\n  pulling redis:8\n", out.String()); diff != "" {
		t.Errorf("account (-want +got):\n%s", diff)
	}
}
