package health

import (
	"strconv"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/slipway-dev/slipway/apiserver/api"
)

// Pods finds the Pods of a workload.
type Pods struct {
	sets map[types.UID][]*appsv1.ReplicaSet
	pods map[types.UID][]*corev1.Pod
}

// NewPods indexes ReplicaSets and Pods by their controllers.
func NewPods(sets []*appsv1.ReplicaSet, pods []*corev1.Pod) Pods {
	return Pods{sets: byOwner(sets), pods: byOwner(pods)}
}

func byOwner[T api.Object](objects []T) map[types.UID][]T {
	out := map[types.UID][]T{}
	for _, obj := range objects {
		if owner := metav1.GetControllerOfNoCopy(obj); owner != nil {
			out[owner.UID] = append(out[owner.UID], obj)
		}
	}
	return out
}

// Of returns the Pods of a ReplicaSet, or of the newest ReplicaSet of a Deployment.
func (p Pods) Of(workload api.Object) []*corev1.Pod {
	if _, ok := workload.(*appsv1.Deployment); !ok {
		return p.pods[workload.GetUID()]
	}
	var newest *appsv1.ReplicaSet
	for _, rs := range p.sets[workload.GetUID()] {
		if newest == nil || turn(rs) > turn(newest) {
			newest = rs
		}
	}
	if newest == nil {
		return nil
	}
	return p.pods[newest.UID]
}

// turn is a ReplicaSet's place among those of its Deployment, as the Deployment's controller numbers them.
func turn(rs *appsv1.ReplicaSet) int {
	n, err := strconv.Atoi(rs.Annotations["deployment.kubernetes.io/revision"])
	if err != nil {
		return 0
	}
	return n
}
