package store

import (
	"bytes"
	"fmt"
	"sync"

	"k8s.io/apimachinery/pkg/api/equality"

	"github.com/slipway-dev/slipway/apiserver/api"
)

// guard remembers how each object in the cache was stored and notices when one is not so any more. A nil guard
// does nothing.
type guard struct {
	report func(problem string)
	mu     sync.Mutex
	stored map[*item][]byte
}

// DetectMutation makes the store check that nobody changes the objects it shares, and that objects handed over by
// a writer read back from the backend as they are. It reports each problem once, naming the object. It costs an
// encoding for every read of an object; it is for tests.
func DetectMutation(report func(problem string)) Option {
	return func(s *Store) { s.guard = &guard{report: report, stored: map[*item][]byte{}} }
}

// add begins to watch over an item that was stored as value.
func (g *guard) add(s *Store, it *item, value []byte) {
	if g == nil {
		return
	}
	g.mu.Lock()
	g.stored[it] = bytes.Clone(value)
	g.mu.Unlock()
	kind, err := api.KindOf(it.obj)
	if err != nil {
		return
	}
	decoded, err := s.codec.Decode(kind, value)
	if err != nil {
		return // it was not decoded for the cache either
	}
	setRevision(decoded, it.revision)
	if !equality.Semantic.DeepEqual(decoded, it.obj) {
		g.report(fmt.Sprintf("%s %s/%s: the writer's object does not read back from the backend as it is", kind, it.namespace, it.name))
	}
}

// check compares an item with what was stored.
func (g *guard) check(s *Store, it *item) {
	if g == nil || it == nil {
		return
	}
	g.mu.Lock()
	value, ok := g.stored[it]
	g.mu.Unlock()
	if !ok {
		return
	}
	bare := shallow(it.obj)
	bare.SetResourceVersion("")
	now, err := s.codec.Encode(bare)
	if err == nil && bytes.Equal(now, value) && it.obj.GetResourceVersion() == fmt.Sprint(it.revision) {
		return
	}
	g.mu.Lock()
	delete(g.stored, it)
	g.mu.Unlock()
	g.report(fmt.Sprintf("%T %s/%s at revision %d was changed after it was read: objects from the store are shared", it.obj, it.namespace, it.name, it.revision))
}

// sweep checks every item that is still in the cache or was read since.
func (g *guard) sweep(s *Store) error {
	if g == nil {
		return nil
	}
	g.mu.Lock()
	items := make([]*item, 0, len(g.stored))
	for it := range g.stored {
		items = append(items, it)
	}
	g.mu.Unlock()
	for _, it := range items {
		g.check(s, it)
	}
	return nil
}
