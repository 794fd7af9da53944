package reference

import (
	"context"
	"log/slog"
	"sync"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/slipway-dev/slipway/apiserver/api"
	"github.com/slipway-dev/slipway/apiserver/store"
	"github.com/slipway-dev/slipway/nodeagent/agent/feed"
)

// Services are the cluster's Services, for the variables by which Pods find them.
type Services struct {
	known chan struct{} // closed when they are

	mu     sync.Mutex
	byName map[types.NamespacedName]*corev1.Service
}

// NewServices returns Services of which nothing is known yet.
func NewServices() *Services { return &Services{known: make(chan struct{})} }

// Follow keeps them current until ctx ends.
func (s *Services) Follow(ctx context.Context, client store.Reader, log *slog.Logger) {
	var once sync.Once
	s.mu.Lock()
	s.byName = map[types.NamespacedName]*corev1.Service{}
	s.mu.Unlock()
	feed.Follow(ctx, client, api.Services, store.WatchOptions{}, log, func(c feed.Change) {
		s.mu.Lock()
		defer s.mu.Unlock()
		switch {
		case c.Synced:
			once.Do(func() { close(s.known) })
		case c.Object == nil:
		case c.Deleted:
			delete(s.byName, types.NamespacedName{Namespace: c.Object.GetNamespace(), Name: c.Object.GetName()})
		default:
			s.byName[types.NamespacedName{Namespace: c.Object.GetNamespace(), Name: c.Object.GetName()}] = c.Object.(*corev1.Service)
		}
	})
}

// Of returns the Services of a namespace and default/kubernetes, once they are known.
func (s *Services) Of(ctx context.Context, namespace string) ([]*corev1.Service, error) {
	select {
	case <-s.known:
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	var out []*corev1.Service
	for name, svc := range s.byName {
		if name.Namespace == namespace || name == (types.NamespacedName{Namespace: "default", Name: "kubernetes"}) {
			out = append(out, svc)
		}
	}
	return out, nil
}
