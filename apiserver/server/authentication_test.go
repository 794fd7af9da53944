package server

import (
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"net/http"
	"net/http/httptest"
	"testing"
	"time"

	authenticationv1 "k8s.io/api/authentication/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/slipway-dev/slipway/apiserver/api"
	"github.com/slipway-dev/slipway/apiserver/store"
)

// TestATokenEndsWithWhatItIsBoundTo makes the object anew under its name: the token is not for that one.
func TestATokenEndsWithWhatItIsBoundTo(t *testing.T) {
	f := newFixture(t)
	account, err := store.Get[*corev1.ServiceAccount](t.Context(), f.admin, "shop", "default")
	if err != nil {
		t.Fatal(err)
	}
	objects := map[*api.Kind]func() api.Object{
		api.Secrets: func() api.Object {
			return &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: "bound"}}
		},
		api.Pods: func() api.Object {
			return &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: "bound"}, Spec: corev1.PodSpec{Containers: []corev1.Container{{Name: "app", Image: "web:1"}}}}
		},
	}
	for kind, object := range objects {
		made, err := f.admin.Create(t.Context(), object(), store.CreateOptions{})
		if err != nil {
			t.Fatal(err)
		}
		token, _, err := f.tokens.Issue(account, &authenticationv1.BoundObjectReference{Kind: kind.Kind, Name: "bound", UID: made.GetUID()}, nil, time.Hour)
		if err != nil {
			t.Fatal(err)
		}
		ask := func(when string, want int) {
			if code, body := f.do(t, f.client(t, ""), http.MethodGet, "/apis", "", "Authorization", "Bearer "+token); code != want {
				t.Errorf("%s %s: %d %s, want %d", kind, when, code, body, want)
			}
		}
		now := int64(0)
		ask("there", http.StatusOK)
		if _, err := f.admin.Delete(t.Context(), kind, "shop", "bound", store.DeleteOptions{GracePeriodSeconds: &now}); err != nil {
			t.Fatal(err)
		}
		ask("gone", http.StatusUnauthorized)
		if _, err := f.admin.Create(t.Context(), object(), store.CreateOptions{}); err != nil {
			t.Fatal(err)
		}
		ask("another of its name", http.StatusUnauthorized)
	}
}

func TestACertificateThatEndedSinceTheHandshakeIsNoName(t *testing.T) {
	for name, c := range map[string]struct {
		ends time.Duration
		ok   bool
	}{"valid": {time.Hour, true}, "ended": {-time.Second, false}} {
		r := httptest.NewRequest(http.MethodGet, "/api", nil)
		leaf := &x509.Certificate{Subject: pkix.Name{CommonName: "reader"}, NotAfter: time.Now().Add(c.ends)}
		r.TLS = &tls.ConnectionState{VerifiedChains: [][]*x509.Certificate{{leaf}}}
		if id, err := (&server{}).authenticate(r); (err == nil) != c.ok {
			t.Errorf("%s: %v, %v", name, id, err)
		}
	}
}
