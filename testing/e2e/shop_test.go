package e2e

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/slipway-dev/slipway/testing/cluster"
	"github.com/slipway-dev/slipway/testing/images"
	"github.com/slipway-dev/slipway/testing/need"
)

// reader is a Pod that reads the API from inside, with what it needs to be allowed to.
const reader = `
apiVersion: v1
kind: ServiceAccount
metadata: {name: reader, namespace: shop}
---
apiVersion: rbac.authorization.k8s.io/v1
kind: Role
metadata: {name: service-reader, namespace: shop}
rules:
  - {apiGroups: [""], resources: [services], verbs: [get, list]}
---
apiVersion: rbac.authorization.k8s.io/v1
kind: RoleBinding
metadata: {name: reader, namespace: shop}
roleRef: {apiGroup: rbac.authorization.k8s.io, kind: Role, name: service-reader}
subjects:
  - {kind: ServiceAccount, name: reader, namespace: shop}
---
apiVersion: v1
kind: Pod
metadata: {name: reader, namespace: shop}
spec:
  serviceAccountName: reader
  containers:
    - name: reader
      image: test.local/apiclient:1
      env: [{name: NAMESPACE, value: shop}]
`

// copyShop copies examples-repo's manifests into a repository of its own, committed.
func copyShop(t *testing.T) string {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "shop")
	if err := os.CopyFS(dir, os.DirFS(filepath.Join(need.ModuleRoot(), "examples-repo"))); err != nil {
		t.Fatal(err)
	}
	git(t, dir, "init", "-q", "-b", "main")
	git(t, dir, "add", ".")
	git(t, dir, "commit", "-q", "-m", "Open the shop")
	return dir
}

func git(t *testing.T, dir string, args ...string) {
	t.Helper()
	cmd := exec.Command("git", append([]string{"-C", dir, "-c", "user.name=Ada", "-c", "user.email=ada@example.com"}, args...)...)
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("git %v: %v\n%s", args, err, out)
	}
}

func write(t *testing.T, dir, name, text string) {
	t.Helper()
	if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
}

// edit replaces text in a file, as an editor's save does.
func edit(t *testing.T, dir, name, old, new string) {
	t.Helper()
	data, err := os.ReadFile(filepath.Join(dir, name))
	if err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(string(data), old) {
		t.Fatalf("%s does not hold %q", name, old)
	}
	write(t, dir, name, strings.ReplaceAll(string(data), old, new))
}

// get asks for a page with a connection of its own.
func get(address string) (string, error) {
	client := &http.Client{Timeout: 5 * time.Second, Transport: &http.Transport{DisableKeepAlives: true}}
	response, err := client.Get(address)
	return body(response, err)
}

func body(response *http.Response, err error) (string, error) {
	if err != nil {
		return "", err
	}
	defer response.Body.Close()
	text, err := io.ReadAll(response.Body)
	if err == nil && response.StatusCode >= 400 {
		err = fmt.Errorf("%s: %s", response.Status, text)
	}
	return string(text), err
}

// shows returns a check that a page holds all parts.
func shows(address string, parts ...string) func() error {
	return func() error {
		page, err := get(address)
		if err != nil {
			return err
		}
		for _, part := range parts {
			if !strings.Contains(page, part) {
				return fmt.Errorf("the page lacks %q", part)
			}
		}
		return nil
	}
}

func apiClientArchive(t *testing.T) string {
	t.Helper()
	image, err := images.FromGo(t.Context(), "./testing/images/apiclient", "test.local/apiclient:1")
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(t.TempDir(), "apiclient.tar")
	if err := images.WriteArchive(path, image); err != nil {
		t.Fatal(err)
	}
	return path
}

// TestShop is a newcomer's first hour: up, look, edit, break, revert, remove.
func TestShop(t *testing.T) {
	need.Runtime(t)
	dir := copyShop(t)
	write(t, dir, "reader.yaml", reader)
	s := cluster.Up(t, dir, "--images", filepath.Join(need.ModuleRoot(), "build", "images", "shop.tar"), "--images", apiClientArchive(t))
	s.WaitOutput("everything is current", 1)
	const page = "http://127.0.0.1:30080/"

	t.Run("every Pod runs", func(t *testing.T) {
		phases := strings.Fields(s.Kubectl("-n", "shop", "get", "pods", "-o", "jsonpath={.items[*].status.phase}"))
		if len(phases) != 7 {
			t.Errorf("there are %d Pods, want 7", len(phases))
		}
		for _, phase := range phases {
			if phase != "Running" {
				t.Errorf("a Pod is %s", phase)
			}
		}
	})
	t.Run("the shop answers on its NodePort and sells", func(t *testing.T) {
		s.Eventually("the page", shows(page, "The Harbour Shop", "web 1.0", "Harbour duck"))
		s.Eventually("the page on the node's address", shows("http://192.0.2.2:30080/", "The Harbour Shop"))
		if _, err := body(http.PostForm(page+"buy/duck", url.Values{})); err != nil {
			t.Fatal(err)
		}
		s.Eventually("the sale", shows(page, "sold 1"))
	})
	t.Run("a program in a Pod reads the API", func(t *testing.T) {
		s.Eventually("the reader's answer", func() error {
			log := s.Kubectl("-n", "shop", "logs", "reader")
			if !strings.Contains(log, "services: api cache web\n") || !strings.Contains(log, `secrets is forbidden`) {
				return errors.New(log)
			}
			return nil
		})
	})
	t.Run("kubectl reads", func(t *testing.T) { kubectlReads(t, s) })
	t.Run("a saved manifest rolls", func(t *testing.T) {
		edit(t, dir, "web.yaml", "shop.local/web:1.0", "shop.local/web:2.0")
		s.WaitOutput("everything is current", 2)
		s.Eventually("only the new Pods to answer", func() error {
			for range 6 {
				if err := shows(page, "web 2.0")(); err != nil {
					return err
				}
			}
			return nil
		})
	})
	t.Run("a rollout that fails says why and keeps the old Pods", func(t *testing.T) {
		edit(t, dir, "web.yaml", "shop.local/web:2.0", "shop.local/web:3.0")
		s.WaitOutput("✗ Deployment shop/web", 1)
		if !strings.Contains(s.Output(), "ErrImagePull") && !strings.Contains(s.Output(), "ImagePullBackOff") {
			t.Error("the cause is not shown")
		}
		if err := shows(page, "web 2.0")(); err != nil {
			t.Error(err)
		}
		git(t, dir, "checkout", "-q", "web.yaml")
		s.WaitOutput("everything is current", 3)
		s.Eventually("the old version", shows(page, "web 1.0"))
	})
	t.Run("a broken file changes nothing", func(t *testing.T) {
		edit(t, dir, "api.yaml", "replicas: 2", "replicas: two")
		s.WaitOutput("refused: 1 problem, nothing was changed", 1)
		if !strings.Contains(s.Output(), "api.yaml:8: Deployment/shop/api: spec.replicas: ") {
			t.Error("file and line are not shown")
		}
		if err := shows(page, "web 1.0")(); err != nil {
			t.Error(err)
		}
		git(t, dir, "checkout", "-q", "api.yaml")
	})
	t.Run("a removed file is pruned", func(t *testing.T) {
		if err := os.Remove(filepath.Join(dir, "reader.yaml")); err != nil {
			t.Fatal(err)
		}
		s.Eventually("the reader to be gone", func() error {
			out, err := s.TryKubectl("-n", "shop", "get", "pod,serviceaccount,role,rolebinding", "reader")
			if err == nil || strings.Contains(out, "pod/reader") {
				return errors.New(out)
			}
			return nil
		})
		if err := shows(page, "The Harbour Shop")(); err != nil {
			t.Error(err)
		}
	})
	t.Run("people cannot write", func(t *testing.T) {
		out, err := s.TryKubectl("-n", "shop", "delete", "deployment", "web")
		if err == nil || !strings.Contains(out, "read-only here: it comes from web.yaml:1 at ") {
			t.Errorf("kubectl delete: %v\n%s", err, out)
		}
	})
}

// kubectlReads uses the verbs people use.
func kubectlReads(t *testing.T, s *cluster.Slipway) {
	if out := s.Kubectl("-n", "shop", "describe", "deployment", "web"); !strings.Contains(out, "3 available") {
		t.Errorf("describe deployment:\n%s", out)
	}
	pod := s.Kubectl("-n", "shop", "get", "pod", "-l", "app=web", "-o", "jsonpath={.items[0].metadata.name}")
	if out := s.Kubectl("-n", "shop", "describe", "pod", pod); !strings.Contains(out, "Started") || !strings.Contains(out, "Successfully assigned") {
		t.Errorf("describe pod lacks its events:\n%s", out)
	}
	if out := s.Kubectl("get", "rollouts"); !strings.Contains(out, "Succeeded") {
		t.Errorf("get rollouts:\n%s", out)
	}
	if out := s.Kubectl("-n", "shop", "get", "secret", "shop-key", "-o", "jsonpath={.data.key}"); out != "KioqKio=" {
		t.Errorf("a Secret's data reads as %s", out)
	}
	for _, args := range [][]string{
		{"-n", "shop", "get", "pods", "-w"},
		{"-n", "shop", "logs", "-f", "deploy/web"},
	} {
		t.Run(strings.Join(args, " "), func(t *testing.T) { streams(t, s, args) })
	}
}

// streams starts a command that goes on until it is ended, and waits until it printed something.
func streams(t *testing.T, s *cluster.Slipway, args []string) {
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	cmd := s.KubectlCommand(ctx, args...)
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	if _, err := io.ReadFull(stdout, make([]byte, 10)); err != nil {
		t.Errorf("kubectl %v: %v", args, err)
	}
	cancel()
	_ = cmd.Wait() // it was ended by us
}

func mkdir(t *testing.T, dir string) {
	t.Helper()
	if err := os.MkdirAll(dir, 0o755); err != nil {
		t.Fatal(err)
	}
}
