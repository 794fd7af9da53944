package vm

import (
	"bytes"
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"github.com/slipway-dev/slipway/apiserver/pki"
	"github.com/slipway-dev/slipway/testing/images"
	"github.com/slipway-dev/slipway/testing/need"
)

// Where things are in the machine.
const (
	dataDir   = "/var/lib/slipway"
	manifests = "/etc/slipway"
	programs  = "/usr/local/lib/slipway"
	testImage = "test.local/testpod:1"
)

// install does what INSTALL.md says, on a machine where there is neither Go nor a container runtime.
func (m *Machine) install() {
	m.t.Helper()
	archives, err := filepath.Glob(filepath.Join(need.ModuleRoot(), "dist", "slipway-*-linux-amd64.tar.gz"))
	if err != nil || len(archives) == 0 {
		m.t.Fatalf("no archive in dist/: run `make dist`")
	}
	m.Put("/root/slipway.tar.gz", m.read(newest(archives)))
	m.Run("tar", "-C", "/usr/local/lib", "-xzf", "/root/slipway.tar.gz")
	m.Run("rm", "/root/slipway.tar.gz")
	m.Run("ln", "-sf", "../lib/slipway/slipway", "/usr/local/bin/slipway")
	m.Run("ln", "-sf", programs+"/slipway.service", "/etc/systemd/system/slipway.service")
	image, err := images.Testpod(m.t.Context(), testImage)
	if err != nil {
		m.t.Fatal(err)
	}
	archive := filepath.Join(m.dir, "images.tar")
	if err := images.WriteArchive(archive, image); err != nil {
		m.t.Fatal(err)
	}
	m.Put("/root/images.tar", m.read(archive))
	m.Run("mkdir", "-p", manifests)
	m.Put("/etc/default/slipway", []byte("SLIPWAY_UP="+manifests+" --images /root/images.tar --api-address 0.0.0.0:6443\n"))
	m.Run("systemctl", "daemon-reload")
	m.Run("systemctl", "enable", "--now", "slipway")
	m.credentials()
}

// credentials copies the cluster's authority and signs a certificate with it that may do everything.
func (m *Machine) credentials() {
	m.t.Helper()
	dir := filepath.Join(m.dir, "pki")
	if err := os.MkdirAll(dir, 0o700); err != nil {
		m.t.Fatal(err)
	}
	for _, name := range strings.Fields(m.Run("ls", dataDir+"/pki")) {
		if err := os.WriteFile(filepath.Join(dir, name), m.Get(dataDir+"/pki/"+name), 0o600); err != nil {
			m.t.Fatal(err)
		}
	}
	authority, err := pki.Open(dir, time.Now)
	if err != nil {
		m.t.Fatal(err)
	}
	certPEM, keyPEM, err := authority.ClientCertificate("outside-writer", "system:masters")
	if err != nil {
		m.t.Fatal(err)
	}
	pair, err := tls.X509KeyPair(certPEM, keyPEM)
	if err != nil {
		m.t.Fatal(err)
	}
	m.api = &http.Client{Timeout: patience, Transport: &http.Transport{TLSClientConfig: &tls.Config{
		RootCAs: authority.Pool(), Certificates: []tls.Certificate{pair}}, MaxIdleConnsPerHost: 8}}
	m.readKubeconfig()
}

// readKubeconfig fetches the kubeconfig that slipway keeps, which is how people reach it.
func (m *Machine) readKubeconfig() {
	m.t.Helper()
	config := strings.ReplaceAll(string(m.Get(dataDir+"/kubeconfig")), ":6443", fmt.Sprintf(":%d", m.APIPort))
	if err := os.WriteFile(m.kubeconfig(), []byte(config), 0o600); err != nil {
		m.t.Fatal(err)
	}
}

func (m *Machine) kubeconfig() string { return filepath.Join(m.dir, "kubeconfig") }

// Kubectl runs kubectl as a person on this host and returns what it printed.
func (m *Machine) Kubectl(args ...string) string {
	m.t.Helper()
	out, err := m.TryKubectl(args...)
	if err != nil {
		m.t.Fatalf("kubectl %s: %v\n%s", strings.Join(args, " "), err, out)
	}
	return out
}

// TryKubectl is Kubectl where an error is no failure.
func (m *Machine) TryKubectl(args ...string) (string, error) {
	kubectl := filepath.Join(need.ModuleRoot(), "bin", "kubectl")
	cmd := exec.Command(kubectl, append([]string{"--kubeconfig", m.kubeconfig(), "--request-timeout=1m", "--cache-dir", filepath.Join(m.dir, "cache")}, args...)...)
	out, err := cmd.CombinedOutput()
	return string(out), err
}

// Do sends a request with the credential of credentials and decodes the answer into out.
func (m *Machine) Do(ctx context.Context, method, path string, body, out any) error {
	data, err := json.Marshal(body)
	if err != nil {
		return err
	}
	request, err := http.NewRequestWithContext(ctx, method, fmt.Sprintf("https://127.0.0.1:%d%s", m.APIPort, path), bytes.NewReader(data))
	if err != nil {
		return err
	}
	request.Header.Set("Content-Type", "application/json")
	response, err := m.api.Do(request)
	if err != nil {
		return err
	}
	defer response.Body.Close()
	answer, err := io.ReadAll(response.Body)
	if err != nil {
		return err
	}
	if response.StatusCode >= 300 {
		return fmt.Errorf("%s %s: %s: %s", method, path, response.Status, answer)
	}
	return json.Unmarshal(answer, out)
}

// explain logs what is needed to understand a failure.
func (m *Machine) explain() {
	for _, args := range [][]string{{"systemctl", "--no-pager", "status", "slipway"}, {"journalctl", "--no-pager", "-n", "60"}, {"tail", "-n", "60", dataDir + "/slipway.log"}} {
		out, err := m.TryRun(args...)
		m.t.Logf("%s: %v\n%s", strings.Join(args, " "), err, out)
	}
	if m.api != nil {
		out, err := m.TryKubectl("get", "pods,events", "-A", "-o", "wide")
		m.t.Logf("kubectl get pods,events: %v\n%s", err, out)
	}
}

func (m *Machine) read(path string) []byte {
	m.t.Helper()
	data, err := os.ReadFile(path)
	if err != nil {
		m.t.Fatal(err)
	}
	return data
}

// newest returns the file that was written last.
func newest(paths []string) string {
	var best string
	var at time.Time
	for _, path := range paths {
		if info, err := os.Stat(path); err == nil && info.ModTime().After(at) {
			best, at = path, info.ModTime()
		}
	}
	return best
}

// Pod is what must not change by itself.
type Pod struct {
	Name, UID, IP, Container string
	Restarts                 int
	Ready                    bool
}

// Pods returns the Pods of a namespace, by name.
func (m *Machine) Pods(namespace string) (map[string]Pod, error) {
	out, err := m.TryKubectl("-n", namespace, "get", "pods", "-o",
		`jsonpath={range .items[*]}{.metadata.name} {.metadata.uid} {.status.podIP} {.status.containerStatuses[0].containerID} {.status.containerStatuses[0].restartCount} {.status.containerStatuses[0].ready}{"\n"}{end}`)
	if err != nil {
		return nil, errors.New(out)
	}
	pods := map[string]Pod{}
	for line := range strings.Lines(out) {
		var p Pod
		if _, err := fmt.Sscan(line, &p.Name, &p.UID, &p.IP, &p.Container, &p.Restarts, &p.Ready); err != nil {
			return nil, fmt.Errorf("not all is known of a pod yet: %q", line)
		}
		pods[p.Name] = p
	}
	return pods, nil
}
