package store

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/slipway-dev/slipway/apiserver/store/kv"
)

// pageSize is how many keys one read of the backend returns while the cache is loaded.
const pageSize = 2000

// load replaces the cache by one state of the backend and returns its revision. Running watches end: their next
// event cannot be known.
func (s *Store) load(ctx context.Context) (uint64, error) {
	found := map[*kindCache]*sorted{}
	request := kv.Range{Prefix: root, Limit: pageSize}
	for {
		page, err := s.backend.Range(ctx, request)
		if err != nil {
			return 0, err
		}
		for _, entry := range page.Entries {
			k, it := s.decode(entry.Key, entry.Value, entry.Revision)
			if it == nil {
				continue
			}
			if found[k] == nil {
				found[k] = &sorted{}
			}
			found[k].put(it)
		}
		request.Revision = page.Revision
		if !page.More {
			break
		}
		request.From = page.Entries[len(page.Entries)-1].Key + "\x00"
	}
	s.replace(found, request.Revision)
	return request.Revision, nil
}

// replace sets the objects of all kinds together, and ends the watches on the old logs.
func (s *Store) replace(found map[*kindCache]*sorted, revision uint64) {
	for _, k := range s.kinds {
		k.mu.Lock()
		defer k.mu.Unlock()
		k.objects.replace(found[k])
		k.pages = nil
		k.log.finish()
		k.log = newLog(revision, s.logLimit)
		for _, log := range k.topics.logs {
			log.finish()
		}
		k.topics = topics{}
	}
	s.flight.forget(revision)
	s.waiting.advance(&s.applied, revision)
}

// follow applies what happens in the backend after a revision until ctx ends or the backend is closed. When the
// history it needs is gone it loads the cache anew.
func (s *Store) follow(ctx context.Context, revision uint64) {
	defer close(s.done)
	for {
		err := s.applyFrom(ctx, revision)
		if ctx.Err() != nil || errors.Is(err, kv.ErrClosed) {
			return
		}
		s.log.Warn("watch of the backend broke, the cache is loaded anew", "error", err)
		for delay := 10 * time.Millisecond; ; delay = min(2*delay, time.Second) {
			if revision, err = s.load(ctx); err == nil {
				break
			}
			s.log.Warn("load the store", "error", err)
			select {
			case <-time.After(delay):
			case <-ctx.Done():
				return
			}
		}
	}
}

func (s *Store) applyFrom(ctx context.Context, revision uint64) error {
	// Every key is watched, not only objects: the cache must know each revision to say that it has reached it.
	for batch, err := range s.backend.Watch(ctx, "", revision) {
		if err != nil {
			return err
		}
		s.apply(batch)
	}
	return errors.New("watch ended")
}

// apply brings one transaction into the cache: its kinds change together.
func (s *Store) apply(batch kv.Batch) {
	type touched struct {
		k               *kindCache
		namespace, name string
		new             *item
	}
	var room [4]touched
	changes := room[:0]
	for _, event := range batch.Events {
		k, namespace, name := s.locate(event.Key)
		if k == nil {
			continue
		}
		change := touched{k: k, namespace: namespace, name: name}
		if !event.Deleted {
			_, change.new = s.decode(event.Key, event.Value, batch.Revision)
		}
		changes = append(changes, change)
	}
	var lockedRoom [4]*kindCache
	locked, woken := lockedRoom[:0], s.woken[:0]
	for _, c := range changes {
		if !slices.Contains(locked, c.k) {
			c.k.mu.Lock()
			locked = append(locked, c.k)
		}
		woken = s.change(c.k, batch.Revision, c.namespace, c.name, c.new, woken)
	}
	s.waiting.advance(&s.applied, batch.Revision)
	for _, k := range locked {
		k.mu.Unlock()
	}
	for _, log := range woken {
		log.wake()
	}
	clear(woken)
	s.woken = woken
}

// change puts one object's change into its kind, which is locked, and returns woken with the logs it went to.
func (s *Store) change(k *kindCache, revision uint64, namespace, name string, new *item, woken []*log) []*log {
	c := &change{revision: revision, old: k.objects.get(namespace, name), new: new}
	if new != nil {
		k.objects.put(new)
	} else if c.old != nil {
		k.objects.remove(namespace, name)
		c.gone = s.flight.removed(k, c.old, revision)
	} else {
		return woken
	}
	s.guard.check(s, c.old)
	return k.publish(c, woken)
}

// tidyEvery is how often old changes and pages are dropped: a change is kept for two minutes at least, if the log
// has room.
const tidyEvery = 30 * time.Second

// tidy drops what nobody is likely to ask for, until ctx ends.
func (s *Store) tidy(ctx context.Context) {
	ticker := time.NewTicker(tidyEvery)
	defer ticker.Stop()
	for {
		select {
		case <-ticker.C:
			for _, k := range s.kinds {
				k.tidy(time.Now())
			}
		case <-ctx.Done():
			return
		}
	}
}

func (k *kindCache) tidy(now time.Time) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.log.age()
	k.pages = slices.DeleteFunc(k.pages, func(p keptPage) bool { return now.After(p.until) })
}

// decode returns the item of a stored value: the object its writer handed over, or a decoded one. A value that
// cannot be decoded is reported and not served; it stays in the backend.
func (s *Store) decode(key string, value []byte, revision uint64) (*kindCache, *item) {
	k, namespace, name := s.locate(key)
	if k == nil {
		return nil, nil
	}
	obj := s.flight.written(key, value, revision)
	if obj == nil {
		decoded, err := s.codec.Decode(k.kind, value)
		if err == nil && (decoded.GetNamespace() != namespace || decoded.GetName() != name) {
			err = fmt.Errorf("it holds %s/%s", decoded.GetNamespace(), decoded.GetName())
		}
		if err != nil {
			s.log.Error("decode a stored object", "key", key, "revision", revision, "error", err)
			return k, nil
		}
		obj = decoded
		setRevision(obj, revision)
	}
	it := &item{namespace: obj.GetNamespace(), name: obj.GetName(), revision: revision, obj: obj}
	s.guard.add(s, it, value)
	return k, it
}
