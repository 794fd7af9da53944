package e2e

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"

	"github.com/slipway-dev/slipway/testing/cluster"
	"github.com/slipway-dev/slipway/testing/images"
	"github.com/slipway-dev/slipway/testing/need"
	"github.com/slipway-dev/slipway/testing/smalldisk"
)

const diskWeb = `apiVersion: apps/v1
kind: Deployment
metadata: {name: web, namespace: default}
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
metadata: {name: web, namespace: default}
spec:
  type: NodePort
  selector: {app: web}
  ports: [{port: 80, targetPort: 8080, nodePort: 30082}]
`

// onDisk is a test whose data directories lie on a disk of their own.
type onDisk struct {
	*testing.T
	dir string
}

func (d onDisk) TempDir() string { return d.dir }

// writer makes ConfigMaps until it is stopped, and remembers what was acknowledged.
type writer struct {
	mu           sync.Mutex
	acknowledged []string
	last         string
}

func (w *writer) run(ctx context.Context, api *cluster.Internal, payload string) {
	for i := 0; ctx.Err() == nil; i++ {
		name := fmt.Sprintf("written-%d", i)
		body := fmt.Sprintf(`{"apiVersion":"v1","kind":"ConfigMap","metadata":{"name":%q},"data":{"payload":%q}}`, name, payload)
		code, answer, err := api.Do(ctx, http.MethodPost, "/api/v1/namespaces/default/configmaps", []byte(body))
		if ctx.Err() != nil {
			return
		}
		w.mu.Lock()
		switch {
		case err != nil:
			w.last = "no answer: " + err.Error()
		case code == http.StatusCreated:
			w.acknowledged = append(w.acknowledged, name)
			w.last = ""
		default:
			var status struct{ Message string }
			_ = json.Unmarshal(answer, &status) // what is no Status has no message
			w.last = fmt.Sprintf("%d %s", code, status.Message)
		}
		w.mu.Unlock()
	}
}

func (w *writer) state() (written int, refusal string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	return len(w.acknowledged), w.last
}

// lookUp asks the cluster's DNS for a Service.
func lookUp(name string) error {
	resolver := &net.Resolver{PreferGo: true, Dial: func(ctx context.Context, network, _ string) (net.Conn, error) {
		var d net.Dialer
		return d.DialContext(ctx, network, "10.96.0.10:53")
	}}
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	_, err := resolver.LookupHost(ctx, name)
	return err
}

// TestFullDisk fills the disk of the data directory to the last byte during writes.
func TestFullDisk(t *testing.T) {
	need.Runtime(t)
	image, err := images.Testpod(t.Context(), "test.local/testpod:1")
	if err != nil {
		t.Fatal(err)
	}
	archive := filepath.Join(t.TempDir(), "testpod.tar")
	if err := images.WriteArchive(archive, image); err != nil {
		t.Fatal(err)
	}
	repo := filepath.Join(t.TempDir(), "repo")
	if err := os.Mkdir(repo, 0o755); err != nil {
		t.Fatal(err)
	}
	web := func(greeting string) string { return strings.ReplaceAll(diskWeb, "@GREETING@", greeting) }
	write(t, repo, "web.yaml", web("one"))
	git(t, repo, "init", "-q", "-b", "main")
	git(t, repo, "add", ".")
	git(t, repo, "commit", "-q", "-m", "Begin")

	disk := smalldisk.Mount(t, 600)
	s := cluster.Up(onDisk{t, disk}, repo, "--images", archive)
	s.WaitOutput("everything is current", 1)
	const page = "http://127.0.0.1:30082/env"
	s.Eventually("the first commit", shows(page, "one"))
	running := func() string {
		return s.Kubectl("get", "pods", "-o", `jsonpath={range .items[*]}{.metadata.name} {.status.podIP} {.status.containerStatuses[0].containerID} {.status.containerStatuses[0].restartCount}{"\n"}{end}`)
	}
	before, pid := running(), s.PID()
	kubeconfig, err := os.ReadFile(s.Kubeconfig)
	if err != nil {
		t.Fatal(err)
	}

	var w writer
	ctx, stop := context.WithCancel(t.Context())
	defer stop()
	var writing sync.WaitGroup
	api := s.Internal()
	writing.Go(func() { w.run(ctx, api, strings.Repeat("x", 8000)) })
	s.Eventually("some writes", func() error {
		if n, refusal := w.state(); n < 100 {
			return fmt.Errorf("%d writes, %s", n, refusal)
		}
		return nil
	})

	giveBack := smalldisk.Fill(t, disk)
	s.Eventually("writes are refused", func() error {
		n, refusal := w.state()
		for _, part := range []string{"507 ", s.Data, " bytes (", "free"} {
			if !strings.Contains(refusal, part) {
				return fmt.Errorf("after %d writes: %q without %q", n, refusal, part)
			}
		}
		return nil
	})
	_, refusal := w.state()
	t.Log(refusal)
	write(t, repo, "web.yaml", web("two"))
	git(t, repo, "commit", "-q", "-a", "-m", "Greet differently")
	// Longer than everything that renews itself: Leases, probes, polls.
	for quiet := time.Now().Add(12 * time.Second); time.Now().Before(quiet); {
		if err := errors.Join(lookUp("web.default.svc.cluster.local"), shows(page, "one")()); err != nil {
			t.Fatalf("on the full disk: %v", err)
		}
	}
	if diff := cmp.Diff(before, running()); diff != "" {
		t.Errorf("containers on the full disk (-before +now):\n%s", diff)
	}
	if err := unix.Kill(pid, 0); err != nil {
		t.Fatalf("slipway has ended: %v\n%s", err, s.Output())
	}
	if now, err := os.ReadFile(s.Kubeconfig); err != nil || string(now) != string(kubeconfig) {
		t.Errorf("the kubeconfig has changed: %v", err)
	}
	written, _ := w.state()

	giveBack()
	s.Eventually("writes work again", func() error {
		if n, refusal := w.state(); n <= written {
			return errorString(refusal)
		}
		return nil
	})
	s.Eventually("the commit made meanwhile", shows(page, "two"))
	stop()
	writing.Wait()
	list := s.Kubectl("get", "configmaps", "-o", `jsonpath={range .items[*]}{.metadata.name}{"\n"}{end}`)
	stored := map[string]bool{}
	for _, name := range strings.Fields(list) {
		stored[name] = true
	}
	for _, name := range w.acknowledged {
		if !stored[name] {
			t.Errorf("%s was acknowledged and is lost", name)
		}
	}
	if s.PID() != pid {
		t.Error("slipway was started again")
	}
	t.Logf("%d writes were acknowledged, %d of them before the disk was full", len(w.acknowledged), written)
}
