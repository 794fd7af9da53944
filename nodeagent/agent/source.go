package agent

import (
	"context"
	"fmt"
	"time"

	authenticationv1 "k8s.io/api/authentication/v1"
	corev1 "k8s.io/api/core/v1"

	"github.com/slipway-dev/slipway/apiserver/api"
	"github.com/slipway-dev/slipway/apiserver/store"
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
