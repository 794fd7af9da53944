package gitserver

import (
	"net/http"
	"net/http/cgi"
	"net/http/httptest"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
)

// Server serves one bare repository over HTTP, fetch and push, and has a work tree to commit in.
type Server struct {
	*Repo        // a work tree; Publish pushes it
	URL   string // of the repository
	Bare  string // its folder

	http *httptest.Server

	mu       sync.Mutex
	fault    Fault
	user     string
	password string
	requests []string
	over     chan struct{} // closed when the fault ends
}

// Fault is how a server fails.
type Fault struct {
	Status int    // answer every request with it
	Hang   bool   // answer none until the fault ends
	Only   string // part of the paths that fail, such as "git-upload-pack"; empty: all
}

// Start serves a new, empty repository until the test ends.
func Start(t testing.TB) *Server { return start(t, (*httptest.Server).Start) }

// StartTLS is Start with HTTPS and a certificate nobody trusts.
func StartTLS(t testing.TB) *Server { return start(t, (*httptest.Server).StartTLS) }

func start(t testing.TB, begin func(*httptest.Server)) *Server {
	t.Helper()
	s := &Server{Repo: NewRepo(t), Bare: filepath.Join(t.TempDir(), "app.git")}
	for _, args := range [][]string{{"init", "-q", "--bare", "-b", "main", s.Bare}, {"-C", s.Bare, "config", "http.receivepack", "true"}, {"-C", s.Bare, "config", "uploadpack.allowAnySHA1InWant", "true"}} {
		if _, err := run("/", nil, args...); err != nil {
			t.Fatal(err)
		}
	}
	program, err := exec.LookPath("git")
	if err != nil {
		t.Fatal(err)
	}
	backend := &cgi.Handler{Path: program, Args: []string{"http-backend"}, InheritEnv: []string{"PATH"},
		Env: []string{"GIT_PROJECT_ROOT=" + filepath.Dir(s.Bare), "GIT_HTTP_EXPORT_ALL=1", "GIT_CONFIG_GLOBAL=/dev/null", "GIT_CONFIG_NOSYSTEM=1",
			"GIT_CONFIG_COUNT=1", "GIT_CONFIG_KEY_0=safe.directory", "GIT_CONFIG_VALUE_0=*"}}
	s.http = httptest.NewUnstartedServer(s.gate(backend))
	begin(s.http)
	s.URL = s.http.URL + "/app.git"
	t.Cleanup(func() {
		s.Fail(Fault{})
		s.http.CloseClientConnections()
		s.http.Close()
	})
	return s
}

// gate counts requests and lets faults happen.
func (s *Server) gate(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		s.mu.Lock()
		fault, over, user, password := s.fault, s.over, s.user, s.password
		s.requests = append(s.requests, r.Method+" "+r.URL.RequestURI())
		s.mu.Unlock()
		if fault != (Fault{}) && strings.Contains(r.URL.RequestURI(), fault.Only) {
			if fault.Hang {
				select {
				case <-over:
				case <-r.Context().Done():
				}
				return
			}
			http.Error(w, "switched to fail", fault.Status)
			return
		}
		if u, p, _ := r.BasicAuth(); user != "" && (u != user || p != password) {
			w.Header().Set("WWW-Authenticate", `Basic realm="git"`)
			http.Error(w, "who are you?", http.StatusUnauthorized)
			return
		}
		next.ServeHTTP(w, r)
	})
}

// Publish pushes the work tree's branches, forced, and prunes branches that are gone.
func (s *Server) Publish() {
	s.t.Helper()
	s.Git("push", "-q", "--force", "--prune", s.Bare, "refs/heads/*:refs/heads/*")
}

// Push is Commit and Publish.
func (s *Server) Push(files map[string]string, message string) string {
	s.t.Helper()
	id := s.Commit(files, message)
	s.Publish()
	return id
}

// Fail makes the server fail from now on; the zero Fault ends that.
func (s *Server) Fail(f Fault) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.over != nil {
		close(s.over)
		s.over = nil
	}
	s.fault = f
	if f.Hang {
		s.over = make(chan struct{})
	}
}

// Stop closes the server's port until the test ends: connections are refused.
func (s *Server) Stop() {
	s.Fail(Fault{})
	s.http.CloseClientConnections()
	s.http.Close()
}

// RequirePassword refuses requests without this user and password.
func (s *Server) RequirePassword(user, password string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.user, s.password = user, password
}

// Requests returns method and URI of every request so far.
func (s *Server) Requests() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return append([]string(nil), s.requests...)
}
