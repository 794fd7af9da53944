package deployment

import (
	"testing"

	appsv1 "k8s.io/api/apps/v1"
)

// sizes makes sets v1, v2, … of these sizes, all of whose Pods are available, sized for so many replicas.
func sizes(replicas, most int, all ...int32) func(d *appsv1.Deployment) []*appsv1.ReplicaSet {
	return func(d *appsv1.Deployment) []*appsv1.ReplicaSet {
		var sets []*appsv1.ReplicaSet
		for i, n := range all {
			version := "v" + string(rune('1'+i))
			sets = append(sets, testRS(d, version, i+1, counts{n, n, n}, sizedFor(replicas, most)))
		}
		return sets
	}
}

func TestPlanSharesANewSize(t *testing.T) {
	of := func(n int32, surge string, changes ...func(*appsv1.Deployment)) *appsv1.Deployment {
		return testDeployment(n, "v3", append(changes, rolling(surge, "1"), at("3"))...)
	}
	unsized := func(all ...int32) func(d *appsv1.Deployment) []*appsv1.ReplicaSet {
		return func(d *appsv1.Deployment) []*appsv1.ReplicaSet {
			sets := sizes(5, 0, all...)(d)
			for _, rs := range sets {
				delete(rs.Annotations, maxAnnotation)
			}
			return sets
		}
	}
	runPlans(t, []planCase{
		{"growth in proportion", of(10, "0"), sizes(5, 5, 2, 2, 1), nil, "scale replicaset v1 from 2 to 4\nscale replicaset v2 from 2 to 4\nscale replicaset v3 from 1 to 2"},
		{"what rounding leaves goes to the newest of the largest", of(6, "0"), sizes(5, 5, 2, 2, 1), nil,
			"update replicaset v1\nscale replicaset v2 from 2 to 3\nupdate replicaset v3"},
		{"shrinking in proportion", of(3, "0"), sizes(10, 10, 4, 4, 2), nil, "scale replicaset v1 from 4 to 1\nscale replicaset v2 from 4 to 1\nscale replicaset v3 from 2 to 1"},
		{"what rounding leaves is taken from the oldest of the largest", of(5, "0"), sizes(6, 6, 2, 2, 2), nil,
			"scale replicaset v1 from 2 to 1\nupdate replicaset v2\nupdate replicaset v3"},
		{"the surge counts as well", of(10, "50%"), sizes(5, 5, 2, 2, 1), nil, "scale replicaset v1 from 2 to 6\nscale replicaset v2 from 2 to 6\nscale replicaset v3 from 1 to 3"},
		{"without the former most, what exists counts", of(10, "0", func(d *appsv1.Deployment) { d.Status.Replicas = 5 }), unsized(2, 2, 1), nil,
			"scale replicaset v1 from 2 to 4\nscale replicaset v2 from 2 to 4\nscale replicaset v3 from 1 to 2"},
		{"and where nothing is known the largest gets all", of(10, "0"), unsized(2, 2, 1), nil, "update replicaset v1\nscale replicaset v2 from 2 to 7\nupdate replicaset v3"},
		{"paused as well", of(10, "0", paused), sizes(5, 5, 2, 2, 1), nil, "scale replicaset v1 from 2 to 4\nscale replicaset v2 from 2 to 4\nscale replicaset v3 from 1 to 2"},
		{"one set alone gets all", of(7, "3"), sizes(5, 8, 0, 0, 5), nil, "scale replicaset v3 from 5 to 7"},
		{"an old set alone too: its rollout goes on later", of(7, "0"), sizes(5, 5, 5), nil, "scale replicaset v1 from 5 to 7"},
		{"with no set active the newest gets all", of(4, "0", paused), sizes(0, 0, 0, 0, 0), nil, "scale replicaset v3 from 0 to 4"},
		{"a complete set needs no others", of(3, "0"), func(d *appsv1.Deployment) []*appsv1.ReplicaSet {
			return []*appsv1.ReplicaSet{testRS(d, "v1", 1, counts{1, 1, 1}, sizedFor(4, 4)), testRS(d, "v3", 3, counts{3, 3, 3}, sizedFor(3, 3))}
		}, nil, "scale replicaset v1 from 1 to 0"},
		{"growth waits for pods that are about to go", of(10, "0"), func(d *appsv1.Deployment) []*appsv1.ReplicaSet {
			return []*appsv1.ReplicaSet{testRS(d, "v1", 1, counts{2, 5, 5}, sizedFor(5, 5), unobserved), testRS(d, "v3", 3, counts{3, 3, 3}, sizedFor(5, 5))}
		}, nil, ""},
		{"shrinking does not wait", of(2, "0"), func(d *appsv1.Deployment) []*appsv1.ReplicaSet {
			return []*appsv1.ReplicaSet{testRS(d, "v1", 1, counts{2, 5, 5}, sizedFor(5, 5), unobserved), testRS(d, "v3", 3, counts{3, 3, 3}, sizedFor(5, 5))}
		}, nil, "scale replicaset v1 from 2 to 1\nscale replicaset v3 from 3 to 1"},
	})
}

func TestPlanKeepsNoHistoryWhereNoneIsWanted(t *testing.T) {
	none, limit := int32(noLimit), int32(0)
	old := func(d *appsv1.Deployment) []*appsv1.ReplicaSet {
		return []*appsv1.ReplicaSet{testRS(d, "v1", 1, counts{}), testRS(d, "v2", 2, counts{}), testRS(d, "v4", 4, counts{3, 3, 3})}
	}
	runPlans(t, []planCase{
		{"limit zero", testDeployment(3, "v4", at("4"), keeping(0)), old, nil, "delete replicaset v1\ndelete replicaset v2"},
		{"no limit", testDeployment(3, "v4", at("4"), keeping(none)), old, nil, ""},
		{"not in the middle of a rollout", testDeployment(3, "v4", at("4"), func(d *appsv1.Deployment) { d.Spec.RevisionHistoryLimit = &limit }), old, nil, ""},
		{"but paused", testDeployment(3, "v4", at("4"), paused, func(d *appsv1.Deployment) { d.Spec.RevisionHistoryLimit = &limit }), old, nil, "delete replicaset v1\ndelete replicaset v2"},
	})
}
