package reconciler

import (
	"context"
	"errors"
	"time"

	"github.com/slipway-dev/slipway/apiserver/api"
	"github.com/slipway-dev/slipway/apiserver/store"
)

// unlucky is a client whose writes fail now and then where the world says so: some before they are done, some after.
type unlucky struct {
	store.Client
	w *world
}

func (u unlucky) try(write func() (api.Object, error)) (api.Object, error) {
	u.w.mu.Lock()
	fate := 9
	if u.w.luck != nil {
		fate = u.w.luck.IntN(10)
	}
	end := 9
	if u.w.fatal != nil {
		end = u.w.fatal.IntN(10)
	}
	u.w.mu.Unlock()
	if end == 0 {
		u.w.die()
	}
	if fate == 0 || end == 0 {
		return nil, errors.New("connection refused")
	}
	obj, err := write()
	if end == 1 {
		u.w.die()
	}
	if fate == 1 && err == nil {
		return nil, errors.New("connection lost, nobody knows what was done")
	}
	return obj, err
}

// die ends all parts at once, wherever they are.
func (w *world) die() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.kill()
	select {
	case w.dead <- true:
	default:
	}
}

// keep starts everything again whenever it was killed, for a while.
func (w *world) keep(d time.Duration) {
	end := time.After(d)
	for {
		select {
		case <-w.dead:
			w.stop()
			w.start()
		case <-end:
			return
		}
	}
}

func (u unlucky) List(ctx context.Context, kind *api.Kind, opts store.ListOptions) (store.List, error) {
	u.w.lists.Add(1)
	return u.Client.List(ctx, kind, opts)
}

func (u unlucky) Create(ctx context.Context, obj api.Object, opts store.CreateOptions) (api.Object, error) {
	return u.try(func() (api.Object, error) { return u.Client.Create(ctx, obj, opts) })
}

func (u unlucky) Update(ctx context.Context, obj api.Object, opts store.UpdateOptions) (api.Object, error) {
	return u.try(func() (api.Object, error) { return u.Client.Update(ctx, obj, opts) })
}

func (u unlucky) Delete(ctx context.Context, kind *api.Kind, ns, name string, opts store.DeleteOptions) (api.Object, error) {
	return u.try(func() (api.Object, error) { return u.Client.Delete(ctx, kind, ns, name, opts) })
}
