package e2e

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/miekg/dns"
	"golang.org/x/sys/unix"

	"github.com/slipway-dev/slipway/testing/cluster"
	"github.com/slipway-dev/slipway/testing/need"
)

// TestContainersOutliveSlipway ends slipway as Ctrl-C and as a crash do: the shop goes on, and the next up finds every
// container as it was.
func TestContainersOutliveSlipway(t *testing.T) {
	need.Runtime(t)
	args := []string{copyShop(t), "--images", filepath.Join(need.ModuleRoot(), "build", "images", "shop.tar")}
	s := cluster.Up(t, args...)
	s.WaitOutput("everything is current", 1)
	const page = "http://192.0.2.2:30080/" // the packet filter answers, not the process
	before := containers(s)

	for name, end := range map[string]func(){"Ctrl-C": s.Interrupt, "a crash": s.Kill} {
		t.Run(name, func(t *testing.T) {
			end()
			s.Eventually("the front end without slipway", func() error {
				_, err := get(page + "readyz")
				return err
			})
			s.Start(args...)
			s.WaitOutput("following ", 1)
			s.Eventually("the shop with all its parts", shows(page, "The Harbour Shop", "sold 0"))
			s.Eventually("every container as it was", func() error {
				if diff := cmp.Diff(before, containers(s)); diff != "" {
					return errorString(diff)
				}
				return nil
			})
		})
	}
}

type errorString string

func (e errorString) Error() string { return string(e) }

// containers returns id, restart count and address of every Pod of the shop.
func containers(s *cluster.Slipway) []string {
	out := s.Kubectl("-n", "shop", "get", "pods", "-o",
		`jsonpath={range .items[*]}{.metadata.name} {.status.podIP} {.status.containerStatuses[0].containerID} {.status.containerStatuses[0].restartCount} {.status.containerStatuses[0].ready}{"\n"}{end}`)
	return strings.Split(strings.TrimSpace(out), "\n")
}

// TestNamesAreAnsweredBeforeTheRuntime restarts slipway beside a container runtime that hangs: cluster DNS does not
// wait for it, and all the rest goes on when it answers again.
func TestNamesAreAnsweredBeforeTheRuntime(t *testing.T) {
	need.Runtime(t)
	dir := t.TempDir()
	manifest := "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: settings, namespace: default}\ndata: {color: blue}\n"
	if err := os.WriteFile(filepath.Join(dir, "settings.yaml"), []byte(manifest), 0o644); err != nil {
		t.Fatal(err)
	}
	s := cluster.Up(t, dir)
	s.WaitOutput("everything is current", 1)
	name := func() error {
		question := new(dns.Msg)
		question.SetQuestion("kubernetes.default.svc.cluster.local.", dns.TypeA)
		answer, err := dns.Exchange(question, "10.244.0.1:53")
		if err == nil && len(answer.Answer) != 1 {
			err = errorString(answer.String())
		}
		return err
	}
	s.Eventually("cluster DNS", name)
	s.Kill()
	data, err := os.ReadFile(filepath.Join(s.Data, "containerd", "containerd.json"))
	if err != nil {
		t.Fatal(err)
	}
	var containerd struct{ PID int }
	if err := json.Unmarshal(data, &containerd); err != nil {
		t.Fatal(err)
	}
	if err := unix.Kill(containerd.PID, unix.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	s.Start(dir)
	s.Eventually("cluster DNS beside a runtime that hangs", name)
	if strings.Contains(s.Output(), "runtime   ready") {
		t.Error("the runtime did not hang")
	}
	if err := unix.Kill(containerd.PID, unix.SIGCONT); err != nil {
		t.Fatal(err)
	}
	s.WaitOutput("following ", 1)
}
