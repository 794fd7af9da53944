package e2e

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/slipway-dev/slipway/testing/load"
)

// TestDrainByGit empties a machine that has no other beside it, as far as its Deployment allows, and cordons it, under
// load and by nothing but files. No call fails, and everything is back when the file has gone.
func TestDrainByGit(t *testing.T) {
	s, repo := openSite(t)
	r := &rolling{T: t, s: s, repo: repo, current: 1}
	node := s.Kubectl("get", "nodes", "-o", "jsonpath={.items[0].metadata.name}")
	manifest := func(spec string) {
		write(t, repo, "node.yaml", "apiVersion: v1\nkind: Node\nmetadata: {name: "+node+"}\nspec: "+spec+"\n")
	}
	shows := func(what, want string, args ...string) {
		t.Helper()
		s.Eventually(what, func() error {
			out, err := s.TryKubectl(args...)
			if err != nil || !strings.Contains(out, want) {
				return fmt.Errorf("%s, want %s", out, want)
			}
			return nil
		})
	}
	deployment := []string{"-n", "site", "get", "deployment", "web", "-o", "jsonpath={.status.availableReplicas} of {.status.replicas}, {.status.updatedReplicas} new"}
	why := []string{"-n", "site", "get", "pods", "--field-selector=status.phase=Pending", "-o", "jsonpath={.items[*].status.conditions[?(@.type=='PodScheduled')].message}"}
	ways := outside(s, "1ms", loopback)
	some := func(calls *load.Load) {
		seen := answered(calls.Reports())
		s.Eventually("more calls", func() error { return atLeast(calls, seen+500) })
	}

	r.run("a taint", ways, func(r *rolling, calls *load.Load) {
		manifest("{taints: [{key: maintenance, effect: NoExecute}]}")
		shows("as many Pods gone as may be", "3 of 4, 4 new", deployment...)
		shows("why the replacement waits", "0/1 nodes are available: 1 node(s) had untolerated taint {maintenance: }.", why...)
		shows("the node says that it waits", "3 Pods stay for now: 3: Deployment site/web has 3 of 4 available and must have 3, and a replacement has no node",
			"get", "node", node, "-o", "jsonpath={.status.conditions[?(@.type=='slipway.dev/Drained')].message}")
		out, err := exec.Command(s.Binary, "status", "--data-dir", s.Data).CombinedOutput()
		for _, want := range []string{"node     " + node + " has taint maintenance:NoExecute\n", "node     " + node + " drain: 3 Pods stay for now: "} {
			if err != nil || !strings.Contains(string(out), want) {
				t.Errorf("slipway status: %v: lacks %q:\n%s", err, want, out)
			}
		}
		some(calls)
		shows("three Pods still there", "3 of 4, 4 new", deployment...)
		r.remove("node.yaml")
		shows("all of them back", "4 of 4, 4 new", deployment...)
		if taints := s.Kubectl("get", "node", node, "-o", "jsonpath={.spec.taints}"); taints != "" {
			t.Errorf("taints left on the node: %s", taints)
		}
		s.Eventually("the Pods of their own", func() error {
			phases := s.Kubectl("-n", "site", "get", "pods", "caller", "member", "-o", "jsonpath={.items[*].status.phase}")
			if phases != "Running Running" {
				return errors.New(phases)
			}
			return nil
		})
	})
	r.run("a cordon", ways, func(r *rolling, calls *load.Load) {
		manifest("{unschedulable: true}")
		shows("the cordon", "true", "get", "node", node, "-o", "jsonpath={.spec.unschedulable}")
		r.edit()
		shows("why the new Pods wait", "0/1 nodes are available: 1 node(s) were unschedulable.", why...)
		some(calls)
		r.remove("node.yaml")
		shows("the rollout's end", "4 of 4, 4 new", deployment...)
		some(calls)
	})
}

func (r *rolling) remove(name string) {
	r.Helper()
	if err := os.Remove(filepath.Join(r.repo, name)); err != nil {
		r.Fatal(err)
	}
}
