package health

import (
	"maps"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
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

// Of returns the Pods of a ReplicaSet, or of the ReplicaSet that has a Deployment's present template: a rollout is not
// to blame for what an older one left behind.
func (p Pods) Of(workload api.Object) []*corev1.Pod {
	d, ok := workload.(*appsv1.Deployment)
	if !ok {
		return p.pods[workload.GetUID()]
	}
	for _, rs := range p.sets[d.UID] {
		if sameTemplate(&rs.Spec.Template, &d.Spec.Template) {
			return p.pods[rs.UID]
		}
	}
	return nil
}

// sameTemplate compares templates without the label by which the Deployment's controller tells ReplicaSets apart.
func sameTemplate(ofSet, wanted *corev1.PodTemplateSpec) bool {
	bare := *ofSet
	bare.Labels = maps.Clone(ofSet.Labels)
	delete(bare.Labels, appsv1.DefaultDeploymentUniqueLabelKey)
	return equality.Semantic.DeepEqual(&bare, wanted)
}
