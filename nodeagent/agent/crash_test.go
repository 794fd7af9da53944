package agent

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/slipway-dev/slipway/apiserver/api"
	"github.com/slipway-dev/slipway/apiserver/store"
	"github.com/slipway-dev/slipway/nodeagent/engine"
	"github.com/slipway-dev/slipway/nodeagent/lifecycle"
	"github.com/slipway-dev/slipway/nodeagent/network"
)

// effects counts what an agent does to the world, and kills it after one of them: nothing of it has any effect from
// then on.
type effects struct {
	at    int // 0: never
	mu    sync.Mutex
	done  []string
	dead  bool
	death chan struct{}
}

func (e *effects) do(ctx context.Context, name string, effect func() error) error {
	e.mu.Lock()
	if e.dead {
		e.mu.Unlock()
		<-ctx.Done()
		return ctx.Err()
	}
	e.mu.Unlock()
	err := effect()
	e.mu.Lock()
	e.done = append(e.done, name)
	if len(e.done) == e.at && !e.dead {
		e.dead = true
		close(e.death)
	}
	dead := e.dead
	e.mu.Unlock()
	if dead {
		<-ctx.Done()
		return ctx.Err()
	}
	return err
}

type mortalEngine struct {
	engine.Engine
	*effects
}

func (m mortalEngine) Create(ctx context.Context, c engine.Container) error {
	return m.do(ctx, "create "+c.Labels[lifecycle.LabelContainer], func() error { return m.Engine.Create(ctx, c) })
}

func (m mortalEngine) Start(ctx context.Context, id string) error {
	return m.do(ctx, "start", func() error { return m.Engine.Start(ctx, id) })
}

func (m mortalEngine) Signal(ctx context.Context, id string, signal int, all bool) error {
	return m.do(ctx, fmt.Sprintf("signal %d", signal), func() error { return m.Engine.Signal(ctx, id, signal, all) })
}

func (m mortalEngine) Remove(ctx context.Context, id string) error {
	return m.do(ctx, "remove", func() error { return m.Engine.Remove(ctx, id) })
}

func (m mortalEngine) Exec(ctx context.Context, id string, x engine.Exec) (code int, err error) {
	if x.Command[0] == "probe" { // when one runs is for the clock to say
		return m.Engine.Exec(ctx, id, x)
	}
	return code, m.do(ctx, "exec "+x.Command[0], func() error { code, err = m.Engine.Exec(ctx, id, x); return err })
}

type mortalNetwork struct {
	network.Network
	*effects
}

func (m mortalNetwork) Setup(ctx context.Context, p network.Pod) (box network.Sandbox, err error) {
	return box, m.do(ctx, "set up", func() error { box, err = m.Network.Setup(ctx, p); return err })
}

func (m mortalNetwork) Teardown(ctx context.Context, id string) error {
	return m.do(ctx, "tear down", func() error { return m.Network.Teardown(ctx, id) })
}

type mortalClient struct {
	store.Client
	*effects
}

func (m mortalClient) Update(ctx context.Context, obj api.Object, opts store.UpdateOptions) (out api.Object, err error) {
	if _, ok := obj.(*corev1.Pod); !ok {
		return m.Client.Update(ctx, obj, opts)
	}
	return out, m.do(ctx, "write status", func() error { out, err = m.Client.Update(ctx, obj, opts); return err })
}

func (m mortalClient) Delete(ctx context.Context, kind *api.Kind, namespace, name string, opts store.DeleteOptions) (out api.Object, err error) {
	return out, m.do(ctx, "delete", func() error { out, err = m.Client.Delete(ctx, kind, namespace, name, opts); return err })
}

// busyPod has a part of everything an agent does for a Pod.
func busyPod() *corev1.Pod {
	return bound("web", func(s *corev1.PodSpec) {
		always := corev1.ContainerRestartPolicyAlways
		exec := func(name string) *corev1.ExecAction { return &corev1.ExecAction{Command: []string{name}} }
		grace := int64(20)
		s.TerminationGracePeriodSeconds = &grace
		s.InitContainers = []corev1.Container{
			{Name: "prep", Image: "init:1", ImagePullPolicy: corev1.PullIfNotPresent},
			{Name: "side", Image: "other:1", ImagePullPolicy: corev1.PullIfNotPresent, RestartPolicy: &always},
		}
		s.Volumes = []corev1.Volume{{Name: "v", VolumeSource: corev1.VolumeSource{EmptyDir: &corev1.EmptyDirVolumeSource{}}}}
		main := &s.Containers[0]
		main.VolumeMounts = []corev1.VolumeMount{{Name: "v", MountPath: "/v"}}
		main.ReadinessProbe = &corev1.Probe{PeriodSeconds: 1, ProbeHandler: corev1.ProbeHandler{Exec: exec("probe")}}
		main.Lifecycle = &corev1.Lifecycle{PostStart: &corev1.LifecycleHandler{Exec: exec("after")}, PreStop: &corev1.LifecycleHandler{Exec: exec("before")}}
	})
}

// life takes a Pod from its creation over a crash of its main container to its deletion, and returns what was seen of
// it. The agent is killed after the given effect and started again; 0: it is not.
func life(t *testing.T, at int) (story []string, done []string) {
	r, e, n := modelRig(t)
	e.ends, e.linger = map[string]int{"init:1": 0}, 100*time.Millisecond
	mortal := &effects{at: at, death: make(chan struct{})}
	whole := r.config
	r.config.Engine, r.config.Network, r.config.Client = mortalEngine{e, mortal}, mortalNetwork{n, mortal}, mortalClient{whole.Client, mortal}
	r.begin()
	revived := make(chan struct{})
	ended := make(chan struct{})
	go func() {
		defer close(revived)
		select {
		case <-mortal.death:
			r.end()
			r.config = whole
			r.begin()
		case <-ended:
		}
	}()
	r.create(busyPod())
	story = append(story, describeTimeless(r.until("ready", "web", isReady)))
	if err := e.exit(e.only(t, "main"), 3); err != nil {
		t.Fatal(err)
	}
	again := func(p *corev1.Pod) bool { return isReady(p) && p.Status.ContainerStatuses[0].RestartCount == 1 }
	story = append(story, describeTimeless(r.until("ready again", "web", again)))
	r.delete("web")
	r.until("deleted", "web", nil)
	r.waitFor("nothing is left", func() bool {
		sandboxes, _ := n.List(t.Context())
		return len(sandboxes) == 0 && len(e.names()) == 0 && containersFolder(r.config.DataDir) == 0
	})
	close(ended)
	<-revived
	e.mu.Lock()
	defer e.mu.Unlock()
	story = append(story, e.faults...)
	slices.Sort(e.history)
	return append(story, slices.Compact(e.history)...), mortal.done
}

// describeTimeless is a status without what depends on the clock.
func describeTimeless(p *corev1.Pod) string {
	s := p.Status.DeepCopy()
	missing := ""
	timeless := func(state *corev1.ContainerState) {
		if run := state.Running; run != nil {
			if run.StartedAt.IsZero() {
				missing += " no start time"
			}
			run.StartedAt = metav1.Time{}
		}
		if end := state.Terminated; end != nil {
			if end.StartedAt.IsZero() || end.FinishedAt.IsZero() {
				missing += " no times"
			}
			end.StartedAt, end.FinishedAt = metav1.Time{}, metav1.Time{}
		}
	}
	for _, list := range [][]corev1.ContainerStatus{s.InitContainerStatuses, s.ContainerStatuses} {
		for i := range list {
			timeless(&list[i].State)
			timeless(&list[i].LastTerminationState)
			list[i].ContainerID = strings.ReplaceAll(list[i].ContainerID, lifecycle.ContainerID(p.UID, list[i].Name, int(list[i].RestartCount)), "ID")
			for _, end := range []*corev1.ContainerStateTerminated{list[i].State.Terminated, list[i].LastTerminationState.Terminated} {
				if end != nil {
					end.ContainerID = ""
				}
			}
		}
	}
	p = p.DeepCopy()
	p.Status = *s
	return describe(p) + " " + p.Status.PodIP + missing + fmt.Sprint(containerIDs(p))
}

func containerIDs(p *corev1.Pod) (ids []string) {
	for _, s := range slices.Concat(p.Status.InitContainerStatuses, p.Status.ContainerStatuses) {
		ids = append(ids, s.ContainerID)
	}
	return ids
}

// TestKilledAgentGoesOnWhereItWas kills the agent after each thing it does in the life of a Pod. The one that follows
// must bring the Pod to the same end by the same containers: none twice, no restart that nobody asked for, each hook
// run, each container asked to end once.
func TestKilledAgentGoesOnWhereItWas(t *testing.T) {
	want, done := life(t, 0)
	if len(done) < 20 {
		t.Fatalf("an undisturbed life has only the effects %v", done)
	}
	for at := 1; at <= len(done); at++ {
		t.Run(fmt.Sprintf("after %d %s", at, done[at-1]), func(t *testing.T) {
			t.Parallel()
			got, killed := life(t, at)
			if diff := cmp.Diff(want, got); diff != "" {
				t.Errorf("killed after %v (-undisturbed +got):\n%s", killed[:min(at, len(killed))], diff)
			}
		})
	}
}

// note keeps what happened to a container, by name and attempt, and what must not happen. The engine is locked.
func (e *modelEngine) note(s *engine.Status, what string) {
	name := s.Labels[lifecycle.LabelContainer]
	e.history = append(e.history, fmt.Sprintf("%s/%s %s", name, s.Labels[lifecycle.LabelAttempt], what))
	if what != "started" {
		return
	}
	for id, other := range e.byID {
		if id != s.ID && other.Labels[lifecycle.LabelPodUID] == s.Labels[lifecycle.LabelPodUID] && other.Labels[lifecycle.LabelContainer] == name && other.State == engine.Running {
			e.faults = append(e.faults, "two copies of "+name+" run")
		}
	}
}

// once notes what must happen once, and is a fault the second time.
func (e *modelEngine) once(s *engine.Status, what string) {
	text := fmt.Sprintf("%s/%s %s", s.Labels[lifecycle.LabelContainer], s.Labels[lifecycle.LabelAttempt], what)
	if slices.Contains(e.history, text) {
		e.faults = append(e.faults, text+" twice")
	}
	e.note(s, what)
}
