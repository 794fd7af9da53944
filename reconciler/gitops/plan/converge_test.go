package plan

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/slipway-dev/slipway/apiserver/api"
)

// apply carries a plan out on o the way the engine does on a store, and asks for new previews.
func (w *world) apply(p Plan) {
	for _, a := range p.Actions {
		switch {
		case a.Op == Create, a.Op == Update:
			w.has(ours(a.Want.Object.DeepCopyObject().(api.Object)))
		case a.Op == Delete && !a.Held:
			delete(w.o.Live, a.Ref)
			if a.Ref.Row() == api.Namespaces {
				delete(w.o.Namespaces, a.Ref.Name)
			}
		case a.Op == Release:
			obj := a.Live.DeepCopyObject().(api.Object)
			obj.SetAnnotations(nil)
			obj.SetManagedFields(nil)
			w.has(obj)
		}
	}
}

// some returns a random tree or world: a few namespaces and what is in them.
func some(r *rand.Rand) []api.Object {
	var objects []api.Object
	for _, ns := range []string{"default", "a", "b"} {
		if r.IntN(3) > 0 {
			objects = append(objects, namespace(ns))
		}
		for i := range r.IntN(6) {
			c := configMap(fmt.Sprintf("c%d", i), fmt.Sprint(r.IntN(2)))
			c.Namespace = ns
			d := withConfig(deployment(fmt.Sprintf("d%d", i), fmt.Sprintf("nginx:%d", r.IntN(2))), fmt.Sprintf("c%d", r.IntN(6)))
			d.Namespace = ns
			objects = append(objects, c, d)
		}
	}
	r.Shuffle(len(objects), func(i, j int) { objects[i], objects[j] = objects[j], objects[i] })
	return objects
}

// Applying a plan leaves nothing for the next one but what it refuses, and what it makes of a tree does not depend
// on the order of its inputs.
func TestPlanConverges(t *testing.T) {
	for seed := range uint64(500) {
		r := rand.New(rand.NewPCG(seed, 1))
		w := given().wants(some(r)...)
		for _, obj := range some(r) {
			switch r.IntN(4) {
			case 0:
				w.has(obj)
			case 1:
				w.has(made(obj, "other"))
			default:
				w.has(ours(obj))
			}
		}
		w.o.Confirmed = true
		first := Of(w.o)
		wants := slices.Clone(w.o.Wants) // the first plan points into the old slice
		r.Shuffle(len(wants), func(i, j int) { wants[i], wants[j] = wants[j], wants[i] })
		w.o.Wants = wants
		if d := cmp.Diff(first.String(), Of(w.o).String()); d != "" {
			t.Fatalf("seed %d: the order of wants matters (-first +second):\n%s", seed, d)
		}
		w.apply(first)
		second := Of(w.o)
		for _, a := range second.Actions {
			if a.Op != Unchanged && a.Op != Refused {
				t.Fatalf("seed %d: after applying\n%s\nthe plan is\n%s", seed, first, second)
			}
		}
		for r, obj := range w.o.Live {
			if MadeFrom(obj, "other") && obj.GetAnnotations()[api.AnnotationSource] != "other" {
				t.Errorf("seed %d: %s of another source was taken", seed, r)
			}
		}
	}
}
