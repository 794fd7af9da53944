package e2e

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

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

// TestRollingUpdatesLoseNoRequest replaces all Pods of a Deployment under load, again and again and in every way.
func TestRollingUpdatesLoseNoRequest(t *testing.T) {
	s, repo := openSite(t)
	r := &rolling{T: t, s: s, repo: repo, current: 1}
	ways := outside(s, "1ms", loopback)
	r.run("ten rounds of 2,000 requests", ways, func(r *rolling, calls *load.Load) {
		const rounds, each = 10, 2000
		for round := range rounds {
			r.update()
			s.Eventually("the round's requests", func() error {
				if n := answered(calls.Reports()); n < each*(round+1) {
					return fmt.Errorf("%d answered", n)
				}
				return nil
			})
		}
		for _, report := range calls.Stop() {
			if len(report.Servers) < rounds {
				r.Errorf("%s was answered by %d Pods only", report.Name, len(report.Servers))
			}
		}
	})
	r.run("readiness comes and goes", ways, readinessFlips)
	r.run("down to one and up again", ways, func(r *rolling, _ *load.Load) {
		r.change("replicas: 4", "replicas: 1")
		r.change("replicas: 1", "replicas: 4")
	})
	r.run("one at a time", ways, func(r *rolling, _ *load.Load) {
		r.change("replicas: 4", "replicas: 4\n  strategy: {rollingUpdate: {maxSurge: 0, maxUnavailable: 1}}")
		r.update()
		r.update()
	})
	r.run("clients that stay with their Pod", ways, func(r *rolling, _ *load.Load) {
		edit(r.T, repo, "site.yaml", "type: NodePort", "type: NodePort\n  sessionAffinity: ClientIP")
		r.settled()
		r.update()
		r.update()
		calls := load.Start(ways[0])
		r.s.Eventually("some calls", func() error { return atLeast(calls, 50) })
		if servers := calls.Stop()[0].Servers; len(servers) != 1 {
			r.Errorf("one client was answered by %v", servers)
		}
		edit(r.T, repo, "site.yaml", "\n  sessionAffinity: ClientIP", "")
		r.settled()
	})
	crowd := ways[0]
	crowd.Callers, crowd.Pause = 12, 0
	r.run("a server that takes one caller at a time", []load.Way{crowd}, func(r *rolling, _ *load.Load) {
		r.change("[graceful,", "[serial,")
		for range 3 {
			r.update()
		}
		r.change("[serial,", "[graceful,")
	})
	t.Run("readers slower than their server ends", func(t *testing.T) { slowReaders(t, r) })
	t.Run("callers in Pods", func(t *testing.T) { spotless(t, inside(t, s)) })
	r.run("slipway crashes in the middle", outside(s, "20ms"), func(r *rolling, _ *load.Load) {
		for _, moment := range []string{"1 to update", "… Deployment site/web 1/4 ready", "… Deployment site/web 3/4 ready"} {
			r.crash(moment)
		}
	})
}

// crash kills slipway when it has printed something of a rollout, and starts it again.
func (r *rolling) crash(moment string) {
	r.Helper()
	before := strings.Count(r.s.Output(), moment)
	r.edit()
	r.s.WaitOutput(moment, before+1)
	r.s.Kill()
	r.s.Start(r.repo)
	r.current = 0
	r.s.Eventually("the rollout's end", func() error {
		state, err := r.s.TryKubectl("-n", "site", "get", "deployment", "web", "-o",
			"jsonpath={.spec.template.spec.containers[0].args[1]} {.status.updatedReplicas} {.status.replicas} {.status.availableReplicas}")
		if want := fmt.Sprintf("v%d 4 4 4", r.version); err != nil || state != want {
			return fmt.Errorf("%s, want %s", state, want)
		}
		return nil
	})
}

func atLeast(calls *load.Load, n int) error {
	if got := answered(calls.Reports()); got < n {
		return fmt.Errorf("%d answered", got)
	}
	return nil
}

// pods asks for something of the Deployment's Pods.
func (r *rolling) pods(path string) []string {
	return strings.Fields(r.s.Kubectl("-n", "site", "get", "pods", "-l", "part=deployment", "-o", "jsonpath="+path))
}

// slowReaders reads what Pods wrote before they ended when their programs are long gone.
func slowReaders(t *testing.T, r *rolling) {
	const size = 120_000 // more than a reader takes in unasked, less than a server has to wait for
	small := func(_, _ string, raw syscall.RawConn) (err error) {
		if e := raw.Control(func(fd uintptr) { err = unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_RCVBUF, 4096) }); e != nil {
			return e
		}
		return err
	}
	var readers []net.Conn
	for range 8 {
		c, err := (&net.Dialer{Control: small}).DialContext(t.Context(), "tcp", "192.0.2.2:30090")
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		fmt.Fprintf(c, "GET /bulk?bytes=%d HTTP/1.1\r\nHost: site\r\n\r\n", size)
		readers = append(readers, c)
	}
	old := r.pods("{.items[*].metadata.name}")
	r.update()
	looks := 0
	r.s.Eventually("the old programs to have ended", func() error {
		for _, line := range strings.Split(r.s.Kubectl("-n", "site", "get", "pods", "-o", `jsonpath={range .items[*]}{.metadata.name} {.status.containerStatuses[0].state.running}{"\n"}{end}`), "\n") {
			if name, running, _ := strings.Cut(line, " "); slices.Contains(old, name) && running != "" {
				return errors.New(line)
			}
		}
		if looks++; looks < 10 {
			return errors.New("not looked often enough: what is left of them may be taken away yet")
		}
		return nil
	})
	for i, c := range readers {
		c.SetReadDeadline(time.Now().Add(10 * time.Second))
		response, err := http.ReadResponse(bufio.NewReader(c), nil)
		text, err := body(response, err)
		if err != nil || len(text) != size {
			t.Errorf("reader %d got %d bytes of %d: %v", i, len(text), size, err)
		}
	}
}

// readinessFlips makes every Pod say that it is not ready, one after the other, while it goes on answering.
func readinessFlips(r *rolling, calls *load.Load) {
	for _, ip := range r.pods("{.items[*].status.podIP}")[:2] {
		ready := func(want string) {
			if _, err := get("http://" + ip + ":8080/flip"); err != nil {
				r.Fatal(err)
			}
			r.s.Eventually("readiness of "+ip, func() error {
				state := r.s.Kubectl("-n", "site", "get", "pods", "-o", `jsonpath={.items[?(@.status.podIP=="`+ip+`")].status.conditions[?(@.type=="Ready")].status}`)
				if state != want {
					return errors.New(state)
				}
				return nil
			})
		}
		ready("False")
		seen := answered(calls.Reports())
		r.s.Eventually("calls meanwhile", func() error { return atLeast(calls, seen+100) })
		ready("True")
	}
}

// TestServiceWithoutPodsIsRefused takes away a Service's last Pods, all at once, under load: calls are answered or
// refused, none is left waiting, and all is well when Pods are back.
func TestServiceWithoutPodsIsRefused(t *testing.T) {
	s, repo := openSite(t, "labels: {app: web}}", "labels: {app: other}}", "replicas: 4", "replicas: 4\n  strategy: {type: Recreate}")
	r := &rolling{T: t, s: s, repo: repo, current: 1}
	ways := outside(s, "1ms", loopback)
	calls := load.Start(ways...)
	defer calls.Stop()
	r.update()
	r.change("replicas: 4", "replicas: 0")
	s.Eventually("refusal", func() error {
		for _, way := range ways {
			if text, err := get(way.URL); err == nil || !strings.Contains(err.Error(), "refused") {
				return fmt.Errorf("%s: %q, %v", way.URL, text, err)
			}
		}
		return nil
	})
	for _, report := range calls.Stop() {
		for _, failure := range report.Failures {
			if !strings.Contains(failure, "refused") && !strings.Contains(failure, "reset") && !strings.Contains(failure, "EOF") {
				t.Errorf("%s: %s", report.Name, failure)
			}
		}
		report.Failures = nil
		t.Log(report)
	}
	r.change("replicas: 0", "replicas: 2")
	r.run("back again", ways, func(r *rolling, calls *load.Load) {
		r.s.Eventually("calls", func() error { return atLeast(calls, 100) })
	})
}
