package server

import (
	"context"
	"net/http"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"

	"github.com/slipway-dev/slipway/apiserver/pki"
	"github.com/slipway-dev/slipway/apiserver/registry"
	"github.com/slipway-dev/slipway/apiserver/store"
)

type identityKey struct{}

// identityOf returns who sent the request.
func identityOf(r *http.Request) registry.Identity {
	id, _ := r.Context().Value(identityKey{}).(registry.Identity)
	return id
}

// client returns the registry as the sender of the request sees it.
func (s *server) client(r *http.Request) store.Client { return s.Registry.As(identityOf(r)) }

// open are the paths that answer without a name: they say nothing about objects.
var open = map[string]bool{"/healthz": true, "/livez": true, "/readyz": true, "/version": true}

// authenticated finds the sender's identity: a client certificate of this cluster's authority, verified by the TLS
// layer, or a service account token. Everything else is 401.
func (s *server) authenticated(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		id, err := s.authenticate(r)
		if err != nil && !open[r.URL.Path] {
			writeError(w, r, err)
			return
		}
		for header := range r.Header {
			if strings.HasPrefix(header, "Impersonate-") {
				writeError(w, r, apierrors.NewForbidden(corev1.Resource("users"), r.Header.Get("Impersonate-User"),
					errText("impersonation is not offered here")))
				return
			}
		}
		next.ServeHTTP(w, r.WithContext(context.WithValue(r.Context(), identityKey{}, id)))
	})
}

func (s *server) authenticate(r *http.Request) (registry.Identity, error) {
	if header := r.Header.Get("Authorization"); header != "" {
		scheme, token, _ := strings.Cut(header, " ")
		if !strings.EqualFold(scheme, "Bearer") {
			return registry.Identity{}, unauthorized()
		}
		return s.serviceAccount(r.Context(), strings.TrimSpace(token))
	}
	if r.TLS != nil && len(r.TLS.VerifiedChains) > 0 {
		leaf := r.TLS.VerifiedChains[0][0]
		subject := leaf.Subject
		if subject.CommonName == "" || time.Now().After(leaf.NotAfter) { // it may have ended since the handshake
			return registry.Identity{}, unauthorized()
		}
		return registry.Identity{Name: subject.CommonName, Groups: append([]string{"system:authenticated"}, subject.Organization...)}, nil
	}
	return registry.Identity{}, unauthorized()
}

// serviceAccount accepts a token whose account, and the Pod or Secret it is bound to, still exist: not others of their names.
func (s *server) serviceAccount(ctx context.Context, token string) (registry.Identity, error) {
	account, err := s.Tokens.Verify(token)
	if err != nil {
		return registry.Identity{}, unauthorized()
	}
	reader := s.Registry.As(registry.Admin())
	sa, err := store.Get[*corev1.ServiceAccount](ctx, reader, account.Namespace, account.Name)
	if err != nil || string(sa.UID) != account.UID {
		return registry.Identity{}, unauthorized()
	}
	if account.PodName != "" {
		pod, err := store.Get[*corev1.Pod](ctx, reader, account.Namespace, account.PodName)
		if err != nil || string(pod.UID) != account.PodUID {
			return registry.Identity{}, unauthorized()
		}
	}
	if account.SecretName != "" {
		secret, err := store.Get[*corev1.Secret](ctx, reader, account.Namespace, account.SecretName)
		if err != nil || string(secret.UID) != account.SecretUID {
			return registry.Identity{}, unauthorized()
		}
	}
	return registry.Identity{Name: account.User(), UID: account.UID, Groups: account.Groups(), Extra: extra(account)}, nil
}

func extra(account pki.Account) map[string][]string {
	e := map[string][]string{"authentication.kubernetes.io/credential-id": {"JTI=" + account.TokenID}}
	if account.PodName != "" {
		e["authentication.kubernetes.io/pod-name"] = []string{account.PodName}
		e["authentication.kubernetes.io/pod-uid"] = []string{account.PodUID}
	}
	return e
}
