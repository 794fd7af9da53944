package ownership

import (
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/slipway-dev/slipway/apiserver/api"
)

func by(manager, subresource string) By {
	return By{Manager: manager, Subresource: subresource, Now: metav1.NewTime(time.Unix(1e9, 0).UTC())}
}

func records(obj api.Object) []string {
	var all []string
	for _, e := range obj.GetManagedFields() {
		all = append(all, e.Manager+" "+string(e.Operation)+" "+e.Subresource+" "+e.FieldsV1.GetRawString())
	}
	return all
}

func configMap(data map[string]string) *corev1.ConfigMap {
	cm := api.ConfigMaps.New().(*corev1.ConfigMap)
	cm.Name, cm.Namespace, cm.Data = "a", "b", data
	return cm
}

func TestWhole(t *testing.T) {
	tests := map[string]struct {
		kind        *api.Kind
		subresource string
		want        string
	}{
		"a ConfigMap":    {api.ConfigMaps, "", `{"f:binaryData":{},"f:data":{},"f:immutable":{},"f:metadata":{"f:annotations":{},"f:labels":{},"f:ownerReferences":{}}}`},
		"a Pod":          {api.Pods, "", `{"f:metadata":{"f:annotations":{},"f:labels":{},"f:ownerReferences":{}},"f:spec":{}}`},
		"a Pod's status": {api.Pods, "status", `{"f:status":{}}`},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			if got := whole(test.kind, test.subresource).GetRawString(); got != test.want {
				t.Errorf("got  %s\nwant %s", got, test.want)
			}
		})
	}
}

func TestPartTakesTheShortWayWhenAlone(t *testing.T) {
	tracker := New()
	made := configMap(map[string]string{"k": "v"})
	if !tracker.Part(api.ConfigMaps, nil, made, by("part", "")) {
		t.Fatal("a new object needs the merge")
	}
	again := made.DeepCopy()
	if !tracker.Part(api.ConfigMaps, made, again, by("part", "")) || len(again.ManagedFields) != 1 {
		t.Errorf("its own object needs the merge: %v", records(again))
	}
	if tracker.Part(api.ConfigMaps, made, made.DeepCopy(), by("other", "")) {
		t.Error("another part's object does not need the merge")
	}
	if tracker.Part(api.ConfigMaps, configMap(nil), configMap(nil), by("part", "")) {
		t.Error("an object nobody tracked does not need the merge")
	}
	status := made.DeepCopy()
	if !tracker.Part(api.ConfigMaps, made, status, by("other", "status")) || len(status.ManagedFields) != 2 {
		t.Errorf("status beside another's fields: %v", records(status))
	}
}

func TestUpdateSpellsOutWhatAPartOwns(t *testing.T) {
	tracker := New()
	live := configMap(map[string]string{"mine": "1", "both": "1"})
	live.Labels = map[string]string{"l": "1"}
	tracker.Part(api.ConfigMaps, nil, live, by("part", ""))
	updated := live.DeepCopy()
	updated.Data["both"] = "2"
	if err := tracker.Update(api.ConfigMaps, live, updated, by("hand", "")); err != nil {
		t.Fatal(err)
	}
	want := []string{
		`hand Update  {"f:data":{"f:both":{}}}`,
		`part Update  {"f:data":{"f:mine":{}},"f:metadata":{"f:labels":{"f:l":{}}}}`,
	}
	got := records(updated)
	slices.Sort(got)
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

func TestApplyOfANameOwnsNothing(t *testing.T) {
	tracker := New()
	made, err := tracker.Apply(api.Namespaces, nil, []byte("apiVersion: v1\nkind: Namespace\nmetadata: {name: a}\n"), by("git", ""))
	if err != nil {
		t.Fatal(err)
	}
	again, err := tracker.Apply(api.Namespaces, made, []byte("apiVersion: v1\nkind: Namespace\nmetadata: {name: a}\n"), by("git", ""))
	if err != nil || len(made.GetManagedFields()) != 0 || len(again.GetManagedFields()) != 0 {
		t.Errorf("%v, %v, %v", records(made), records(again), err)
	}
}

func TestTimesChangeWithTheRecordOnly(t *testing.T) {
	tracker := New()
	first := by("git", "")
	made, err := tracker.Apply(api.ConfigMaps, nil, []byte("apiVersion: v1\nkind: ConfigMap\nmetadata: {name: a, namespace: b}\ndata: {k: v}\n"), first)
	if err != nil {
		t.Fatal(err)
	}
	later := first
	later.Now = metav1.NewTime(first.Now.Add(time.Hour))
	same, err := tracker.Apply(api.ConfigMaps, made, []byte("apiVersion: v1\nkind: ConfigMap\nmetadata: {name: a, namespace: b}\ndata: {k: w}\n"), later)
	if err != nil {
		t.Fatal(err)
	}
	if at := same.GetManagedFields()[0].Time; !at.Equal(&first.Now) || !Same(made.GetManagedFields(), same.GetManagedFields()) {
		t.Errorf("the same fields got the time %s, want %s", at, first.Now)
	}
	more, err := tracker.Apply(api.ConfigMaps, made, []byte("apiVersion: v1\nkind: ConfigMap\nmetadata: {name: a, namespace: b}\ndata: {k: v, l: w}\n"), later)
	if err != nil {
		t.Fatal(err)
	}
	if at := more.GetManagedFields()[0].Time; !at.Equal(&later.Now) || Same(made.GetManagedFields(), more.GetManagedFields()) {
		t.Errorf("other fields got the time %s, want %s", at, later.Now)
	}
}

func TestNobodyOwnsWhatAWriteCannotSet(t *testing.T) {
	const manifest = "apiVersion: v1\nkind: Namespace\nmetadata: {name: a, labels: {l: v}}\nspec: {finalizers: [x]}\nstatus: {phase: Active}\n"
	want := map[string]string{
		"":       `git Apply  {"f:metadata":{"f:labels":{"f:l":{}}},"f:spec":{"f:finalizers":{}}}`,
		"status": `git Apply status {"f:metadata":{"f:labels":{"f:l":{}}},"f:status":{"f:phase":{}}}`,
	}
	for subresource, want := range want {
		got, err := New().Apply(api.Namespaces, nil, []byte(manifest), by("git", subresource))
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff([]string{want}, records(got)); diff != "" {
			t.Errorf("subresource %q (-want +got):\n%s", subresource, diff)
		}
	}
}

func TestMemo(t *testing.T) {
	memo, patch, git := NewMemo(), []byte("patch"), by("git", "")
	live := &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: "a", UID: "1", ResourceVersion: "1"}}
	memo.Remember(live, patch, git)
	tests := map[string]struct {
		change func(*corev1.Namespace)
		patch  string
		by     By
		want   bool
	}{
		"the same":            {func(*corev1.Namespace) {}, "patch", git, true},
		"another status":      {func(n *corev1.Namespace) { n.Status.Phase, n.ResourceVersion = corev1.NamespaceActive, "2" }, "patch", git, true},
		"another label":       {func(n *corev1.Namespace) { n.Labels = map[string]string{"a": "b"} }, "patch", git, false},
		"another uid":         {func(n *corev1.Namespace) { n.UID = "2" }, "patch", git, false},
		"another owner":       {func(n *corev1.Namespace) { n.ManagedFields = []metav1.ManagedFieldsEntry{{Manager: "x"}} }, "patch", git, false},
		"another patch":       {func(*corev1.Namespace) {}, "other", git, false},
		"another manager":     {func(*corev1.Namespace) {}, "patch", by("hand", ""), false},
		"under a subresource": {func(*corev1.Namespace) {}, "patch", by("git", "status"), false},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			changed := live.DeepCopy()
			test.change(changed)
			if got := memo.Unchanged(changed, []byte(test.patch), test.by); got != test.want {
				t.Errorf("got %t, want %t", got, test.want)
			}
		})
	}
}
