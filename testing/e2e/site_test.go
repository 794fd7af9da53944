package e2e

import (
	"encoding/json"
	"fmt"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/slipway-dev/slipway/testing/cluster"
	"github.com/slipway-dev/slipway/testing/images"
	"github.com/slipway-dev/slipway/testing/load"
	"github.com/slipway-dev/slipway/testing/need"
)

// site is a Deployment behind a Service, and callers inside: one of its own, and one that is itself behind the
// Service it calls. The server has no preStop hook and does not sleep: asked to end, it stops listening at once.
const site = `
apiVersion: v1
kind: Namespace
metadata: {name: site}
---
apiVersion: v1
kind: Service
metadata: {name: web, namespace: site}
spec:
  type: NodePort
  selector: {app: web}
  ports: [{port: 80, targetPort: 8080, nodePort: 30090}]
---
apiVersion: v1
kind: Pod
metadata: {name: caller, namespace: site}
spec:
  containers:
    - name: caller
      image: test.local/testpod:1
      args: [caller, "http://web/?work=1ms", "http://192.0.2.2:30090/"]
---
apiVersion: v1
kind: Pod
metadata: {name: member, namespace: site, labels: {app: web}}
spec:
  containers:
    - name: web
      image: test.local/testpod:1
      args: [graceful, member]
      readinessProbe: {httpGet: {path: /readyz, port: 8080}, periodSeconds: 1}
    - name: caller
      image: test.local/testpod:1
      args: [caller, "http://web/"]
`

const web = `
apiVersion: apps/v1
kind: Deployment
metadata: {name: web, namespace: site}
spec:
  replicas: 4
  selector: {matchLabels: {app: web, part: deployment}}
  template:
    metadata: {labels: {app: web, part: deployment}}
    spec:
      containers:
        - name: web
          image: test.local/testpod:1
          args: [graceful, v0]
          readinessProbe: {httpGet: {path: /readyz, port: 8080}, periodSeconds: 1}
`

const (
	nodePort = "http://192.0.2.2:30090/"
	loopback = "http://127.0.0.1:30090/"
)

// openSite brings the site up, with the texts of pairs replaced by those that follow them.
func openSite(t *testing.T, pairs ...string) (*cluster.Slipway, string) {
	t.Helper()
	need.Runtime(t)
	image, err := images.Testpod(t.Context(), "test.local/testpod:1")
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	archive := filepath.Join(dir, "testpod.tar")
	if err := images.WriteArchive(archive, image); err != nil {
		t.Fatal(err)
	}
	repo := filepath.Join(dir, "site")
	mkdir(t, repo)
	write(t, repo, "site.yaml", strings.NewReplacer(pairs...).Replace(site))
	write(t, repo, "web.yaml", strings.NewReplacer(pairs...).Replace(web))
	s := cluster.Up(t, repo, "--images", archive)
	s.WaitOutput("everything is current", 1)
	return s, repo
}

// outside are the ways to call the site from its host.
func outside(s *cluster.Slipway, work string, more ...string) []load.Way {
	cluster := "http://" + s.Kubectl("-n", "site", "get", "service", "web", "-o", "jsonpath={.spec.clusterIP}") + "/"
	var ways []load.Way
	for _, url := range append([]string{cluster, nodePort}, more...) {
		for _, keep := range []bool{false, true} {
			name := "new " + url
			if keep {
				name = "kept " + url
			}
			ways = append(ways, load.Way{Name: name, URL: url + "?work=" + work, KeepAlive: keep, Renew: 50, Pause: 3 * time.Millisecond})
		}
	}
	return ways
}

// spotless reports what calls came to, and fails the test for each that did not work.
func spotless(t *testing.T, reports []load.Report) {
	t.Helper()
	for _, r := range reports {
		t.Log(r)
		if r.Failed > 0 {
			t.Errorf("%s: %d of %d calls failed", r.Name, r.Failed, r.Failed+r.Answered)
		}
	}
}

// inside asks the callers in Pods for their reports.
func inside(t *testing.T, s *cluster.Slipway) []load.Report {
	t.Helper()
	var all []load.Report
	for _, pod := range []string{"caller", "member"} {
		ip := s.Kubectl("-n", "site", "get", "pod", pod, "-o", "jsonpath={.status.podIP}")
		text, err := get("http://" + ip + ":8081/")
		if err != nil {
			t.Fatal(err)
		}
		var reports []load.Report
		if err := json.Unmarshal([]byte(text), &reports); err != nil {
			t.Fatal(err)
		}
		for _, r := range reports {
			r.Name = pod + ": " + r.Name
			all = append(all, r)
		}
	}
	return all
}

func answered(reports []load.Report) (n int) {
	for _, r := range reports {
		n += r.Answered
	}
	return n
}

// rolling is a site whose manifests are changed while it is called.
type rolling struct {
	*testing.T
	s       *cluster.Slipway
	repo    string
	current int // how often everything was current in this run of slipway
	version int
}

// change edits web.yaml and waits until that is what runs.
func (r *rolling) change(old, new string) {
	r.Helper()
	edit(r.T, r.repo, "web.yaml", old, new)
	r.settled()
}

func (r *rolling) settled() {
	r.Helper()
	r.current++
	r.s.WaitOutput("everything is current", r.current)
}

// update changes the server's version.
func (r *rolling) update() {
	r.Helper()
	r.edit()
	r.settled()
}

func (r *rolling) edit() {
	r.Helper()
	r.version++
	edit(r.T, r.repo, "web.yaml", fmt.Sprintf(", v%d]", r.version-1), fmt.Sprintf(", v%d]", r.version))
}

// run is a subtest under load.
func (r *rolling) run(name string, ways []load.Way, do func(r *rolling, calls *load.Load)) {
	r.Run(name, func(t *testing.T) {
		outer := r.T
		defer func() { r.T = outer }()
		r.T = t
		calls := load.Start(ways...)
		defer calls.Stop()
		do(r, calls)
		spotless(t, calls.Stop())
	})
}
