package pressure

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	resourcehelper "k8s.io/component-helpers/resource"

	"github.com/slipway-dev/slipway/nodeagent/stats"
)

// Usage is what a Pod uses of one Signal's resource, in the signal's unit.
type Usage struct {
	Whole      int64            // memory, process ids: of the Pod together
	Containers map[string]Part  // by name
	Volumes    map[string]int64 // disk: what emptyDirs hold, by name
}

// Part is what one container uses.
type Part struct {
	Own int64 // memory, or what it wrote into its own layer
	Log int64
}

// on returns what counts on the file system of a signal, or of memory and process ids.
func (u Usage) on(s Signal, shared bool) int64 {
	if !s.disk() {
		return u.Whole
	}
	image := s == ImageDisk || s == ImageInodes
	sum := int64(0)
	for _, c := range u.Containers {
		if image || shared {
			sum += c.Own
		}
		if !image || shared {
			sum += c.Log
		}
	}
	if !image || shared {
		for _, v := range u.Volumes {
			sum += v
		}
	}
	return sum
}

// candidate is a Pod that may be ended.
type candidate struct {
	pod   *corev1.Pod
	usage Usage
	used  int64
}

// critical is the priority from which on a Pod is never ended for want of something.
const critical = 2000000000

// worth leaves out Pods that hold next to nothing of a disk that is short: ending them would not help, whoever fills it.
func worth(t Threshold, level stats.Level, pods []candidate) []candidate {
	if !t.Signal.disk() {
		return pods
	}
	least := max((t.limit(level)-level.Available)/10, level.Capacity/200)
	return slices.DeleteFunc(slices.Clone(pods), func(c candidate) bool { return c.used < least })
}

// choose returns the Pod to end first, nil when there is none: those that use more than they asked for come first,
// then the less important, then those that use most beyond their request.
func choose(s Signal, pods []candidate) *candidate {
	pods = slices.DeleteFunc(slices.Clone(pods), func(c candidate) bool { return priority(c.pod) >= critical })
	if len(pods) == 0 {
		return nil
	}
	above := func(c candidate) int64 { return c.used - request(c.pod, s) }
	first := slices.MinFunc(pods, func(a, b candidate) int {
		byExcess := 0
		if x, y := above(a) > 0, above(b) > 0; x != y && s != PIDs {
			byExcess = -1
			if y {
				byExcess = 1
			}
		}
		return cmp.Or(byExcess, cmp.Compare(priority(a.pod), priority(b.pod)), cmp.Compare(above(b), above(a)), cmp.Compare(a.pod.UID, b.pod.UID))
	})
	return &first
}

func priority(pod *corev1.Pod) int32 {
	if pod.Spec.Priority == nil {
		return 0
	}
	return *pod.Spec.Priority
}

// request is what a Pod asked for of a signal's resource.
func request(pod *corev1.Pod, s Signal) int64 {
	requests := resourcehelper.PodRequests(pod, resourcehelper.PodResourcesOptions{})
	return quantity(requests, s.resource())
}

func quantity(list corev1.ResourceList, name corev1.ResourceName) int64 {
	q := list[name]
	return q.Value()
}

// message says why a Pod is ended.
func (c candidate) message(t Threshold, level stats.Level) string {
	name := t.Signal.resource()
	show := func(n int64) string {
		if name == "pids" || name == "inodes" {
			return fmt.Sprint(n)
		}
		return amount(n)
	}
	var b strings.Builder
	fmt.Fprintf(&b, "The node was low on resource: %s (%s, %s). The Pod was using %s, request is %s.", name, t.why(level), t.left(level),
		show(c.used), show(request(c.pod, t.Signal)))
	for _, container := range slices.Concat(c.pod.Spec.InitContainers, c.pod.Spec.Containers) {
		part := c.usage.Containers[container.Name]
		used, asked := part.Own+part.Log, quantity(container.Resources.Requests, name)
		if used > asked {
			fmt.Fprintf(&b, " Container %s was using %s, request is %s.", container.Name, show(used), show(asked))
		}
	}
	return b.String()
}

// limited reports whether a Pod's disk usage has a limit of its own.
func limited(pod *corev1.Pod) bool {
	return slices.ContainsFunc(pod.Spec.Volumes, func(v corev1.Volume) bool { return sizeLimit(v) > 0 }) ||
		slices.ContainsFunc(slices.Concat(pod.Spec.InitContainers, pod.Spec.Containers), func(c corev1.Container) bool {
			return quantity(c.Resources.Limits, corev1.ResourceEphemeralStorage) > 0
		})
}

// sizeLimit is the limit of an emptyDir on the disk; 0: none. One in memory is limited by its mount.
func sizeLimit(v corev1.Volume) int64 {
	if v.EmptyDir == nil || v.EmptyDir.Medium == corev1.StorageMediumMemory || v.EmptyDir.SizeLimit == nil {
		return 0
	}
	return v.EmptyDir.SizeLimit.Value()
}

// overrun says which limit of its own a Pod's disk usage is above, in a fixed order; "" for none.
func overrun(pod *corev1.Pod, u Usage) string {
	for _, v := range pod.Spec.Volumes {
		if limit := sizeLimit(v); limit > 0 && u.Volumes[v.Name] > limit {
			return fmt.Sprintf("Usage of EmptyDir volume %q exceeds the limit %q: it holds %s.", v.Name, v.EmptyDir.SizeLimit.String(), amount(u.Volumes[v.Name]))
		}
	}
	for _, name := range slices.Sorted(maps.Keys(u.Containers)) {
		c := container(pod, name)
		limit, used := c.Resources.Limits[corev1.ResourceEphemeralStorage], u.Containers[name].Own+u.Containers[name].Log
		if limit.Value() > 0 && used > limit.Value() {
			return fmt.Sprintf("Container %s exceeded its local ephemeral storage limit %q: it wrote %s.", name, limit.String(), amount(used))
		}
	}
	limits := resourcehelper.PodLimits(pod, resourcehelper.PodResourcesOptions{})
	whole := limits[corev1.ResourceEphemeralStorage]
	if used := u.on(NodeDisk, true); whole.Value() > 0 && used > whole.Value() {
		return fmt.Sprintf("Pod ephemeral local storage usage exceeds the total limit of containers %s: it is %s.", whole.String(), amount(used))
	}
	return ""
}

func container(pod *corev1.Pod, name string) corev1.Container {
	for _, c := range slices.Concat(pod.Spec.InitContainers, pod.Spec.Containers) {
		if c.Name == name {
			return c
		}
	}
	return corev1.Container{}
}
