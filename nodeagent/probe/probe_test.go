package probe

import (
	"context"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/health"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/util/intstr"
)

func execProbe(change func(*corev1.Probe)) *corev1.Probe {
	p := &corev1.Probe{PeriodSeconds: 10, TimeoutSeconds: 1, SuccessThreshold: 1, FailureThreshold: 3,
		ProbeHandler: corev1.ProbeHandler{Exec: &corev1.ExecAction{Command: []string{"check"}}}}
	if change != nil {
		change(p)
	}
	return p
}

// run watches one container under a fake clock: exec answers ok from healthyFrom to healthyTo after the start.
type scene struct {
	set       *Set
	start     time.Time
	looks     []time.Duration
	unhealthy []string
	changes   []time.Duration
}

func newScene(t *testing.T, c corev1.Container, adopted *State, healthy func(time.Duration) bool) *scene {
	s := &scene{start: time.Now()}
	s.set = NewSet(func() { s.changes = append(s.changes, time.Since(s.start)) })
	c.Name = "main"
	s.set.Sync(t.Context(), []Target{{ID: "id", Container: c, StartedAt: s.start, Adopted: adopted,
		Exec: func(context.Context, []string) (int, []byte, error) {
			at := time.Since(s.start)
			s.looks = append(s.looks, at)
			if healthy(at) {
				return 0, nil, nil
			}
			return 1, []byte("down"), nil
		},
		Unhealthy: func(m string) { s.unhealthy = append(s.unhealthy, m) },
	}})
	t.Cleanup(s.set.Close)
	return s
}

// until lets time pass up to at after the start.
func (s *scene) until(at time.Duration) State {
	time.Sleep(at - time.Since(s.start)) // fake time
	synctest.Wait()
	return s.set.States()["id"]
}

func TestReadinessIsSeenSoon(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newScene(t, corev1.Container{ReadinessProbe: execProbe(nil)}, nil, func(at time.Duration) bool { return at > 50*time.Millisecond })
		if s.until(30 * time.Millisecond).Ready {
			t.Error("ready before the probe succeeded")
		}
		if !s.until(61 * time.Millisecond).Ready {
			t.Errorf("not ready 10 ms after the container was; looks at %v", s.looks)
		}
		if len(s.unhealthy) > 0 {
			t.Errorf("events while starting: %v", s.unhealthy)
		}
	})
}

func TestReadinessThresholds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		down := func(at time.Duration) bool { return at < 25*time.Second || at > 65*time.Second }
		s := newScene(t, corev1.Container{ReadinessProbe: execProbe(func(p *corev1.Probe) { p.SuccessThreshold = 2 })}, nil, down)
		for _, step := range []struct {
			at   time.Duration
			want bool
		}{{5 * time.Second, false}, {11 * time.Second, true}, {45 * time.Second, true}, {51 * time.Second, false}, {75 * time.Second, false}, {81 * time.Second, true}} {
			if got := s.until(step.at).Ready; got != step.want {
				t.Errorf("at %s ready %v, want %v; looks at %v", step.at, got, step.want, s.looks)
			}
		}
		if len(s.unhealthy) != 4 || s.unhealthy[0] != "Readiness probe failed: down" {
			t.Errorf("events %q, want 4 times that readiness failed", s.unhealthy)
		}
	})
}

func TestStartupHoldsBackTheOthersAndGivesUpAsItsThresholdsSay(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		grace := int64(3)
		c := corev1.Container{LivenessProbe: execProbe(nil), StartupProbe: execProbe(func(p *corev1.Probe) { p.TerminationGracePeriodSeconds = &grace })}
		s := newScene(t, c, nil, func(time.Duration) bool { return false })
		if st := s.until(19 * time.Second); st.Failed || st.Started {
			t.Errorf("after 19 s %+v, want neither failed nor started", st)
		}
		st := s.until(31 * time.Second)
		if !st.Failed || st.Grace != &grace || st.Message != "Container main failed startup probe, will be restarted" {
			t.Errorf("after three periods %+v, want failed by startup", st)
		}
	})
}

func TestStartupThenLiveness(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := corev1.Container{LivenessProbe: execProbe(nil), StartupProbe: execProbe(nil)}
		s := newScene(t, c, nil, func(at time.Duration) bool { return at > time.Second && at < 35*time.Second })
		if !s.until(3 * time.Second).Started {
			t.Error("not started after success")
		}
		if s.until(50 * time.Second).Failed {
			t.Error("liveness gave up before three failures")
		}
		if st := s.until(65 * time.Second); !st.Failed || !strings.Contains(st.Message, "liveness") {
			t.Errorf("state %+v, want liveness failed; looks %v", st, s.looks)
		}
		looks := len(s.looks)
		s.until(200 * time.Second)
		if len(s.looks) != looks {
			t.Error("a probe that gave up goes on looking")
		}
	})
}

func TestInitialDelayAndAdoption(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		delayed := corev1.Container{ReadinessProbe: execProbe(func(p *corev1.Probe) { p.InitialDelaySeconds = 7 })}
		s := newScene(t, delayed, nil, func(time.Duration) bool { return true })
		s.until(8 * time.Second)
		if len(s.looks) != 1 || s.looks[0] != 7*time.Second {
			t.Errorf("looks at %v, want one at 7s", s.looks)
		}
		back := (&runner{Target: Target{StartedAt: time.Now().Add(365 * 24 * time.Hour)}}).firstDelay(delayed.ReadinessProbe, time.Second)
		if back != 7*time.Second {
			t.Errorf("with the clock set back by a year the first look is after %s, want 7s", back)
		}
		a := newScene(t, corev1.Container{ReadinessProbe: execProbe(nil)}, &State{Ready: true, Started: true}, func(time.Duration) bool { return true })
		if !a.set.States()["id"].Ready {
			t.Error("an adopted container lost its readiness")
		}
		a.until(2 * time.Second)
		if len(a.looks) != 1 {
			t.Errorf("looks at %v, want one within 2 s of adoption", a.looks)
		}
		if len(a.changes) != 0 {
			t.Errorf("changes at %v, want none", a.changes)
		}
	})
}

// at returns a runner for a server's address.
func at(t *testing.T, address string) *runner {
	t.Helper()
	host, port, err := net.SplitHostPort(address)
	if err != nil {
		t.Fatal(err)
	}
	n, err := strconv.Atoi(port)
	if err != nil {
		t.Fatal(err)
	}
	return &runner{Target: Target{IP: host, Container: corev1.Container{Name: "main", Ports: []corev1.ContainerPort{{Name: "web", ContainerPort: int32(n)}}}}}
}

func TestCheckHTTP(t *testing.T) {
	var elsewhere atomic.Int32
	other := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { elsewhere.Add(1) }))
	defer other.Close()
	otherURL, _ := url.Parse(other.URL)
	mux := http.NewServeMux()
	mux.HandleFunc("/ok", func(w http.ResponseWriter, r *http.Request) {
		if r.Host != "shop.example" || r.Header.Get("X-Probe") != "1" || r.URL.RawQuery != "deep=1" {
			w.WriteHeader(http.StatusTeapot)
		}
	})
	mux.HandleFunc("/sick", func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusServiceUnavailable) })
	mux.HandleFunc("/same", func(w http.ResponseWriter, r *http.Request) { http.Redirect(w, r, "/sick", http.StatusFound) })
	mux.HandleFunc("/away", func(w http.ResponseWriter, r *http.Request) {
		http.Redirect(w, r, "http://localhost:"+otherURL.Port()+"/", http.StatusFound)
	})
	mux.HandleFunc("/slow", func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() })
	mux.HandleFunc("/endless", func(w http.ResponseWriter, r *http.Request) {
		for r.Context().Err() == nil {
			if _, err := w.Write(make([]byte, 4096)); err != nil {
				return
			}
		}
	})
	plain, secure := httptest.NewServer(mux), httptest.NewTLSServer(mux)
	defer plain.Close()
	defer secure.Close()
	headers := []corev1.HTTPHeader{{Name: "host", Value: "shop.example"}, {Name: "X-Probe", Value: "1"}}
	cases := []struct {
		name, path string
		scheme     corev1.URIScheme
		port       string
		want       string // empty: good
	}{
		{"headers, query, named port", "/ok?deep=1", "HTTP", "web", ""},
		{"any certificate", "/ok?deep=1", "HTTPS", "web", ""},
		{"unavailable", "/sick", "HTTP", "web", "HTTP probe failed with statuscode: 503"},
		{"redirect on the same host is followed", "/same", "HTTP", "web", "HTTP probe failed with statuscode: 503"},
		{"redirect to another host is not", "/away", "HTTP", "web", ""},
		{"slow", "/slow", "HTTP", "web", "context deadline exceeded"},
		{"a body without end is cut", "/endless", "HTTP", "web", ""},
		{"no such port", "/ok", "HTTP", "nope", `container main has no port named "nope"`},
	}
	for _, tc := range cases {
		t.Run(tc.name, func(t *testing.T) {
			server := plain
			if tc.scheme == "HTTPS" {
				server = secure
			}
			r := at(t, server.Listener.Addr().String())
			p := &corev1.Probe{TimeoutSeconds: 1, ProbeHandler: corev1.ProbeHandler{HTTPGet: &corev1.HTTPGetAction{Path: tc.path, Scheme: tc.scheme, Port: intstr.FromString(tc.port), HTTPHeaders: headers}}}
			got := r.check(t.Context(), p)
			if got.ok != (tc.want == "") || !strings.Contains(got.output, tc.want) {
				t.Errorf("answer %+v, want %q", got, tc.want)
			}
		})
	}
	if elsewhere.Load() != 0 {
		t.Error("a redirect to another host was followed")
	}
}

func TestCheckTCPAndGRPC(t *testing.T) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	server, state := grpc.NewServer(), health.NewServer()
	healthpb.RegisterHealthServer(server, state)
	state.SetServingStatus("sick", healthpb.HealthCheckResponse_NOT_SERVING)
	go func() { _ = server.Serve(listener) }()
	r := at(t, listener.Addr().String())
	port := r.Container.Ports[0].ContainerPort
	tcp := &corev1.Probe{ProbeHandler: corev1.ProbeHandler{TCPSocket: &corev1.TCPSocketAction{Port: intstr.FromInt32(port)}}}
	grpcProbe := func(service string) *corev1.Probe {
		return &corev1.Probe{ProbeHandler: corev1.ProbeHandler{GRPC: &corev1.GRPCAction{Port: port, Service: &service}}}
	}
	if got := r.check(t.Context(), tcp); !got.ok {
		t.Errorf("TCP: %+v", got)
	}
	if got := r.check(t.Context(), grpcProbe("")); !got.ok {
		t.Errorf("gRPC: %+v", got)
	}
	if got := r.check(t.Context(), grpcProbe("sick")); got.ok || !strings.Contains(got.output, "NOT_SERVING") {
		t.Errorf("gRPC of a sick service: %+v", got)
	}
	if got := r.check(t.Context(), grpcProbe("none")); got.ok {
		t.Errorf("gRPC of no service: %+v", got)
	}
	server.Stop()
	if got := r.check(t.Context(), tcp); got.ok || !strings.Contains(got.output, "refused") {
		t.Errorf("TCP to nobody: %+v", got)
	}
}
