package e2e

import (
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/slipway-dev/slipway/testing/cluster"
	"github.com/slipway-dev/slipway/testing/need"
)

const limitPods = `apiVersion: v1
kind: Pod
metadata: {name: bomb}
spec:
  terminationGracePeriodSeconds: 1
  containers: [{name: bomb, image: test.local/testpod:1, args: [bomb]}]
---
apiVersion: v1
kind: Pod
metadata: {name: web, labels: {app: web}}
spec:
  containers: [{name: web, image: test.local/testpod:1, args: [serve], readinessProbe: {httpGet: {port: 8080, path: /healthz}}}]
---
apiVersion: v1
kind: Service
metadata: {name: web}
spec:
  type: NodePort
  selector: {app: web}
  ports: [{port: 80, targetPort: 8080, nodePort: 30083}]
`

const anotherPod = `apiVersion: v1
kind: Pod
metadata: {name: NAME}
spec:
  terminationGracePeriodSeconds: 1
  containers: [{name: app, image: test.local/testpod:1, args: [sleep]}]
`

// TestExhaustedLimits uses up what the system allows, one thing after the other: slipway stays, names the limit, other
// Pods go on, and work goes on when there is room again.
func TestExhaustedLimits(t *testing.T) {
	need.Runtime(t)
	disk := t.TempDir()
	if err := unix.Mount("tmpfs", disk, "tmpfs", 0, "size=1g,nr_inodes=4000"); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := unix.Unmount(disk, unix.MNT_DETACH); err != nil {
			t.Error(err)
		}
	})
	dir := t.TempDir()
	write(t, dir, "pods.yaml", limitPods)
	s := cluster.Up(onDisk{t, disk}, dir, "--images", testpodArchive(t), "--container-max-pids", "200")
	s.WaitOutput("everything is current", 1)
	pid := s.PID()
	const page = "http://192.0.2.2:30083/"
	stays := func() {
		t.Helper()
		if err := syscall.Kill(pid, 0); err != nil {
			t.Fatalf("slipway is gone: %v", err)
		}
		s.Eventually("the other Pod to answer", func() error { // its probes may have missed their second meanwhile
			_, err := get(page)
			return err
		})
	}
	t.Run("processes of a container", func(t *testing.T) {
		s.Eventually("the bomb to be stopped", func() error {
			log, err := s.TryKubectl("logs", "bomb")
			if err != nil || !strings.Contains(log, "resource temporarily unavailable") && !strings.Contains(log, "failed to create new OS thread") {
				return errorString(log)
			}
			return nil
		})
		stays()
	})
	if err := os.WriteFile(filepath.Join(dir, "pods.yaml"), []byte(limitPods[strings.Index(limitPods, "---\n")+4:]), 0o644); err != nil {
		t.Fatal(err)
	}
	s.WaitOutput("everything is current", 2)

	// applied says that what is saved now is carried out.
	applied := func(name string) {
		t.Helper()
		write(t, dir, name+".yaml", strings.ReplaceAll(anotherPod, "NAME", name))
		s.Eventually("a new Pod to run", func() error {
			out, err := s.TryKubectl("get", "pod", name, "-o", "jsonpath={.status.phase}")
			if err != nil || out != "Running" {
				return errorString(out)
			}
			return nil
		})
	}
	t.Run("file descriptors", func(t *testing.T) { descriptorsUsedUp(t, s, stays); applied("after-descriptors") })
	t.Run("threads", func(t *testing.T) { threadsUsedUp(t, s, dir, stays) })
	t.Run("inodes", func(t *testing.T) { inodesUsedUp(t, s, disk, dir, stays); applied("after-inodes") })
}

// descriptorsUsedUp leaves slipway a few file descriptors and takes them with connections to the API and the DNS.
func descriptorsUsedUp(t *testing.T, s *cluster.Slipway, stays func()) {
	entries, err := os.ReadDir(fmt.Sprintf("/proc/%d/fd", s.PID()))
	if err != nil {
		t.Fatal(err)
	}
	var before unix.Rlimit
	few := unix.Rlimit{Cur: uint64(len(entries) + 30), Max: 20_000}
	if err := unix.Prlimit(s.PID(), unix.RLIMIT_NOFILE, nil, &before); err != nil {
		t.Fatal(err)
	}
	few.Max = before.Max
	if err := unix.Prlimit(s.PID(), unix.RLIMIT_NOFILE, &few, nil); err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := unix.Prlimit(s.PID(), unix.RLIMIT_NOFILE, &before, nil); err != nil {
			t.Error(err)
		}
	}()
	var open []net.Conn
	for i := range 120 {
		conn, err := net.Dial("tcp", []string{"127.0.0.1:6443", "10.244.0.1:53"}[i%2])
		if err != nil {
			t.Fatal(err)
		}
		open = append(open, conn)
	}
	s.WaitOutput("limit: file descriptors of this process: ", 1)
	stays()
	for _, conn := range open {
		conn.Close()
	}
	s.Eventually("the API", func() error {
		conn, err := tls.Dial("tcp", "127.0.0.1:6443", &tls.Config{InsecureSkipVerify: true})
		if err != nil {
			return err
		}
		return conn.Close()
	})
	s.WaitOutput("there is room again", 1)
	if !strings.Contains(s.Output(), "raise its limit (ulimit -n") {
		t.Error("what to raise is not named")
	}
}

// threadsUsedUp lets slipway make no more processes and threads than it has, and gives it work.
func threadsUsedUp(t *testing.T, s *cluster.Slipway, dir string, stays func()) {
	root := "/sys/fs/cgroup"
	if _, err := os.Stat(root + "/pids"); err == nil {
		root += "/pids"
	} else if err := os.WriteFile(root+"/cgroup.subtree_control", []byte("+pids"), 0); err != nil {
		t.Fatal(err)
	}
	group := filepath.Join(root, fmt.Sprintf("slipway-limits-test-%d", os.Getpid()))
	put := func(path, text string) {
		t.Helper()
		if err := os.WriteFile(path, []byte(text), 0); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Mkdir(group, 0o755); err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := errors.Join(os.WriteFile(root+"/cgroup.procs", []byte(strconv.Itoa(s.PID())), 0), os.Remove(group)); err != nil {
			t.Error(err)
		}
	}()
	put(group+"/cgroup.procs", strconv.Itoa(s.PID()))
	tasks, err := os.ReadFile(group + "/pids.current")
	if err != nil {
		t.Fatal(err)
	}
	put(group+"/pids.max", string(tasks))
	s.WaitOutput("limit: processes and threads of this service: ", 1)
	var many []string // at once: each is work for several threads
	for i := range 25 {
		many = append(many, strings.ReplaceAll(anotherPod, "NAME", fmt.Sprintf("many-%d", i)))
	}
	write(t, dir, "many.yaml", strings.Join(many, "---\n"))
	s.Eventually("many Pods to run", func() error {
		out, err := s.TryKubectl("get", "pods", "--field-selector=status.phase=Running", "--no-headers")
		if n := strings.Count(out, "many-"); err != nil || n < len(many) {
			return errors.Join(err, fmt.Errorf("%d run", n))
		}
		return nil
	})
	stays()
	events, err := os.ReadFile(group + "/pids.events")
	if err != nil {
		t.Fatal(err)
	}
	if strings.TrimSpace(string(events)) != "max 0" {
		t.Errorf("of %s threads slipway asked for more: %s", strings.TrimSpace(string(tasks)), events)
	}
	put(group+"/pids.max", "max")
}

// inodesUsedUp fills the filesystem of the data directory with empty files.
func inodesUsedUp(t *testing.T, s *cluster.Slipway, disk, dir string, stays func()) {
	filler := filepath.Join(disk, "filler")
	if err := os.Mkdir(filler, 0o755); err != nil {
		t.Fatal(err)
	}
	for i := 0; ; i++ {
		f, err := os.Create(filepath.Join(filler, strconv.Itoa(i)))
		if errors.Is(err, unix.ENOSPC) {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		f.Close()
	}
	write(t, dir, "config.yaml", "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: late}\ndata: {a: b}\n")
	s.Eventually("writes to be refused", func() error {
		log, err := os.ReadFile(filepath.Join(s.Data, "slipway.log"))
		if err != nil || !strings.Contains(string(log), "inodes free and writes need 64: remove files") {
			return errors.Join(err, errors.New("the log does not say so"))
		}
		return nil
	})
	s.WaitOutput("limit: inodes of the filesystem of ", 1)
	stays()
	if out, err := s.TryKubectl("get", "pods"); err != nil {
		t.Errorf("reading: %v\n%s", err, out)
	}
	if err := os.RemoveAll(filler); err != nil {
		t.Fatal(err)
	}
	s.Eventually("what was saved meanwhile", func() error {
		out, err := s.TryKubectl("get", "configmap", "late")
		if err != nil {
			return errorString(out)
		}
		return nil
	})
}
