package lifecycle

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/slipway-dev/slipway/nodeagent/engine"
)

var epoch = time.Date(2030, 1, 1, 0, 0, 0, 0, time.UTC)

func pod(change ...func(*corev1.Pod)) *corev1.Pod {
	p := &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Name: "web", Namespace: "shop", UID: "u1", Generation: 1},
		Spec: corev1.PodSpec{
			RestartPolicy:                 corev1.RestartPolicyAlways,
			TerminationGracePeriodSeconds: new(int64),
			Containers:                    []corev1.Container{{Name: "main", Image: "app:1"}},
		},
	}
	*p.Spec.TerminationGracePeriodSeconds = 30
	for _, c := range change {
		c(p)
	}
	return p
}

func with(names ...string) func(*corev1.Pod) {
	return func(p *corev1.Pod) {
		p.Spec.Containers = nil
		for _, n := range names {
			p.Spec.Containers = append(p.Spec.Containers, corev1.Container{Name: n, Image: n + ":1"})
		}
	}
}

func inits(names ...string) func(*corev1.Pod) {
	return func(p *corev1.Pod) {
		for _, n := range names {
			p.Spec.InitContainers = append(p.Spec.InitContainers, corev1.Container{Name: n, Image: n + ":1"})
		}
	}
}

func policy(r corev1.RestartPolicy) func(*corev1.Pod) {
	return func(p *corev1.Pod) { p.Spec.RestartPolicy = r }
}

func deleted(grace int64) func(*corev1.Pod) {
	return func(p *corev1.Pod) {
		p.DeletionTimestamp, p.DeletionGracePeriodSeconds = &metav1.Time{Time: epoch}, &grace
	}
}

// up returns an Observed in which sandbox, volumes and every first image are there.
func up(p *corev1.Pod) Observed {
	o := Observed{Now: epoch, Pod: p, HostIPs: []string{"192.0.2.1"}, Images: map[string]Image{},
		Sandbox: Sandbox{Presence: Ready, ID: "s1", IP: "10.244.0.7"}, Volumes: Volumes{Presence: Ready}}
	for _, c := range slices.Concat(p.Spec.InitContainers, p.Spec.Containers) {
		o.Images[c.Name] = Image{Present: true}
	}
	return o
}

func inst(name string, attempt int, state engine.State, change ...func(*engine.Status)) engine.Status {
	s := engine.Status{ID: ContainerID("u1", name, attempt), State: state, Image: name + ":1", ImageID: "sha256:1", CreatedAt: epoch.Add(-time.Minute)}
	backOff := time.Duration(0)
	for range attempt {
		backOff = NextBackOff(backOff)
	}
	s.Labels = Labels(pod(), Action{Container: name, Attempt: attempt, BackOff: backOff}, "s1")
	if state != engine.Created {
		s.StartedAt = epoch.Add(-30 * time.Second)
	}
	if state == engine.Exited {
		s.FinishedAt = epoch.Add(-time.Second)
	}
	for _, c := range change {
		c(&s)
	}
	return s
}

func exit(code int) func(*engine.Status) { return func(s *engine.Status) { s.ExitCode = code } }

func lines(actions []Action) []string {
	var out []string
	for _, a := range actions {
		if a.Verb != WriteStatus {
			out = append(out, a.String())
		}
	}
	return out
}

func TestPlan(t *testing.T) {
	running := func(o *Observed, names ...string) {
		for _, n := range names {
			o.Containers = append(o.Containers, inst(n, 0, engine.Running))
		}
	}
	cases := []struct {
		name string
		o    func() Observed
		want []string
	}{
		{"new: everything at once", func() Observed {
			return Observed{Now: epoch, Pod: pod(inits("prep"), with("a", "b"))}
		}, []string{"set up sandbox", "mount volumes", "ensure image of prep attempt 0", "ensure image of a attempt 0", "ensure image of b attempt 0"}},
		{"what is under way is not planned", func() Observed {
			o := Observed{Now: epoch, Pod: pod(), Busy: map[string]struct{}{"set up sandbox": {}, "ensure image main/0": {}}}
			return o
		}, []string{"mount volumes"}},
		{"ready to create", func() Observed { return up(pod()) }, []string{"create container main attempt 0"}},
		{"init containers first, in order", func() Observed { return up(pod(inits("one", "two"))) }, []string{"create container one attempt 0"}},
		{"second init after the first", func() Observed {
			o := up(pod(inits("one", "two")))
			o.Containers = []engine.Status{inst("one", 0, engine.Exited)}
			return o
		}, []string{"create container two attempt 0"}},
		{"main containers together after init", func() Observed {
			o := up(pod(inits("one"), with("a", "b")))
			o.Containers = []engine.Status{inst("one", 0, engine.Exited)}
			return o
		}, []string{"create container a attempt 0", "create container b attempt 0"}},
		{"init fails under Never: nothing more", func() Observed {
			o := up(pod(inits("one"), policy(corev1.RestartPolicyNever)))
			o.Containers = []engine.Status{inst("one", 0, engine.Exited, exit(3))}
			return o
		}, []string{"tear down sandbox", "unmount volumes"}},
		{"sidecar counts as done when started", func() Observed {
			o := up(pod(inits("one", "two")))
			always := corev1.ContainerRestartPolicyAlways
			o.Pod.Spec.InitContainers[0].RestartPolicy = &always
			running(&o, "one")
			return o
		}, []string{"create container two attempt 0"}},
		{"running: nothing", func() Observed {
			o := up(pod())
			running(&o, "main")
			return o
		}, nil},
		{"a created container is started after a restart of the agent", func() Observed {
			o := up(pod())
			o.Containers = []engine.Status{inst("main", 0, engine.Created)}
			return o
		}, []string{"start container main attempt 0"}},
		{"first crash: image looked at again, no wait", func() Observed {
			o := up(pod())
			o.Containers = []engine.Status{inst("main", 0, engine.Exited, exit(1))}
			return o
		}, []string{"ensure image of main attempt 1"}},
		{"second crash waits 10 s after the end", func() Observed {
			o := up(pod())
			o.Containers = []engine.Status{inst("main", 0, engine.Exited, exit(1)), inst("main", 1, engine.Exited, exit(1))}
			return o
		}, []string{"wait 9s"}},
		{"fifth waits 80 s; older attempts than two are removed", func() Observed {
			o := up(pod())
			for n := range 5 {
				o.Containers = append(o.Containers, inst("main", n, engine.Exited, exit(1)))
			}
			return o
		}, []string{"remove container main attempt 0", "remove container main attempt 1", "remove container main attempt 2", "wait 1m19s"}},
		{"back-off is forgotten after ten minutes of running", func() Observed {
			o := up(pod())
			o.Containers = []engine.Status{inst("main", 6, engine.Exited, func(s *engine.Status) { s.StartedAt = s.FinishedAt.Add(-10 * time.Minute) })}
			return o
		}, []string{"ensure image of main attempt 7"}},
		{"OnFailure does not restart success", func() Observed {
			o := up(pod(policy(corev1.RestartPolicyOnFailure)))
			o.Containers = []engine.Status{inst("main", 0, engine.Exited)}
			return o
		}, []string{"tear down sandbox", "unmount volumes"}},
		{"OnFailure restarts failure", func() Observed {
			o := up(pod(policy(corev1.RestartPolicyOnFailure)))
			o.Containers = []engine.Status{inst("main", 0, engine.Exited, exit(1))}
			return o
		}, []string{"ensure image of main attempt 1"}},
		{"lost before it began, it is made again even under Never", func() Observed {
			o := up(pod(policy(corev1.RestartPolicyNever)))
			o.Containers = []engine.Status{inst("main", 0, engine.Exited, exit(137), func(s *engine.Status) { s.StartedAt = time.Time{} })}
			return o
		}, []string{"ensure image of main attempt 1"}},
		{"could not begin under Never", func() Observed {
			o := up(pod(policy(corev1.RestartPolicyNever)))
			o.Containers = []engine.Status{inst("main", 0, engine.Exited, exit(128), func(s *engine.Status) { s.StartedAt = time.Time{} })}
			return o
		}, []string{"tear down sandbox", "unmount volumes"}},
		{"Never leaves the others running", func() Observed {
			o := up(pod(policy(corev1.RestartPolicyNever), with("a", "b")))
			o.Containers = []engine.Status{inst("a", 0, engine.Exited, exit(1)), inst("b", 0, engine.Running)}
			return o
		}, nil},
		{"liveness failure stops", func() Observed {
			o := up(pod())
			running(&o, "main")
			o.Probes = map[string]Probe{o.Containers[0].ID: {Started: true, Failed: true, Message: "Container main failed liveness probe, will be restarted"}}
			return o
		}, []string{"stop container main attempt 0: Container main failed liveness probe, will be restarted"}},
		{"stopped container is killed after its grace", func() Observed {
			o := up(pod())
			running(&o, "main")
			o.Signalled = map[string]time.Time{o.Containers[0].ID: epoch.Add(-30 * time.Second)}
			return o
		}, []string{"kill container main attempt 0"}},
		{"image pull waits for its back-off", func() Observed {
			o := up(pod())
			o.Images["main"] = Image{Failure: Failure{Reason: ReasonImagePullBackOff, Message: "m", Retry: epoch.Add(20 * time.Second)}}
			return o
		}, []string{"wait 20s"}},
		{"deletion drains first", func() Observed {
			o := up(pod(deleted(30)))
			running(&o, "main")
			return o
		}, []string{"drain"}},
		{"then stops", func() Observed {
			o := up(pod(deleted(30), with("a", "b")))
			running(&o, "a", "b")
			o.Drained = true
			return o
		}, []string{"stop container a attempt 0: Stopping container a", "stop container b attempt 0: Stopping container b"}},
		{"then waits for the grace", func() Observed {
			o := up(pod(deleted(30)))
			running(&o, "main")
			o.Drained, o.Signalled = true, map[string]time.Time{o.Containers[0].ID: epoch.Add(-10 * time.Second)}
			return o
		}, []string{"wait 20s"}},
		{"then kills", func() Observed {
			o := up(pod(deleted(5)))
			running(&o, "main")
			o.Drained, o.Signalled = true, map[string]time.Time{o.Containers[0].ID: epoch.Add(-10 * time.Second)}
			return o
		}, []string{"kill container main attempt 0"}},
		{"then tears down and removes", func() Observed {
			o := up(pod(deleted(30)))
			o.Containers = []engine.Status{inst("main", 0, engine.Exited, exit(143))}
			return o
		}, []string{"tear down sandbox", "unmount volumes", "remove container main attempt 0"}},
		{"a creation under way holds up the teardown", func() Observed {
			o := up(pod(deleted(30)))
			o.Busy = map[string]struct{}{"create container main/0": {}}
			return o
		}, nil},
		{"then deletes the object", func() Observed {
			return Observed{Now: epoch, Pod: pod(deleted(30)), Sandbox: Sandbox{Presence: Gone}, Volumes: Volumes{Presence: Gone}}
		}, []string{"delete the Pod object"}},
		{"nothing is left to do for an object that is gone and cleaned up", func() Observed {
			return Observed{Now: epoch, Pod: pod(), Gone: true, Sandbox: Sandbox{Presence: Gone}, Volumes: Volumes{Presence: Gone}}
		}, nil},
		{"sidecars stop last", func() Observed {
			o := up(pod(deleted(30), inits("side")))
			always := corev1.ContainerRestartPolicyAlways
			o.Pod.Spec.InitContainers[0].RestartPolicy = &always
			running(&o, "main", "side")
			o.Drained, o.Signalled = true, map[string]time.Time{o.Containers[0].ID: epoch.Add(-10 * time.Second)}
			return o
		}, []string{"wait 20s"}},
		{"an object that is gone leaves within a second", func() Observed {
			o := up(pod())
			o.Gone = true
			running(&o, "main")
			return o
		}, []string{"stop container main attempt 0: Stopping container main"}},
		{"a refused Pod runs nothing", func() Observed {
			return Observed{Now: epoch, Pod: pod(), Refusal: &Refusal{Reason: "OutOfcpu", Message: "m"}, Sandbox: Sandbox{Presence: Gone}, Volumes: Volumes{Presence: Gone}}
		}, nil},
		{"containers of another sandbox are replaced", func() Observed {
			o := up(pod())
			o.Sandbox.ID = "s2"
			running(&o, "main")
			return o
		}, []string{"stop container main attempt 0: Pod sandbox changed, it will be killed and re-created."}},
		{"active deadline ends the Pod", func() Observed {
			o := up(pod())
			deadline := int64(60)
			o.Pod.Spec.ActiveDeadlineSeconds = &deadline
			o.Active, o.Pod.Status.StartTime = time.Minute, &metav1.Time{Time: epoch}
			running(&o, "main")
			return o
		}, []string{"stop container main attempt 0: Stopping container main"}},
	}
	for _, tc := range cases {
		t.Run(tc.name, func(t *testing.T) {
			if diff := cmp.Diff(tc.want, lines(Plan(tc.o()))); diff != "" {
				t.Errorf("plan (-want +got):\n%s", diff)
			}
		})
	}
}

// TestBackOffBearsAClockThatIsSet: a container waits for its back-off at most, whatever the clock did since it ended.
func TestBackOffBearsAClockThatIsSet(t *testing.T) {
	const year = 365 * 24 * time.Hour
	for name, c := range map[string]struct {
		ended time.Duration // after now
		want  []string
	}{
		"just now":                        {0, []string{"wait 10s"}},
		"the engine is a little ahead":    {time.Second, []string{"wait 11s"}},
		"long ago":                        {-year, []string{"ensure image of main attempt 2"}},
		"in the future, as it seems":      {year, []string{"ensure image of main attempt 2"}},
		"not as long ago as its back-off": {-4 * time.Second, []string{"wait 6s"}},
	} {
		o := up(pod())
		o.Containers = []engine.Status{inst("main", 1, engine.Exited, exit(1), func(s *engine.Status) {
			s.FinishedAt = epoch.Add(c.ended)
			s.StartedAt = s.FinishedAt.Add(-time.Second)
		})}
		if diff := cmp.Diff(c.want, lines(Plan(o))); diff != "" {
			t.Errorf("%s (-want +got):\n%s", name, diff)
		}
	}
}

func TestBackOffDoublesToItsLimit(t *testing.T) {
	var got []time.Duration
	o := up(pod())
	for attempt, backOff := 0, time.Duration(0); attempt < 8; attempt++ {
		s := inst("main", attempt, engine.Exited, exit(1))
		s.Labels = Labels(o.Pod, Action{Container: "main", Attempt: attempt, BackOff: backOff}, "s1")
		o.Containers = []engine.Status{s}
		o.Now = s.FinishedAt.Add(backOff)
		o.Images["main"] = Image{Attempt: attempt + 1, Present: true}
		actions := Plan(o)
		if len(actions) == 0 || actions[0].Verb != Create || actions[0].Attempt != attempt+1 {
			t.Fatalf("after attempt %d: %v", attempt, lines(actions))
		}
		backOff = actions[0].BackOff
		got = append(got, backOff/time.Second)
	}
	if diff := cmp.Diff([]time.Duration{10, 20, 40, 80, 160, 300, 300, 300}, got); diff != "" {
		t.Errorf("back-off in seconds (-want +got):\n%s", diff)
	}
}

// TestPlanConverges runs random Pods on a model node, planning again after every change, and wants an end without
// actions in which the Pod is Running, terminal, or deleted with nothing left.
func TestPlanConverges(t *testing.T) {
	for seed := range uint64(1000) {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			m := newModel(rand.New(rand.NewPCG(seed, 7)))
			for range 2000 {
				if m.step() {
					m.check(t)
					return
				}
			}
			t.Fatalf("no end after 2000 steps; last plan %v\ncontainers %v", lines(Plan(m.o)), m.o.Containers)
		})
	}
}

type model struct {
	r        *rand.Rand
	o        Observed
	finished bool
	crashes  map[string]int // how often a container still fails
	ends     bool           // main containers end by themselves
	deleteAt int
	evictAt  int
	steps    int
	boots    int
	broken   string // an action that must not be
}

func newModel(r *rand.Rand) *model {
	policies := []corev1.RestartPolicy{corev1.RestartPolicyAlways, corev1.RestartPolicyOnFailure, corev1.RestartPolicyNever}
	p := pod(policy(policies[r.IntN(3)]), with([]string{"a", "b", "c"}[:1+r.IntN(3)]...), inits([]string{"i", "j"}[:r.IntN(3)]...))
	m := &model{r: r, crashes: map[string]int{}, deleteAt: -1}
	if len(p.Spec.InitContainers) > 0 && r.IntN(3) == 0 {
		always := corev1.ContainerRestartPolicyAlways
		p.Spec.InitContainers[0].RestartPolicy = &always
	}
	for _, c := range slices.Concat(p.Spec.InitContainers, p.Spec.Containers) {
		m.crashes[c.Name] = r.IntN(4)
	}
	m.ends = p.Spec.RestartPolicy != corev1.RestartPolicyAlways && r.IntN(2) == 0
	if r.IntN(2) == 0 {
		m.deleteAt = r.IntN(40)
	}
	if m.evictAt = -1; r.IntN(4) == 0 {
		m.evictAt = r.IntN(40)
	}
	m.o = Observed{DiskShort: r.IntN(3) == 0, Now: epoch, Pod: p, Images: map[string]Image{}, CreateFails: map[string]Failure{}, Signalled: map[string]time.Time{}, Probes: map[string]Probe{}}
	return m
}

// step applies one plan; true when nothing is left to do.
func (m *model) step() bool {
	if m.finished {
		return true
	}
	if m.steps++; m.steps == m.deleteAt {
		deleted(int64(m.r.IntN(30)))(m.o.Pod)
	}
	if m.steps == m.evictAt {
		m.o.Eviction = &Eviction{Message: "no room", Grace: time.Second}
	}
	m.world()
	switch m.r.IntN(60) {
	case 0:
		m.restartAgent()
	case 1:
		m.reboot()
	}
	actions := Plan(m.o)
	var wait time.Duration
	for _, a := range actions {
		if a.Verb == Wait {
			wait = a.After
		}
	}
	actions = slices.DeleteFunc(actions, func(a Action) bool { return a.Verb == Wait })
	switch {
	case len(actions) == 0 && wait > 0:
		m.o.Now = m.o.Now.Add(wait)
		return false
	case len(actions) == 0:
		return m.steps > max(m.deleteAt, m.evictAt) && m.settled()
	}
	m.apply(actions[m.r.IntN(len(actions))]) // one at a time, in any order
	return false
}

// restartAgent forgets all that only the agent knew.
func (m *model) restartAgent() {
	m.o.Sandbox, m.o.Volumes, m.o.Drained = Sandbox{}, Volumes{}, false
	m.o.Images, m.o.Signalled = map[string]Image{}, map[string]time.Time{}
	m.o.Eviction = nil
}

// reboot ends every process and takes the sandbox away; the engine remembers its containers.
func (m *model) reboot() {
	m.restartAgent()
	m.boots++
	for i := range m.o.Containers {
		if c := &m.o.Containers[i]; c.State != engine.Exited {
			c.State, c.FinishedAt, c.ExitCode = engine.Exited, m.o.Now, 255
		}
	}
}

func (m *model) sandboxID() string { return fmt.Sprint("boot ", m.boots) }

// world lets time pass: containers end.
func (m *model) world() {
	m.o.Now = m.o.Now.Add(100 * time.Millisecond)
	for i, c := range m.o.Containers {
		name := c.Labels[LabelContainer]
		if c.State != engine.Running || !m.mayEnd(name) {
			continue
		}
		m.o.Containers[i].State, m.o.Containers[i].FinishedAt = engine.Exited, m.o.Now
		if m.crashes[name] > 0 {
			m.crashes[name]--
			m.o.Containers[i].ExitCode = 1
		}
	}
}

func (m *model) mayEnd(name string) bool {
	for _, c := range m.o.Pod.Spec.InitContainers {
		if c.Name == name {
			return !sidecar(c) || m.crashes[name] > 0
		}
	}
	return m.crashes[name] > 0 || m.ends
}

func (m *model) settled() bool {
	for _, c := range m.o.Containers {
		if c.State == engine.Running && m.mayEnd(c.Labels[LabelContainer]) {
			return false
		}
	}
	return true
}

func (m *model) apply(a Action) {
	switch a.Verb {
	case SetupSandbox:
		m.o.Sandbox = Sandbox{Presence: Ready, ID: m.sandboxID(), IP: "10.244.0.7"}
	case TeardownSandbox:
		m.o.Sandbox.Presence = Gone
	case MountVolumes:
		m.o.Volumes = Volumes{Presence: Ready}
	case UnmountVolumes:
		m.o.Volumes.Presence = Gone
	case EnsureImage:
		if m.r.IntN(4) == 0 {
			m.o.Images[a.Container] = Image{Attempt: a.Attempt, Failure: Failure{Reason: ReasonErrImagePull, Retry: m.o.Now.Add(10 * time.Second)}}
			return
		}
		m.o.Images[a.Container] = Image{Attempt: a.Attempt, Present: true}
	case Create:
		m.mayCreate(a)
		m.o.Containers = append(m.o.Containers, engine.Status{ID: a.ID, Labels: Labels(m.o.Pod, a, m.o.Sandbox.ID), State: engine.Created, CreatedAt: m.o.Now})
	case Remove:
		m.o.Containers = slices.DeleteFunc(m.o.Containers, func(c engine.Status) bool { return c.ID == a.ID })
	case Drain:
		m.o.Drained = true
	case WriteStatus:
		m.o.Pod.Status = Status(m.o)
	case Finish:
		m.finished = true
	default:
		m.process(a)
	}
}

// mayCreate checks what must hold whenever a container is made.
func (m *model) mayCreate(a Action) {
	init := slices.ContainsFunc(m.o.Pod.Spec.InitContainers, func(c corev1.Container) bool { return c.Name == a.Container })
	for _, c := range m.o.Containers {
		name := c.Labels[LabelContainer]
		switch {
		case name == a.Container && c.State != engine.Exited:
			m.broken = a.String() + " beside a living one"
		case name == a.Container && !init && !c.StartedAt.IsZero() && m.o.Pod.Spec.RestartPolicy == corev1.RestartPolicyNever:
			m.broken = a.String() + " again under Never"
		}
	}
	for _, c := range m.o.Pod.Spec.InitContainers {
		done := slices.ContainsFunc(m.o.Containers, func(s engine.Status) bool {
			return s.Labels[LabelContainer] == c.Name && (s.State == engine.Running && sidecar(c) || s.State == engine.Exited && s.ExitCode == 0)
		})
		began := slices.ContainsFunc(m.o.Containers, func(s engine.Status) bool {
			return slices.ContainsFunc(m.o.Pod.Spec.Containers, func(c corev1.Container) bool { return c.Name == s.Labels[LabelContainer] })
		})
		if !init && !done && !began {
			m.broken = a.String() + " before " + c.Name + " is done"
		}
	}
	if m.o.Pod.DeletionTimestamp != nil || m.o.Sandbox.Presence != Ready || m.o.Volumes.Presence != Ready {
		m.broken = a.String() + " without what it needs"
	}
}

func (m *model) process(a Action) {
	i := slices.IndexFunc(m.o.Containers, func(c engine.Status) bool { return c.ID == a.ID })
	c := &m.o.Containers[i]
	switch a.Verb {
	case Start:
		c.State, c.StartedAt = engine.Running, m.o.Now
	case Stop:
		m.o.Signalled[a.ID] = m.o.Now
		if m.r.IntN(2) == 0 {
			c.State, c.FinishedAt, c.ExitCode = engine.Exited, m.o.Now, 143
		}
	case Kill:
		c.State, c.FinishedAt, c.ExitCode = engine.Exited, m.o.Now, 137
	}
}

func (m *model) check(t *testing.T) {
	t.Helper()
	if m.broken != "" {
		t.Error(m.broken)
	}
	if m.finished {
		if len(m.o.Containers) > 0 || m.o.Sandbox.Presence != Gone || m.o.Volumes.Presence != Gone {
			t.Errorf("deleted with something left: %v %v %v", m.o.Containers, m.o.Sandbox, m.o.Volumes)
		}
		return
	}
	phase := m.o.Pod.Status.Phase
	switch {
	case m.o.Eviction != nil && !terminal(phase):
		t.Errorf("evicted, and %s", phase)
	case terminal(phase) && m.o.DiskShort && len(m.o.Containers) > 0:
		t.Errorf("%d containers are left of a Pod that is over while the disk is short", len(m.o.Containers))
	case terminal(phase) && m.o.Sandbox.Presence == Gone:
	case phase == corev1.PodRunning && (IsReady(m.o.Pod.Status) || m.o.Pod.Spec.RestartPolicy != corev1.RestartPolicyAlways):
	default:
		t.Errorf("settled in phase %s, ready %v, sandbox %v\nnow %s deleted %v\n%v\n%v", phase, IsReady(m.o.Pod.Status), m.o.Sandbox.Presence, m.o.Now, m.o.Pod.DeletionTimestamp, lines(Plan(m.o)), m.o.Images)
	}
}
