package main

import (
	"fmt"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"strings"
	"sync"
	"time"

	"github.com/slipway-dev/slipway/testing/cluster"
	"github.com/slipway-dev/slipway/testing/gitserver"
)

const (
	appPods      = 10              // how many Pods the app has
	pollInterval = 5 * time.Second // of a followed repository, by default
)

const appManifest = `apiVersion: v1
kind: ConfigMap
metadata: {name: %[1]s}
data: {GREETING: hello}
---
apiVersion: apps/v1
kind: Deployment
metadata: {name: %[1]s}
spec:
  replicas: 10
  selector: {matchLabels: {app: %[1]s}}
  template:
    metadata: {labels: {app: %[1]s, version: %[2]q}}
    spec:
      containers:
        - name: main
          image: "` + image + `"
          args: [serve]
          envFrom: [{configMapRef: {name: %[1]s}}]
          ports: [{containerPort: 8080}]
          readinessProbe: {httpGet: {path: /healthz, port: 8080}}
---
apiVersion: v1
kind: Service
metadata: {name: %[1]s}
spec:
  selector: {app: %[1]s}
  ports: [{port: 80, targetPort: 8080}]
`

func app(name, version string) string { return fmt.Sprintf(appManifest, name, version) }

// measureSave takes the time from the save of an app's file until all its Pods are Ready: when it is new, and when it
// is changed and rolls.
func measureSave(h *host, s settings, r *report) error {
	fmt.Printf("an app of %d Pods, saved and changed, %d rounds\n", appPods, s.rounds)
	_, files, w, err := following(h, s)
	if err != nil {
		return err
	}
	var fresh, current, rolled []time.Duration
	for i := range s.rounds {
		name := fmt.Sprintf("app-%d", i)
		saved := time.Now()
		if err := files.save(name+".yaml", app(name, "a")); err != nil {
			return err
		}
		_, last, err := w.reached(h.ctx, name, "a", appPods, ready)
		if err != nil {
			return err
		}
		settled, err := w.upToDate(h.ctx, name, "a")
		if err != nil {
			return err
		}
		fresh, current = append(fresh, last.Sub(saved)), append(current, settled.Sub(saved))
		r.stages("app, saved", saved, w.stages(name, "a"))
		changed := time.Now()
		if err := files.save(name+".yaml", app(name, "b")); err != nil {
			return err
		}
		if settled, err = w.upToDate(h.ctx, name, "b"); err != nil {
			return err
		}
		rolled = append(rolled, settled.Sub(changed))
		if err := files.remove(name + ".yaml"); err != nil {
			return err
		}
		if err := w.gone(h.ctx, name); err != nil {
			return err
		}
	}
	r.seconds("app of 10 Pods, saved until all Ready", fresh, 0.5, 0)
	r.seconds("app of 10 Pods, saved until Deployment current", current, 0, 0)
	r.seconds("same app, change saved until rolled out", rolled, 0, 0)
	return nil
}

// measureCommit takes the time from a push to a git server until all Pods of the app are Ready. Slipway polls the
// server at its default interval; how long a commit waited for the next poll is told apart.
func measureCommit(h *host, s settings, r *report) error {
	fmt.Printf("an app of %d Pods, committed and pushed, %d rounds\n", appPods, s.rounds)
	server := gitserver.Start(h)
	asked := &gate{}
	address, err := asked.before(h, server.URL)
	if err != nil {
		return err
	}
	server.Push(map[string]string{"base.yaml": "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: base}\n"}, "Begin")
	up := cluster.Up(h, address, "--images", s.archive)
	up.WaitOutput("everything is current", 1)
	w, err := watchPods(h.ctx, up.Kubeconfig)
	if err != nil {
		return err
	}
	var total, waited, rest []time.Duration
	for i := range s.rounds {
		name := fmt.Sprintf("app-%d", i)
		server.Commit(map[string]string{name + ".yaml": app(name, "a")}, "Add "+name)
		// The round before ended with a poll: without a pause the push would always come at the same point between two.
		if err := pause(h, rand.N(pollInterval)); err != nil {
			return err
		}
		server.Publish()
		pushed := time.Now()
		_, last, err := w.reached(h.ctx, name, "a", appPods, ready)
		if err != nil {
			return err
		}
		poll := asked.after(pushed)
		total, waited, rest = append(total, last.Sub(pushed)), append(waited, poll.Sub(pushed)), append(rest, last.Sub(poll))
		server.Remove("Remove "+name, name+".yaml")
		server.Publish()
		if err := w.gone(h.ctx, name); err != nil {
			return err
		}
	}
	r.seconds("app of 10 Pods, pushed until all Ready", total, 1, 2)
	r.seconds("  of it, waiting for the next poll (every 5 s)", waited, 0, 0)
	r.seconds("  of it, from the poll on", rest, 1, 2)
	return nil
}

// gate stands before a git server and writes down when Slipway asked for its branches.
type gate struct {
	mu    sync.Mutex
	times []time.Time
}

// before serves what is at target under another address, which it returns.
func (g *gate) before(h *host, target string) (string, error) {
	to, err := url.Parse(target)
	if err != nil {
		return "", fmt.Errorf("read address of git server: %w", err)
	}
	proxy := &httputil.ReverseProxy{Rewrite: func(r *httputil.ProxyRequest) { r.SetURL(&url.URL{Scheme: to.Scheme, Host: to.Host}) }}
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if strings.HasSuffix(r.URL.Path, "/info/refs") {
			g.mu.Lock()
			g.times = append(g.times, time.Now())
			g.mu.Unlock()
		}
		proxy.ServeHTTP(w, r)
	}))
	h.Cleanup(func() {
		server.CloseClientConnections()
		server.Close()
	})
	return server.URL + to.Path, nil
}

// after returns the first request after t, or t when there was none: then a request under way at t saw the push.
func (g *gate) after(t time.Time) time.Time {
	g.mu.Lock()
	defer g.mu.Unlock()
	for _, at := range g.times {
		if at.After(t) {
			return at
		}
	}
	return t
}
