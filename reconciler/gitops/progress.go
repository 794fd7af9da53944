package gitops

import (
	slipwayv1 "github.com/slipway-dev/slipway/apiserver/api/v1alpha1"
	"github.com/slipway-dev/slipway/gitsource"
	"github.com/slipway-dev/slipway/reconciler/gitops/health"
	"github.com/slipway-dev/slipway/reconciler/gitops/plan"
)

// Step says what a Progress tells.
type Step string

// Steps, and the fields of Progress that come with each beside Revision.
const (
	StepNote       Step = "note"       // Text: something said once, about the source
	StepFetch      Step = "fetch"      // Text: why the source could not be read; empty: it can be read again
	StepReceived   Step = "received"   // a new snapshot was read
	StepRefused    Step = "refused"    // Lines: what is wrong; nothing was changed
	StepPlanned    Step = "planned"    // plan.Plan
	StepDone       Step = "done"       // Action was carried out
	StepNotDone    Step = "not done"   // Action failed; Text: path:line: Kind/namespace/name: why
	StepWorkload   Step = "workload"   // Ref and Health: it came further, or a cause showed
	StepPutBack    Step = "put back"   // Action undid a change made outside Git; Text says it
	StepAwaiting   Step = "awaiting"   // Text: deletions wait for confirmation, and why
	StepSettled    Step = "settled"    // Status.Phase is Succeeded or Failed
	StepSuperseded Step = "superseded" // a newer commit came first
)

// Progress is one line of the account of what the engine does. It is data: whoever shows it finds the words.
type Progress struct {
	Step     Step
	Revision gitsource.Revision
	Text     string
	Lines    []string
	Plan     *plan.Plan
	Action   *plan.Action
	Ref      plan.Ref
	Health   health.Health
	Status   slipwayv1.RolloutStatus
}

// tell hands p to the observer, one at a time.
func (e *Engine) tell(p Progress) {
	if e.config.Observe == nil {
		return
	}
	e.telling.Lock()
	defer e.telling.Unlock()
	e.config.Observe(p)
}
