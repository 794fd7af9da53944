package server

import (
	"context"
	"errors"
	"net"
	"net/http"
	"strings"

	apierrors "k8s.io/apimachinery/pkg/api/errors"

	"github.com/slipway-dev/slipway/apiserver/registry"
	"github.com/slipway-dev/slipway/apiserver/registry/access"
	"github.com/slipway-dev/slipway/apiserver/server/callers"
)

// What counts as large: it is held in memory in several forms until it is sent or stored.
const (
	largeList = 500       // objects of an answer
	largeBody = 256 << 10 // bytes
)

// callerOf says whose room a request takes. People are told apart by where they are, as many share a name; workloads
// share their namespace's room.
func callerOf(id registry.Identity, remote string) callers.Caller {
	host, _, err := net.SplitHostPort(remote)
	if err != nil {
		host = remote
	}
	namespace, isAccount := strings.CutPrefix(id.Name, "system:serviceaccount:")
	namespace, _, _ = strings.Cut(namespace, ":")
	switch {
	case id.Name == "":
		return callers.Caller{Pool: callers.Nameless, Group: "no name", Name: host}
	case id.IsPart() || id.In(access.GroupMasters):
		return callers.Caller{Pool: callers.Parts, Group: "Slipway", Name: id.Name}
	case isAccount:
		return callers.Caller{Pool: callers.Workloads, Group: namespace, Name: id.Name}
	}
	return callers.Caller{Pool: callers.People, Group: id.Name, Name: host}
}

type callerKey struct{}

// bounded lets a request in when its sender has room for it, and else answers 429 with the time after which to come
// back.
func (s *server) bounded(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		caller := callerOf(identityOf(r), r.RemoteAddr)
		work := callers.Short
		if isStream(r) {
			work = callers.Stream
		}
		leave, err := s.limiter.Enter(r.Context(), caller, work)
		if err != nil {
			s.Log.Debug("request turned away", "caller", caller.Name, "group", caller.Group, "err", err)
			writeError(w, r, tooMany(err))
			return
		}
		defer leave()
		next.ServeHTTP(w, r.WithContext(context.WithValue(r.Context(), callerKey{}, caller)))
	})
}

// isStream says whether a request's answer goes on until somebody ends it.
func isStream(r *http.Request) bool {
	path := segments(r.URL.Path)
	q := r.URL.Query()
	if t := parseTarget(path); t != nil {
		return t.watch || flag(q, "watch") && t.name == "" || t.subresource == "log" && flag(q, "follow")
	}
	return false
}

// large takes room for something that holds much memory.
func (s *server) large(r *http.Request) (leave func(), err error) {
	caller, _ := r.Context().Value(callerKey{}).(callers.Caller)
	leave, err = s.limiter.Enter(r.Context(), caller, callers.Large)
	if err != nil {
		return nil, tooMany(err)
	}
	return leave, nil
}

func tooMany(err error) error {
	var busy *callers.BusyError
	if errors.As(err, &busy) {
		return apierrors.NewTooManyRequests(busy.Error(), 1)
	}
	return err
}
