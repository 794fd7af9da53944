package gitops

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	slipwayv1 "github.com/slipway-dev/slipway/apiserver/api/v1alpha1"
	"github.com/slipway-dev/slipway/reconciler/gitops/health"
	"github.com/slipway-dev/slipway/reconciler/gitops/plan"
)

// commit is a tree on its way into the store and, once there, the state that is held. It belongs to one goroutine.
type commit struct {
	tree   *plan.Tree
	record *slipwayv1.Rollout      // as stored; nil until opened
	status slipwayv1.RolloutStatus // as it should be stored

	full  bool              // plan the whole tree next
	scope map[plan.Ref]bool // plan these next

	planned  bool                // the whole tree was planned and carried out once
	question string              // deletions wait for confirmation
	refusal  string              // the tree as a whole is not applied
	refused  map[plan.Ref]string // objects the plan refused: message
	waiting  map[plan.Ref]bool   // objects that wait for a deletion to end
	failed   map[plan.Ref]failure
	leaving  map[plan.Ref]bool          // deleted, and not gone yet
	health   map[plan.Ref]health.Health // of the objects that have one of their own
	told     map[plan.Ref]health.Health // as the observer last heard

	attempts map[plan.Ref]attempt
	errors   int           // turns that failed in a row
	look     time.Duration // how long it took to see how everything is
	proof    time.Duration // after it a Pod that crashed may count as well again; zero: none is to be waited for

	shown     string // the plan as the observer last saw it
	announced bool   // the observer was told of an end since this process started
}

// attempt spaces tries to write one object.
type attempt struct {
	n    int
	last time.Time
	due  time.Time // zero: not to be tried again by itself
}

func newCommit(t *plan.Tree) *commit {
	return &commit{tree: t, full: true, scope: map[plan.Ref]bool{}, refused: map[plan.Ref]string{}, waiting: map[plan.Ref]bool{},
		failed: map[plan.Ref]failure{}, leaving: map[plan.Ref]bool{}, health: map[plan.Ref]health.Health{}, told: map[plan.Ref]health.Health{}, attempts: map[plan.Ref]attempt{}}
}

// Bounds of the time between tries.
const (
	firstDelay = 200 * time.Millisecond
	lastDelay  = time.Minute
)

func backoff(n int) time.Duration {
	if n > 8 {
		return lastDelay
	}
	return min(firstDelay<<n, lastDelay)
}

// again asks for another try at ref, later each time. A quiet minute starts the count anew.
func (c *commit) again(ref plan.Ref, now time.Time) {
	a := c.attempts[ref]
	if now.Sub(a.last) > 2*lastDelay {
		a.n = 0
	}
	c.attempts[ref] = attempt{n: a.n + 1, last: now, due: now.Add(backoff(a.n))}
}

// drifted asks for ref to be put back: at once the first time, later each time somebody keeps changing it.
func (c *commit) drifted(ref plan.Ref, now time.Time) {
	a := c.attempts[ref]
	switch {
	case now.Before(a.due):
	case now.Sub(a.last) > lastDelay:
		c.attempts[ref] = attempt{n: 0, last: now}
		c.scope[ref] = true
	default:
		c.again(ref, now)
	}
}

// ripe moves what is due into scope and returns how long until the next is; zero: nothing waits.
func (c *commit) ripe(now time.Time) time.Duration {
	next := time.Duration(0)
	for ref, a := range c.attempts {
		if a.due.IsZero() {
			continue
		}
		if wait := a.due.Sub(now); wait > 0 {
			if next == 0 || wait < next {
				next = wait
			}
			continue
		}
		a.due, a.last = time.Time{}, now
		c.attempts[ref] = a
		c.scope[ref] = true
	}
	return next
}

// absorb takes in what a plan said and what became of it.
func (c *commit) absorb(p plan.Plan, out *outcome, now time.Time) {
	for _, a := range p.Actions {
		if a.Op == plan.NotActedOn {
			continue
		}
		delete(c.refused, a.Ref)
		delete(c.waiting, a.Ref)
		delete(c.failed, a.Ref)
		switch a.Op {
		case plan.Refused:
			c.refused[a.Ref] = a.Problem()
		case plan.Wait:
			c.waiting[a.Ref] = true
		}
	}
	for ref, d := range out.done {
		switch {
		case d.Op == plan.Replace:
			c.waiting[ref], c.scope[ref] = true, true // made again when it is gone, which it may be already
		case d.Op == plan.Delete && d.written != nil:
			c.leaving[ref] = true
		}
	}
	for ref, f := range out.failed {
		c.failed[ref] = f
		if !f.final {
			c.again(ref, now)
		}
	}
}

// blocked returns what is known not to be applied, and why, outside of scope: what needs it cannot be applied either.
func (c *commit) blocked() map[plan.Ref]string {
	blocked := map[plan.Ref]string{}
	for ref, why := range c.refused {
		blocked[ref] = why
	}
	for ref, f := range c.failed {
		blocked[ref] = f.line
	}
	for ref := range c.scope {
		delete(blocked, ref)
	}
	return blocked
}

// unblock asks for another look at what was not applied when something else was: it may have been in the way.
func (c *commit) unblock() {
	for ref := range c.blocked() {
		c.scope[ref] = true
	}
}

// count adds what was done for the commit itself, not to put things back, to its record.
func (c *commit) count(out *outcome) {
	for _, a := range out.done {
		switch a.Op {
		case plan.Create:
			c.status.Created++
		case plan.Update:
			c.status.Updated++
		case plan.Delete, plan.Release:
			c.status.Deleted++
		}
	}
}

// describe puts a plan of the whole tree into the record. A later look at a commit that came to its end does not
// rewrite its history.
func (c *commit) describe(p plan.Plan) {
	if final(c.status.Phase) && len(c.status.Plan) > 0 {
		return
	}
	lines := p.Lines()
	c.status.Plan = head(lines, recordedPlan)
	if more := len(lines) - recordedPlan; more > 0 {
		c.status.Plan[recordedPlan-1] = fmt.Sprintf("… and %d more", more+1)
	}
	c.status.Unchanged = p.Counts().Unchanged
	c.status.NotActedOn = nil
	for _, a := range p.Actions {
		if a.Op == plan.NotActedOn && len(c.status.NotActedOn) < recordedLines {
			c.status.NotActedOn = append(c.status.NotActedOn, a.Reason)
		}
	}
}

func final(phase string) bool {
	return phase == slipwayv1.RolloutSucceeded || phase == slipwayv1.RolloutFailed || phase == slipwayv1.RolloutRefused
}

// lines returns what went wrong, in a stable order.
func (c *commit) lines() []string {
	lines := slices.Collect(maps.Values(c.refused))
	for _, f := range c.failed {
		lines = append(lines, f.line)
	}
	slices.Sort(lines)
	return lines
}

// judge sets phase and message from the present state. It is level-triggered: a commit that failed succeeds when
// what failed it is mended; one that succeeded stays so, whatever happens to its Pods later.
func (c *commit) judge() {
	s := &c.status
	lines := c.lines()
	s.Errors, s.Refused = head(lines, recordedLines), len(c.refused)
	before, said := s.Phase, s.Message
	s.Phase, s.Message = c.phase(lines)
	if before == slipwayv1.RolloutSucceeded && s.Phase != slipwayv1.RolloutAwaiting {
		s.Phase, s.Message = before, c.done()
	}
	if before == slipwayv1.RolloutFailed && s.Phase == slipwayv1.RolloutSettling {
		s.Phase, s.Message = before, said
	}
	if final(s.Phase) {
		if s.EndedAt.IsZero() || before != s.Phase {
			s.EndedAt = metav1.Now().Rfc3339Copy()
		}
	} else {
		s.EndedAt = metav1.Time{}
	}
}

func (c *commit) phase(lines []string) (phase, message string) {
	late := c.late()
	cause, stuck := "", 0
	for _, ref := range late {
		h := c.health[ref]
		if h.Stuck || h.Status == health.Failed {
			stuck++
		}
		if cause == "" && h.Cause != "" {
			cause = fmt.Sprintf("%s: %s", ref, h.Cause)
		}
	}
	if cause == "" && len(c.leaving) == len(late) && len(late) > 0 {
		cause = fmt.Sprintf("%s: %s", late[0], c.health[late[0]].Message)
	}
	switch {
	case c.refusal != "":
		return slipwayv1.RolloutRefused, c.refusal
	case !c.planned:
		return slipwayv1.RolloutApplying, ""
	case c.question != "":
		return slipwayv1.RolloutAwaiting, c.question
	case c.underWay() > 0:
		return slipwayv1.RolloutApplying, first(append(lines, "waiting for objects that are being deleted, or for nodes that have not joined"))
	case stuck > 0 && stuck == len(late):
		return slipwayv1.RolloutFailed, c.failure(late)
	case len(late) > 0:
		return slipwayv1.RolloutSettling, cause
	case len(lines) > 0:
		return slipwayv1.RolloutFailed, lines[0]
	}
	return slipwayv1.RolloutSucceeded, c.done()
}

// underWay counts objects that are still to be written and may be.
func (c *commit) underWay() int {
	n := len(c.waiting)
	for _, f := range c.failed {
		if !f.final {
			n++
		}
	}
	return n
}

// failure is the first real cause among what does not become current.
func (c *commit) failure(late []plan.Ref) string {
	for _, ref := range late {
		if h := c.health[ref]; h.Cause != "" || h.Message != "" {
			text := h.Cause
			if text == "" {
				text = h.Message
			}
			return fmt.Sprintf("%s: %s", ref, text)
		}
	}
	return ""
}

func (c *commit) done() string {
	s := c.status
	var parts []string
	for _, p := range []struct {
		n    int
		text string
	}{{s.Created, "created"}, {s.Updated, "updated"}, {s.Deleted, "deleted"}, {s.Unchanged, "unchanged"}} {
		if p.n > 0 {
			parts = append(parts, fmt.Sprintf("%d %s", p.n, p.text))
		}
	}
	if len(parts) == 0 {
		return "nothing to do"
	}
	return strings.Join(parts, ", ")
}

// late returns the objects that are not current, in a stable order.
func (c *commit) late() []plan.Ref {
	var refs []plan.Ref
	for ref, h := range c.health {
		if h.Status != health.Current {
			refs = append(refs, ref)
		}
	}
	slices.SortFunc(refs, plan.Ref.Compare)
	return refs
}

func first(lines []string) string { return lines[0] }
