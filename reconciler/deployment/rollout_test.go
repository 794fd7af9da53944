package deployment

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
)

// world is a model of everything around the deployment controller, stepped in random order: ReplicaSet controllers
// that are slow to act and slow to report, Pods that become ready when they like, and people who push new templates.
type world struct {
	t     *testing.T
	rng   *rand.Rand
	seed  uint64
	d     *appsv1.Deployment
	sets  []*modelSet
	clock time.Time
}

type modelSet struct {
	rs       *appsv1.ReplicaSet
	pods     []bool // one for each Pod: ready
	creating int32  // Pods its controller decided to make and has not made yet
}

func newWorld(t *testing.T, seed uint64) *world {
	w := &world{t: t, seed: seed, rng: rand.New(rand.NewPCG(seed, 7)), clock: now}
	replicas := int32(1 + w.rng.IntN(8))
	choice := []string{"0", "1", "3", "25%", "50%", "100%"}
	w.d = testDeployment(replicas, "v1", rolling(choice[w.rng.IntN(len(choice))], choice[w.rng.IntN(len(choice))]))
	limit := int32(2)
	w.d.Spec.RevisionHistoryLimit = &limit
	w.d.Status.ObservedGeneration = w.d.Generation
	return w
}

func (w *world) observed() observed {
	o := observed{Deployment: w.d, Now: w.clock}
	for _, s := range w.sets {
		o.Sets = append(o.Sets, s.rs)
	}
	return o
}

// turn is one turn of the deployment controller; it may die after any action. It reports whether it had something
// to do.
func (w *world) turn() bool {
	actions := plan(w.observed())
	for _, action := range actions {
		if w.rng.IntN(5) == 0 {
			break
		}
		w.apply(action)
	}
	if len(actions) == 0 {
		w.d = w.d.DeepCopy()
		w.d.Status, _ = newStatus(w.observed(), "")
	}
	return len(actions) > 0
}

func (w *world) apply(action Action) {
	w.clock = w.clock.Add(time.Second)
	switch a := action.(type) {
	case Create:
		rs := a.Set.DeepCopy()
		rs.UID, rs.Generation, rs.CreationTimestamp = types.UID(rs.Name), 1, metav1.NewTime(w.clock)
		w.sets = append(w.sets, &modelSet{rs: rs})
	case Change:
		s := w.set(a.New.Name)
		generation, status := s.rs.Generation, s.rs.Status
		if size(s.rs) != size(a.New) {
			generation++
		}
		s.rs = a.New.DeepCopy()
		s.rs.Generation, s.rs.Status = generation, status
	case Delete:
		w.sets = slices.DeleteFunc(w.sets, func(s *modelSet) bool { return s.rs.Name == a.Set.Name })
	case Revise:
		w.d = w.d.DeepCopy()
		w.d.Annotations = with(w.d.Annotations, revisionAnnotation, a.Revision)
	default:
		w.t.Fatalf("seed %d: unexpected %s", w.seed, action)
	}
}

func (w *world) set(name string) *modelSet {
	i := slices.IndexFunc(w.sets, func(s *modelSet) bool { return s.rs.Name == name })
	return w.sets[i]
}

// step is one turn of a ReplicaSet controller. A creation is decided in one step and done in a later one, whatever
// the set's size has become meanwhile.
func (s *modelSet) step() {
	switch {
	case s.creating > 0:
		s.creating--
		s.pods = append(s.pods, false)
	case int32(len(s.pods)) < size(s.rs):
		s.creating = size(s.rs) - int32(len(s.pods))
	case int32(len(s.pods)) > size(s.rs):
		slices.SortFunc(s.pods, func(a, b bool) int { // not ready first
			if a == b {
				return 0
			}
			if b {
				return -1
			}
			return 1
		})
		s.pods = s.pods[1:]
	default:
		s.rs = s.rs.DeepCopy()
		n := s.ready()
		s.rs.Status = appsv1.ReplicaSetStatus{Replicas: int32(len(s.pods)), ReadyReplicas: n, AvailableReplicas: n, ObservedGeneration: s.rs.Generation}
	}
}

func (s *modelSet) ready() int32 {
	var n int32
	for _, ready := range s.pods {
		if ready {
			n++
		}
	}
	return n
}

// random lets one party, chosen at random, make one step.
func (w *world) random() {
	switch w.rng.IntN(4) {
	case 0:
		w.turn()
	case 1, 2:
		if len(w.sets) > 0 {
			w.sets[w.rng.IntN(len(w.sets))].step()
		}
	case 3:
		if len(w.sets) > 0 {
			s := w.sets[w.rng.IntN(len(w.sets))]
			if i := slices.Index(s.pods, false); i >= 0 {
				s.pods[i] = true
			}
		}
	}
}

func (w *world) push(version string) {
	w.d = w.d.DeepCopy()
	w.d.Spec.Template = testTemplate(version)
	w.d.Generation++
}

func (w *world) check() {
	var total, ready int32
	for _, s := range w.sets {
		total += int32(len(s.pods))
		ready += s.ready()
	}
	surge, unavailable := bounds(w.d)
	want := replicas(w.d)
	if total > want+surge || ready < want-unavailable {
		w.t.Fatalf("seed %d: %d pods, %d ready; bounds %d and %d\n%s", w.seed, total, ready, want+surge, want-unavailable, w)
	}
}

func (w *world) String() string {
	out := ""
	for _, s := range w.sets {
		out += fmt.Sprintf("%s spec %d generation %d/%d status %d/%d pods %d ready %d creating %d\n", s.rs.Spec.Template.Spec.Containers[0].Image, size(s.rs),
			s.rs.Status.ObservedGeneration, s.rs.Generation, s.rs.Status.AvailableReplicas, s.rs.Status.Replicas, len(s.pods), s.ready(), s.creating)
	}
	return out
}

// settle runs everybody until the present template is complete.
func (w *world) settle(check func()) {
	for range 20000 {
		w.random()
		check()
		if complete(w.d, w.d.Status) && !w.busy() {
			return
		}
	}
	w.t.Fatalf("seed %d: the rollout never ended\n%s", w.seed, w)
}

func (w *world) busy() bool {
	if len(plan(w.observed())) > 0 {
		return true
	}
	return slices.ContainsFunc(w.sets, func(s *modelSet) bool {
		return s.creating > 0 || int32(len(s.pods)) != size(s.rs) || !observedNow(s.rs)
	})
}

// TestRolloutKeepsItsBounds rolls through several templates, also before the rollout before has ended and back to old
// ones, and looks at the bounds after every step of anybody.
func TestRolloutKeepsItsBounds(t *testing.T) {
	for seed := range uint64(200) {
		w := newWorld(t, seed)
		w.settle(func() {})
		w.check()
		for range 4 {
			w.push(fmt.Sprint("v", 1+w.rng.IntN(4)))
			if w.rng.IntN(2) == 0 {
				for range w.rng.IntN(60) {
					w.random()
					w.check()
				}
			} else {
				w.settle(w.check)
			}
		}
		w.settle(w.check)
		if c := getCondition(w.d.Status, appsv1.DeploymentAvailable); c == nil || c.Reason != reasonAvailable {
			t.Fatalf("seed %d: %+v", seed, w.d.Status)
		}
	}
}

// TestResizeConverges changes replicas amid rollouts and expects the last numbers in the end.
func TestResizeConverges(t *testing.T) {
	for seed := range uint64(100) {
		w := newWorld(t, seed)
		for range 5 {
			w.push(fmt.Sprint("v", 1+w.rng.IntN(3)))
			n := int32(w.rng.IntN(10))
			w.d.Spec.Replicas = &n
			for range w.rng.IntN(80) {
				w.random()
			}
		}
		w.settle(func() {})
		for _, s := range w.sets {
			if want := replicas(w.d); sameTemplate(w.d, s.rs) && size(s.rs) != want || !sameTemplate(w.d, s.rs) && size(s.rs) != 0 {
				t.Fatalf("seed %d: want %d of %s\n%s", seed, want, w.d.Spec.Template.Spec.Containers[0].Image, w)
			}
		}
	}
}
