package reconciler

import (
	"context"
	"math/rand/v2"
	"sync"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"

	"github.com/slipway-dev/slipway/apiserver/api"
	"github.com/slipway-dev/slipway/apiserver/store"
	"github.com/slipway-dev/slipway/reconciler/loop"
)

// lagging is a client that reads one consistent state of a while ago, as a cache does that is behind. It writes to the
// present. Its watches tell a change when its reads know of it.
type lagging struct {
	store.Client
	mu       sync.Mutex
	revision uint64
	lists    map[*api.Kind]store.List
	caughtUp chan bool // closed when a newer state is read
}

var laggingKinds = []*api.Kind{api.Deployments, api.ReplicaSets, api.Pods}

// newLagging returns a client that catches up after up to 400 ms again and again.
func newLagging(client store.Client, w *world, g *loop.Group) *lagging {
	l := &lagging{Client: client, caughtUp: make(chan bool)}
	l.catchUp(w)
	rng := rand.New(rand.NewPCG(l.revision, w.lagging.Add(1)))
	g.AddFunc("lag", func(ctx context.Context) error {
		for {
			select {
			case <-time.After(time.Duration(1+rng.IntN(400)) * time.Millisecond):
				l.catchUp(w)
			case <-ctx.Done():
				return nil
			}
		}
	})
	return l
}

// catchUp reads the present state.
func (l *lagging) catchUp(w *world) {
	for {
		lists, revisions := map[*api.Kind]store.List{}, map[uint64]bool{}
		var revision uint64
		for _, kind := range laggingKinds {
			list, err := w.admin.List(w.ctx, kind, store.ListOptions{})
			if err != nil {
				w.t.Error(err)
				return
			}
			lists[kind], revision, revisions[list.Revision] = list, list.Revision, true
		}
		if len(revisions) > 1 {
			continue // somebody wrote between
		}
		l.mu.Lock()
		defer l.mu.Unlock()
		l.lists, l.revision = lists, revision
		close(l.caughtUp)
		l.caughtUp = make(chan bool)
		return
	}
}

func (l *lagging) state(kind *api.Kind) (store.List, bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	list, ok := l.lists[kind]
	return list, ok
}

func (l *lagging) Get(ctx context.Context, kind *api.Kind, namespace, name string) (api.Object, error) {
	list, ok := l.state(kind)
	if !ok {
		return l.Client.Get(ctx, kind, namespace, name)
	}
	for _, obj := range list.Items {
		if obj.GetNamespace() == namespace && obj.GetName() == name {
			return obj, nil
		}
	}
	return nil, apierrors.NewNotFound(kind.GroupResource(), name)
}

func (l *lagging) List(ctx context.Context, kind *api.Kind, opts store.ListOptions) (store.List, error) {
	list, ok := l.state(kind)
	if !ok {
		return l.Client.List(ctx, kind, opts)
	}
	some := store.List{Revision: list.Revision}
	for _, obj := range list.Items {
		if opts.Namespace == "" || obj.GetNamespace() == opts.Namespace {
			some.Items = append(some.Items, obj)
		}
	}
	return some, nil
}

func (l *lagging) Watch(ctx context.Context, kind *api.Kind, opts store.WatchOptions) (store.Watch, error) {
	watch, err := l.Client.Watch(ctx, kind, opts)
	return laggingWatch{watch, l}, err
}

type laggingWatch struct {
	store.Watch
	l *lagging
}

func (w laggingWatch) Next(ctx context.Context) (store.Event, error) {
	ev, err := w.Watch.Next(ctx)
	for err == nil {
		w.l.mu.Lock()
		known, caughtUp := w.l.revision >= ev.Revision, w.l.caughtUp
		w.l.mu.Unlock()
		if known {
			break
		}
		select {
		case <-caughtUp:
		case <-ctx.Done():
			return ev, ctx.Err()
		}
	}
	return ev, err
}
