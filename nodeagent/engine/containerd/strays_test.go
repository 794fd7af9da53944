package containerd

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"testing"
	"time"

	bootapi "github.com/containerd/containerd/api/runtime/bootstrap/v1"
	"golang.org/x/sys/unix"
	"google.golang.org/protobuf/proto"

	"github.com/slipway-dev/slipway/nodeagent/engine"
	"github.com/slipway-dev/slipway/nodeagent/engine/enginetest"
)

// leakShim begins a shim as containerd does just before it is killed: no bundle notes its socket.
func (n *node) leakShim(t *testing.T, id, group string) {
	t.Helper()
	address := n.runtime.Address()
	params, err := proto.Marshal(&bootapi.BootstrapParams{
		InstanceID: id, Namespace: n.engine.cfg.Namespace, LogLevel: bootapi.LogLevel_LOG_LEVEL_WARN, ContainerdGrpcAddress: address,
		ContainerdTtrpcAddress: address + ".ttrpc", SocketDir: proto.String(filepath.Join(filepath.Dir(address), "s")),
	})
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(n.runtime.Shim(), "-namespace", n.engine.cfg.Namespace, "-address", address, "-publish-binary", "/bin/true", "-id", id, "start")
	cmd.Dir, cmd.Stdin = t.TempDir(), bytes.NewReader(params)
	cmd.Env = append(os.Environ(), "TTRPC_ADDRESS="+address+".ttrpc", "GRPC_ADDRESS="+address, "NAMESPACE="+n.engine.cfg.Namespace)
	spec := `{"annotations":{"io.containerd.runc.v2.group":"` + group + `"}}`
	if err := os.WriteFile(filepath.Join(cmd.Dir, "config.json"), []byte(spec), 0o600); err != nil {
		t.Fatal(err)
	}
	log := filepath.Join(cmd.Dir, "log") // a shim that cannot write what it logs ends
	if err := unix.Mkfifo(log, 0o600); err != nil {
		t.Fatal(err)
	}
	reader, err := os.OpenFile(log, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { reader.Close() })
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("start a shim: %v\n%s", err, out)
	}
	until(t, "the shim is there", func() bool { return slices.Contains(n.shimIDs(t), id) })
}

// shimIDs are the containers that the shims were started for.
func (n *node) shimIDs(t *testing.T) []string {
	t.Helper()
	sockets, err := unixSockets()
	if err != nil {
		t.Fatal(err)
	}
	shims, err := n.engine.shims(sockets)
	if err != nil {
		t.Fatal(err)
	}
	var ids []string
	for _, s := range shims {
		ids = append(ids, s.id)
	}
	return ids
}

// sweepLater sweeps the shims twice, as if the time they are given lay between.
func (n *node) sweepLater(t *testing.T) {
	t.Helper()
	e := n.engine
	e.undoing.Lock()
	defer e.undoing.Unlock()
	for range 2 {
		if err := e.sweepShims(e.in(t.Context())); err != nil {
			t.Fatal(err)
		}
		for s := range e.strays {
			e.strays[s] = time.Now().Add(-strayGrace)
		}
	}
}

func TestShimOfNoContainerIsEnded(t *testing.T) {
	n := startNode(t)
	b := enginetest.NewBox(t, n.suite())
	kept := b.Spec("sleep")
	b.Start(kept)
	first := b.Spec("sleep")
	b.Start(first)
	second := b.Spec("sleep")
	second.Group = first.Group
	b.Start(second)
	if err := n.engine.Remove(t.Context(), first.ID); err != nil { // its shim goes on for the second
		t.Fatal(err)
	}
	n.leakShim(t, "stray", "group-of-stray")
	n.engine.cache.begin("other", "group-of-stray") // it may be using the shim just now
	n.sweepLater(t)
	if ids := n.shimIDs(t); !slices.Contains(ids, "stray") {
		t.Errorf("the shim of a group with a container that is being made was ended: left are %v", ids)
	}
	n.engine.cache.end("other")
	n.sweepLater(t)
	until(t, "only the shims with containers are left", func() bool { return len(n.shimIDs(t)) == 2 })
	if ids := n.shimIDs(t); !slices.Contains(ids, kept.ID) || !slices.Contains(ids, first.ID) {
		t.Errorf("left are the shims of %v, want those of %s and %s", ids, kept.ID, first.ID)
	}
	for _, id := range []string{kept.ID, second.ID} {
		b.Await(id, engine.Running)
	}
	n.leakShim(t, "stray", "group-of-stray") // and without anybody's doing
	n.engine.lookSoon()
	until(t, "the shim is ended", func() bool { return len(n.shimIDs(t)) == 2 })
}

func TestBundleThatContainerdForgotIsInNobodysWay(t *testing.T) {
	n := startNode(t)
	b := enginetest.NewBox(t, n.suite())
	spec := b.Spec("sleep")
	path := filepath.Join(n.engine.bundleDirs()[0], spec.ID)
	if err := os.MkdirAll(filepath.Join(path, "rootfs"), 0o700); err != nil {
		t.Fatal(err)
	}
	long := time.Now().Add(-time.Hour)
	if err := os.Chtimes(path, long, long); err != nil {
		t.Fatal(err)
	}
	b.Start(spec)
	b.AwaitLine(spec.LogPath, "waiting")
}
