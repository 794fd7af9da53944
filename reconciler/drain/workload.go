package drain

import (
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/intstr"
)

// workload is what keeps Pods: a Deployment with all its ReplicaSets, or a ReplicaSet of its own.
type workload struct {
	name      string
	desired   int
	allowed   int // how many may be unavailable
	minReady  time.Duration
	available int    // Pods ready for long enough and not ending
	doomed    int    // of those, how many their ReplicaSet is about to end
	rolling   bool   // Pods are being replaced as we look
	homeless  string // why a Pod of it has no node
}

// least is how many Pods have to be available.
func (w *workload) least() int { return w.desired - w.allowed }

// counts says whether a Pod is available.
func (w *workload) counts(pod *corev1.Pod, now time.Time) bool {
	if pod.DeletionTimestamp != nil || finished(pod) {
		return false
	}
	for _, c := range pod.Status.Conditions {
		if c.Type == corev1.PodReady {
			return c.Status == corev1.ConditionTrue && (w.minReady == 0 || !now.Before(c.LastTransitionTime.Add(w.minReady)))
		}
	}
	return false
}

func (w *workload) pending() string {
	if w.homeless == "" {
		return ""
	}
	return ", and a replacement has no node: " + w.homeless
}

// workloads returns what each Pod belongs to; nothing for Pods that nobody replaces in a way known here.
func workloads(o observed) map[*corev1.Pod]*workload {
	byDeployment := map[types.UID]*workload{}
	for _, d := range o.deployments {
		byDeployment[d.UID] = ofDeployment(d)
	}
	bySet, surplus := map[types.UID]*workload{}, map[types.UID]int{}
	for _, rs := range o.sets {
		w := byDeployment[controllerOf(rs)]
		if w == nil {
			w = &workload{name: "ReplicaSet " + rs.Namespace + "/" + rs.Name, desired: replicas(rs.Spec.Replicas), allowed: 1,
				minReady: seconds(int64(rs.Spec.MinReadySeconds))}
		}
		bySet[rs.UID], surplus[rs.UID] = w, -replicas(rs.Spec.Replicas)
	}
	of := map[*corev1.Pod]*workload{}
	for _, pod := range o.pods {
		owner := controllerOf(pod)
		w := bySet[owner]
		if w == nil {
			continue
		}
		of[pod] = w
		if pod.DeletionTimestamp == nil && !finished(pod) {
			surplus[owner]++
		}
		if w.counts(pod, o.now) {
			w.available++
		}
		if pod.Spec.NodeName == "" && pod.DeletionTimestamp == nil {
			w.homeless = scheduling(pod)
		}
	}
	for uid, n := range surplus {
		bySet[uid].doomed += max(n, 0)
	}
	return of
}

func ofDeployment(d *appsv1.Deployment) *workload {
	w := &workload{name: "Deployment " + d.Namespace + "/" + d.Name, desired: replicas(d.Spec.Replicas), allowed: 1, minReady: seconds(int64(d.Spec.MinReadySeconds))}
	if r := d.Spec.Strategy.RollingUpdate; r != nil && r.MaxUnavailable != nil {
		if n, err := intstr.GetScaledValueFromIntOrPercent(r.MaxUnavailable, w.desired, false); err == nil {
			w.allowed = max(n, 1) // a drain that may take nobody would never end
		}
	}
	stuck := false
	for _, c := range d.Status.Conditions {
		stuck = stuck || c.Type == appsv1.DeploymentProgressing && c.Status == corev1.ConditionFalse
	}
	w.rolling = !stuck && !d.Spec.Paused && (d.Status.ObservedGeneration < d.Generation || int(d.Status.UpdatedReplicas) < int(d.Status.Replicas))
	return w
}

func replicas(n *int32) int {
	if n == nil {
		return 1
	}
	return int(*n)
}

func controllerOf(obj metav1.Object) types.UID {
	if owner := metav1.GetControllerOfNoCopy(obj); owner != nil {
		return owner.UID
	}
	return ""
}

// scheduling returns why a Pod has no node, as the scheduler says it.
func scheduling(pod *corev1.Pod) string {
	for _, c := range pod.Status.Conditions {
		if c.Type == corev1.PodScheduled && c.Status == corev1.ConditionFalse {
			return c.Message
		}
	}
	return ""
}
