package gitops

import (
	"sync"

	"github.com/slipway-dev/slipway/apiserver/api"
	"github.com/slipway-dev/slipway/apiserver/store"
	"github.com/slipway-dev/slipway/reconciler/gitops/plan"
	"github.com/slipway-dev/slipway/reconciler/loop"
)

// change is the newest state of an object as a watch saw it.
type change struct {
	object  api.Object
	deleted bool
}

// changes collects what watches see until somebody looks: the newest state of each object.
type changes struct {
	signal chan struct{} // holds one token while there is something to take

	mu   sync.Mutex
	seen map[plan.Ref]change
}

func newChanges() *changes {
	return &changes{signal: make(chan struct{}, 1), seen: map[plan.Ref]change{}}
}

func (c *changes) add(ref plan.Ref, ch change) {
	c.mu.Lock()
	c.seen[ref] = ch
	c.mu.Unlock()
	select {
	case c.signal <- struct{}{}:
	default:
	}
}

// take returns what was collected and starts anew.
func (c *changes) take() map[plan.Ref]change {
	c.mu.Lock()
	defer c.mu.Unlock()
	seen := c.seen
	c.seen = map[plan.Ref]change{}
	return seen
}

// managedKinds are the kinds a tree may hold.
func managedKinds() []*api.Kind {
	var kinds []*api.Kind
	for _, k := range api.Kinds() {
		if k.CreateOnly || k == api.Events || k == api.Sources || k == api.Rollouts {
			continue
		}
		kinds = append(kinds, k)
	}
	return kinds
}

// watcher is a controller without keys: it only fills changes.
func (c *changes) watcher() loop.Controller {
	var inputs []loop.Input
	for _, kind := range append(managedKinds(), api.Sources) {
		inputs = append(inputs, loop.Input{Kind: kind, Opts: store.WatchOptions{}, Keys: func(_, obj api.Object, deleted bool) []loop.Key {
			c.add(plan.RefOf(kind, obj), change{obj, deleted})
			return nil
		}})
	}
	return loop.Controller{Name: "gitops", Inputs: inputs}
}
