package main

import (
	"testing"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	slipwayv1 "github.com/slipway-dev/slipway/apiserver/api/v1alpha1"
)

func TestRecordedIsNamedAsPeopleKnowIt(t *testing.T) {
	record := func(id, head string, dirty bool) slipwayv1.Rollout {
		return slipwayv1.Rollout{Spec: slipwayv1.RolloutSpec{Revision: id, Head: head, Dirty: dirty}}
	}
	const head = "16c9f98cdd20cb3db4f843f8501b214bb8cc34e9"
	all := []slipwayv1.Rollout{record("dir-aaaaaaaaaaaa", head, true), record("dir-bbbbbbbbbbbb", "", false), record("dir-aaaaaaaaaaaa", head, false)}
	for id, want := range map[string]string{"dir-aaaaaaaaaaaa": "16c9f98", "dir-bbbbbbbbbbbb": "bbbbbbb", "dir-cccccccccccc": "ccccccc"} {
		if got := recorded(all, id).Short(); got != want {
			t.Errorf("%s is named %s, want %s", id, got, want)
		}
	}
}

func TestStatusNamesWhatHoldsANamespace(t *testing.T) {
	named := func(name string) corev1.Namespace { return corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: name}} }
	going, held := named("going"), named("held")
	going.Status.Phase, held.Status.Phase = corev1.NamespaceTerminating, corev1.NamespaceTerminating
	held.Status.Conditions = []corev1.NamespaceCondition{
		{Type: corev1.NamespaceContentRemaining, Status: corev1.ConditionTrue, Message: "Some resources are remaining"},
		{Type: corev1.NamespaceFinalizersRemaining, Status: corev1.ConditionTrue, Message: "example.com/backup in 1 resource instances (configmaps c)"},
	}
	want := []string{"leaving  namespace going is being deleted", "leaving  namespace held is being deleted: example.com/backup in 1 resource instances (configmaps c)"}
	if diff := cmp.Diff(want, leaving([]corev1.Namespace{named("web"), going, held})); diff != "" {
		t.Error(diff)
	}
}

func TestStatusSaysWhatANodeIsShortOf(t *testing.T) {
	node := corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: "n"}}
	node.Spec.Taints = []corev1.Taint{{Key: "example.com/gpu", Effect: corev1.TaintEffectNoSchedule}, {Key: corev1.TaintNodeDiskPressure, Effect: corev1.TaintEffectNoSchedule}}
	node.Status.Conditions = []corev1.NodeCondition{
		{Type: corev1.NodeMemoryPressure, Status: corev1.ConditionFalse}, {Type: corev1.NodeReady, Status: corev1.ConditionTrue},
		{Type: corev1.NodeDiskPressure, Status: corev1.ConditionTrue, Message: "the node is short of disk space: nodefs.available is below 10%"},
	}
	want := []string{"node     n has taint example.com/gpu:NoSchedule", "node     n has DiskPressure: the node is short of disk space: nodefs.available is below 10%"}
	if diff := cmp.Diff(want, restrictions([]corev1.Node{node})); diff != "" {
		t.Error(diff)
	}
}
