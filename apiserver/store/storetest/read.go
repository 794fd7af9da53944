package storetest

import (
	"fmt"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/labels"

	"github.com/slipway-dev/slipway/apiserver/api"
	"github.com/slipway-dev/slipway/apiserver/store"
)

func readersShare(t *testing.T, s suite) {
	s.create(t, configMap("red", "a", "1"))
	first, second := s.get(t, "red", "a"), s.get(t, "red", "a")
	if diff := cmp.Diff(first, second); diff != "" {
		t.Errorf("two readers differ:\n%s", diff)
	}
	list := s.list(t, api.ConfigMaps, store.ListOptions{Namespace: "red"})
	for _, obj := range list.Items {
		if obj.GetName() == "a" && !cmp.Equal(obj, api.Object(first)) {
			t.Error("Get and List differ")
		}
	}
}

func listSelects(t *testing.T, s suite) {
	s.create(t, configMap("red-2", "a", "1", "app", "x"))
	s.create(t, configMap("red", "b", "1", "app", "y"))
	s.create(t, configMap("red", "a", "1", "app", "x"))
	s.create(t, configMap("blue", "c", "1", "app", "x"))
	s.create(t, configMap("red", "b.c", "1", "app", "x"))
	rows := []struct {
		name string
		opts store.ListOptions
		want []string
	}{
		{"everything", store.ListOptions{}, []string{"blue/c", "red/a", "red/b", "red/b.c", "red-2/a"}},
		{"one namespace", store.ListOptions{Namespace: "red"}, []string{"red/a", "red/b", "red/b.c"}},
		{"no such namespace", store.ListOptions{Namespace: "re"}, nil},
		{"a label", store.ListOptions{Labels: labels.SelectorFromSet(labels.Set{"app": "x"})}, []string{"blue/c", "red/a", "red/b.c", "red-2/a"}},
		{"a label in one namespace", store.ListOptions{Namespace: "red", Labels: labels.SelectorFromSet(labels.Set{"app": "y"})}, []string{"red/b"}},
		{"a name", store.ListOptions{Fields: fields.OneTermEqualSelector("metadata.name", "a")}, []string{"red/a", "red-2/a"}},
		{"a name in one namespace", store.ListOptions{Namespace: "red", Fields: fields.OneTermEqualSelector("metadata.name", "a")}, []string{"red/a"}},
		{"not a name", store.ListOptions{Namespace: "red", Fields: fields.OneTermNotEqualSelector("metadata.name", "a")}, []string{"red/b", "red/b.c"}},
	}
	for _, row := range rows {
		t.Run(row.name, func(t *testing.T) {
			list := s.list(t, api.ConfigMaps, row.opts)
			if list.Revision == 0 {
				t.Error("the list has no revision")
			}
			if diff := cmp.Diff(row.want, keys(list.Items)); diff != "" {
				t.Errorf("items (-want +got):\n%s", diff)
			}
		})
	}
}

// keys names objects, without those that a cluster makes by itself.
func keys(items []api.Object) []string {
	var all []string
	for _, obj := range items {
		if obj.GetName() != "kube-root-ca.crt" {
			all = append(all, obj.GetNamespace()+"/"+obj.GetName())
		}
	}
	return all
}

func listPages(t *testing.T, s suite) {
	var want []string
	for i := range 300 {
		name := fmt.Sprintf("map-%03d", i)
		s.create(t, configMap("red", name, "1", "half", fmt.Sprint(i%2)))
		want = append(want, "red/"+name)
	}
	for _, limit := range []int{1, 7, 150, 299, 300, 301} {
		opts := store.ListOptions{Namespace: "red", Limit: limit}
		first := s.list(t, api.ConfigMaps, opts)
		if left := len(want) - limit; first.Remaining != max(0, left) || (first.Continue != "") != (left > 0) {
			t.Errorf("limit %d: %d remaining, continue %q", limit, first.Remaining, first.Continue)
		}
		// What happens meanwhile is not on the later pages.
		s.delete(t, api.ConfigMaps, "red", "map-299")
		s.set(t, configMap("red", "map-298", "changed"))
		got := s.pages(t, first, opts)
		if diff := cmp.Diff(want, keys(got)); diff != "" {
			t.Errorf("limit %d: pages (-want +got):\n%s", limit, diff)
		}
		s.create(t, configMap("red", "map-299", "1", "half", "1"))
		s.set(t, configMap("red", "map-298", "1", "half", "0"))
	}
	opts := store.ListOptions{Labels: labels.SelectorFromSet(labels.Set{"half": "1"}), Limit: 50}
	if got := s.pages(t, s.list(t, api.ConfigMaps, opts), opts); len(got) != 150 {
		t.Errorf("%d objects on pages with a selector, want 150", len(got))
	}
	if _, err := s.List(s.ctx, api.ConfigMaps, store.ListOptions{Continue: "nonsense", Limit: 1}); !apierrors.IsBadRequest(err) {
		t.Errorf("a nonsense token: %v, want BadRequest", err)
	}
	other := store.ListOptions{Namespace: "blue", Limit: 1, Continue: s.list(t, api.ConfigMaps, store.ListOptions{Namespace: "red", Limit: 1}).Continue}
	if _, err := s.List(s.ctx, api.ConfigMaps, other); !apierrors.IsBadRequest(err) {
		t.Errorf("a token of another namespace: %v, want BadRequest", err)
	}
}

// pages returns the items of a list and of all that follow it.
func (s suite) pages(t *testing.T, list store.List, opts store.ListOptions) []api.Object {
	t.Helper()
	all := slices.Clone(list.Items)
	for opts.Continue = list.Continue; opts.Continue != ""; opts.Continue = list.Continue {
		next := s.list(t, api.ConfigMaps, opts)
		if next.Revision != list.Revision {
			t.Errorf("a page is of revision %d, the first of %d", next.Revision, list.Revision)
		}
		list = next
		all = append(all, list.Items...)
	}
	return all
}

func listUnknownField(t *testing.T, s suite) {
	opts := store.ListOptions{Fields: fields.OneTermEqualSelector("spec.colour", "red")}
	if _, err := s.List(s.ctx, api.Pods, opts); !apierrors.IsBadRequest(err) {
		t.Errorf("List: %v, want BadRequest", err)
	}
	if _, err := s.Watch(s.ctx, api.Pods, store.WatchOptions{Fields: opts.Fields}); !apierrors.IsBadRequest(err) {
		t.Errorf("Watch: %v, want BadRequest", err)
	}
}
