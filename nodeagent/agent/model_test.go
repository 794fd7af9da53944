package agent

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"syscall"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"

	"github.com/slipway-dev/slipway/apiserver/api"
	"github.com/slipway-dev/slipway/apiserver/registry"
	"github.com/slipway-dev/slipway/apiserver/store"
	"github.com/slipway-dev/slipway/apiserver/store/kv/memory"
	"github.com/slipway-dev/slipway/nodeagent/agent/recipe"
	"github.com/slipway-dev/slipway/nodeagent/agent/registration"
	"github.com/slipway-dev/slipway/nodeagent/engine"
	"github.com/slipway-dev/slipway/nodeagent/network"
	"github.com/slipway-dev/slipway/nodeagent/runtime"
)

// modelEngine is an engine whose containers are entries of a map.
type modelEngine struct {
	mu       sync.Mutex
	byID     map[string]*engine.Status
	specs    map[string]engine.Container
	present  map[string]bool
	pulls    int
	signals  []string
	watchers []chan engine.Event
	badStart map[string]bool // by image
	stubborn bool            // SIGTERM is ignored
	ends     map[string]int  // exit codes of containers that end at once, by image
	linger   time.Duration   // how long a container takes to end on a signal

	history []string // what happened to which container
	faults  []string // what must not happen and did
}

func newModelEngine(images ...string) *modelEngine {
	e := &modelEngine{byID: map[string]*engine.Status{}, specs: map[string]engine.Container{}, present: map[string]bool{}, badStart: map[string]bool{}}
	for _, i := range images {
		e.present[i] = true
	}
	return e
}

func (e *modelEngine) Image(_ context.Context, ref string) (engine.Image, error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if !e.present[ref] {
		return engine.Image{}, engine.ErrImageNotFound
	}
	return engine.Image{Ref: ref, ID: "sha256:1"}, nil
}

func (e *modelEngine) Pull(ctx context.Context, ref string, _ engine.PullOptions) (engine.Image, error) {
	e.mu.Lock()
	e.pulls++
	e.mu.Unlock()
	return e.Image(ctx, ref)
}

func (e *modelEngine) Load(context.Context, io.Reader) ([]engine.Image, error) { return nil, nil }

func (e *modelEngine) ListImages(context.Context) ([]engine.Image, error) { return nil, nil }

func (e *modelEngine) change(id string, do func(*engine.Status) error) error {
	e.mu.Lock()
	defer e.mu.Unlock()
	c := e.byID[id]
	if c == nil {
		return engine.ErrNotFound
	}
	err := do(c)
	for _, w := range e.watchers {
		select {
		case w <- engine.Event{ID: id}:
		default:
		}
	}
	return err
}

func (e *modelEngine) Create(_ context.Context, c engine.Container) error {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.byID[c.ID] != nil {
		return fmt.Errorf("container %s exists", c.ID)
	}
	e.specs[c.ID] = c
	e.byID[c.ID] = &engine.Status{ID: c.ID, Labels: c.Labels, State: engine.Created, Image: c.Image, ImageID: "sha256:1", CreatedAt: time.Now(), LogPath: c.LogPath}
	return nil
}

func (e *modelEngine) Start(_ context.Context, id string) error {
	return e.change(id, func(s *engine.Status) error {
		if e.badStart[s.Image] {
			s.State, s.ExitCode, s.FinishedAt = engine.Exited, 128, time.Now()
			return fmt.Errorf("%w: no such file", engine.ErrStart)
		}
		if s.State != engine.Created {
			return nil
		}
		e.once(s, "started")
		s.State, s.StartedAt = engine.Running, time.Now()
		if code, ends := e.ends[s.Image]; ends {
			s.State, s.ExitCode, s.FinishedAt = engine.Exited, code, time.Now()
		}
		return nil
	})
}

// exit ends a container's process.
func (e *modelEngine) exit(id string, code int) error {
	return e.change(id, func(s *engine.Status) error {
		if s.State != engine.Exited {
			s.State, s.ExitCode, s.FinishedAt = engine.Exited, code, time.Now()
		}
		return nil
	})
}

func (e *modelEngine) Signal(_ context.Context, id string, signal int, _ bool) error {
	e.mu.Lock()
	e.signals = append(e.signals, fmt.Sprint(signal))
	stubborn := e.stubborn
	e.mu.Unlock()
	if signal == 0 && stubborn {
		return e.change(id, func(s *engine.Status) error { s.StopAskedAt = time.Now(); return nil })
	}
	if signal == 0 {
		signal = int(syscall.SIGTERM)
	}
	asked := func(s *engine.Status) error {
		if s.State == engine.Running {
			e.once(s, fmt.Sprintf("signalled %d", signal))
			s.StopAskedAt = time.Now()
		}
		return nil
	}
	if e.linger > 0 {
		time.AfterFunc(e.linger, func() { _ = e.exit(id, 128+signal) })
		return e.change(id, asked)
	}
	return errors.Join(e.change(id, asked), e.exit(id, 128+signal))
}

func (e *modelEngine) Remove(_ context.Context, id string) error {
	err := e.change(id, func(*engine.Status) error { delete(e.byID, id); return nil })
	if errors.Is(err, engine.ErrNotFound) {
		return nil
	}
	return err
}

func (e *modelEngine) List(context.Context) ([]engine.Status, error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	var out []engine.Status
	for _, id := range slices.Sorted(maps.Keys(e.byID)) {
		out = append(out, *e.byID[id])
	}
	return out, nil
}

func (e *modelEngine) Exec(_ context.Context, id string, x engine.Exec) (int, error) {
	return 0, e.change(id, func(s *engine.Status) error {
		if x.Command[0] != "probe" {
			e.note(s, "ran "+x.Command[0])
		}
		return nil
	})
}

func (e *modelEngine) Watch(context.Context) <-chan engine.Event {
	e.mu.Lock()
	defer e.mu.Unlock()
	w := make(chan engine.Event, 1024)
	e.watchers = append(e.watchers, w)
	return w
}

// only returns the id of the newest attempt of the only container called name.
func (e *modelEngine) only(t *testing.T, name string) string {
	t.Helper()
	e.mu.Lock()
	defer e.mu.Unlock()
	found, attempt := "", ""
	for id, s := range e.byID {
		if s.Labels["io.kubernetes.container.name"] == name && s.Labels["slipway.dev/attempt"] >= attempt {
			found, attempt = id, s.Labels["slipway.dev/attempt"]
		}
	}
	if found == "" {
		t.Fatalf("no container %s", name)
	}
	return found
}

// modelNetwork hands out addresses.
type modelNetwork struct {
	mu   sync.Mutex
	pods map[string]string
	next int
}

func (n *modelNetwork) Setup(_ context.Context, p network.Pod) (network.Sandbox, error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.pods[p.ID] == "" {
		n.next++
		n.pods[p.ID] = fmt.Sprintf("10.244.0.%d", n.next)
	}
	return network.Sandbox{NetNS: "/n", IPC: "/i", UTS: "/u", IP: n.pods[p.ID]}, nil
}

func (n *modelNetwork) Find(string) (network.Sandbox, bool) { return network.Sandbox{}, false }

func (n *modelNetwork) Teardown(_ context.Context, id string) error {
	n.mu.Lock()
	defer n.mu.Unlock()
	delete(n.pods, id)
	return nil
}

func (n *modelNetwork) List(context.Context) ([]string, error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	return slices.Sorted(maps.Keys(n.pods)), nil
}

func (n *modelNetwork) Close(context.Context) error { return nil }

// rig is a store with one node, whose agent can be started and ended.
type rig struct {
	t       testing.TB
	reg     *registry.Registry
	admin   store.Client
	engine  engine.Engine
	network network.Network
	config  Config
	stop    func()
	agent   *Agent
	runtime *runtime.Runtime // of a rig on containerd
}

const node = "node1"

func newRig(t testing.TB, e engine.Engine, n network.Network) *rig {
	t.Helper()
	ctx := context.Background()
	s, err := store.New(ctx, memory.New(), api.StorageCodec{}, store.DetectMutation(func(problem string) { t.Error(problem) }))
	if err != nil {
		t.Fatal(err)
	}
	reg, err := registry.New(registry.Config{Store: s, Tokens: issuer{}})
	if err != nil {
		t.Fatal(err)
	}
	r := &rig{t: t, reg: reg, admin: reg.As(registry.Admin()), engine: e, network: n}
	for _, ns := range []string{"default", "kube-node-lease", "shop"} {
		r.create(&corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: ns}})
		r.create(&corev1.ServiceAccount{ObjectMeta: metav1.ObjectMeta{Namespace: ns, Name: "default"}})
	}
	dir := t.TempDir()
	r.config = Config{NodeName: node, NodeIPs: []string{"192.0.2.1"}, Client: reg.As(registry.Node(node)), Engine: e, Network: n,
		DataDir: dir, LogDir: filepath.Join(dir, "logs"), Versions: registration.Versions{Agent: "v1.37.1+slipway.test"},
		Cluster: recipe.Cluster{Domain: "cluster.local", APIHost: "10.96.0.1", APIPort: 443}}
	t.Cleanup(func() {
		r.end()
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
	return r
}

// begin starts the agent, or starts it again.
func (r *rig) begin() {
	r.t.Helper()
	a, err := New(r.config)
	if err != nil {
		r.t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		_ = a.Run(ctx)
	}()
	r.agent = a
	r.stop = func() { cancel(); <-ended }
}

// end stops the agent as a crash would: what runs goes on.
func (r *rig) end() {
	if r.stop != nil {
		r.stop()
		r.stop = nil
	}
}

func (r *rig) create(obj api.Object) api.Object {
	r.t.Helper()
	created, err := r.admin.Create(context.Background(), obj, store.CreateOptions{})
	if err != nil {
		r.t.Fatalf("create %T %s: %v", obj, obj.GetName(), err)
	}
	return created
}

// patience of a test for what must happen.
const patience = 30 * time.Second

// until waits for a Pod to be as wanted, nil for deleted.
func (r *rig) until(what, name string, is func(*corev1.Pod) bool) *corev1.Pod {
	r.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	w, err := r.admin.Watch(ctx, api.Pods, store.WatchOptions{Namespace: "shop", Fields: fields.OneTermEqualSelector("metadata.name", name)})
	if err != nil {
		r.t.Fatal(err)
	}
	defer w.Close()
	var last *corev1.Pod
	for {
		ev, err := w.Next(ctx)
		if err != nil {
			r.t.Fatalf("Pod %s did not become %s: %v; last %s", name, what, err, describe(last))
		}
		switch {
		case ev.Object != nil && ev.Type != store.Deleted:
			last = ev.Object.(*corev1.Pod)
			if is != nil && is(last) {
				return last
			}
		case is == nil && (ev.Type == store.Deleted || ev.InitialEventsEnd && last == nil):
			return nil
		}
	}
}

func describe(p *corev1.Pod) string {
	if p == nil {
		return "nothing"
	}
	text := fmt.Sprintf("%s %s %s", p.Status.Phase, p.Status.Reason, p.Status.Message)
	for _, s := range slices.Concat(p.Status.InitContainerStatuses, p.Status.ContainerStatuses) {
		text += fmt.Sprintf("; %s ready %v restarts %d: %v last %v", s.Name, s.Ready, s.RestartCount, s.State.String(), s.LastTerminationState.String())
	}
	return text
}

func isReady(p *corev1.Pod) bool {
	return slices.ContainsFunc(p.Status.Conditions, func(c corev1.PodCondition) bool { return c.Type == corev1.PodReady && c.Status == corev1.ConditionTrue })
}

func inPhase(phase corev1.PodPhase) func(*corev1.Pod) bool {
	return func(p *corev1.Pod) bool { return p.Status.Phase == phase }
}

// waits reports whether the first container waits for a reason.
func waits(reason string) func(*corev1.Pod) bool {
	return func(p *corev1.Pod) bool {
		return len(p.Status.ContainerStatuses) > 0 && p.Status.ContainerStatuses[0].State.Waiting != nil && p.Status.ContainerStatuses[0].State.Waiting.Reason == reason
	}
}

func (r *rig) delete(name string) {
	r.t.Helper()
	if _, err := r.admin.Delete(context.Background(), api.Pods, "shop", name, store.DeleteOptions{}); err != nil {
		r.t.Fatal(err)
	}
}

// bound returns a Pod bound to the node.
func bound(name string, change ...func(*corev1.PodSpec)) *corev1.Pod {
	// The first process of a container does not see a signal sent before it can handle it: a Pod deleted as soon as
	// it runs may need its whole grace.
	no, grace := false, int64(2)
	p := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Name: name, Namespace: "shop"}, Spec: corev1.PodSpec{
		NodeName: node, TerminationGracePeriodSeconds: &grace, AutomountServiceAccountToken: &no, Containers: []corev1.Container{{Name: "main", Image: "app:1", ImagePullPolicy: corev1.PullIfNotPresent}},
	}}
	for _, c := range change {
		c(&p.Spec)
	}
	return p
}

func containersFolder(dir string) int {
	entries, _ := os.ReadDir(filepath.Join(dir, "pods"))
	return len(entries)
}
