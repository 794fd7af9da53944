// Package server speaks the Kubernetes wire protocol over HTTP: discovery, get, list, watch and writes in JSON and
// Table, pods/log, health, metrics. It authenticates, finds out what is asked for, calls the registry as that
// identity and encodes the answer.
//
// It decides nothing about objects and stores nothing: every rule is the registry's. Secrets are masked for people
// in one place, the encoder.
package server

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"net/http"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/version"

	"github.com/slipway-dev/slipway/apiserver/pki"
	"github.com/slipway-dev/slipway/apiserver/registry"
	"github.com/slipway-dev/slipway/apiserver/server/callers"
)

// LogSource reads the log of a Pod's container.
type LogSource interface {
	// Logs returns the log as opts ask. With opts.Follow reading blocks until the container has ended.
	Logs(ctx context.Context, pod *corev1.Pod, opts *corev1.PodLogOptions) (io.ReadCloser, error)
}

// Check is one line of /readyz and /livez.
type Check struct {
	Name string
	// Probe returns nil when the part works. It must answer within a second.
	Probe func(context.Context) error
	Live  bool // also part of /livez: restarting the process may mend it
}

// Config is what a Server is made of.
type Config struct {
	Registry *registry.Registry
	Tokens   *pki.Tokens
	Logs     LogSource // nil: this process has no logs
	Checks   []Check
	Metrics  http.Handler // nil: none
	Version  version.Info
	Log      *slog.Logger
	Bounds   map[callers.Pool]callers.Bounds // nil: callers.Defaults()
}

// Limits on what one request may ask for.
const (
	maxBody      = 3 << 20 // as Kubernetes
	maxWatch     = 60 * time.Minute
	defaultWatch = 30 * time.Minute
	writeTimeout = 30 * time.Second // for one piece of an answer: a reader slower than this is cut off
	readTimeout  = time.Minute      // for a body
)

type server struct {
	Config
	limiter   *callers.Limiter
	discovery discovery
	tables    *tables
}

// New returns the handler of the whole API.
func New(c Config) http.Handler {
	if c.Bounds == nil {
		c.Bounds = callers.Defaults()
	}
	s := &server{Config: c, limiter: callers.New(c.Bounds), discovery: newDiscovery(), tables: newTables()}
	mux := http.NewServeMux()
	mux.HandleFunc("GET /healthz", s.health(false))
	mux.HandleFunc("GET /livez", s.health(true))
	mux.HandleFunc("GET /readyz", s.health(false))
	mux.HandleFunc("GET /version", s.version)
	mux.HandleFunc("GET /metrics", s.metrics)
	mux.HandleFunc("/api", s.discovery.core)
	mux.HandleFunc("/api/", s.resources)
	mux.HandleFunc("/apis", s.discovery.groups)
	mux.HandleFunc("/apis/", s.resources)
	mux.HandleFunc("/", s.notFound)
	return s.recovered(s.authenticated(s.bounded(mux)))
}

// recovered turns a panic of one request into its 500, not into the end of the process.
func (s *server) recovered(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		defer func() {
			problem := recover()
			if problem == nil {
				return
			}
			if err, ok := problem.(error); ok && errors.Is(err, http.ErrAbortHandler) {
				panic(problem)
			}
			s.Log.Error("request panicked", "method", r.Method, "path", r.URL.Path, "problem", problem)
			writeError(w, r, internalError())
		}()
		next.ServeHTTP(w, r)
	})
}
