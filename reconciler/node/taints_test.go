package node

import (
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/slipway-dev/slipway/apiserver/store"
)

func TestTaintsFollowConditions(t *testing.T) {
	at := metav1.NewTime(now)
	before := metav1.NewTime(now.Add(-time.Hour))
	no := func(key string, added *metav1.Time) corev1.Taint {
		return corev1.Taint{Key: key, Effect: corev1.TaintEffectNoSchedule, TimeAdded: added}
	}
	own := corev1.Taint{Key: "example.com/gpu", Effect: corev1.TaintEffectNoSchedule}
	is := func(c corev1.NodeConditionType, s corev1.ConditionStatus) corev1.NodeCondition {
		return corev1.NodeCondition{Type: c, Status: s}
	}
	for name, tt := range map[string]struct {
		conditions []corev1.NodeCondition
		has, want  []corev1.Taint
		changed    bool
	}{
		"a node that is well": {conditions: []corev1.NodeCondition{is(corev1.NodeReady, corev1.ConditionTrue), is(corev1.NodeDiskPressure, corev1.ConditionFalse)}},
		"not ready":           {[]corev1.NodeCondition{is(corev1.NodeReady, corev1.ConditionFalse)}, nil, []corev1.Taint{no("node.kubernetes.io/not-ready", &at)}, true},
		"silent":              {[]corev1.NodeCondition{is(corev1.NodeReady, corev1.ConditionUnknown)}, nil, []corev1.Taint{no("node.kubernetes.io/unreachable", &at)}, true},
		"short of everything": {[]corev1.NodeCondition{is(corev1.NodeMemoryPressure, corev1.ConditionTrue), is(corev1.NodeDiskPressure, corev1.ConditionTrue), is(corev1.NodePIDPressure, corev1.ConditionTrue)},
			[]corev1.Taint{own}, []corev1.Taint{own, no("node.kubernetes.io/memory-pressure", &at), no("node.kubernetes.io/disk-pressure", &at), no("node.kubernetes.io/pid-pressure", &at)}, true},
		"a taint that stays keeps its time": {[]corev1.NodeCondition{is(corev1.NodeDiskPressure, corev1.ConditionTrue)},
			[]corev1.Taint{no("node.kubernetes.io/disk-pressure", &before)}, []corev1.Taint{no("node.kubernetes.io/disk-pressure", &before)}, false},
		"over": {[]corev1.NodeCondition{is(corev1.NodeDiskPressure, corev1.ConditionFalse)},
			[]corev1.Taint{no("node.kubernetes.io/disk-pressure", &before), own}, []corev1.Taint{own}, true},
	} {
		node := &corev1.Node{Spec: corev1.NodeSpec{Taints: tt.has}, Status: corev1.NodeStatus{Conditions: tt.conditions}}
		got, changed := taints(node, at)
		if diff := cmp.Diff(tt.want, got); diff != "" || changed != tt.changed {
			t.Errorf("%s: changed %v (-want +got):\n%s", name, changed, diff)
		}
	}
}

func TestSilentNodeIsTaintedAndFreedAgain(t *testing.T) {
	inFleet(t, 1, func(f *fleet) {
		node := func() *corev1.Node {
			f.silent() // waits
			node, err := store.Get[*corev1.Node](f.ctx, f.admin, "", "n0")
			if err != nil {
				t.Fatal(err)
			}
			return node.DeepCopy()
		}
		keys := func() (keys []string) {
			for _, taint := range node().Spec.Taints {
				keys = append(keys, taint.Key)
			}
			return keys
		}
		f.renew("n0")
		if got := keys(); got != nil {
			t.Errorf("a node that renews has %v", got)
		}
		time.Sleep(time.Minute) // fake time
		if diff := cmp.Diff([]string{"node.kubernetes.io/unreachable"}, keys()); diff != "" {
			t.Errorf("silent (-want +got):\n%s", diff)
		}
		f.renew("n0")
		back := node()
		back.Status.Conditions[0].Status = corev1.ConditionTrue
		f.do(f.admin.Update(f.ctx, back, store.UpdateOptions{Subresource: "status"}))
		if got := keys(); got != nil {
			t.Errorf("back again it has %v", got)
		}
	})
}
