package e2e

import (
	"bufio"
	"errors"
	"fmt"
	"net"
	"net/http"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/slipway-dev/slipway/testing/load"
)

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
				return errors.Join(err, fmt.Errorf("%s: %q", way.URL, text))
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
