package containerd

import (
	"context"
	"sync"
	"time"

	eventsapi "github.com/containerd/containerd/api/events"
	"github.com/containerd/containerd/v2/core/events"
	"github.com/containerd/typeurl/v2"

	"github.com/slipway-dev/slipway/nodeagent/engine"
	"github.com/slipway-dev/slipway/nodeagent/engine/fault"
)

const (
	resubscribe  = 100 * time.Millisecond // after containerd's events broke off
	lookAgain    = 500 * time.Millisecond // a second look after subscribing, which takes effect a little later
	lookRegular  = 30 * time.Second       // whatever the events said
	keepTask     = 15 * time.Second       // an ended container holds its shim for the next one of its group
	reapInterval = 5 * time.Second
)

// List returns every container.
func (e *Engine) List(context.Context) ([]engine.Status, error) { return e.cache.list(), nil }

// follow looks at everything once and then keeps the cache true until ctx ends.
func (e *Engine) follow(ctx context.Context) error {
	stream, broken := e.subscribe(ctx)
	if _, err := e.look(ctx); err != nil {
		return fault.Classify("list containers", err)
	}
	begun, err := e.execsLeft()
	if err != nil {
		return err
	}
	e.ended.Go(func() { e.endExecs(ctx, begun) })
	e.ended.Go(func() { e.keep(ctx, stream, broken) })
	e.ended.Go(func() { e.reap(ctx) })
	return nil
}

func (e *Engine) subscribe(ctx context.Context) (<-chan *events.Envelope, <-chan error) {
	own := "namespace==" + e.cfg.Namespace
	return e.client.Subscribe(ctx, own+`,topic~="^/tasks/(exit|start|paused|resumed)$"`, own+`,topic~="^/images/"`)
}

// keep handles events, and looks at everything after each gap and from time to time.
func (e *Engine) keep(ctx context.Context, stream <-chan *events.Envelope, broken <-chan error) {
	regular := time.NewTicker(lookRegular)
	defer regular.Stop()
	again := time.NewTimer(lookAgain)
	defer again.Stop()
	for ctx.Err() == nil {
		select {
		case <-ctx.Done():
		case envelope := <-stream:
			e.handle(ctx, envelope)
		case <-again.C:
			e.lookAndTell(ctx)
		case <-regular.C:
			e.lookAndTell(ctx)
		case <-e.hurry:
			e.lookAndTell(ctx)
		case err := <-broken:
			if ctx.Err() != nil {
				return
			}
			e.cfg.Log.Warn("containerd's events broke off", "err", err)
			stream, broken = e.reconnect(ctx)
			again.Reset(lookAgain)
		}
	}
}

// reconnect subscribes again and looks at everything, as often as it takes.
func (e *Engine) reconnect(ctx context.Context) (<-chan *events.Envelope, <-chan error) {
	for {
		select {
		case <-ctx.Done():
			return nil, nil
		case <-time.After(resubscribe):
		}
		attempt, cancel := context.WithCancel(ctx)
		stream, broken := e.subscribe(attempt)
		if _, err := e.look(ctx); err == nil {
			e.ForgetAll()
			context.AfterFunc(ctx, cancel)
			e.watcher.notify("")
			return stream, broken
		}
		cancel()
	}
}

func (e *Engine) lookAndTell(ctx context.Context) {
	changed, err := e.look(ctx)
	if err != nil {
		return // the event stream breaks, too, and is looked after there
	}
	for _, id := range changed {
		e.watcher.notify(id)
	}
}

func (e *Engine) handle(ctx context.Context, envelope *events.Envelope) {
	if envelope == nil || envelope.Event == nil {
		return
	}
	event, err := typeurl.UnmarshalAny(envelope.Event)
	if err != nil {
		e.cfg.Log.Warn("containerd event cannot be read", "topic", envelope.Topic, "err", err)
		return
	}
	switch event := event.(type) {
	case *eventsapi.TaskExit:
		if event.ID != event.ContainerID {
			return
		}
		e.finish(ctx, event.ContainerID, exit{code: int(event.ExitStatus), at: event.ExitedAt.AsTime()})
	case *eventsapi.ImageDelete:
		e.Forget(event.Name)
	case *eventsapi.ImageUpdate:
		e.Forget(event.Name)
	}
}

// reap deletes the tasks of ended containers after a while, so that a Pod that is done costs no shim.
func (e *Engine) reap(ctx context.Context) {
	tick := time.NewTicker(reapInterval)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		for _, id := range e.cache.stale(time.Now().Add(-keepTask)) {
			if err := e.deleteTask(ctx, id); err == nil {
				e.cache.change(id, func(st *entry) { st.task = false })
			}
		}
	}
}

// watchers hands events to all who watch.
type watchers struct {
	mu   sync.Mutex
	subs map[*subscriber]struct{}
}

// subscriber holds what one watcher has not taken yet: every container once, so that a slow one costs nothing.
type subscriber struct {
	pending []string
	held    map[string]bool
	wake    chan struct{}
}

// Watch delivers container changes until ctx ends.
func (e *Engine) Watch(ctx context.Context) <-chan engine.Event {
	sub := &subscriber{held: map[string]bool{}, wake: make(chan struct{}, 1)}
	e.watcher.mu.Lock()
	if e.watcher.subs == nil {
		e.watcher.subs = map[*subscriber]struct{}{}
	}
	e.watcher.subs[sub] = struct{}{}
	e.watcher.mu.Unlock()
	out := make(chan engine.Event)
	go func() {
		defer close(out)
		defer e.watcher.drop(sub)
		for {
			select {
			case <-ctx.Done():
				return
			case <-sub.wake:
			}
			for _, id := range e.watcher.take(sub) {
				select {
				case out <- engine.Event{ID: id}:
				case <-ctx.Done():
					return
				}
			}
		}
	}()
	return out
}

func (w *watchers) notify(id string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for sub := range w.subs {
		if !sub.held[id] {
			sub.held[id] = true
			sub.pending = append(sub.pending, id)
		}
		select {
		case sub.wake <- struct{}{}:
		default:
		}
	}
}

func (w *watchers) take(sub *subscriber) []string {
	w.mu.Lock()
	defer w.mu.Unlock()
	ids := sub.pending
	sub.pending = nil
	clear(sub.held)
	return ids
}

func (w *watchers) drop(sub *subscriber) {
	w.mu.Lock()
	defer w.mu.Unlock()
	delete(w.subs, sub)
}
