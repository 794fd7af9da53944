package access

import (
	"context"
	"fmt"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/fields"

	"github.com/slipway-dev/slipway/apiserver/api"
	"github.com/slipway-dev/slipway/apiserver/store"
)

// nodeLeases is the namespace of the Leases by which nodes say that they live.
const nodeLeases = "kube-node-lease"

// nodeReads is what every agent reads whole: the proxy, DNS and routes need them.
var nodeReads = may(read, "services", "endpoints", "endpointslices.discovery.k8s.io", "nodes", "namespaces")

// decideNode lets an agent read what its Pods need and write about itself and its Pods. What it writes into an
// object is checked by CheckNodeWrite.
func (z Authorizer) decideNode(ctx context.Context, node string, a Attributes) (Decision, error) {
	if anyAllows(nodeReads, a) {
		return Decision{Allowed: true}, nil
	}
	switch a.Group + "/" + a.Resource {
	case "/nodes":
		own := a.Name == node && slices.Contains([]string{"create", "update", "patch"}, a.Verb)
		return only(own && (a.Subresource == "" || a.Subresource == "status"), "an agent writes its own Node only"), nil
	case "coordination.k8s.io/leases":
		own := a.Namespace == nodeLeases && (a.Name == node || a.ObjectName == node) && a.Subresource == ""
		return only(own, "an agent writes its own Lease only"), nil
	case "/events":
		return only(slices.Contains([]string{"create", "update", "patch"}, a.Verb), "an agent writes Events only"), nil
	case "/pods":
		return z.decideNodePods(ctx, node, a)
	case "/secrets", "/configmaps", "/serviceaccounts":
		return z.decideNodeReference(ctx, node, a)
	}
	return Decision{Reason: "an agent does not need that"}, nil
}

// decideNodePods allows lists of the node's own Pods, and writes of their status and deletion.
func (z Authorizer) decideNodePods(ctx context.Context, node string, a Attributes) (Decision, error) {
	const reason = "an agent sees and writes the Pods of its own node only"
	if a.Verb == "list" || a.Verb == "watch" {
		return only(a.NodeName == node, reason+": select spec.nodeName="+node), nil
	}
	switch a.Verb + " " + a.resource() {
	case "get pods", "delete pods", "update pods/status", "patch pods/status":
	default:
		return Decision{Reason: reason}, nil
	}
	pod, err := store.Get[*corev1.Pod](ctx, z.Reader, a.Namespace, a.Name)
	if apierrors.IsNotFound(err) {
		// An agent asks about Pods it knew: the answer is that they are gone.
		return Decision{Allowed: true}, nil
	}
	if err != nil {
		return Decision{}, fmt.Errorf("read Pod: %w", err)
	}
	return only(pod.Spec.NodeName == node, reason), nil
}

// decideNodeReference allows what a Pod of the node names: its Secrets, ConfigMaps and ServiceAccount.
func (z Authorizer) decideNodeReference(ctx context.Context, node string, a Attributes) (Decision, error) {
	name := a.Name
	if a.Verb == "list" || a.Verb == "watch" {
		name = a.ObjectName
	}
	token := a.Resource == "serviceaccounts" && a.Subresource == "token" && a.Verb == "create"
	if name == "" || a.Namespace == "" || !token && !(a.reads() && a.Subresource == "") {
		return Decision{Reason: "an agent reads these one by one, by name"}, nil
	}
	pods, err := store.All[*corev1.Pod](ctx, z.Reader, store.ListOptions{Namespace: a.Namespace, Fields: fields.OneTermEqualSelector("spec.nodeName", node)})
	if err != nil {
		return Decision{}, fmt.Errorf("list Pods of %s: %w", node, err)
	}
	named := slices.ContainsFunc(pods, func(p *corev1.Pod) bool { return references(&p.Spec, a.Resource, name) })
	return only(named, "no Pod of node "+node+" names it"), nil
}

func only(allowed bool, reason string) Decision {
	if allowed {
		return Decision{Allowed: true}
	}
	return Decision{Reason: reason}
}

// references says whether a Pod names a Secret, ConfigMap or ServiceAccount.
func references(spec *corev1.PodSpec, resource, name string) bool {
	switch resource {
	case "serviceaccounts":
		return spec.ServiceAccountName == name
	case "secrets":
		return referencesSecret(spec, name)
	default:
		return referencesConfigMap(spec, name)
	}
}

func referencesSecret(spec *corev1.PodSpec, name string) bool {
	pull := slices.ContainsFunc(spec.ImagePullSecrets, func(r corev1.LocalObjectReference) bool { return r.Name == name })
	return pull || slices.ContainsFunc(spec.Volumes, func(v corev1.Volume) bool {
		return v.Secret != nil && v.Secret.SecretName == name ||
			v.Projected != nil && slices.ContainsFunc(v.Projected.Sources, func(p corev1.VolumeProjection) bool {
				return p.Secret != nil && p.Secret.Name == name
			})
	}) || anyContainer(spec, func(c *corev1.Container) bool {
		return slices.ContainsFunc(c.Env, func(e corev1.EnvVar) bool {
			return e.ValueFrom != nil && e.ValueFrom.SecretKeyRef != nil && e.ValueFrom.SecretKeyRef.Name == name
		}) || slices.ContainsFunc(c.EnvFrom, func(e corev1.EnvFromSource) bool { return e.SecretRef != nil && e.SecretRef.Name == name })
	})
}

func referencesConfigMap(spec *corev1.PodSpec, name string) bool {
	return slices.ContainsFunc(spec.Volumes, func(v corev1.Volume) bool {
		return v.ConfigMap != nil && v.ConfigMap.Name == name ||
			v.Projected != nil && slices.ContainsFunc(v.Projected.Sources, func(p corev1.VolumeProjection) bool {
				return p.ConfigMap != nil && p.ConfigMap.Name == name
			})
	}) || anyContainer(spec, func(c *corev1.Container) bool {
		return slices.ContainsFunc(c.Env, func(e corev1.EnvVar) bool {
			return e.ValueFrom != nil && e.ValueFrom.ConfigMapKeyRef != nil && e.ValueFrom.ConfigMapKeyRef.Name == name
		}) || slices.ContainsFunc(c.EnvFrom, func(e corev1.EnvFromSource) bool { return e.ConfigMapRef != nil && e.ConfigMapRef.Name == name })
	})
}

// anyContainer looks at the containers of every list: a rule that forgets one is no rule.
func anyContainer(spec *corev1.PodSpec, match func(*corev1.Container) bool) bool {
	for _, list := range [][]corev1.Container{spec.InitContainers, spec.Containers} {
		for i := range list {
			if match(&list[i]) {
				return true
			}
		}
	}
	for i := range spec.EphemeralContainers {
		c := corev1.Container(spec.EphemeralContainers[i].EphemeralContainerCommon)
		if match(&c) {
			return true
		}
	}
	return false
}

// CheckNodeWrite says why a node agent may not turn old into updated (old is nil for a new object), although it
// may write the object: it must not move its Node between trust zones, nor speak for others' Pods.
func CheckNodeWrite(node string, old, updated api.Object) error {
	switch updated := updated.(type) {
	case *corev1.Node:
		before, _ := old.(*corev1.Node)
		return checkNode(before, updated)
	case *corev1.Event:
		before, _ := old.(*corev1.Event)
		if before == nil {
			before = updated
		}
		for _, host := range []string{before.Source.Host, updated.Source.Host} { // nor take over another's
			if host != "" && host != node {
				return fmt.Errorf("node %s must not write an Event for host %s", node, host)
			}
		}
	}
	return nil
}

// checkNode guards labels and taints by which workloads are kept off or on nodes (CVE-2025-5187, CVE-2025-4563).
func checkNode(old, updated *corev1.Node) error {
	var labels map[string]string
	if old != nil {
		labels = old.Labels
		if !slices.EqualFunc(old.Spec.Taints, updated.Spec.Taints, func(a, b corev1.Taint) bool { return a.MatchTaint(&b) && a.Value == b.Value }) {
			return fmt.Errorf("a node must not change its own taints")
		}
	}
	if len(updated.OwnerReferences) > 0 {
		return fmt.Errorf("a node must not set owner references of itself")
	}
	for _, key := range changedKeys(labels, updated.Labels) {
		if !ownLabel(key) {
			return fmt.Errorf("a node must not set its own label %s", key)
		}
	}
	return nil
}

func changedKeys(old, updated map[string]string) []string {
	var keys []string
	for key, value := range updated {
		if before, ok := old[key]; !ok || before != value {
			keys = append(keys, key)
		}
	}
	for key := range old {
		if _, ok := updated[key]; !ok {
			keys = append(keys, key)
		}
	}
	slices.Sort(keys)
	return keys
}

// ownLabel says whether a node may set a label about itself: any outside Kubernetes' own domains, and the ones
// there that upstream lets a kubelet set.
func ownLabel(key string) bool {
	domain, name, qualified := strings.Cut(key, "/")
	if !qualified {
		return true
	}
	if domain == "node-restriction.kubernetes.io" || strings.HasSuffix(domain, ".node-restriction.kubernetes.io") {
		return false
	}
	if !strings.HasSuffix("."+domain, ".kubernetes.io") && !strings.HasSuffix("."+domain, ".k8s.io") {
		return true
	}
	if domain == "kubelet.kubernetes.io" || strings.HasSuffix(domain, ".kubelet.kubernetes.io") ||
		domain == "node.kubernetes.io" || strings.HasSuffix(domain, ".node.kubernetes.io") {
		return true
	}
	return slices.Contains([]string{"kubernetes.io/hostname", "kubernetes.io/os", "kubernetes.io/arch", "beta.kubernetes.io/os", "beta.kubernetes.io/arch",
		"beta.kubernetes.io/instance-type", "node.kubernetes.io/instance-type", "topology.kubernetes.io/zone", "topology.kubernetes.io/region",
		"failure-domain.beta.kubernetes.io/zone", "failure-domain.beta.kubernetes.io/region"}, domain+"/"+name)
}
