package deployment

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/intstr"
)

var now = time.Date(2026, 5, 1, 12, 0, 0, 0, time.UTC)

func testDeployment(replicas int32, version string, changes ...func(*appsv1.Deployment)) *appsv1.Deployment {
	labels := map[string]string{"app": "web"}
	d := &appsv1.Deployment{
		ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: "web", UID: "deployment", Generation: 2, Annotations: map[string]string{"team": "a", "slipway.dev/origin": "web.yaml:1@abc"}},
		Spec:       appsv1.DeploymentSpec{Replicas: &replicas, Selector: &metav1.LabelSelector{MatchLabels: labels}, Template: testTemplate(version)},
	}
	for _, c := range changes {
		c(d)
	}
	return d
}

func testTemplate(version string) corev1.PodTemplateSpec {
	return corev1.PodTemplateSpec{ObjectMeta: metav1.ObjectMeta{Labels: map[string]string{"app": "web"}},
		Spec: corev1.PodSpec{Containers: []corev1.Container{{Name: "app", Image: "web:" + version}}}}
}

func recreate(d *appsv1.Deployment) {
	d.Spec.Strategy.Type = appsv1.RecreateDeploymentStrategyType
}
func paused(d *appsv1.Deployment) { d.Spec.Paused = true }

func rolling(surge, unavailable string) func(*appsv1.Deployment) {
	return func(d *appsv1.Deployment) {
		s, u := intstr.Parse(surge), intstr.Parse(unavailable)
		d.Spec.Strategy = appsv1.DeploymentStrategy{Type: appsv1.RollingUpdateDeploymentStrategyType, RollingUpdate: &appsv1.RollingUpdateDeployment{MaxSurge: &s, MaxUnavailable: &u}}
	}
}

// counts is a set as a test writes it: spec, then Pods that exist and that are available.
type counts struct{ spec, pods, available int32 }

// testRS is d's set for version, with annotations as d's controller leaves them. Revisions are ages: lower is older.
func testRS(d *appsv1.Deployment, version string, revision int, c counts, changes ...func(*appsv1.ReplicaSet)) *appsv1.ReplicaSet {
	of := d.DeepCopy()
	of.Spec.Template = testTemplate(version)
	f := newFleet(of, nil)
	f.start = c.spec
	rs := f.template(fmt.Sprint(revision))
	rs.Name, rs.UID, rs.Generation = version, types.UID(version), 1
	rs.Spec.Replicas = &c.spec
	rs.CreationTimestamp = metav1.NewTime(now.Add(time.Duration(revision-100) * time.Hour))
	rs.Status = appsv1.ReplicaSetStatus{Replicas: c.pods, ReadyReplicas: c.available, AvailableReplicas: c.available, ObservedGeneration: 1}
	for _, change := range changes {
		change(rs)
	}
	return rs
}

func unobserved(rs *appsv1.ReplicaSet) { rs.Generation++ }
func orphaned(rs *appsv1.ReplicaSet)   { rs.OwnerReferences = nil }
func sizedFor(replicas, most int) func(*appsv1.ReplicaSet) {
	return func(rs *appsv1.ReplicaSet) {
		rs.Annotations[desiredAnnotation], rs.Annotations[maxAnnotation] = fmt.Sprint(replicas), fmt.Sprint(most)
	}
}

// text shows actions with hashes replaced.
func text(d *appsv1.Deployment, actions []Action) string {
	var lines []string
	for _, a := range actions {
		lines = append(lines, strings.ReplaceAll(a.String(), hash(&d.Spec.Template, d.Status.CollisionCount), "HASH"))
	}
	return strings.Join(lines, "\n")
}

// planCase is a deployment with its sets and Pods, and the plan as text.
type planCase struct {
	name string
	d    *appsv1.Deployment
	sets func(d *appsv1.Deployment) []*appsv1.ReplicaSet
	pods []*corev1.Pod
	want string
}

func runPlans(t *testing.T, tests []planCase) {
	t.Helper()
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			o := observed{Deployment: tt.d, Pods: tt.pods, Now: now}
			if tt.sets != nil {
				o.Sets = tt.sets(tt.d)
			}
			if diff := cmp.Diff(tt.want, text(tt.d, plan(o))); diff != "" {
				t.Error(diff)
			}
		})
	}
}

func at(revision string) func(*appsv1.Deployment) {
	return func(d *appsv1.Deployment) { d.Annotations[revisionAnnotation] = revision }
}

// keeping is a complete rollout of three that keeps so many old sets.
func keeping(limit int32) func(*appsv1.Deployment) {
	return func(d *appsv1.Deployment) {
		d.Spec.RevisionHistoryLimit = &limit
		d.Status = appsv1.DeploymentStatus{ObservedGeneration: 2, Replicas: 3, UpdatedReplicas: 3, AvailableReplicas: 3}
	}
}

func TestPlanRolls(t *testing.T) {
	three := testDeployment(3, "v2", rolling("1", "0"), at("2"))
	runPlans(t, []planCase{
		{"the first set gets all replicas", testDeployment(3, "v1"), nil, nil, "create replicaset web-HASH with 3 replicas"},
		{"a new template starts within the surge", testDeployment(4, "v2", rolling("25%", "25%"), at("1")), func(d *appsv1.Deployment) []*appsv1.ReplicaSet {
			return []*appsv1.ReplicaSet{testRS(d, "v1", 1, counts{4, 4, 4})}
		}, nil, "scale replicaset v1 from 4 to 3\ncreate replicaset web-HASH with 1 replicas"},
		{"without surge room is made first", testDeployment(3, "v2", rolling("0", "1"), at("1")), func(d *appsv1.Deployment) []*appsv1.ReplicaSet {
			return []*appsv1.ReplicaSet{testRS(d, "v1", 1, counts{3, 3, 3})}
		}, nil, "scale replicaset v1 from 3 to 2\ncreate replicaset web-HASH with 0 replicas"},
		{"waits for the new pod", three, func(d *appsv1.Deployment) []*appsv1.ReplicaSet {
			return []*appsv1.ReplicaSet{testRS(d, "v1", 1, counts{3, 3, 3}), testRS(d, "v2", 2, counts{1, 1, 0})}
		}, nil, ""},
		{"an available new pod replaces an old one", three, func(d *appsv1.Deployment) []*appsv1.ReplicaSet {
			return []*appsv1.ReplicaSet{testRS(d, "v1", 1, counts{3, 3, 3}), testRS(d, "v2", 2, counts{1, 1, 1})}
		}, nil, "scale replicaset v1 from 3 to 2"},
		{"does not count on pods that are about to go", three, func(d *appsv1.Deployment) []*appsv1.ReplicaSet {
			return []*appsv1.ReplicaSet{testRS(d, "v1", 1, counts{2, 3, 3}, unobserved), testRS(d, "v2", 2, counts{1, 1, 1})}
		}, nil, ""},
		{"grows when the old pod is gone", three, func(d *appsv1.Deployment) []*appsv1.ReplicaSet {
			return []*appsv1.ReplicaSet{testRS(d, "v1", 1, counts{2, 2, 2}), testRS(d, "v2", 2, counts{1, 1, 1})}
		}, nil, "scale replicaset v2 from 1 to 2"},
		{"does not grow beside a set that has not been acted on", three, func(d *appsv1.Deployment) []*appsv1.ReplicaSet {
			return []*appsv1.ReplicaSet{testRS(d, "v1", 1, counts{2, 2, 2}, unobserved), testRS(d, "v2", 2, counts{1, 1, 1})}
		}, nil, ""},
		{"broken old pods go first and cost nothing", testDeployment(4, "v3", rolling("1", "1"), at("3")), func(d *appsv1.Deployment) []*appsv1.ReplicaSet {
			return []*appsv1.ReplicaSet{testRS(d, "v1", 1, counts{3, 3, 3}), testRS(d, "v2", 2, counts{2, 2, 0}), testRS(d, "v3", 3, counts{0, 0, 0})}
		}, nil, "scale replicaset v2 from 2 to 0"},
		{"an old template again re-uses its set under a new revision", testDeployment(2, "v1", rolling("1", "0"), at("2")), func(d *appsv1.Deployment) []*appsv1.ReplicaSet {
			return []*appsv1.ReplicaSet{testRS(d, "v1", 1, counts{0, 0, 0}), testRS(d, "v2", 2, counts{2, 2, 2})}
		}, nil, "scale replicaset v1 from 0 to 1\nset revision to 3"},
	})
}

func TestPlanRecreatesPausesAndScales(t *testing.T) {
	runPlans(t, []planCase{
		{"recreate first empties the old set", testDeployment(3, "v2", recreate, at("1")), func(d *appsv1.Deployment) []*appsv1.ReplicaSet {
			return []*appsv1.ReplicaSet{testRS(d, "v1", 1, counts{3, 3, 3})}
		}, nil, "scale replicaset v1 from 3 to 0"},
		{"recreate waits for pods that are still ending", testDeployment(3, "v2", recreate, at("1")), func(d *appsv1.Deployment) []*appsv1.ReplicaSet {
			return []*appsv1.ReplicaSet{testRS(d, "v1", 1, counts{0, 0, 0})}
		}, []*corev1.Pod{{ObjectMeta: metav1.ObjectMeta{Name: "p", OwnerReferences: []metav1.OwnerReference{{UID: "v1", Controller: new(true)}}}}}, ""},
		{"recreate goes on when only ended pods are left", testDeployment(3, "v2", recreate, at("1")), func(d *appsv1.Deployment) []*appsv1.ReplicaSet {
			return []*appsv1.ReplicaSet{testRS(d, "v1", 1, counts{0, 0, 0})}
		}, []*corev1.Pod{{ObjectMeta: metav1.ObjectMeta{Name: "p", OwnerReferences: []metav1.OwnerReference{{UID: "v1", Controller: new(true)}}}, Status: corev1.PodStatus{Phase: corev1.PodFailed}}},
			"create replicaset web-HASH with 3 replicas"},
		{"paused makes no new set", testDeployment(3, "v2", paused, at("1")), func(d *appsv1.Deployment) []*appsv1.ReplicaSet {
			return []*appsv1.ReplicaSet{testRS(d, "v1", 1, counts{3, 3, 3})}
		}, nil, ""},
		{"paused still scales", testDeployment(5, "v2", paused, at("1")), func(d *appsv1.Deployment) []*appsv1.ReplicaSet {
			return []*appsv1.ReplicaSet{testRS(d, "v1", 1, counts{3, 3, 3}, sizedFor(3, 4))}
		}, nil, "scale replicaset v1 from 3 to 5"},
		{"scaling amid a rollout is shared in proportion", testDeployment(20, "v2", rolling("2", "2"), at("2")), func(d *appsv1.Deployment) []*appsv1.ReplicaSet {
			return []*appsv1.ReplicaSet{testRS(d, "v1", 1, counts{8, 8, 8}, sizedFor(10, 12)), testRS(d, "v2", 2, counts{4, 4, 0}, sizedFor(10, 12))}
		}, nil, "scale replicaset v1 from 8 to 15\nscale replicaset v2 from 4 to 7"},
		{"scaling to zero amid a rollout empties all", testDeployment(0, "v2", rolling("2", "2"), at("2")), func(d *appsv1.Deployment) []*appsv1.ReplicaSet {
			return []*appsv1.ReplicaSet{testRS(d, "v1", 1, counts{8, 8, 8}, sizedFor(10, 12)), testRS(d, "v2", 2, counts{4, 4, 0}, sizedFor(10, 12))}
		}, nil, "scale replicaset v1 from 8 to 0\nscale replicaset v2 from 4 to 0"},
	})
}

func TestPlanKeepsHouse(t *testing.T) {
	runPlans(t, []planCase{
		{"adopts before it counts", testDeployment(3, "v1"), func(d *appsv1.Deployment) []*appsv1.ReplicaSet {
			return []*appsv1.ReplicaSet{testRS(d, "v1", 1, counts{3, 3, 3}, orphaned)}
		}, nil, "adopt replicaset v1"},
		{"releases a set that no longer matches", testDeployment(3, "v1"), func(d *appsv1.Deployment) []*appsv1.ReplicaSet {
			return []*appsv1.ReplicaSet{testRS(d, "v1", 1, counts{3, 3, 3}, func(rs *appsv1.ReplicaSet) { rs.Labels = nil })}
		}, nil, "release replicaset v1"},
		{"a name taken by another template is a collision", testDeployment(3, "v1"), func(d *appsv1.Deployment) []*appsv1.ReplicaSet {
			return []*appsv1.ReplicaSet{testRS(d, "v0", 1, counts{0, 0, 0}, func(rs *appsv1.ReplicaSet) { rs.Name = "web-" + hash(&d.Spec.Template, nil) })}
		}, nil, "set collision count to 1"},
		{"history beyond the limit goes, lowest revision first", testDeployment(3, "v4", at("4"), keeping(1)), func(d *appsv1.Deployment) []*appsv1.ReplicaSet {
			return []*appsv1.ReplicaSet{testRS(d, "v1", 3, counts{0, 0, 0}), testRS(d, "v2", 1, counts{0, 0, 0}), testRS(d, "v3", 2, counts{0, 0, 0}), testRS(d, "v4", 4, counts{3, 3, 3})}
		}, nil, "delete replicaset v2\ndelete replicaset v3"},
		{"history with pods stays", testDeployment(3, "v4", at("4"), keeping(0)), func(d *appsv1.Deployment) []*appsv1.ReplicaSet {
			return []*appsv1.ReplicaSet{testRS(d, "v1", 1, counts{0, 1, 0}), testRS(d, "v2", 2, counts{0, 0, 0}, unobserved), testRS(d, "v4", 4, counts{3, 3, 3})}
		}, nil, ""},
		{"is left alone while being deleted", testDeployment(3, "v2", func(d *appsv1.Deployment) { d.DeletionTimestamp = &metav1.Time{Time: now} }), nil, nil, ""},
	})
}

func TestFreshSetCarriesTheDeploymentsAnnotationsButNotItsOrigin(t *testing.T) {
	d := testDeployment(3, "v1", func(d *appsv1.Deployment) { d.Annotations[corev1.LastAppliedConfigAnnotation] = "{}" })
	actions := plan(observed{Deployment: d, Now: now})
	want := map[string]string{"team": "a", desiredAnnotation: "3", maxAnnotation: "4", revisionAnnotation: "1"}
	if diff := cmp.Diff(want, actions[0].(Create).Set.Annotations); diff != "" {
		t.Error(diff)
	}
}

func TestHistoryRemembersEarlierRevisions(t *testing.T) {
	d := testDeployment(1, "v1")
	old := testRS(d, "v1", 3, counts{0, 0, 0}, func(rs *appsv1.ReplicaSet) { rs.Annotations[historyAnnotation] = "1" })
	actions := plan(observed{Deployment: d, Sets: []*appsv1.ReplicaSet{old, testRS(d, "v2", 4, counts{1, 1, 1})}, Now: now})
	got := actions[0].(Change).New.Annotations
	if got[revisionAnnotation] != "5" || got[historyAnnotation] != "1,3" {
		t.Errorf("revision %q, history %q", got[revisionAnnotation], got[historyAnnotation])
	}
	long := strings.Repeat("1234567890,", 300)
	if got := remember(long, "7"); len(got) > maxHistory || !strings.HasSuffix(got, ",7") {
		t.Errorf("history has %d bytes", len(got))
	}
}

func TestBounds(t *testing.T) {
	tests := []struct {
		replicas                   int32
		surge, unavailable         string
		wantSurge, wantUnavailable int32
	}{
		{10, "25%", "25%", 3, 2},
		{1, "25%", "25%", 1, 0},
		{0, "25%", "25%", 0, 0},
		{3, "0", "0%", 0, 1},
		{2, "0", "5", 0, 2},
		{4, "100%", "0", 4, 0},
	}
	for _, tt := range tests {
		surge, unavailable := bounds(testDeployment(tt.replicas, "v1", rolling(tt.surge, tt.unavailable)))
		if surge != tt.wantSurge || unavailable != tt.wantUnavailable {
			t.Errorf("%d replicas, %s/%s: got %d and %d, want %d and %d", tt.replicas, tt.surge, tt.unavailable, surge, unavailable, tt.wantSurge, tt.wantUnavailable)
		}
	}
}

func TestHashIsStableAndDependsOnCollisions(t *testing.T) {
	template, one := testTemplate("v1"), int32(1)
	if a, b := hash(&template, nil), hash(template.DeepCopy(), nil); a != b {
		t.Errorf("%s and %s for one template", a, b)
	}
	if hash(&template, nil) == hash(&template, &one) {
		t.Error("the collision count changes nothing")
	}
}
