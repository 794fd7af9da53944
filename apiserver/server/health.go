package server

import (
	"context"
	"fmt"
	"net/http"
	"strings"
	"time"

	"github.com/slipway-dev/slipway/apiserver/registry"
)

// health answers "ok", or one line per check with ?verbose or when one fails. Reasons go to the log, not to
// callers without a name.
func (s *server) health(live bool) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		ctx, cancel := context.WithTimeout(r.Context(), time.Second)
		defer cancel()
		var lines strings.Builder
		failed := false
		for _, check := range s.Checks {
			if live && !check.Live {
				continue
			}
			if err := check.Probe(ctx); err != nil {
				failed = true
				s.Log.Debug("health check fails", "check", check.Name, "err", err)
				fmt.Fprintf(&lines, "[-]%s failed: reason withheld\n", check.Name)
				continue
			}
			fmt.Fprintf(&lines, "[+]%s ok\n", check.Name)
		}
		w.Header().Set("Content-Type", "text/plain; charset=utf-8")
		w.Header().Set("X-Content-Type-Options", "nosniff")
		name := strings.TrimPrefix(r.URL.Path, "/")
		switch {
		case failed:
			w.WriteHeader(http.StatusInternalServerError)
			fmt.Fprintf(w, "%s%s check failed\n", lines.String(), name)
		case r.URL.Query().Has("verbose"):
			fmt.Fprintf(w, "%s%s check passed\n", lines.String(), name)
		default:
			fmt.Fprint(w, "ok")
		}
	}
}

func (s *server) version(w http.ResponseWriter, _ *http.Request) {
	writeJSON(w, http.StatusOK, s.Version)
}

// metrics is for those only who may read it: figures tell about namespaces and sizes.
func (s *server) metrics(w http.ResponseWriter, r *http.Request) {
	if s.Metrics == nil {
		s.notFound(w, r)
		return
	}
	if err := s.Registry.Authorize(r.Context(), identityOf(r), registry.Attributes{Verb: "get", Path: r.URL.Path}); err != nil {
		writeError(w, r, err)
		return
	}
	s.Metrics.ServeHTTP(w, r)
}
