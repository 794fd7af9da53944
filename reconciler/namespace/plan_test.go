package namespace

import (
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/slipway-dev/slipway/apiserver/api"
)

var now = time.Date(2026, 5, 1, 12, 0, 0, 0, time.UTC)

func terminating(finalizers ...corev1.FinalizerName) *corev1.Namespace {
	return &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: "shop", DeletionTimestamp: &metav1.Time{Time: now}}, Spec: corev1.NamespaceSpec{Finalizers: finalizers}}
}

// holding returns n objects of kind; names with a "!" are being deleted already.
func holding(kind *api.Kind, names ...string) Content {
	c := Content{Kind: kind}
	for _, name := range names {
		obj := kind.New()
		obj.SetName(strings.TrimSuffix(name, "!"))
		if strings.HasSuffix(name, "!") {
			obj.SetDeletionTimestamp(&metav1.Time{Time: now})
			obj.SetFinalizers([]string{"example.com/backup"})
		}
		c.Items = append(c.Items, obj)
	}
	return c
}

func TestPlan(t *testing.T) {
	kube := corev1.FinalizerKubernetes
	pods, configs, sets := holding(api.Pods, "p1", "p2!"), holding(api.ConfigMaps, "c"), holding(api.ReplicaSets, "r")
	tests := []struct {
		name string
		o    observed
		want string
	}{
		{"a system namespace is made", observed{Name: "kube-system"}, "create namespace kube-system"},
		{"another one that is gone is gone", observed{Name: "shop"}, ""},
		{"an active one is left alone", observed{Namespace: &corev1.Namespace{}, Content: []Content{pods}}, ""},
		{"what makes pods goes first", observed{Namespace: terminating(kube), Content: []Content{configs, pods, sets, holding(api.Deployments, "d")}}, "delete deployments.apps d\ndelete replicasets.apps r"},
		{"then pods", observed{Namespace: terminating(kube), Content: []Content{configs, pods, holding(api.ReplicaSets)}}, "delete pods p1"},
		{"configuration stays while pods end", observed{Namespace: terminating(kube), Content: []Content{configs, holding(api.Pods, "p2!")}}, ""},
		{"then the rest", observed{Namespace: terminating(kube), Content: []Content{configs, holding(api.Events, "e"), holding(api.Pods)}}, "delete configmaps c\ndelete events e"},
		{"what is held is waited for", observed{Namespace: terminating(kube), Content: []Content{holding(api.Secrets, "s!")}}, ""},
		{"and at last the namespace", observed{Namespace: terminating(kube, "example.com/audit"), Content: []Content{holding(api.Pods)}}, "finalize namespace shop"},
		{"other parts' finalizers stay", observed{Namespace: terminating("example.com/audit")}, ""},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			var lines []string
			for _, a := range plan(tt.o) {
				lines = append(lines, a.String())
			}
			if diff := cmp.Diff(tt.want, strings.Join(lines, "\n")); diff != "" {
				t.Error(diff)
			}
		})
	}
}

func TestStatusIsSteady(t *testing.T) {
	o := observed{Name: "shop", Namespace: terminating(), Now: now, Failures: []string{"delete pods p1: refused"},
		Content: []Content{holding(api.Secrets, "b!", "a!"), holding(api.Deployments, "d")}}
	first := newStatus(o)
	var got []string
	for _, c := range first.Conditions {
		if c.Status == corev1.ConditionTrue {
			got = append(got, string(c.Type)+": "+c.Message)
		}
	}
	want := []string{
		"NamespaceDeletionContentFailure: Failed to delete all resource types: delete pods p1: refused",
		"NamespaceContentRemaining: Some resources are remaining: deployments.apps has 1 resource instances, secrets. has 2 resource instances",
		"NamespaceFinalizersRemaining: Some content in the namespace has finalizers remaining: example.com/backup in 2 resource instances (secrets a, secrets b)",
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
	o.Namespace = terminating()
	o.Namespace.Status, o.Now = first, now.Add(time.Hour)
	if diff := cmp.Diff(first, newStatus(o)); diff != "" {
		t.Errorf("the same state changed the status: %s", diff)
	}
	o.Failures, o.Content = nil, nil
	for _, c := range newStatus(o).Conditions {
		if c.Status != corev1.ConditionFalse {
			t.Errorf("%s is %s when all is well", c.Type, c.Status)
		}
	}
}

// TestPlanConverges applies plans to a model until the namespace is gone, and looks at the order.
func TestPlanConverges(t *testing.T) {
	o := observed{Name: "shop", Namespace: terminating(corev1.FinalizerKubernetes)}
	for _, kind := range contentKinds() {
		o.Content = append(o.Content, holding(kind, "a", "b"))
	}
	last := -1
	for turn := 0; ; turn++ {
		actions := plan(o)
		if len(actions) == 0 {
			t.Fatalf("turn %d: stuck with %d kinds", turn, len(remaining(o.Content)))
		}
		if _, done := actions[0].(Finalize); done {
			return
		}
		for _, action := range actions {
			d := action.(Delete)
			if stage(d.Kind) < last {
				t.Errorf("%s goes after stage %d", d.Kind, last)
			}
			last = stage(d.Kind)
			for i, c := range o.Content {
				if c.Kind == d.Kind {
					o.Content[i] = Content{Kind: c.Kind}
				}
			}
		}
	}
}
