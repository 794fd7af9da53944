package deployment

import (
	"fmt"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

func TestProgress(t *testing.T) {
	was := func(reason string, status corev1.ConditionStatus, ago time.Duration) func(*appsv1.Deployment) {
		return func(d *appsv1.Deployment) {
			message := ""
			switch reason {
			case reasonComplete:
				message = `ReplicaSet "v1" has successfully progressed.`
			case reasonTimedOut:
				message = `ReplicaSet "v2" has timed out progressing.`
			}
			d.Status.Conditions = []appsv1.DeploymentCondition{condition(now.Add(-ago), appsv1.DeploymentProgressing, status, reason, message)}
		}
	}
	reported := func(all, updated, available int32) func(*appsv1.Deployment) {
		return func(d *appsv1.Deployment) {
			d.Status.Replicas, d.Status.UpdatedReplicas, d.Status.ReadyReplicas, d.Status.AvailableReplicas = all, updated, available, available
		}
	}
	deadline := func(d *appsv1.Deployment) { s := int32(60); d.Spec.ProgressDeadlineSeconds = &s }
	two := func(d *appsv1.Deployment, old, fresh counts) []*appsv1.ReplicaSet {
		return []*appsv1.ReplicaSet{testRS(d, "v1", 1, old), testRS(d, "v2", 2, fresh)}
	}
	const up, down, unknown = corev1.ConditionTrue, corev1.ConditionFalse, corev1.ConditionUnknown
	tests := []struct {
		name       string
		d          *appsv1.Deployment
		old, fresh counts
		failure    string
		want       string // status reason, message, age of the last update, when to look again
	}{
		{"no deadline, no condition", testDeployment(3, "v2", was(reasonUpdated, up, time.Hour)), counts{}, counts{3, 0, 0}, "", "none"},
		{"a first rollout starts", testDeployment(3, "v2", deadline), counts{}, counts{3, 0, 0}, "", `True NewReplicaSetCreated Created new replica set "v2" 0s, again in 1m0s`},
		{"a rollout after a complete one starts", testDeployment(3, "v2", deadline, was(reasonComplete, up, time.Hour), reported(3, 3, 3)), counts{3, 3, 3}, counts{1, 0, 0}, "", `True NewReplicaSetCreated Created new replica set "v2" 0s, again in 1m0s`},
		{"new pods are progress", testDeployment(3, "v2", deadline, was(reasonCreated, up, 20*time.Second), reported(3, 0, 3)), counts{3, 3, 3}, counts{1, 1, 0}, "", `True ReplicaSetUpdated ReplicaSet "v2" is progressing. 0s, again in 1m0s`},
		{"more of it renews the deadline", testDeployment(3, "v2", deadline, was(reasonUpdated, up, 20*time.Second), reported(4, 1, 3)), counts{3, 3, 3}, counts{1, 1, 1}, "", `True ReplicaSetUpdated ReplicaSet "v2" is progressing. 0s, again in 1m0s`},
		{"no change waits for the deadline", testDeployment(3, "v2", deadline, was(reasonUpdated, up, 20*time.Second), reported(4, 1, 3)), counts{3, 3, 3}, counts{1, 1, 0}, "", `True ReplicaSetUpdated  20s, again in 40s`},
		{"a passed deadline is told", testDeployment(3, "v2", deadline, was(reasonUpdated, up, time.Minute), reported(4, 1, 3)), counts{3, 3, 3}, counts{1, 1, 0}, "", `False ProgressDeadlineExceeded ReplicaSet "v2" has timed out progressing. 0s`},
		{"and stays told", testDeployment(3, "v2", deadline, was(reasonTimedOut, down, time.Hour), reported(4, 1, 3)), counts{3, 3, 3}, counts{1, 1, 0}, "", `False ProgressDeadlineExceeded ReplicaSet "v2" has timed out progressing. 1h0m0s`},
		{"until something moves", testDeployment(3, "v2", deadline, was(reasonTimedOut, down, time.Hour), reported(4, 1, 3)), counts{3, 3, 3}, counts{1, 1, 1}, "", `True ReplicaSetUpdated ReplicaSet "v2" is progressing. 0s, again in 1m0s`},
		{"completion", testDeployment(3, "v2", deadline, was(reasonUpdated, up, time.Hour), reported(3, 3, 2)), counts{}, counts{3, 3, 3}, "", `True NewReplicaSetAvailable ReplicaSet "v2" has successfully progressed. 0s`},
		{"a pod of a complete rollout that fails is no rollout", testDeployment(3, "v1", deadline, was(reasonComplete, up, time.Hour), reported(3, 3, 3)), counts{3, 3, 2}, counts{}, "", `True NewReplicaSetAvailable ReplicaSet "v1" has successfully progressed. 1h0m0s`},
		{"paused", testDeployment(3, "v2", deadline, paused, was(reasonUpdated, up, time.Hour)), counts{3, 3, 3}, counts{1, 1, 0}, "", `Unknown DeploymentPaused Deployment is paused 0s`},
		{"resumed starts a new deadline", testDeployment(3, "v2", deadline, was(reasonPaused, unknown, time.Hour)), counts{3, 3, 3}, counts{1, 1, 0}, "", `Unknown DeploymentResumed Deployment is resumed 0s, again in 1m0s`},
		{"a set that cannot be made", testDeployment(3, "v2", deadline, was(reasonUpdated, up, time.Hour)), counts{3, 3, 3}, counts{}, "refused", `False ReplicaSetCreateError refused 0s, again in 1m0s`},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			o := observed{Deployment: tt.d, Sets: two(tt.d, tt.old, tt.fresh), Now: now}
			for _, at := range progressAt(tt.d) {
				o.Quiet = now.Sub(at)
			}
			s, again := newStatus(o, tt.failure)
			got := "none"
			if c := getCondition(s, appsv1.DeploymentProgressing); c != nil {
				got = fmt.Sprintf("%s %s %s %s", c.Status, c.Reason, c.Message, now.Sub(c.LastUpdateTime.Time))
			}
			if again != 0 {
				got += fmt.Sprintf(", again in %s", again)
			}
			if diff := cmp.Diff(tt.want, got); diff != "" {
				t.Error(diff)
			}
		})
	}
}

func TestStatusCounts(t *testing.T) {
	d := testDeployment(4, "v2", rolling("1", "1"))
	fails := func(rs *appsv1.ReplicaSet) {
		rs.Status.Conditions = []appsv1.ReplicaSetCondition{{Type: appsv1.ReplicaSetReplicaFailure, Status: corev1.ConditionTrue, Reason: "FailedCreate", Message: "quota", LastTransitionTime: metav1.NewTime(now)}}
	}
	s, _ := newStatus(observed{Deployment: d, Sets: []*appsv1.ReplicaSet{testRS(d, "v1", 1, counts{3, 3, 2}), testRS(d, "v2", 2, counts{2, 1, 0}, fails)}, Now: now}, "")
	at := metav1.NewTime(now)
	want := appsv1.DeploymentStatus{ObservedGeneration: 2, Replicas: 4, UpdatedReplicas: 1, ReadyReplicas: 2, AvailableReplicas: 2, UnavailableReplicas: 3,
		Conditions: []appsv1.DeploymentCondition{
			{Type: appsv1.DeploymentAvailable, Status: corev1.ConditionFalse, Reason: reasonUnavailable, Message: "Deployment does not have minimum availability.", LastUpdateTime: at, LastTransitionTime: at},
			{Type: appsv1.DeploymentReplicaFailure, Status: corev1.ConditionTrue, Reason: "FailedCreate", Message: "quota", LastUpdateTime: at, LastTransitionTime: at},
		}}
	if diff := cmp.Diff(want, s); diff != "" {
		t.Error(diff)
	}
}
