package e2e

import (
	"errors"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/slipway-dev/slipway/apiserver/store/kv/etcd"
	"github.com/slipway-dev/slipway/testing/cluster"
	"github.com/slipway-dev/slipway/testing/images"
	"github.com/slipway-dev/slipway/testing/need"
)

// copyStore makes a snapshot of a store nobody has open.
func copyStore(t *testing.T, data, path string) {
	t.Helper()
	backend, err := etcd.Open(t.Context(), etcd.Config{Dir: filepath.Join(data, "etcd"), Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(backend.Snapshot(t.Context(), path), backend.Close()); err != nil {
		t.Fatal(err)
	}
}

// slipway runs a command of the binary and returns what it printed and its exit code.
func slipway(t *testing.T, s *cluster.Slipway, args ...string) (printed string, code int) {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), s.Binary, args...)
	out, err := cmd.CombinedOutput()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		t.Fatal(err)
	}
	return string(out), cmd.ProcessState.ExitCode()
}

// TestDamagedStore damages the store of a machine with running containers: up refuses it, and recover leads back, from
// a snapshot of the same state without a container noticing, from an older one to what Git says now.
func TestDamagedStore(t *testing.T) {
	need.Runtime(t)
	image, err := images.Testpod(t.Context(), "test.local/testpod:1")
	if err != nil {
		t.Fatal(err)
	}
	archive := filepath.Join(t.TempDir(), "testpod.tar")
	if err := images.WriteArchive(archive, image); err != nil {
		t.Fatal(err)
	}
	repo := t.TempDir()
	web := func(greeting string) string { return strings.ReplaceAll(diskWeb, "@GREETING@", greeting) }
	write(t, repo, "web.yaml", web("one"))

	s := cluster.Up(t, repo, "--images", archive)
	s.WaitOutput("everything is current", 1)
	const page = "http://192.0.2.2:30082/env"
	s.Eventually("the first state", shows(page, "one"))
	running := func() string {
		return s.Kubectl("get", "pods", "-o", `jsonpath={range .items[*]}{.metadata.name} {.metadata.uid} {.status.podIP} {.status.containerStatuses[0].containerID} {.status.containerStatuses[0].restartCount}{"\n"}{end}`)
	}
	before := running()
	s.Interrupt()
	snapshot := filepath.Join(s.Data, "snapshots", "20300101T000000Z.snapshot")
	copyStore(t, s.Data, snapshot)
	db := filepath.Join(s.Data, "etcd", "member", "snap", "db")
	if err := os.Truncate(db, 100_000); err != nil {
		t.Fatal(err)
	}

	printed, code := slipway(t, s, "up", repo, "--data-dir", s.Data)
	if code != 2 || !strings.Contains(printed, db+": the database is cut off") || !strings.Contains(printed, "slipway recover --data-dir "+s.Data) {
		t.Fatalf("up of a damaged store ended with %d:\n%s", code, printed)
	}
	if _, err := get(page); err != nil {
		t.Errorf("the containers while the store is damaged: %v", err)
	}
	recover := func(args ...string) {
		t.Helper()
		if printed, code := slipway(t, s, append([]string{"recover", "--data-dir", s.Data}, args...)...); code != 0 {
			t.Fatalf("recover %v ended with %d:\n%s", args, code, printed)
		}
	}
	recover()
	s.Start(repo)
	s.WaitOutput("following ", 1)
	s.Eventually("the first state", shows(page, "one"))
	s.Eventually("every container as it was", func() error {
		if diff := cmp.Diff(before, running()); diff != "" {
			return errorString(diff)
		}
		return nil
	})

	write(t, repo, "web.yaml", web("two"))
	s.Eventually("the second state", shows(page, "two"))
	s.Interrupt()
	recover("--snapshot", snapshot)
	s.Start(repo)
	s.WaitOutput("everything is current", 1)
	s.Eventually("what Git says now", shows(page, "two"))
	s.Eventually("two containers, and none that nobody knows", func() error {
		var known []string
		for _, line := range strings.Split(strings.TrimSpace(running()), "\n") {
			known = append(known, strings.Fields(line)[1])
		}
		folders, err := filepath.Glob("/run/slipway/*/state/io.containerd.runtime.v2.task/slipway/*")
		if err == nil && (len(known) != 2 || len(folders) != 2) {
			err = fmt.Errorf("Pods %v, containers %v", known, folders)
		}
		return err
	})
}
