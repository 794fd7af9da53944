package store

import (
	"bytes"
	"strconv"
	"sync"

	"github.com/slipway-dev/slipway/apiserver/api"
)

// inFlight holds the objects of running writes, so that the cache takes over the object a writer has instead of
// decoding it. Either side may be first to learn the revision.
type inFlight struct {
	mu     sync.Mutex
	writes map[string][]*write
}

// write is one object's part of a running transaction.
type write struct {
	key      string
	value    []byte     // encoded, nil for a deletion
	obj      api.Object // this write's own until claimed; for a deletion the last state
	old      uint64     // the revision a deletion removes
	revision uint64     // 0: not known yet
	claimed  bool       // the cache has obj
}

// enter announces a write before its transaction begins.
func (f *inFlight) enter(w *write) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.writes == nil {
		f.writes = map[string][]*write{}
	}
	f.writes[w.key] = append(f.writes[w.key], w)
}

// written returns the object of the write that put value at revision, nil if it is not known.
func (f *inFlight) written(key string, value []byte, revision uint64) api.Object {
	return f.claim(key, revision, func(w *write) bool { return w.value != nil && bytes.Equal(w.value, value) })
}

// removed returns the last state of an object deleted at revision, nil if its writer is not known.
func (f *inFlight) removed(k *kindCache, old *item, revision uint64) api.Object {
	key := keyOf(k.prefix, old.namespace, old.name)
	return f.claim(key, revision, func(w *write) bool { return w.value == nil && w.old == old.revision })
}

func (f *inFlight) claim(key string, revision uint64, same func(*write) bool) api.Object {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, w := range f.writes[key] {
		if w.claimed || w.revision != 0 && w.revision != revision || !same(w) {
			continue
		}
		if w.revision == 0 {
			w.revision = revision
			setRevision(w.obj, revision)
		} else {
			f.remove(w) // its writer has gone
		}
		w.claimed = true
		return w.obj
	}
	return nil
}

// leave ends a write whose transaction made a revision, and returns the object to give to the caller. If the
// cache has not come to the revision the write stays until it does.
func (f *inFlight) leave(w *write, revision uint64, applied func() uint64) api.Object {
	f.mu.Lock()
	defer f.mu.Unlock()
	if w.claimed {
		f.remove(w)
		if w.revision == revision {
			return w.obj
		}
		// A twin with the same bytes took this object; equal but for the revision.
		return atRevision(w.obj, revision)
	}
	w.revision = revision
	setRevision(w.obj, revision)
	if applied() >= revision {
		f.remove(w)
	}
	return w.obj
}

// abandon ends a write whose transaction failed.
func (f *inFlight) abandon(w *write) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.remove(w)
}

// forget drops finished writes at or before a revision the cache has loaded.
func (f *inFlight) forget(revision uint64) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, writes := range f.writes {
		for _, w := range append([]*write(nil), writes...) {
			if w.revision != 0 && w.revision <= revision && !w.claimed {
				f.remove(w)
			}
		}
	}
}

func (f *inFlight) remove(w *write) {
	writes := f.writes[w.key]
	for i := range writes {
		if writes[i] == w {
			writes = append(writes[:i:i], writes[i+1:]...)
			break
		}
	}
	if len(writes) == 0 {
		delete(f.writes, w.key)
		return
	}
	f.writes[w.key] = writes
}

func setRevision(obj api.Object, revision uint64) {
	obj.SetResourceVersion(strconv.FormatUint(revision, 10))
}
