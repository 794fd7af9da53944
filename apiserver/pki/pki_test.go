package pki

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"net"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	authenticationv1 "k8s.io/api/authentication/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/tools/clientcmd"
)

var epoch = time.Date(2030, 1, 1, 0, 0, 0, 0, time.UTC)

func at(t time.Time) func() time.Time { return func() time.Time { return t } }

func open(t *testing.T, dir string) *Authority {
	t.Helper()
	a, err := Open(dir, at(epoch))
	if err != nil {
		t.Fatal(err)
	}
	return a
}

func TestOpenKeepsTheAuthority(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "pki")
	first := open(t, dir)
	if diff := cmp.Diff(string(first.PEM()), string(open(t, dir).PEM())); diff != "" {
		t.Errorf("authority changed on reopening:\n%s", diff)
	}
	info, err := os.Stat(filepath.Join(dir, "ca.key"))
	if err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("ca.key: mode %v, err %v, want 0600", info.Mode(), err)
	}
}

func TestOpenContinuesAfterACrashBetweenKeyAndCertificate(t *testing.T) {
	dir := t.TempDir()
	open(t, dir)
	if err := os.Remove(filepath.Join(dir, "ca.crt")); err != nil {
		t.Fatal(err)
	}
	key, _ := os.ReadFile(filepath.Join(dir, "ca.key"))
	open(t, dir)
	again, _ := os.ReadFile(filepath.Join(dir, "ca.key"))
	if string(key) != string(again) {
		t.Error("the key was replaced")
	}
}

func TestOpenRefusesACertificateWithoutItsKey(t *testing.T) {
	dir := t.TempDir()
	open(t, dir)
	if err := os.Remove(filepath.Join(dir, "ca.key")); err != nil {
		t.Fatal(err)
	}
	if _, err := Open(dir, at(epoch)); err == nil {
		t.Error("a lost key was replaced silently: every client would be locked out")
	}
}

func TestCertificatesVerify(t *testing.T) {
	a := open(t, t.TempDir())
	_, leaf, err := a.serving([]string{"kubernetes.default.svc"}, []net.IP{net.IPv4(10, 96, 0, 1)})
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"kubernetes.default.svc", "10.96.0.1"} {
		if _, err := leaf.Verify(x509.VerifyOptions{Roots: a.Pool(), DNSName: name, CurrentTime: epoch}); err != nil {
			t.Errorf("serving certificate for %s: %v", name, err)
		}
	}
	certPEM, keyPEM, err := a.ClientCertificate("reader", "slipway:people")
	if err != nil {
		t.Fatal(err)
	}
	pair, err := tls.X509KeyPair(certPEM, keyPEM)
	if err != nil {
		t.Fatal(err)
	}
	if leaf, err = x509.ParseCertificate(pair.Certificate[0]); err != nil {
		t.Fatal(err)
	}
	if _, err := leaf.Verify(x509.VerifyOptions{Roots: a.Pool(), CurrentTime: epoch, KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}}); err != nil {
		t.Errorf("client certificate: %v", err)
	}
	if leaf.Subject.CommonName != "reader" || !cmp.Equal(leaf.Subject.Organization, []string{"slipway:people"}) {
		t.Errorf("client certificate is for %v", leaf.Subject)
	}
}

func TestKubeconfigIsPrivateAndLoads(t *testing.T) {
	a := open(t, t.TempDir())
	path := filepath.Join(t.TempDir(), "kubeconfig")
	if err := a.WriteKubeconfig(path, "https://127.0.0.1:6443", "reader", "slipway:people"); err != nil {
		t.Fatal(err)
	}
	if info, err := os.Stat(path); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("kubeconfig: %v %v, want 0600", info, err)
	}
	config, err := clientcmd.BuildConfigFromFlags("", path)
	if err != nil || config.Host != "https://127.0.0.1:6443" {
		t.Errorf("kubeconfig: %v, %v", config, err)
	}
}

func TestTokens(t *testing.T) {
	dir := t.TempDir()
	const issuer = "https://kubernetes.default.svc.cluster.local"
	tokens := func(now time.Time) *Tokens {
		a, err := Open(dir, at(now))
		if err != nil {
			t.Fatal(err)
		}
		tk, err := a.Tokens(issuer)
		if err != nil {
			t.Fatal(err)
		}
		return tk
	}
	account := &corev1.ServiceAccount{ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: "web", UID: "u1"}}
	pod := &authenticationv1.BoundObjectReference{Kind: "Pod", Name: "web-1", UID: "u2"}
	token, expires, err := tokens(epoch).Issue(account, pod, nil, time.Hour)
	if err != nil || !expires.Equal(epoch.Add(time.Hour)) {
		t.Fatalf("issue: expires %v, %v", expires, err)
	}
	got, err := tokens(epoch.Add(time.Minute)).Verify(token)
	if err != nil {
		t.Fatal(err)
	}
	got.TokenID = ""
	want := Account{Namespace: "shop", Name: "web", UID: "u1", PodName: "web-1", PodUID: "u2"}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("account (-want +got):\n%s", diff)
	}
	other, _, err := tokens(epoch).Issue(account, nil, []string{"vault"}, time.Hour)
	if err != nil {
		t.Fatal(err)
	}
	unsigned := "eyJhbGciOiJub25lIn0." + token[len("eyJhbGciOiJFUzI1NiIsInR5cCI6IkpXVCJ9."):]
	for name, check := range map[string]struct {
		now   time.Time
		token string
	}{
		"expired":           {epoch.Add(2 * time.Hour), token},
		"of the future":     {epoch.Add(-time.Hour), token},
		"other audience":    {epoch, other},
		"changed":           {epoch, token[:len(token)-4] + "AAAA"},
		"without signature": {epoch, unsigned},
		"empty":             {epoch, ""},
	} {
		if _, err := tokens(check.now).Verify(check.token); !errors.Is(err, ErrToken) {
			t.Errorf("token %s: err %v, want ErrToken", name, err)
		}
	}
	if _, _, err := tokens(epoch).Issue(account, &authenticationv1.BoundObjectReference{Kind: "Node"}, nil, 0); err == nil {
		t.Error("a token bound to a Node was issued")
	}
}
