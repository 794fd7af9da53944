package e2e

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/slipway-dev/slipway/testing/cluster"
	"github.com/slipway-dev/slipway/testing/gitserver"
	"github.com/slipway-dev/slipway/testing/images"
	"github.com/slipway-dev/slipway/testing/need"
)

const remoteWeb = `apiVersion: apps/v1
kind: Deployment
metadata: {name: web}
spec:
  replicas: 2
  selector: {matchLabels: {app: web}}
  template:
    metadata: {labels: {app: web}}
    spec:
      containers:
        - name: web
          image: test.local/testpod:1
          args: [serve]
          env: [{name: GREETING, value: "@GREETING@"}]
          ports: [{containerPort: 8080}]
          readinessProbe: {httpGet: {path: /healthz, port: 8080}}
---
apiVersion: v1
kind: Service
metadata: {name: web}
spec:
  type: NodePort
  selector: {app: web}
  ports: [{port: 80, targetPort: 8080, nodePort: 30081}]
`

const remoteConfig = `apiVersion: v1
kind: ConfigMap
metadata: {name: settings}
data: {color: green}
`

// TestRemoteRepository follows a repository that a real git server serves over HTTP: a commit runs, a broken commit
// is refused with file and line and prunes nothing, and its revert leads on.
func TestRemoteRepository(t *testing.T) {
	need.Runtime(t)
	image, err := images.Testpod(t.Context(), "test.local/testpod:1")
	if err != nil {
		t.Fatal(err)
	}
	archive := filepath.Join(t.TempDir(), "testpod.tar")
	if err := images.WriteArchive(archive, image); err != nil {
		t.Fatal(err)
	}
	server := gitserver.Start(t)
	web := func(greeting string) string { return strings.ReplaceAll(remoteWeb, "@GREETING@", greeting) }
	server.Push(map[string]string{"deploy/web.yaml": web("one"), "deploy/settings.yaml": remoteConfig, "README.md": "# hello"}, "Begin")

	s := cluster.Up(t, server.URL, "--path", "deploy", "--images", archive)
	s.WaitOutput("everything is current", 1)
	const page = "http://127.0.0.1:30081/env"
	s.Eventually("the first commit", shows(page, "one"))

	second := server.Push(map[string]string{"deploy/web.yaml": web("two")}, "Greet differently")
	s.WaitOutput("everything is current", 2)
	s.Eventually("the second commit", shows(page, "two"))
	if !strings.Contains(s.Output(), second[:7]+"  Greet differently") {
		t.Error("the commit is not named")
	}

	t.Run("a broken commit is refused and prunes nothing", func(t *testing.T) {
		// The file that made the ConfigMap is gone in the same commit that breaks the other.
		if err := os.Remove(filepath.Join(server.Dir, "deploy", "settings.yaml")); err != nil {
			t.Fatal(err)
		}
		server.Push(map[string]string{"deploy/web.yaml": strings.Replace(web("three"), "replicas: 2", "replicas: -2", 1)}, "Break it")
		s.WaitOutput("refused: 1 problem, nothing was changed", 1)
		if want := "deploy/web.yaml:5: Deployment/default/web: spec.replicas: "; !strings.Contains(s.Output(), want) {
			t.Errorf("the output lacks %q", want)
		}
		s.Kubectl("get", "configmap", "settings")
		if err := shows(page, "two")(); err != nil {
			t.Error(err)
		}
		if out := s.Kubectl("get", "rollouts"); !strings.Contains(out, "Refused") {
			t.Errorf("get rollouts:\n%s", out)
		}
	})
	t.Run("a revert leads on", func(t *testing.T) {
		server.Git("revert", "--no-edit", "HEAD")
		server.Push(map[string]string{"deploy/web.yaml": web("four")}, "Go on")
		s.Eventually("the newest commit", shows(page, "four"))
		s.Kubectl("get", "configmap", "settings")
	})
	t.Run("the server goes and comes back", func(t *testing.T) {
		server.Fail(gitserver.Fault{Status: 500})
		s.WaitOutput("the source cannot be read, what runs stays", 1)
		if err := shows(page, "four")(); err != nil {
			t.Error(err)
		}
		server.Fail(gitserver.Fault{})
		s.WaitOutput("the source can be read again", 1)
	})
}
