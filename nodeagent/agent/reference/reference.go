// Package reference follows the ConfigMaps and Secrets that the Pods of a node name, one by one, as long as a Pod
// names them, and tells which Pods are touched by a change. It also keeps the Services their environment names.
package reference

import (
	"context"
	"log/slog"
	"slices"
	"sync"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/types"

	"github.com/slipway-dev/slipway/apiserver/api"
	"github.com/slipway-dev/slipway/apiserver/store"
	"github.com/slipway-dev/slipway/nodeagent/agent/feed"
)

// Objects are the followed objects.
type Objects struct {
	client  store.Reader
	log     *slog.Logger
	changed func(pod types.UID)

	mu      sync.Mutex
	entries map[key]*entry
}

type key struct {
	kind            *api.Kind
	namespace, name string
}

type entry struct {
	pods   []types.UID
	cancel context.CancelFunc
	known  chan struct{} // closed when obj or err is set for the first time
	told   bool
	obj    api.Object // nil: does not exist
	err    error
}

// New returns an empty set that calls changed, from any goroutine, for every Pod a changed object concerns.
func New(client store.Reader, log *slog.Logger, changed func(pod types.UID)) *Objects {
	return &Objects{client: client, log: log, changed: changed, entries: map[key]*entry{}}
}

// ConfigMap returns a ConfigMap of the Pod's namespace and follows it from now on. A missing one is NotFound.
func (o *Objects) ConfigMap(ctx context.Context, pod *corev1.Pod, name string) (*corev1.ConfigMap, error) {
	obj, err := o.get(ctx, pod, key{api.ConfigMaps, pod.Namespace, name})
	if err != nil {
		return nil, err
	}
	return obj.(*corev1.ConfigMap), nil
}

// Secret returns a Secret of the Pod's namespace and follows it from now on. A missing one is NotFound.
func (o *Objects) Secret(ctx context.Context, pod *corev1.Pod, name string) (*corev1.Secret, error) {
	obj, err := o.get(ctx, pod, key{api.Secrets, pod.Namespace, name})
	if err != nil {
		return nil, err
	}
	return obj.(*corev1.Secret), nil
}

func (o *Objects) get(ctx context.Context, pod *corev1.Pod, k key) (api.Object, error) {
	e := o.follow(pod.UID, k)
	select {
	case <-e.known:
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	switch {
	case e.obj != nil:
		return e.obj, nil
	case e.err != nil:
		return nil, e.err
	}
	return nil, apierrors.NewNotFound(k.kind.GroupResource(), k.name)
}

func (o *Objects) follow(pod types.UID, k key) *entry {
	o.mu.Lock()
	defer o.mu.Unlock()
	e := o.entries[k]
	if e == nil {
		ctx, cancel := context.WithCancel(context.Background())
		e = &entry{cancel: cancel, known: make(chan struct{})}
		o.entries[k] = e
		opts := store.WatchOptions{Namespace: k.namespace, Fields: fields.OneTermEqualSelector("metadata.name", k.name)}
		go feed.Follow(ctx, o.client, k.kind, opts, o.log, func(c feed.Change) { o.tell(e, c) })
	}
	if !slices.Contains(e.pods, pod) {
		e.pods = append(e.pods, pod)
	}
	return e
}

// tell takes a change in and passes it on to the Pods that know another state.
func (o *Objects) tell(e *entry, c feed.Change) {
	o.mu.Lock()
	switch {
	case c.Err != nil:
		e.err = c.Err
	case c.Object != nil && c.Deleted:
		e.obj, e.err = nil, nil
	case c.Object != nil:
		e.obj, e.err = c.Object, nil
	default:
		e.err = nil
	}
	first := !e.told && (c.Synced || c.Err != nil)
	if first {
		e.told = true
		close(e.known)
	}
	var pods []types.UID
	if e.told && !first && !c.Synced {
		pods = slices.Clone(e.pods)
	}
	o.mu.Unlock()
	for _, pod := range pods {
		o.changed(pod)
	}
}

// Forget ends following what only this Pod named.
func (o *Objects) Forget(pod types.UID) {
	o.mu.Lock()
	defer o.mu.Unlock()
	for k, e := range o.entries {
		e.pods = slices.DeleteFunc(e.pods, func(p types.UID) bool { return p == pod })
		if len(e.pods) == 0 {
			e.cancel()
			delete(o.entries, k)
		}
	}
}
