// Package catalog follows Services and the EndpointSlices that belong to them, for those who act on a node by them:
// the service proxy and the cluster DNS.
//
// It keeps the newest state of each Service and tells which ones changed. It must not interpret them.
package catalog

import (
	"cmp"
	"context"
	"log/slog"
	"slices"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/slipway-dev/slipway/apiserver/api"
	"github.com/slipway-dev/slipway/apiserver/store"
)

// Retry is the pause after a failed watch or a failed application of changes.
const retry = time.Second

// Service is one Service with its EndpointSlices, sorted by name. All of it is shared and immutable.
type Service struct {
	*corev1.Service
	Slices []*discoveryv1.EndpointSlice
}

// Changes are the Services that are not as they were told before; nil for one that is gone.
type Changes map[types.NamespacedName]*Service

// Follow calls apply with changes until ctx ends, one call at a time. The first call comes when everything is known,
// with all Services there are, none perhaps. Changes that come while apply runs are told together afterwards; those
// it returned an error for are told again.
func Follow(ctx context.Context, client store.Reader, log *slog.Logger, apply func(Changes) error) error {
	f := &follower{
		log: log, wake: make(chan struct{}, 1), changed: map[types.NamespacedName]bool{},
		services: map[types.NamespacedName]*corev1.Service{},
		slices:   map[types.NamespacedName]map[string]*discoveryv1.EndpointSlice{},
		owner:    map[types.NamespacedName]types.NamespacedName{},
	}
	var wg sync.WaitGroup
	defer wg.Wait()
	wg.Go(func() { f.watch(ctx, client, api.Services, 0) })
	wg.Go(func() { f.watch(ctx, client, api.EndpointSlices, 1) })
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-f.wake:
		}
		changes, ready := f.take()
		if !ready {
			continue
		}
		if err := apply(changes); err != nil {
			log.Error("apply changed services", "count", len(changes), "error", err)
			f.again(changes)
			select {
			case <-ctx.Done():
				return ctx.Err()
			case <-time.After(retry):
			}
		}
	}
}

type follower struct {
	log  *slog.Logger
	wake chan struct{}

	mu       sync.Mutex
	synced   [2]bool // Services, EndpointSlices
	told     bool    // take returned everything once
	changed  map[types.NamespacedName]bool
	services map[types.NamespacedName]*corev1.Service
	slices   map[types.NamespacedName]map[string]*discoveryv1.EndpointSlice // by Service, then by slice name
	owner    map[types.NamespacedName]types.NamespacedName                  // Service of each slice
}

// watch keeps one kind's objects up to date until ctx ends.
func (f *follower) watch(ctx context.Context, client store.Reader, kind *api.Kind, which int) {
	for ctx.Err() == nil {
		err := f.watchOnce(ctx, client, kind, which)
		if ctx.Err() != nil {
			return
		}
		f.log.Warn("watch again", "kind", kind.String(), "error", err)
		select {
		case <-ctx.Done():
		case <-time.After(retry):
		}
	}
}

func (f *follower) watchOnce(ctx context.Context, client store.Reader, kind *api.Kind, which int) error {
	w, err := client.Watch(ctx, kind, store.WatchOptions{})
	if err != nil {
		return err
	}
	defer w.Close()
	seen := map[types.NamespacedName]bool{} // nil once the initial objects are all there
	for {
		event, err := w.Next(ctx)
		if err != nil {
			return err
		}
		if event.Type == store.Bookmark {
			if event.InitialEventsEnd && seen != nil {
				f.sweep(which, seen)
				seen = nil
			}
			continue
		}
		if seen != nil {
			seen[nameOf(event.Object)] = true
		}
		f.put(event.Object, event.Type == store.Deleted)
	}
}

// put takes over one object's new state.
func (f *follower) put(obj api.Object, deleted bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	name := nameOf(obj)
	switch obj := obj.(type) {
	case *corev1.Service:
		f.services[name] = obj
		if deleted {
			delete(f.services, name)
		}
		f.change(name)
	case *discoveryv1.EndpointSlice:
		f.putSlice(name, obj, deleted)
	}
}

func (f *follower) putSlice(name types.NamespacedName, slice *discoveryv1.EndpointSlice, deleted bool) {
	owner := types.NamespacedName{Namespace: slice.Namespace, Name: slice.Labels[discoveryv1.LabelServiceName]}
	if before, ok := f.owner[name]; ok && (deleted || before != owner) {
		delete(f.owner, name)
		delete(f.slices[before], name.Name)
		if len(f.slices[before]) == 0 {
			delete(f.slices, before)
		}
		f.change(before)
	}
	if deleted || owner.Name == "" {
		return
	}
	if f.slices[owner] == nil {
		f.slices[owner] = map[string]*discoveryv1.EndpointSlice{}
	}
	f.owner[name], f.slices[owner][name.Name] = owner, slice
	f.change(owner)
}

// sweep forgets objects that a new watch did not show: they went while nobody watched.
func (f *follower) sweep(which int, seen map[types.NamespacedName]bool) {
	var gone []api.Object
	f.mu.Lock()
	if which == 0 {
		for name, service := range f.services {
			if !seen[name] {
				gone = append(gone, service)
			}
		}
	} else {
		for name, owner := range f.owner {
			if !seen[name] {
				gone = append(gone, f.slices[owner][name.Name])
			}
		}
	}
	f.mu.Unlock()
	for _, obj := range gone {
		f.put(obj, true)
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	f.synced[which] = true
	f.signal()
}

func (f *follower) change(name types.NamespacedName) {
	f.changed[name] = true
	f.signal()
}

func (f *follower) signal() {
	select {
	case f.wake <- struct{}{}:
	default:
	}
}

// take returns what changed since the last call; ready is false while not everything is known.
func (f *follower) take() (_ Changes, ready bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if !f.synced[0] || !f.synced[1] || (f.told && len(f.changed) == 0) {
		return nil, false
	}
	changes := make(Changes, len(f.changed))
	for name := range f.changed {
		changes[name] = f.service(name)
	}
	clear(f.changed)
	f.told = true
	return changes, true
}

func (f *follower) service(name types.NamespacedName) *Service {
	service, ok := f.services[name]
	if !ok {
		return nil
	}
	s := &Service{Service: service}
	for _, slice := range f.slices[name] {
		s.Slices = append(s.Slices, slice)
	}
	slices.SortFunc(s.Slices, func(a, b *discoveryv1.EndpointSlice) int { return cmp.Compare(a.Name, b.Name) })
	return s
}

// again puts changes back to be told once more.
func (f *follower) again(changes Changes) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.told = f.told && len(changes) > 0
	for name := range changes {
		f.changed[name] = true
	}
	f.signal()
}

func nameOf(obj api.Object) types.NamespacedName {
	return types.NamespacedName{Namespace: obj.GetNamespace(), Name: obj.GetName()}
}
