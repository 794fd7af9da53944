package containerd

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/slipway-dev/slipway/nodeagent/engine"
	"github.com/slipway-dev/slipway/nodeagent/engine/enginetest"
)

// crash ends an engine's calls at one of them, as a killed process would: the call is not made, is cut off while
// containerd works on it, or is made and its answer never read. Nothing follows it.
type crash struct {
	at   int    // which of the calls that change something, from 1
	how  string // "before", "during", "after"
	cut  time.Duration
	mu   sync.Mutex
	seen []string
}

// changes are the methods that change something on the way of a container from nothing to running.
var changes = []string{"Containers/Create", "Snapshots/Prepare", "Tasks/Create", "Tasks/Start"}

func (c *crash) intercept(ctx context.Context, method string, req, reply any, conn *grpc.ClientConn, invoke grpc.UnaryInvoker, opts ...grpc.CallOption) error {
	dead := status.Error(codes.Unavailable, "the process was killed")
	if c == nil {
		return invoke(ctx, method, req, reply, conn, opts...)
	}
	c.mu.Lock()
	if c.at > 0 && len(c.seen) >= c.at {
		c.mu.Unlock()
		return dead
	}
	if slices.ContainsFunc(changes, func(m string) bool { return strings.HasSuffix(method, m) }) {
		c.seen = append(c.seen, method)
	}
	now := c.at > 0 && len(c.seen) == c.at
	c.mu.Unlock()
	if !now {
		return invoke(ctx, method, req, reply, conn, opts...)
	}
	switch c.how {
	case "before":
		return dead
	case "during":
		cut, cancel := context.WithCancel(ctx) // containerd is told of the end, as of a process's, and of no deadline
		defer time.AfterFunc(c.cut, cancel).Stop()
		defer cancel()
		_ = invoke(cut, method, req, reply, conn, opts...)
	default:
		_ = invoke(ctx, method, req, reply, conn, opts...)
	}
	return dead
}

// left returns what is on the machine of containers: in containerd, of runc, on disk.
func (n *node) left(t *testing.T) []string {
	t.Helper()
	var out []string
	ctx := n.engine.in(t.Context())
	records, err := n.engine.client.ContainerService().List(ctx)
	if err != nil {
		t.Fatal(err)
	}
	for _, r := range records {
		out = append(out, "container "+r.ID)
	}
	leases, err := n.engine.client.LeasesService().List(ctx)
	if err != nil {
		t.Fatal(err)
	}
	for _, l := range leases {
		out = append(out, "lease "+l.ID)
	}
	for _, pattern := range []string{
		filepath.Join(n.dir, "run", "runc", "*", "*"), filepath.Join(n.dir, "run", "exec", "*"), filepath.Join(n.dir, "engine", "exits", "*"),
		filepath.Join(filepath.Dir(n.runtime.Address()), "s", "*"), filepath.Join(filepath.Dir(n.runtime.Address()), "state", "io.containerd.runtime.v2.task", "slipway", "*"),
		"/sys/fs/cgroup/*" + testCgroup + "/*",
	} {
		found, err := filepath.Glob(pattern)
		if err != nil {
			t.Fatal(err)
		}
		for _, path := range found {
			if info, err := os.Stat(path); err == nil && (info.IsDir() || !strings.HasPrefix(path, "/sys/fs/cgroup")) {
				out = append(out, path)
			}
		}
	}
	return out
}

// processes counts the sleepers with a mark among their arguments.
func processes(t *testing.T, mark string) int {
	t.Helper()
	files, err := filepath.Glob("/proc/[0-9]*/cmdline")
	if err != nil {
		t.Fatal(err)
	}
	count := 0
	for _, file := range files {
		if data, err := os.ReadFile(file); err == nil && strings.HasPrefix(string(data), "/app\x00sleep\x00100000h\x00"+mark) {
			count++
		}
	}
	return count
}

// TestContainerIsMadeOnceWhereverItsMakerWasKilled kills the engine's process at every call on the way of a container
// from nothing to running. The next process must find it whole, or make it again under its own id.
func TestContainerIsMadeOnceWhereverItsMakerWasKilled(t *testing.T) {
	n := startNode(t)
	for at := 1; at <= len(changes); at++ {
		for _, how := range []string{"before", "during", "after"} {
			t.Run(fmt.Sprintf("%s %s", how, changes[at-1]), func(t *testing.T) { n.crashAt(t, &crash{at: at, how: how, cut: 15 * time.Millisecond}) })
		}
	}
	for _, cut := range []time.Duration{2, 30, 45, 60, 90} { // the longest of the calls: a shim begins, runc runs
		cut *= time.Millisecond
		t.Run(fmt.Sprintf("%v into %s", cut, changes[2]), func(t *testing.T) { n.crashAt(t, &crash{at: 3, how: "during", cut: cut}) })
	}
}

// TestContainerWhoseStartWasNotAnsweredStartsOnce loses the answer of a start, as when containerd is killed just then,
// and asks again.
func TestContainerWhoseStartWasNotAnsweredStartsOnce(t *testing.T) {
	n := startNode(t)
	b := enginetest.NewBox(t, n.suite())
	lost := false
	deaf := n.newEngine(t, func(cfg *Config) {
		cfg.intercept = func(ctx context.Context, method string, req, reply any, conn *grpc.ClientConn, invoke grpc.UnaryInvoker, opts ...grpc.CallOption) error {
			err := invoke(ctx, method, req, reply, conn, opts...)
			if strings.HasSuffix(method, "Tasks/Start") && !lost {
				lost = true
				return status.Error(codes.Unavailable, "the answer is lost")
			}
			return err
		}
	})
	spec := b.Spec("sleep")
	if err := deaf.Create(t.Context(), spec); err != nil {
		t.Fatal(err)
	}
	if err := deaf.Start(t.Context(), spec.ID); !errors.Is(err, engine.ErrUnavailable) {
		t.Fatalf("a start without an answer: %v", err)
	}
	if err := deaf.Start(t.Context(), spec.ID); err != nil {
		t.Errorf("the second start: %v", err)
	}
	list, err := deaf.List(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for _, got := range list {
		if got.ID == spec.ID && got.State != engine.Running {
			t.Errorf("it is %s with exit code %d, want running", got.State, got.ExitCode)
		}
	}
}

func (n *node) crashAt(t *testing.T, c *crash) {
	b := enginetest.NewBox(t, n.suite())
	n.engine.Close() // one engine at a time, as one process
	began := time.Now()
	spec := b.Spec("sleep")
	spec.Args = append(spec.Args, "100000h", spec.ID)
	victim := n.newEngine(t, func(cfg *Config) { cfg.intercept = c.intercept })
	err := victim.Create(t.Context(), spec)
	if err == nil {
		err = victim.Start(t.Context(), spec.ID)
	}
	if err == nil {
		t.Fatalf("nothing was killed; calls %v", c.seen)
	}
	victim.Close()
	next := n.adopt(t, b)
	found, ok := b.Status(spec.ID)
	switch {
	case !ok:
		b.Create(spec)
	case found.State == engine.Exited:
		t.Fatalf("found as %+v, though nobody asked it to end", found)
	}
	if err := next.Start(t.Context(), spec.ID); err != nil {
		t.Fatalf("found %v as %+v, then start: %v", ok, found, err)
	}
	got := b.Await(spec.ID, engine.Running)
	if got.StartedAt.Before(began) || got.StartedAt.After(time.Now()) {
		t.Errorf("started at %v, want after %v", got.StartedAt, began)
	}
	b.AwaitLine(spec.LogPath, "waiting")
	if count := processes(t, spec.ID); count != 1 {
		t.Errorf("%d copies run, want 1", count)
	}
	if err := next.Remove(t.Context(), spec.ID); err != nil {
		t.Fatal(err)
	}
	n.nothingLeft(t)
}

// adopt begins a new engine where another ended. It goes on until the next one, or until the node ends.
func (n *node) adopt(t *testing.T, b *enginetest.Box) *Engine {
	t.Helper()
	n.engine.Close()
	n.engine = n.newEngine(t)
	n.engines = append(n.engines, n.engine)
	b.Engine = n.engine
	return n.engine
}

// nothingLeft waits until nothing is left: a shim notes an exit a little after its container may be gone.
func (n *node) nothingLeft(t *testing.T) {
	t.Helper()
	var left []string
	defer func() {
		if t.Failed() {
			t.Logf("left: %q", left)
		}
	}()
	until(t, "nothing is left", func() bool {
		if _, err := n.engine.look(n.engine.in(t.Context())); err != nil {
			t.Fatal(err)
		}
		left = n.left(t)
		return len(left) == 0
	})
}
