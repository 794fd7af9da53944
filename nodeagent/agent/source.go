package agent

import (
	"context"
	"fmt"
	"log/slog"
	"sync"
	"time"

	authenticationv1 "k8s.io/api/authentication/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/slipway-dev/slipway/apiserver/api"
	"github.com/slipway-dev/slipway/apiserver/store"
	"github.com/slipway-dev/slipway/nodeagent/agent/feed"
)

// source gives volumes their content.
type source struct{ a *Agent }

func (s source) ConfigMap(ctx context.Context, pod *corev1.Pod, name string) (*corev1.ConfigMap, error) {
	return s.a.refs.ConfigMap(ctx, pod, name)
}

func (s source) Secret(ctx context.Context, pod *corev1.Pod, name string) (*corev1.Secret, error) {
	return s.a.refs.Secret(ctx, pod, name)
}

// Token asks for a token of the Pod's service account that ends with the Pod.
func (s source) Token(ctx context.Context, pod *corev1.Pod, audience string, seconds int64) (string, time.Time, error) {
	req := api.TokenRequests.New().(*authenticationv1.TokenRequest)
	req.Name, req.Namespace = pod.Spec.ServiceAccountName, pod.Namespace
	req.Spec = authenticationv1.TokenRequestSpec{
		ExpirationSeconds: &seconds,
		BoundObjectRef:    &authenticationv1.BoundObjectReference{Kind: "Pod", APIVersion: "v1", Name: pod.Name, UID: pod.UID},
	}
	if audience != "" {
		req.Spec.Audiences = []string{audience}
	}
	obj, err := s.a.cfg.Client.Create(ctx, req, store.CreateOptions{Subresource: "token"})
	if err != nil {
		return "", time.Time{}, err
	}
	answer, ok := obj.(*authenticationv1.TokenRequest)
	if !ok {
		return "", time.Time{}, fmt.Errorf("token request answered with %T", obj)
	}
	return answer.Status.Token, answer.Status.ExpirationTimestamp.Time, nil
}

// services are the cluster's Services, for environment variables.
type services struct {
	known chan struct{} // closed when they are

	mu     sync.Mutex
	byName map[types.NamespacedName]*corev1.Service
}

func (s *services) follow(ctx context.Context, client store.Reader, log *slog.Logger) {
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

// of returns the Services of a namespace and default/kubernetes, once they are known.
func (s *services) of(ctx context.Context, namespace string) ([]*corev1.Service, error) {
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
