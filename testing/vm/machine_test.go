//go:build vm

package vm

import (
	"fmt"
	"testing"
)

// pods are what runs through all of it: keeper with every kind of volume, talker with a log, web behind a Service.
const pods = `
apiVersion: v1
kind: Namespace
metadata: {name: vm}
---
apiVersion: v1
kind: Pod
metadata: {name: keeper, namespace: vm}
spec:
  containers:
  - name: main
    image: test.local/testpod:1
    args: [count, /keep/n, /disk/n, /memory/n]
    resources:
      requests: {cpu: 250m, memory: 32Mi}
      limits: {cpu: 500m, memory: 64Mi}
    volumeMounts:
    - {name: keep, mountPath: /keep}
    - {name: disk, mountPath: /disk}
    - {name: memory, mountPath: /memory}
  volumes:
  - {name: keep, hostPath: {path: /srv/keep, type: DirectoryOrCreate}}
  - {name: disk, emptyDir: {}}
  - {name: memory, emptyDir: {medium: Memory}}
---
apiVersion: v1
kind: Pod
metadata: {name: talker, namespace: vm}
spec:
  containers:
  - {name: main, image: test.local/testpod:1, args: [lines, "1000000", 500ms]}
---
apiVersion: apps/v1
kind: Deployment
metadata: {name: web, namespace: vm}
spec:
  replicas: 1
  selector: {matchLabels: {app: web}}
  template:
    metadata: {labels: {app: web}}
    spec:
      containers:
      - {name: main, image: test.local/testpod:1, args: [serve], readinessProbe: {httpGet: {path: /healthz, port: 8080}, periodSeconds: 1}}
---
apiVersion: v1
kind: Service
metadata: {name: web, namespace: vm}
spec: {selector: {app: web}, ports: [{port: 80, targetPort: 8080}]}
`

// TestMachine goes through the life of one machine. The steps build on each other.
func TestMachine(t *testing.T) {
	m := New(t)
	m.Start()
	m.Step("the archive runs without Go, as a service", func(*testing.T) {
		m.install()
		m.Put(manifests+"/pods.yaml", []byte(pods))
		m.allReady()
	})
	m.Step("limits reach the kernel", func(t *testing.T) { limits(t, m) })
	m.Step("a container out of memory ends as a whole and starts again", func(t *testing.T) { outOfMemory(t, m) })
	m.Step("systemd brings slipway back after a crash", func(t *testing.T) { crash(t, m) })
	m.Step("an upgrade restarts no container", func(t *testing.T) { upgrade(t, m) })
	m.Step("the clock is set a year on and back", func(t *testing.T) { clock(t, m) })
	m.Step("the same Pods come back after a reboot", func(t *testing.T) { reboot(t, m) })
	m.Step("power cuts lose nothing that was acknowledged", func(t *testing.T) { powerCuts(t, m) })
	m.Step("down ends the service for good, and purge leaves nothing", func(t *testing.T) { purged(t, m) })
}

// allReady waits until the three Pods are, and returns them.
func (m *Machine) allReady() (pods map[string]Pod) {
	m.t.Helper()
	m.Eventually("three Pods are ready", func() (err error) {
		if pods, err = m.Pods("vm"); err != nil {
			return err
		}
		for _, p := range pods {
			if !p.Ready {
				return fmt.Errorf("%s is not", p.Name)
			}
		}
		if len(pods) != 3 {
			return fmt.Errorf("there are %d", len(pods))
		}
		return nil
	})
	return pods
}
