package containerd

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/slipway-dev/slipway/nodeagent/engine"
	"github.com/slipway-dev/slipway/nodeagent/engine/enginetest"
	"github.com/slipway-dev/slipway/nodeagent/runtime"
	"github.com/slipway-dev/slipway/testing/images"
	"github.com/slipway-dev/slipway/testing/need"
)

const (
	testImage   = "docker.io/library/testpod:1"
	benchCgroup = "/slipway-bench"
)

// testCgroup is this run's own: another's leftovers are not this one's.
var testCgroup = fmt.Sprintf("/slipway-test-%d", os.Getpid())

// node is a containerd of its own with an engine on it.
type node struct {
	dir     string
	runtime *runtime.Runtime
	engine  *Engine
	engines []*Engine // those that followed the first
}

func (n *node) suite() enginetest.Suite {
	return enginetest.Suite{Engine: n.engine, Image: testImage, Cgroup: testCgroup}
}

// startNode runs a containerd with the test image loaded. All of it is gone when the test ends.
func startNode(t testing.TB) *node {
	t.Helper()
	n := &node{dir: t.TempDir()}
	n.restart(t)
	t.Cleanup(func() {
		if err := n.runtime.Stop(context.Background()); err != nil {
			t.Errorf("stop containerd: %v", err)
		}
		removeCgroups()
	})
	n.engine = n.newEngine(t)
	first := n.engine
	t.Cleanup(func() {
		first.Close()
		for _, e := range n.engines {
			e.Close()
		}
	})
	n.load(t)
	return n
}

// load loads the test image.
func (n *node) load(t testing.TB) {
	t.Helper()
	archive, err := os.Open(testArchive(t))
	if err != nil {
		t.Fatal(err)
	}
	defer archive.Close()
	if _, err := n.engine.Load(t.Context(), archive); err != nil {
		t.Fatal(err)
	}
}

// restart runs containerd, again.
func (n *node) restart(t testing.TB) {
	t.Helper()
	var err error
	n.runtime, err = runtime.Start(context.WithoutCancel(t.Context()), runtime.Config{
		BundleDir: need.Runtime(t), StateDir: filepath.Join(n.dir, "containerd"), Log: slog.New(slog.DiscardHandler),
	})
	if err != nil {
		t.Fatal(err)
	}
}

func (n *node) newEngine(t testing.TB, change ...func(*Config)) *Engine {
	t.Helper()
	cfg := Config{
		Address: n.runtime.Address(), Shim: n.runtime.Shim(), Runc: n.runtime.Runc(),
		StateDir: filepath.Join(n.dir, "engine"), RunDir: filepath.Join(n.dir, "run"),
		LogLimits: LogLimits{Bytes: 1 << 20, Files: 3}, Log: slog.New(slog.NewTextHandler(t.Output(), nil)),
	}
	for _, c := range change {
		c(&cfg)
	}
	e, err := New(context.WithoutCancel(t.Context()), cfg)
	if err != nil {
		t.Fatal(err)
	}
	return e
}

// testArchive makes the archive with the test image once per run.
var testArchiveOnce = sync.OnceValues(func() (string, error) {
	dir := filepath.Join(need.ModuleRoot(), "build", "images")
	image, err := images.Testpod(context.Background(), testImage)
	if err != nil {
		return "", err
	}
	path := filepath.Join(dir, fmt.Sprintf("testpod-%d.tar", os.Getpid()))
	return path, images.WriteArchive(path, image)
})

func testArchive(t testing.TB) string {
	t.Helper()
	path, err := testArchiveOnce()
	if err != nil {
		t.Fatal(err)
	}
	return path
}

func TestMain(m *testing.M) {
	code := m.Run()
	if path, err := testArchiveOnceIfMade(); err == nil {
		os.Remove(path)
	}
	os.Exit(code)
}

func testArchiveOnceIfMade() (string, error) {
	path := filepath.Join(need.ModuleRoot(), "build", "images", fmt.Sprintf("testpod-%d.tar", os.Getpid()))
	_, err := os.Stat(path)
	return path, err
}

func removeCgroups() {
	for _, name := range []string{testCgroup, benchCgroup} {
		dirs, err := filepath.Glob("/sys/fs/cgroup/*" + name)
		if err != nil {
			return
		}
		for _, dir := range append(dirs, "/sys/fs/cgroup"+name) {
			unix.Rmdir(dir)
		}
	}
}

func TestConformance(t *testing.T) {
	enginetest.Run(t, startNode(t).suite())
}

func TestPullFromAPlainHTTPRegistry(t *testing.T) {
	n := startNode(t)
	registry, err := images.ServeRegistry("127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer registry.Close()
	image, err := images.Testpod(t.Context(), "team/testpod:2")
	if err != nil {
		t.Fatal(err)
	}
	if image, err = image.Add(map[string]images.File{"/more": {Data: make([]byte, 5<<20)}}); err != nil {
		t.Fatal(err)
	}
	refs, err := registry.Push(t.Context(), image)
	if err != nil {
		t.Fatal(err)
	}
	var last engine.Progress
	got, err := n.engine.Pull(t.Context(), refs[0], engine.PullOptions{Progress: func(p engine.Progress) { last = p }})
	if err != nil {
		t.Fatal(err)
	}
	if got.Ref != refs[0] || last.Total < 5<<20 || last.Done != last.Total || !last.Ended || last.Err != nil {
		t.Errorf("pulled %+v, progress at the end %+v", got, last)
	}
	b := enginetest.NewBox(t, n.suite())
	c := b.Spec("exit", "3")
	c.Image = refs[0]
	if status := b.Finish(c); status.ExitCode != 3 || status.ImageID != got.ID {
		t.Errorf("a container of it ended as %+v", status)
	}
	_, err = n.engine.Pull(t.Context(), registry.Host+"/team/nothing:1", engine.PullOptions{})
	if !errors.Is(err, engine.ErrImageNotFound) {
		t.Errorf("pulling what is not there: %v", err)
	}
	_, err = n.engine.Pull(t.Context(), "127.0.0.1:1/team/nothing:1", engine.PullOptions{})
	if err == nil || errors.Is(err, engine.ErrImageNotFound) {
		t.Errorf("pulling from where nobody answers: %v", err)
	}
}

func TestPullSharesTheWork(t *testing.T) {
	n := startNode(t)
	registry, err := images.ServeRegistry("127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer registry.Close()
	image, err := images.Testpod(t.Context(), "testpod:3")
	if err != nil {
		t.Fatal(err)
	}
	refs, err := registry.Push(t.Context(), image)
	if err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	for range 10 {
		wg.Go(func() {
			if _, err := n.engine.Pull(t.Context(), refs[0], engine.PullOptions{}); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
}

func TestPullWithPassword(t *testing.T) {
	n := startNode(t)
	private, open, err := images.ServeRegistryWithPassword("me", "secret")
	if err != nil {
		t.Fatal(err)
	}
	defer private.Close()
	defer open.Close()
	image, err := images.FromFiles("private:1", map[string]images.File{"/x": {Data: []byte("x")}})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := open.Push(t.Context(), image); err != nil {
		t.Fatal(err)
	}
	ref := private.Host + "/private:1"
	for password, works := range map[string]bool{"": false, "wrong": false, "secret": true} {
		opts := engine.PullOptions{}
		if password != "" {
			opts.Auth = func(string) (string, string) { return "me", password }
		}
		_, err := n.engine.Pull(t.Context(), ref, opts)
		if works && err != nil || !works && !errors.Is(err, engine.ErrImageNotFound) {
			t.Errorf("password %q: %v", password, err)
		}
		if err != nil && strings.Contains(err.Error(), "wrong") {
			t.Errorf("the error tells the password: %v", err)
		}
	}
}

func TestPullFromAMirror(t *testing.T) {
	n := startNode(t)
	registry, err := images.ServeRegistry("127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer registry.Close()
	image, err := images.FromFiles("library/mirrored:1", map[string]images.File{"/x": {Data: []byte("x")}})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := registry.Push(t.Context(), image); err != nil {
		t.Fatal(err)
	}
	n.engine.Close()
	n.engine = n.newEngine(t, func(cfg *Config) {
		cfg.Registries = []Registry{{Host: "docker.io", Mirrors: []string{registry.URL()}}}
	})
	got, err := n.engine.Pull(t.Context(), "mirrored:1", engine.PullOptions{})
	if err != nil || got.Ref != "docker.io/library/mirrored:1" {
		t.Errorf("got %+v, %v", got, err)
	}
}

func TestLoadDockerArchive(t *testing.T) {
	n := startNode(t)
	image, err := images.FromFiles("docker.io/library/saved:1", map[string]images.File{"/x": {Data: []byte("x")}})
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(t.TempDir(), "saved.tar")
	if err := images.WriteDockerArchive(path, image); err != nil {
		t.Fatal(err)
	}
	archive, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer archive.Close()
	got, err := n.engine.Load(t.Context(), archive)
	if err != nil || len(got) != 1 || got[0].Ref != "docker.io/library/saved:1" {
		t.Errorf("loaded %+v, %v", got, err)
	}
	if _, err := n.engine.Load(t.Context(), strings.NewReader("no archive")); err == nil {
		t.Error("text was taken for an archive")
	}
}
