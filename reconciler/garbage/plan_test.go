package garbage

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/slipway-dev/slipway/apiserver/api"
	"github.com/slipway-dev/slipway/reconciler/loop"
)

func config(name string, finalizers ...string) *corev1.ConfigMap {
	return &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: name, UID: types.UID(name), Finalizers: finalizers}}
}

func deleted(cm *corev1.ConfigMap) *corev1.ConfigMap {
	cm.DeletionTimestamp = &metav1.Time{Time: time.Date(2026, 5, 1, 0, 0, 0, 0, time.UTC)}
	return cm
}

func owned(cm *corev1.ConfigMap, block bool, owners ...string) *corev1.ConfigMap {
	for _, o := range owners {
		cm.OwnerReferences = append(cm.OwnerReferences, metav1.OwnerReference{APIVersion: "v1", Kind: "ConfigMap", Name: o, UID: types.UID(o), BlockOwnerDeletion: &block})
	}
	return cm
}

func text(actions []Action) string {
	lines := make([]string, len(actions))
	for i, a := range actions {
		lines[i] = a.String()
	}
	return strings.Join(lines, "\n")
}

func TestPlan(t *testing.T) {
	const foreground, orphan = metav1.FinalizerDeleteDependents, metav1.FinalizerOrphanDependents
	states := func(all ...state) []owner {
		var out []owner
		for i, s := range all {
			out = append(out, owner{types.UID(fmt.Sprint(i)), s})
		}
		return out
	}
	child := []dependant{{api.ConfigMaps, owned(config("child"), true, "x")}}
	loose := []dependant{{api.ConfigMaps, owned(config("child"), false, "x")}}
	tests := []struct {
		name       string
		obj        *corev1.ConfigMap
		owners     []owner
		dependants []dependant
		want       string
	}{
		{"no owners, no business", config("x"), nil, nil, ""},
		{"a living owner keeps it", config("x"), states(solid), nil, ""},
		{"a lost owner takes it along", config("x"), states(absent), nil, "delete configmaps/shop/x (Background)"},
		{"one living owner of two is enough", config("x"), states(absent, solid, waiting), nil, "remove 2 owners from configmaps/shop/x"},
		{"an owner that waits takes it along", config("x"), states(waiting), nil, "delete configmaps/shop/x (Background)"},
		{"and it waits in turn for its own", config("x"), states(waiting, absent), child, "delete configmaps/shop/x (Foreground)"},
		{"its own wish to orphan is kept", config("x", orphan), states(absent), nil, "delete configmaps/shop/x (Orphan)"},
		{"its own wish to wait is kept", config("x", foreground), states(absent), nil, "delete configmaps/shop/x (Foreground)"},
		{"a deleted one waits for what blocks it", deleted(config("x", foreground)), nil, child, ""},
		{"but not for what does not", deleted(config("x", foreground)), nil, loose, "remove finalizer foregroundDeletion from configmaps/shop/x"},
		{"and goes when nothing is left", deleted(config("x", foreground)), nil, nil, "remove finalizer foregroundDeletion from configmaps/shop/x"},
		{"orphans are freed first", deleted(config("x", orphan)), nil, child, "remove 1 owners from configmaps/shop/child\nremove finalizer orphan from configmaps/shop/x"},
		{"other finalizers are not its business", deleted(config("x", "example.com/backup")), nil, child, ""},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			o := observed{Kind: api.ConfigMaps, Object: tt.obj, Owners: tt.owners}
			if needsDependants(o) {
				o.Dependants = tt.dependants
			}
			if diff := cmp.Diff(tt.want, text(plan(o))); diff != "" {
				t.Error(diff)
			}
		})
	}
}

// heap is a model of a store and of the index over it.
type heap struct {
	objects map[string]*corev1.ConfigMap
	index   *index
	queue   []loop.Key
}

func (h *heap) put(cm *corev1.ConfigMap) {
	old := h.objects[cm.Name]
	h.objects[cm.Name] = cm
	if cm.DeletionTimestamp != nil && len(cm.Finalizers) == 0 {
		h.drop(cm)
		return
	}
	h.changed(old, cm, false)
}

func (h *heap) drop(cm *corev1.ConfigMap) {
	delete(h.objects, cm.Name)
	h.changed(nil, cm, true)
}

func (h *heap) changed(old, cm *corev1.ConfigMap, gone bool) {
	var before api.Object
	if old != nil {
		before = old
	}
	h.queue = append(h.queue, h.index.changed(api.ConfigMaps, before, cm, gone)...)
}

func (h *heap) observe(cm *corev1.ConfigMap) observed {
	o := observed{Kind: api.ConfigMaps, Object: cm}
	for _, ref := range cm.OwnerReferences {
		s := absent
		if found := h.objects[ref.Name]; found != nil && found.UID == ref.UID {
			s = solid
			if found.DeletionTimestamp != nil && inForeground(found) {
				s = waiting
			}
		}
		if cm.DeletionTimestamp == nil {
			o.Owners = append(o.Owners, owner{ref.UID, s})
		}
	}
	list := false
	if needsDependants(o) {
		o.Held, list = o.known(h.index)
	}
	if list {
		for _, other := range h.objects {
			if slices.ContainsFunc(other.OwnerReferences, func(ref metav1.OwnerReference) bool { return ref.UID == cm.UID }) {
				o.Dependants = append(o.Dependants, dependant{api.ConfigMaps, other})
			}
		}
	}
	return o
}

func (h *heap) apply(action Action) {
	switch a := action.(type) {
	case Delete:
		h.remove(a.Object.GetName(), a.Propagation)
	case Disown:
		cm := a.Object.(*corev1.ConfigMap).DeepCopy()
		cm.OwnerReferences = slices.DeleteFunc(cm.OwnerReferences, func(ref metav1.OwnerReference) bool { return slices.Contains(a.Owners, ref.UID) })
		h.put(cm)
	case Unblock:
		cm := a.Object.(*corev1.ConfigMap).DeepCopy()
		cm.OwnerReferences = unblocked(cm)
		h.put(cm)
	case Release:
		cm := a.Object.(*corev1.ConfigMap).DeepCopy()
		cm.Finalizers = slices.DeleteFunc(cm.Finalizers, func(f string) bool { return f == a.Finalizer })
		h.put(cm)
	}
}

func (h *heap) remove(name string, propagation metav1.DeletionPropagation) {
	cm := deleted(h.objects[name].DeepCopy())
	cm.Finalizers = map[metav1.DeletionPropagation][]string{
		metav1.DeletePropagationForeground: {metav1.FinalizerDeleteDependents}, metav1.DeletePropagationOrphan: {metav1.FinalizerOrphanDependents},
	}[propagation]
	h.put(cm)
}

// run gives every queued key its turn, in random order, until none is left.
func (h *heap) run(t *testing.T, seed uint64, rng *rand.Rand) {
	for turns := 0; len(h.queue) > 0; turns++ {
		if turns > 5000 {
			t.Fatalf("seed %d: never at rest", seed)
		}
		i := rng.IntN(len(h.queue))
		key := h.queue[i]
		h.queue = slices.Delete(h.queue, i, i+1)
		_, name := parse(key)
		if cm := h.objects[name]; cm != nil {
			for _, action := range plan(h.observe(cm)) {
				h.apply(action)
			}
		}
	}
}

// TestCollectionLeavesExactlyTheOwned builds random graphs, deletes at random and expects that what is left is what
// was never owned, was freed, or still has a living owner, and that nothing is left half deleted.
func TestCollectionLeavesExactlyTheOwned(t *testing.T) {
	for seed := range uint64(300) {
		rng := rand.New(rand.NewPCG(seed, 5))
		h := &heap{objects: map[string]*corev1.ConfigMap{}, index: newIndex()}
		n, circles := 2+rng.IntN(15), rng.IntN(2) == 0
		for i := range n {
			cm := config(fmt.Sprint("c", i))
			for range rng.IntN(3) {
				if of := rng.IntN(n); circles && of != i || of < i { // owners first: no circles
					cm = owned(cm, rng.IntN(2) == 0, fmt.Sprint("c", of))
				}
			}
			cm.OwnerReferences = slices.CompactFunc(cm.OwnerReferences, func(a, b metav1.OwnerReference) bool { return a.UID == b.UID })
			h.objects[cm.Name] = cm
		}
		for _, cm := range h.objects {
			h.changed(nil, cm, false)
		}
		h.run(t, seed, rng)
		policies := []metav1.DeletionPropagation{metav1.DeletePropagationBackground, metav1.DeletePropagationForeground, metav1.DeletePropagationOrphan}
		for range 1 + rng.IntN(3) {
			name := fmt.Sprint("c", rng.IntN(n))
			if h.objects[name] != nil && h.objects[name].DeletionTimestamp == nil {
				h.remove(name, policies[rng.IntN(len(policies))])
			}
			h.run(t, seed, rng)
		}
		for name, cm := range h.objects {
			if cm.DeletionTimestamp != nil {
				t.Fatalf("seed %d: %s is stuck: %v", seed, name, cm.Finalizers)
			}
			for _, ref := range cm.OwnerReferences {
				if h.objects[ref.Name] == nil {
					t.Fatalf("seed %d: %s still names %s, which is gone", seed, name, ref.Name)
				}
			}
		}
		for uid, keys := range h.index.dependants {
			if h.objects[string(uid)] == nil {
				t.Fatalf("seed %d: the index remembers %v of %s, which is gone", seed, keys, uid)
			}
		}
	}
}

func TestKeysNameKindAndObject(t *testing.T) {
	for _, kind := range kinds() {
		obj := kind.New()
		obj.SetName("a.b")
		obj.SetNamespace("shop")
		got, name := parse(keyOf(kind, obj))
		if got != kind || name != "a.b" {
			t.Errorf("%s: got %v and %s", keyOf(kind, obj), got, name)
		}
	}
	if kind, _ := parse(loop.Key{Name: "widgets.example.com/x"}); kind != nil {
		t.Errorf("got %s for an unknown kind", kind)
	}
}
