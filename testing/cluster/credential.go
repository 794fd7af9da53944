package cluster

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net/http"
	"path/filepath"
	"time"

	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"

	"github.com/slipway-dev/slipway/apiserver/pki"
)

// Credential writes a kubeconfig that reaches the API as user with groups, and returns its path. The certificate is
// signed by the cluster's own authority, so slipway must have started once: wait for "following ". The file lies
// outside the data directory.
func (s *Slipway) Credential(user string, groups ...string) string {
	s.t.Helper()
	config, err := clientcmd.LoadFromFile(s.Kubeconfig)
	if err != nil {
		s.t.Fatalf("read the kubeconfig slipway wrote: %v", err)
	}
	authority, err := pki.Open(filepath.Join(s.Data, "pki"), time.Now)
	if err != nil {
		s.t.Fatalf("open the cluster's authority: %v", err)
	}
	path := filepath.Join(s.t.TempDir(), "kubeconfig")
	server := config.Clusters[config.Contexts[config.CurrentContext].Cluster].Server
	if err := authority.WriteKubeconfig(path, server, user, groups...); err != nil {
		s.t.Fatalf("write a kubeconfig for %s: %v", user, err)
	}
	return path
}

// Internal is a caller of the API who may do everything. It stays usable over restarts of slipway.
type Internal struct {
	Client *http.Client // verifies the server and shows the certificate; keeps connections
	URL    string       // base, such as https://127.0.0.1:6443
}

// Internal returns a caller with a credential of group system:masters.
func (s *Slipway) Internal() *Internal {
	s.t.Helper()
	config, err := clientcmd.BuildConfigFromFlags("", s.Credential("outside-writer", "system:masters"))
	if err != nil {
		s.t.Fatalf("read a kubeconfig: %v", err)
	}
	client, err := rest.HTTPClientFor(config)
	if err != nil {
		s.t.Fatalf("make a client: %v", err)
	}
	client.Timeout = 30 * time.Second
	s.t.Cleanup(client.CloseIdleConnections)
	return &Internal{Client: client, URL: config.Host}
}

// Do sends a JSON body (nil: none) and returns the answer's status code and body. An error means that there was no
// whole answer: whether a write happened is open.
func (i *Internal) Do(ctx context.Context, method, path string, body []byte) (code int, answer []byte, err error) {
	request, err := http.NewRequestWithContext(ctx, method, i.URL+path, bytes.NewReader(body))
	if err != nil {
		return 0, nil, err
	}
	if body != nil {
		request.Header.Set("Content-Type", "application/json")
	}
	response, err := i.Client.Do(request)
	if err != nil {
		return 0, nil, err
	}
	defer response.Body.Close()
	if answer, err = io.ReadAll(response.Body); err != nil {
		return 0, nil, fmt.Errorf("read the answer of %s %s: %w", method, path, err)
	}
	return response.StatusCode, answer, nil
}
