package loop

import (
	"context"
	"fmt"
	"log/slog"

	apierrors "k8s.io/apimachinery/pkg/api/errors"

	"github.com/slipway-dev/slipway/apiserver/api"
	"github.com/slipway-dev/slipway/apiserver/store"
)

// input follows one kind. It remembers the last state of each object only to tell Keys what it was before: the
// objects are the store's own, shared ones.
type input struct {
	Input
	add  func(Key)
	seen map[Key]api.Object
}

// watch follows in until ctx ends, and starts over when the watch breaks or falls behind. It returns an error that
// trying again will not mend.
func watch(ctx context.Context, client store.Reader, log *slog.Logger, in Input, add func(Key)) error {
	i := &input{Input: in, add: add, seen: map[Key]api.Object{}}
	for failures := 0; ; {
		live, err := i.follow(ctx, client)
		switch {
		case ctx.Err() != nil:
			return nil
		case isHopeless(err):
			return fmt.Errorf("watch %s: %w", in.Kind, err)
		case live:
			failures = 0
		}
		failures++
		if failures&(failures-1) == 0 && !apierrors.IsResourceExpired(err) {
			log.LogAttrs(ctx, slog.LevelWarn, "watch broke, starting over", slog.String("kind", in.Kind.String()), slog.Any("err", err))
		}
		if !sleep(ctx, backoff(failures)) {
			return nil
		}
	}
}

func isHopeless(err error) bool {
	return apierrors.IsForbidden(err) || apierrors.IsNotFound(err) || apierrors.IsMethodNotSupported(err) || apierrors.IsBadRequest(err)
}

// follow runs one watch from the present state on. Live says that it got beyond the initial objects.
func (i *input) follow(ctx context.Context, client store.Reader) (live bool, err error) {
	i.known(false)
	opts := i.Opts
	opts.Revision = 0
	w, err := client.Watch(ctx, i.Kind, opts)
	if err != nil {
		return false, err
	}
	defer w.Close()
	initial := map[Key]bool{}
	for {
		ev, err := w.Next(ctx)
		if err != nil {
			return live, err
		}
		switch {
		case ev.InitialEventsEnd:
			i.forget(initial)
			initial, live = nil, true
			i.known(true)
		case ev.Object == nil:
		default:
			if initial != nil {
				initial[KeyOf(ev.Object)] = true
			}
			i.changed(ev.Object, ev.Type == store.Deleted)
		}
	}
}

func (i *input) known(all bool) {
	if i.Known != nil {
		i.Known(all)
	}
}

// forget reports as deleted what is no longer among the initial objects: it went while nobody watched.
func (i *input) forget(initial map[Key]bool) {
	for key, obj := range i.seen {
		if !initial[key] {
			i.changed(obj, true)
		}
	}
}

// changed enqueues what obj's change touches.
func (i *input) changed(obj api.Object, deleted bool) {
	key := KeyOf(obj)
	old := i.seen[key]
	switch {
	case i.Stateless:
	case deleted:
		delete(i.seen, key)
	default:
		i.seen[key] = obj
	}
	for _, k := range i.Keys(old, obj, deleted) {
		i.add(k)
	}
}
