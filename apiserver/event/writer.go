package event

import (
	"context"
	"fmt"
	"log/slog"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/slipway-dev/slipway/apiserver/api"
	"github.com/slipway-dev/slipway/apiserver/store"
)

const (
	maxQueued = 1000            // distinct events that wait to be written
	attempts  = 3               // tries of one write
	flushTime = 2 * time.Second // for what is queued when the writer is stopped
	retryTime = 50 * time.Millisecond
)

// Writer is a Recorder that writes to a store. Equal events that wait are merged; when too many different ones wait,
// the oldest is dropped; an object that says too much is limited.
type Writer struct {
	client    store.Client
	component string
	log       *slog.Logger
	shared    *shared
	names     *names
}

// shared is the queue behind a Writer and what For derived from it.
type shared struct {
	mu      sync.Mutex
	order   []identity // oldest first
	waiting map[identity]*pending
	dropped int
	limits  limiter
	wake    chan struct{} // capacity 1
}

type pending struct {
	objectVersion string
	count         int32
	at            time.Time
}

// New returns a Writer that signs with component and writes through client once Run runs. Events recorded before
// that wait.
func New(client store.Client, component string, log *slog.Logger) *Writer {
	return &Writer{client: client, component: component, log: log, shared: &shared{
		waiting: map[identity]*pending{}, limits: limiter{buckets: map[types.UID]*bucket{}}, wake: make(chan struct{}, 1),
	}, names: &names{}}
}

// For returns a Recorder over the same queue that signs with another component.
func (w *Writer) For(component string) Recorder {
	other := *w
	other.component = component
	return &other
}

// Event implements Recorder.
func (w *Writer) Event(obj api.Object, eventType, reason, message string) {
	ref, err := Reference(obj)
	if err != nil {
		w.log.Warn("event about an unknown kind", "err", err, "reason", reason)
		return
	}
	id := newIdentity(w.component, ref, eventType, reason, message)
	w.shared.put(id, ref.ResourceVersion, time.Now())
	select {
	case w.shared.wake <- struct{}{}:
	default:
	}
}

func (s *shared) put(id identity, objectVersion string, now time.Time) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if p := s.waiting[id]; p != nil {
		p.count++
		p.at, p.objectVersion = now, objectVersion
		return
	}
	if !s.limits.allow(id.object.UID, now) {
		s.dropped++
		return
	}
	if len(s.order) == maxQueued {
		delete(s.waiting, s.order[0])
		s.order = s.order[1:]
		s.dropped++
	}
	s.order = append(s.order, id)
	s.waiting[id] = &pending{objectVersion: objectVersion, count: 1, at: now}
}

func (s *shared) pop() (identity, pending, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.order) == 0 {
		return identity{}, pending{}, false
	}
	id := s.order[0]
	s.order = s.order[1:]
	p := *s.waiting[id]
	delete(s.waiting, id)
	return id, p, true
}

// Run writes events until ctx ends, then writes what waits, for at most two seconds.
func (w *Writer) Run(ctx context.Context) error {
	for {
		w.drain(ctx)
		select {
		case <-w.shared.wake:
		case <-ctx.Done():
			last, cancel := context.WithTimeout(context.WithoutCancel(ctx), flushTime)
			defer cancel()
			w.drain(last)
			return nil
		}
	}
}

// drain writes all that waits. What cannot be written is dropped: events are not worth holding others up.
func (w *Writer) drain(ctx context.Context) {
	for ctx.Err() == nil {
		id, p, ok := w.shared.pop()
		if !ok {
			return
		}
		err := w.write(ctx, id, p)
		for try := 1; err != nil && try < attempts && !isFinal(err); try++ {
			select {
			case <-time.After(retryTime << try):
			case <-ctx.Done():
			}
			err = w.write(ctx, id, p)
		}
		if err != nil && !isFinal(err) && ctx.Err() == nil {
			w.log.Warn("event dropped", "err", err, "object", id.object.Kind+"/"+id.object.Name, "reason", id.reason)
		}
	}
}

// isFinal is true for refusals that trying again does not mend: the namespace is gone or going.
func isFinal(err error) bool {
	return apierrors.IsForbidden(err) || apierrors.IsNotFound(err) || apierrors.IsInvalid(err)
}

// write creates the Event, or counts up the one that is there.
func (w *Writer) write(ctx context.Context, id identity, p pending) error {
	t := metav1.NewTime(p.at)
	name, err := w.names.find(ctx, w.client, id)
	if err != nil {
		return err
	}
	if name != "" {
		old, err := store.Get[*corev1.Event](ctx, w.client, id.namespace(), name)
		if err == nil {
			if _, err = w.client.Update(ctx, id.again(old, p.objectVersion, p.count, t), store.UpdateOptions{FieldManager: id.component}); err != nil {
				return fmt.Errorf("update event %s: %w", name, err)
			}
			return nil
		}
		if !apierrors.IsNotFound(err) {
			return fmt.Errorf("get event %s: %w", name, err)
		}
	}
	name = id.name(w.names.stamp(p.at))
	if _, err := w.client.Create(ctx, id.fresh(name, p.objectVersion, p.count, t), store.CreateOptions{FieldManager: id.component}); err != nil {
		return fmt.Errorf("create event %s: %w", name, err)
	}
	w.names.known[id] = name
	return nil
}

// Dropped returns how many events were dropped by limits since the start.
func (w *Writer) Dropped() int {
	w.shared.mu.Lock()
	defer w.shared.mu.Unlock()
	return w.shared.dropped
}
