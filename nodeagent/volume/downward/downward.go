// Package downward answers what a Pod may ask about itself: the fields and resources of the downward API, for
// environment variables and for files.
//
// It is pure, and knows nothing the Pod object and the node's capacity do not say.
package downward

import (
	"fmt"
	"maps"
	"math"
	"slices"
	"strconv"
	"strings"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
)

// Self is the Pod as it is known when the question is asked.
type Self struct {
	Pod         *corev1.Pod
	IP, HostIP  string              // before the status has them
	Allocatable corev1.ResourceList // of the node: what a missing limit means
}

// Field returns the value of a fieldRef path.
func (s Self) Field(path string) (string, error) {
	p := s.Pod
	if name, key, ok := subscript(path); ok {
		switch name {
		case "metadata.annotations":
			return p.Annotations[key], nil
		case "metadata.labels":
			return p.Labels[key], nil
		}
		return "", fmt.Errorf("field %q has no subscript", name)
	}
	switch path {
	case "metadata.name":
		return p.Name, nil
	case "metadata.namespace":
		return p.Namespace, nil
	case "metadata.uid":
		return string(p.UID), nil
	case "metadata.labels":
		return pairs(p.Labels), nil
	case "metadata.annotations":
		return pairs(p.Annotations), nil
	case "spec.nodeName":
		return p.Spec.NodeName, nil
	case "spec.serviceAccountName":
		return p.Spec.ServiceAccountName, nil
	case "status.podIP", "status.podIPs":
		return s.IP, nil
	case "status.hostIP", "status.hostIPs":
		return s.HostIP, nil
	}
	return "", fmt.Errorf("field path %q is not supported", path)
}

// subscript splits metadata.labels['key'].
func subscript(path string) (name, key string, ok bool) {
	name, rest, found := strings.Cut(path, "['")
	if !found || !strings.HasSuffix(rest, "']") {
		return "", "", false
	}
	return name, strings.TrimSuffix(rest, "']"), true
}

// pairs prints labels as files of the downward API do: key="escaped value", one a line, sorted.
func pairs(m map[string]string) string {
	var b strings.Builder
	for i, k := range slices.Sorted(maps.Keys(m)) {
		if i > 0 {
			b.WriteByte('\n')
		}
		fmt.Fprintf(&b, "%s=%q", k, m[k])
	}
	return b.String()
}

// Resource returns the value of a resourceFieldRef, in units of its divisor rounded up. Container is the one meant
// when the reference names none.
func (s Self) Resource(ref *corev1.ResourceFieldSelector, container string) (string, error) {
	if ref.ContainerName != "" {
		container = ref.ContainerName
	}
	all := slices.Concat(s.Pod.Spec.InitContainers, s.Pod.Spec.Containers)
	i := slices.IndexFunc(all, func(c corev1.Container) bool { return c.Name == container })
	if i < 0 {
		return "", fmt.Errorf("container %s not found", container)
	}
	kind, name, ok := strings.Cut(ref.Resource, ".")
	if !ok || (kind != "limits" && kind != "requests") {
		return "", fmt.Errorf("resource %q is not supported", ref.Resource)
	}
	list := all[i].Resources.Requests
	if kind == "limits" {
		list = all[i].Resources.Limits
	}
	amount, set := list[corev1.ResourceName(name)]
	if !set && kind == "limits" {
		amount = s.Allocatable[corev1.ResourceName(name)]
	}
	return divided(amount, ref.Divisor, corev1.ResourceName(name)), nil
}

func divided(amount, divisor resource.Quantity, name corev1.ResourceName) string {
	if divisor.IsZero() {
		divisor = resource.MustParse("1")
	}
	if name == corev1.ResourceCPU {
		return strconv.FormatInt(int64(math.Ceil(float64(amount.MilliValue())/float64(divisor.MilliValue()))), 10)
	}
	return strconv.FormatInt(int64(math.Ceil(float64(amount.Value())/float64(max(divisor.Value(), 1)))), 10)
}
