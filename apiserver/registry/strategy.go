package registry

import (
	"maps"
	"reflect"
	"slices"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/kubernetes/pkg/apis/core/v1/helper/qos"

	"github.com/slipway-dev/slipway/apiserver/api"
	"github.com/slipway-dev/slipway/apiserver/registry/service"
)

// strategy is what a kind adds to the rules that hold for all. A nil function adds nothing. The objects are the
// registry's own; old is shared and must not be changed.
type strategy struct {
	create     func(obj api.Object)               // sets what the server sets, clears what clients may not
	update     func(updated, old api.Object)      // same; status is old's already
	status     func(updated, old api.Object)      // everything but status is old's already
	keepStatus bool                               // a new object may carry status
	annotates  bool                               // a write of status may set annotations, which makes no new generation
	changed    func(updated, old api.Object) bool // counts as a new generation; nil: the kind has none
}

// strategies are upstream's (k8s.io/kubernetes/pkg/registry), one row for each kind that needs one.
var strategies = map[*api.Kind]strategy{
	api.Namespaces: {create: createNamespace, update: updateNamespace},
	api.Nodes:      {keepStatus: true},
	api.Pods:       {create: createPod, status: updatePodStatus, changed: specChanged},
	api.Services:   {create: createService, update: updateService},
	api.Secrets:    {create: createSecret, update: updateSecret},
	// Annotations count, because ReplicaSets get copies of them. What a controller notes about a rollout it writes
	// beside status, where it does not count.
	api.Deployments: {annotates: true, changed: func(updated, old api.Object) bool {
		return specChanged(updated, old) || !maps.Equal(updated.GetAnnotations(), old.GetAnnotations())
	}},
	api.ReplicaSets:    {changed: specChanged},
	api.EndpointSlices: {changed: endpointSliceChanged},
	api.Sources:        {changed: specChanged},
	api.Rollouts:       {changed: specChanged},
}

func createNamespace(obj api.Object) {
	ns := obj.(*corev1.Namespace)
	ns.Status.Phase = corev1.NamespaceActive
	if !slices.Contains(ns.Spec.Finalizers, corev1.FinalizerKubernetes) {
		ns.Spec.Finalizers = append(ns.Spec.Finalizers, corev1.FinalizerKubernetes)
	}
	if ns.Labels == nil {
		ns.Labels = map[string]string{}
	}
	ns.Labels[corev1.LabelMetadataName] = ns.Name
}

// updateNamespace leaves finalizers to the finalize subresource.
func updateNamespace(updated, old api.Object) {
	updated.(*corev1.Namespace).Spec.Finalizers = slices.Clone(old.(*corev1.Namespace).Spec.Finalizers)
}

func createPod(obj api.Object) {
	pod := obj.(*corev1.Pod)
	pod.Status = corev1.PodStatus{Phase: corev1.PodPending}
	if len(pod.Spec.SchedulingGates) > 0 {
		pod.Status.Conditions = []corev1.PodCondition{{
			Type: corev1.PodScheduled, Status: corev1.ConditionFalse, Reason: corev1.PodReasonSchedulingGated,
			Message: "Scheduling is blocked due to non-empty scheduling gates",
		}}
	}
	pod.Status.QOSClass = qos.ComputePodQOS(pod)
}

// updatePodStatus keeps what old agents leave out.
func updatePodStatus(updated, old api.Object) {
	status, before := &updated.(*corev1.Pod).Status, &old.(*corev1.Pod).Status
	if status.QOSClass == "" {
		status.QOSClass = before.QOSClass
	}
	if status.ObservedGeneration == 0 {
		status.ObservedGeneration = before.ObservedGeneration
	}
	for i := range status.Conditions {
		c := &status.Conditions[i]
		if c.ObservedGeneration != 0 {
			continue
		}
		if j := slices.IndexFunc(before.Conditions, func(b corev1.PodCondition) bool { return b.Type == c.Type }); j >= 0 {
			c.ObservedGeneration = before.Conditions[j].ObservedGeneration
		}
	}
}

func createService(obj api.Object) { service.Create(obj.(*corev1.Service)) }

func updateService(updated, old api.Object) {
	service.Update(updated.(*corev1.Service), old.(*corev1.Service))
}

// createSecret moves stringData into data, where it is stored.
func createSecret(obj api.Object) {
	secret := obj.(*corev1.Secret)
	if secret.Data == nil && len(secret.StringData) > 0 {
		secret.Data = make(map[string][]byte, len(secret.StringData))
	}
	for key, value := range secret.StringData {
		secret.Data[key] = []byte(value)
	}
	secret.StringData = nil
}

func updateSecret(updated, old api.Object) {
	createSecret(updated)
	if secret := updated.(*corev1.Secret); secret.Type == "" {
		secret.Type = old.(*corev1.Secret).Type
	}
}

func specChanged(updated, old api.Object) bool {
	switch updated := updated.(type) {
	case *corev1.Pod:
		return !equality.Semantic.DeepEqual(&updated.Spec, &old.(*corev1.Pod).Spec)
	case *appsv1.ReplicaSet:
		return !equality.Semantic.DeepEqual(&updated.Spec, &old.(*appsv1.ReplicaSet).Spec)
	case *appsv1.Deployment:
		return !equality.Semantic.DeepEqual(&updated.Spec, &old.(*appsv1.Deployment).Spec)
	}
	return !equality.Semantic.DeepEqual(part(updated, "Spec").Interface(), part(old, "Spec").Interface())
}

// endpointSliceChanged: a slice has no spec; everything in it and its labels count.
func endpointSliceChanged(updated, old api.Object) bool {
	if !maps.Equal(updated.GetLabels(), old.GetLabels()) {
		return true
	}
	a, b := *updated.(*discoveryv1.EndpointSlice), *old.(*discoveryv1.EndpointSlice)
	a.ObjectMeta, b.ObjectMeta = metav1.ObjectMeta{}, metav1.ObjectMeta{}
	return !equality.Semantic.DeepEqual(&a, &b)
}

// part returns a field of obj's struct: "Spec" or "Status".
func part(obj api.Object, name string) reflect.Value {
	return reflect.ValueOf(obj).Elem().FieldByName(name)
}

// shallow returns a copy that shares everything below the top with obj.
func shallow(obj api.Object) api.Object {
	from := reflect.ValueOf(obj).Elem()
	to := reflect.New(from.Type())
	to.Elem().Set(from)
	return to.Interface().(api.Object)
}

// withStatus returns old with a copy of updated's status. It shares the rest with old: stored objects never change.
func withStatus(kind *api.Kind, old, updated api.Object) api.Object {
	bare := kind.New()
	part(bare, "Status").Set(part(updated, "Status"))
	bare = bare.DeepCopyObject().(api.Object)
	merged := shallow(old)
	part(merged, "Status").Set(part(bare, "Status"))
	if strategies[kind].annotates {
		merged.SetAnnotations(maps.Clone(updated.GetAnnotations()))
	}
	return merged
}
