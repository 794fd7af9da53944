package agent

import (
	"context"
	"sync/atomic"
	"testing"

	"github.com/slipway-dev/slipway/nodeagent/engine"
)

// silentEngine does not say what containers there are for the first few times it is asked.
type silentEngine struct {
	*modelEngine
	left atomic.Int32
}

func (e *silentEngine) List(ctx context.Context) ([]engine.Status, error) {
	if e.left.Add(-1) >= 0 {
		return nil, engine.ErrUnavailable
	}
	return e.modelEngine.List(ctx)
}

// An agent that does not know the containers yet would make them a second time.
func TestNothingIsMadeBeforeContainersAreKnown(t *testing.T) {
	r, e, _ := modelRig(t)
	r.begin()
	r.create(bound("web"))
	before := r.until("ready", "web", isReady)
	r.end()
	silent := &silentEngine{modelEngine: e}
	silent.left.Store(2)
	r.config.Engine = silent
	r.begin()
	r.create(bound("later"))
	r.until("ready", "later", isReady)
	after := r.until("ready", "web", isReady)
	if got, want := describe(after), describe(before); got != want || len(e.names()) != 2 {
		t.Errorf("containers %v; %s, before %s", e.names(), got, want)
	}
}
