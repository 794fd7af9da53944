package images

import (
	"context"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"strings"

	"github.com/google/go-containerregistry/pkg/registry"
)

// Registry is a plain-HTTP image registry, which keeps nothing on disk. Layers of images pushed with its own Push are
// read where they are.
type Registry struct {
	Host   string // "127.0.0.1:34567"
	server *http.Server
	shelf  *shelf
}

// ServeRegistry serves an empty registry at address; "127.0.0.1:0" takes a free port.
func ServeRegistry(address string) (*Registry, error) {
	shelf, err := newShelf()
	if err != nil {
		return nil, err
	}
	return serveRegistry(address, shelf, newRegistry(shelf))
}

// ServeRegistryWithPassword serves a registry that wants basic authentication to read. Push to the one it returns
// second, which has the same content and wants none.
func ServeRegistryWithPassword(user, password string) (private, open *Registry, err error) {
	shelf, err := newShelf()
	if err != nil {
		return nil, nil, err
	}
	handler := newRegistry(shelf)
	guard := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if u, p, ok := r.BasicAuth(); !ok || u != user || p != password {
			w.Header().Set("WWW-Authenticate", `Basic realm="registry"`)
			w.WriteHeader(http.StatusUnauthorized)
			return
		}
		handler.ServeHTTP(w, r)
	})
	if open, err = serveRegistry("127.0.0.1:0", shelf, handler); err != nil {
		return nil, nil, err
	}
	if private, err = serveRegistry("127.0.0.1:0", shelf, guard); err != nil {
		open.Close()
		return nil, nil, err
	}
	return private, open, nil
}

func newRegistry(store *shelf) http.Handler {
	return registry.New(registry.WithBlobHandler(store), registry.Logger(log.New(io.Discard, "", 0)))
}

func serveRegistry(address string, store *shelf, handler http.Handler) (*Registry, error) {
	listener, err := net.Listen("tcp", address)
	if err != nil {
		return nil, fmt.Errorf("serve registry: %w", err)
	}
	r := &Registry{Host: listener.Addr().String(), server: &http.Server{Handler: handler}, shelf: store}
	go r.server.Serve(listener)
	return r, nil
}

// Push uploads images and returns the names they have in the registry.
func (r *Registry) Push(ctx context.Context, images ...Image) ([]string, error) {
	var refs []string
	for _, image := range images {
		if err := r.shelf.add(image.img); err != nil {
			return nil, fmt.Errorf("push image %s: %w", image.Ref, err)
		}
		ref, err := image.Push(ctx, r.Host)
		if err != nil {
			return nil, err
		}
		refs = append(refs, ref)
	}
	return refs, nil
}

// Close ends the registry.
func (r *Registry) Close() error { return r.server.Close() }

// URL is the registry's address.
func (r *Registry) URL() string { return "http://" + strings.TrimSuffix(r.Host, "/") }
