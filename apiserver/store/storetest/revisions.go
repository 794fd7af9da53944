package storetest

import (
	"slices"
	"strconv"
	"testing"

	"github.com/google/go-cmp/cmp"
	apierrors "k8s.io/apimachinery/pkg/api/errors"

	"github.com/slipway-dev/slipway/apiserver/api"
	"github.com/slipway-dev/slipway/apiserver/store"
)

// listRevisions changes many objects and asks for every state there was.
func listRevisions(t *testing.T, s suite) {
	type state struct {
		revision uint64
		objects  []string
	}
	var states []state
	var present []string
	remember := func(obj api.Object) {
		revision, err := strconv.ParseUint(obj.GetResourceVersion(), 10, 64)
		if err != nil {
			t.Fatal(err)
		}
		slices.Sort(present)
		states = append(states, state{revision, slices.Clone(present)})
	}
	for i := range 300 {
		name := "map-" + strconv.Itoa(i)
		present = append(present, name)
		remember(s.create(t, configMap("red", name, "1")))
		if i%3 == 2 {
			gone, err := s.Delete(s.ctx, api.ConfigMaps, "red", present[0], store.DeleteOptions{})
			if err != nil {
				t.Fatal(err)
			}
			present = present[1:]
			remember(gone)
		}
	}
	for _, was := range states {
		list, err := s.List(s.ctx, api.ConfigMaps, store.ListOptions{Namespace: "red", Revision: was.revision, Exact: true})
		if err != nil {
			t.Fatalf("the state of revision %d: %v", was.revision, err)
		}
		if diff := cmp.Diff(was.objects, names(list.Items)); diff != "" || list.Revision != was.revision {
			t.Fatalf("the state of revision %d (-was +listed at %d):\n%s", was.revision, list.Revision, diff)
		}
	}
	last := states[len(states)-1]
	list, err := s.List(s.ctx, api.ConfigMaps, store.ListOptions{Namespace: "red", Revision: states[0].revision})
	if err != nil || !cmp.Equal(names(list.Items), last.objects) {
		t.Errorf("not older than the first state: %v (%v), want the newest", names(list.Items), err)
	}
	for _, exact := range []bool{false, true} {
		_, err = s.List(s.ctx, api.ConfigMaps, store.ListOptions{Revision: last.revision + 1000, Exact: exact})
		if !apierrors.IsTimeout(err) {
			t.Errorf("the future, exactly %t: %v, want a timeout", exact, err)
		}
	}
}

func names(items []api.Object) []string {
	var all []string
	for _, obj := range items {
		all = append(all, obj.GetName())
	}
	return all
}
