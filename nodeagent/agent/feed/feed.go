// Package feed follows the objects of one selection and tells of each change, across broken watches: what was
// deleted while nobody watched is told when the watch stands again.
package feed

import (
	"context"
	"log/slog"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"

	"github.com/slipway-dev/slipway/apiserver/api"
	"github.com/slipway-dev/slipway/apiserver/store"
)

// Bounds of the pause after a broken watch.
const (
	firstPause = 50 * time.Millisecond
	lastPause  = 5 * time.Second
)

// Change is one thing that happened. Synced, without an object, follows the objects there were at the beginning,
// and comes again after every gap.
type Change struct {
	Object  api.Object
	Deleted bool
	Synced  bool
	// Err is set, without an object, when the selection cannot be read at the moment; reading is tried again.
	Err error
}

// Follow calls tell, from this goroutine, until ctx ends.
func Follow(ctx context.Context, client store.Reader, kind *api.Kind, opts store.WatchOptions, log *slog.Logger, tell func(Change)) {
	f := follower{client: client, kind: kind, opts: opts, tell: tell, known: map[string]api.Object{}}
	f.opts.Revision = 0
	pause := firstPause
	for ctx.Err() == nil {
		synced, err := f.once(ctx)
		if ctx.Err() != nil {
			return
		}
		if synced {
			pause = firstPause
		}
		if !synced {
			tell(Change{Err: err})
		}
		if !apierrors.IsResourceExpired(err) {
			log.Debug("watch broke, starting over", "kind", kind.String(), "err", err)
		}
		select {
		case <-ctx.Done():
			return
		case <-time.After(pause):
		}
		pause = min(2*pause, lastPause)
	}
}

type follower struct {
	client store.Reader
	kind   *api.Kind
	opts   store.WatchOptions
	tell   func(Change)
	known  map[string]api.Object
}

func (f *follower) once(ctx context.Context) (synced bool, err error) {
	w, err := f.client.Watch(ctx, f.kind, f.opts)
	if err != nil {
		return false, err
	}
	defer w.Close()
	initial := map[string]bool{}
	for {
		ev, err := w.Next(ctx)
		if err != nil {
			return synced, err
		}
		switch {
		case ev.InitialEventsEnd:
			for key, obj := range f.known {
				if !initial[key] {
					f.change(key, obj, true)
				}
			}
			synced = true
			f.tell(Change{Synced: true})
		case ev.Object != nil:
			key := ev.Object.GetNamespace() + "/" + ev.Object.GetName()
			if !synced {
				initial[key] = true
			}
			f.change(key, ev.Object, ev.Type == store.Deleted)
		}
	}
}

func (f *follower) change(key string, obj api.Object, deleted bool) {
	if old := f.known[key]; old != nil && old.GetUID() != obj.GetUID() && !deleted {
		f.tell(Change{Object: old, Deleted: true}) // replaced while nobody watched
	}
	if deleted {
		delete(f.known, key)
	} else {
		f.known[key] = obj
	}
	f.tell(Change{Object: obj, Deleted: deleted})
}
