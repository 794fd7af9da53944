package deployment

import (
	"cmp"
	"math"
	"slices"

	appsv1 "k8s.io/api/apps/v1"
	"k8s.io/apimachinery/pkg/util/intstr"
)

const noLimit = math.MaxInt32 // a limit or deadline of this value is none

// fleet is a deployment's ReplicaSets while their sizes are decided.
type fleet struct {
	d     *appsv1.Deployment
	fresh *set   // of the present template; nil: not there yet
	old   []*set // oldest first
	want  int32  // replicas
	start int32  // size with which a missing fresh set is made
	make  bool   // the missing fresh set is to be made now
	waits bool   // sets have to come to their sizes before the deployment's new one is shared out
}

// set is a ReplicaSet and the size it is to get.
type set struct {
	rs   *appsv1.ReplicaSet
	size int32
}

func newFleet(d *appsv1.Deployment, owned []*appsv1.ReplicaSet) *fleet {
	f := &fleet{d: d, want: replicas(d)}
	for _, rs := range owned {
		s := &set{rs: rs, size: size(rs)}
		if f.fresh == nil && sameTemplate(d, rs) && rs.DeletionTimestamp == nil {
			f.fresh = s
		} else {
			f.old = append(f.old, s)
		}
	}
	return f
}

func (f *fleet) all() []*set {
	if f.fresh == nil {
		return f.old
	}
	return append(slices.Clone(f.old), f.fresh)
}

func (f *fleet) active() []*set {
	return slices.DeleteFunc(slices.Clone(f.all()), func(s *set) bool { return size(s.rs) == 0 })
}

// most is how many Pods may exist: a set that is being scaled down counts with the Pods it still has.
func (s *set) most() int32 { return max(s.size, s.rs.Status.Replicas) }

// available is how many Pods are surely available: those beyond a set's size are about to go.
func (s *set) available() int32 { return min(s.size, s.rs.Status.AvailableReplicas) }

// unsettled says that the fresh set must not grow now: a set's controller has not acted on its present size yet, so
// nobody knows how many Pods it is about to make, or still has.
func (f *fleet) unsettled() bool {
	crowd := false
	for _, s := range f.old {
		if !observedNow(s.rs) {
			return true
		}
		crowd = crowd || s.most() > 0
	}
	return crowd && f.fresh != nil && !observedNow(f.fresh.rs)
}

// crowded says that a set may have more Pods than its size, or make some that it was asked for before.
func (f *fleet) crowded() bool {
	return slices.ContainsFunc(f.all(), func(s *set) bool { return s.most() > s.size || !observedNow(s.rs) })
}

// roll is one step of a rolling update: the fresh set grows as far as the surge allows, and the old ones shrink as
// far as availability allows, broken Pods first.
func (f *fleet) roll() {
	surge, unavailable := bounds(f.d)
	f.grow(surge)
	f.shrink(f.want - unavailable)
}

func (f *fleet) grow(surge int32) {
	var total, have int32
	for _, s := range f.all() {
		total += s.most()
	}
	if f.fresh != nil {
		have = f.fresh.size
		if have > f.want {
			f.fresh.size = f.want
		}
	}
	room := max(0, min(f.want+surge-total, f.want-have))
	if f.unsettled() {
		room = 0
	}
	if f.fresh == nil {
		f.make, f.start = true, room
		return
	}
	f.fresh.size += room
}

// shrink takes Pods from old sets so that floor Pods stay available.
func (f *fleet) shrink(floor int32) {
	spare := -floor // what may go: all old Pods, less those that the fresh set's available ones do not replace yet
	for _, s := range f.old {
		spare += s.size
	}
	if f.fresh != nil {
		spare += f.fresh.available()
	}
	for _, s := range f.old { // broken ones first: taking them costs nothing
		broken := min(s.size-s.available(), spare)
		if broken > 0 {
			s.size -= broken
			spare -= broken
		}
	}
	for _, s := range f.old {
		n := min(s.size, spare)
		if n > 0 {
			s.size -= n
			spare -= n
		}
	}
}

// recreate empties the old sets and fills the fresh one when none of their Pods is left.
func (f *fleet) recreate(oldPods bool) {
	busy := oldPods
	for _, s := range f.old {
		busy = busy || s.most() > 0 || !observedNow(s.rs)
		s.size = 0
	}
	switch {
	case busy:
		if f.fresh != nil {
			f.fresh.size = min(f.fresh.size, f.want)
		}
	case f.fresh == nil:
		f.make, f.start = true, f.want
	default:
		f.fresh.size = f.want
	}
}

// resized says that the deployment's replicas changed since the sets were last sized.
func (f *fleet) resized() bool {
	return slices.ContainsFunc(f.active(), func(s *set) bool {
		desired, ok := annotated(s.rs, desiredAnnotation)
		return ok && desired != f.want
	})
}

// scale spreads a new number of replicas over the sets without furthering the rollout. A larger number waits until
// what was taken from a set before has gone, or there would be more Pods than either number allows.
func (f *fleet) scale() {
	active := f.active()
	var total int32
	for _, s := range active {
		total += s.size
	}
	if surge, _ := bounds(f.d); f.want > 0 && f.want+surge > total && f.crowded() {
		f.waits = true
		return
	}
	switch {
	case len(active) == 0 && f.fresh != nil:
		f.fresh.size = f.want
	case len(active) == 0 && len(f.old) > 0:
		f.old[len(f.old)-1].size = f.want
	case len(active) == 1:
		active[0].size = f.want
	case f.saturated():
		for _, s := range f.old {
			s.size = 0
		}
	case f.d.Spec.Strategy.Type != appsv1.RecreateDeploymentStrategyType && len(active) > 1:
		f.proportional(active)
	}
}

// saturated says that the fresh set alone is the whole deployment.
func (f *fleet) saturated() bool {
	if f.fresh == nil {
		return false
	}
	desired, ok := annotated(f.fresh.rs, desiredAnnotation)
	return ok && desired == f.want && f.fresh.size == f.want && f.fresh.rs.Status.AvailableReplicas == f.want
}

// proportional gives every active set its share of the new total, larger ones first; what rounding leaves goes to
// the largest. Among equals the newer grows first and the older shrinks first.
func (f *fleet) proportional(active []*set) {
	surge, _ := bounds(f.d)
	limit := f.want + surge
	if f.want == 0 {
		limit = 0
	}
	delta := limit
	for _, s := range active {
		delta -= s.size
	}
	if delta == 0 {
		return
	}
	slices.SortStableFunc(active, func(a, b *set) int {
		age := a.rs.CreationTimestamp.Compare(b.rs.CreationTimestamp.Time)
		if delta > 0 {
			age = -age
		}
		return cmp.Or(cmp.Compare(b.size, a.size), age)
	})
	left := delta
	for _, s := range active {
		part := f.share(s, limit)
		if delta > 0 {
			part = max(0, min(part, left))
		} else {
			part = min(0, max(part, left))
		}
		s.size += part
		left -= part
	}
	active[0].size = max(0, active[0].size+left)
}

// share returns by how much s grows when the deployment's most replicas change to limit.
func (f *fleet) share(s *set, limit int32) int32 {
	if f.want == 0 {
		return -s.size
	}
	before, ok := annotated(s.rs, maxAnnotation)
	if !ok || before == 0 {
		before = f.d.Status.Replicas
	}
	if before == 0 {
		return 0
	}
	return int32(math.Round(float64(s.size)*float64(limit)/float64(before))) - s.size
}

func replicas(d *appsv1.Deployment) int32 {
	if d.Spec.Replicas == nil {
		return 1
	}
	return *d.Spec.Replicas
}

func size(rs *appsv1.ReplicaSet) int32 {
	if rs.Spec.Replicas == nil {
		return 1
	}
	return *rs.Spec.Replicas
}

func observedNow(rs *appsv1.ReplicaSet) bool { return rs.Status.ObservedGeneration >= rs.Generation }

// bounds returns how many Pods may exist beyond the wanted ones and how many of those may be unavailable: surge rounds
// up, unavailable down, and where both come out as zero one may be unavailable, or nothing would ever move.
func bounds(d *appsv1.Deployment) (surge, unavailable int32) {
	if d.Spec.Strategy.Type == appsv1.RecreateDeploymentStrategyType {
		return 0, 0
	}
	quarter := intstr.FromString("25%")
	maxSurge, maxUnavailable := &quarter, &quarter
	if r := d.Spec.Strategy.RollingUpdate; r != nil {
		maxSurge, maxUnavailable = cmp.Or(r.MaxSurge, maxSurge), cmp.Or(r.MaxUnavailable, maxUnavailable)
	}
	want := replicas(d)
	surge, unavailable = scaled(maxSurge, want, true), scaled(maxUnavailable, want, false)
	if surge == 0 && unavailable == 0 {
		unavailable = 1
	}
	return surge, min(unavailable, want)
}

func scaled(v *intstr.IntOrString, of int32, roundUp bool) int32 {
	n, err := intstr.GetScaledValueFromIntOrPercent(v, int(of), roundUp)
	if err != nil {
		return 0 // refused by validation
	}
	return int32(n)
}
