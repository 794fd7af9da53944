package recipe

import (
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"

	"github.com/slipway-dev/slipway/nodeagent/engine"
)

// Kernel bounds of CPU shares and quota.
const (
	minShares   = 2
	maxShares   = 262144
	quotaPeriod = 100000 // µs
	minQuota    = 1000
)

// Scores by which the kernel picks whom to kill, as the kubelet's.
const (
	scoreGuaranteed = -997
	scoreBestEffort = 1000
)

// CgroupOf returns the cgroup of a Pod below the one that holds all Pods.
func CgroupOf(pod *corev1.Pod) string {
	return strings.ToLower(string(QOS(pod))) + "/pod" + string(pod.UID)
}

// resources returns the limits of a container as the kernel takes them.
func resources(pod *corev1.Pod, c corev1.Container, nodeMemory int64) engine.Resources {
	request, limit := c.Resources.Requests.Cpu().MilliValue(), c.Resources.Limits.Cpu().MilliValue()
	if _, set := c.Resources.Requests[corev1.ResourceCPU]; !set {
		request = limit
	}
	out := engine.Resources{
		CPUShares:   uint64(min(max(request*1024/1000, minShares), maxShares)),
		MemoryBytes: c.Resources.Limits.Memory().Value(),
		OOMScoreAdj: oomScore(pod, c, nodeMemory),
	}
	if limit > 0 {
		out.CPUPeriod, out.CPUQuota = quotaPeriod, max(limit*quotaPeriod/1000, minQuota)
	}
	return out
}

func oomScore(pod *corev1.Pod, c corev1.Container, nodeMemory int64) int {
	if pod.Spec.Priority != nil && *pod.Spec.Priority >= 2000000000 {
		return scoreGuaranteed // critical for the cluster
	}
	switch QOS(pod) {
	case corev1.PodQOSGuaranteed:
		return scoreGuaranteed
	case corev1.PodQOSBestEffort:
		return scoreBestEffort
	}
	if nodeMemory <= 0 {
		return scoreBestEffort - 1
	}
	score := 1000 - int(1000*c.Resources.Requests.Memory().Value()/nodeMemory)
	return min(max(score, 1000+scoreGuaranteed), scoreBestEffort-1)
}

// QOS returns the Pod's quality of service class.
func QOS(pod *corev1.Pod) corev1.PodQOSClass {
	if pod.Status.QOSClass != "" {
		return pod.Status.QOSClass
	}
	any, guaranteed := false, true
	for _, c := range slices.Concat(pod.Spec.Containers, pod.Spec.InitContainers) {
		for _, name := range []corev1.ResourceName{corev1.ResourceCPU, corev1.ResourceMemory} {
			request, limit := c.Resources.Requests[name], c.Resources.Limits[name]
			_, requested := c.Resources.Requests[name]
			any = any || !request.IsZero() || !limit.IsZero()
			if limit.IsZero() || (requested && request.Cmp(limit) != 0) {
				guaranteed = false
			}
		}
	}
	switch {
	case !any:
		return corev1.PodQOSBestEffort
	case guaranteed:
		return corev1.PodQOSGuaranteed
	}
	return corev1.PodQOSBurstable
}

// security merges what the Pod and the container say; the container wins.
func security(pod *corev1.Pod, c corev1.Container) engine.Security {
	var out engine.Security
	seccomp := (*corev1.SeccompProfile)(nil)
	if p := pod.Spec.SecurityContext; p != nil {
		out.UID, out.GID, seccomp = p.RunAsUser, p.RunAsGroup, p.SeccompProfile
		out.NonRoot = p.RunAsNonRoot != nil && *p.RunAsNonRoot
		out.Groups = slices.Clone(p.SupplementalGroups)
		if p.FSGroup != nil {
			out.Groups = append(out.Groups, *p.FSGroup)
		}
	}
	if s := c.SecurityContext; s != nil {
		if s.RunAsUser != nil {
			out.UID = s.RunAsUser
		}
		if s.RunAsGroup != nil {
			out.GID = s.RunAsGroup
		}
		if s.RunAsNonRoot != nil {
			out.NonRoot = *s.RunAsNonRoot
		}
		if s.SeccompProfile != nil {
			seccomp = s.SeccompProfile
		}
		if s.Capabilities != nil {
			out.AddCapabilities, out.DropCapabilities = names(s.Capabilities.Add), names(s.Capabilities.Drop)
		}
		out.Privileged = s.Privileged != nil && *s.Privileged
		out.ReadOnlyRoot = s.ReadOnlyRootFilesystem != nil && *s.ReadOnlyRootFilesystem
		out.NoNewPrivileges = s.AllowPrivilegeEscalation != nil && !*s.AllowPrivilegeEscalation
		out.UnmaskedProc = s.ProcMount != nil && *s.ProcMount == corev1.UnmaskedProcMount
	}
	out.SeccompDefault = seccomp != nil && seccomp.Type == corev1.SeccompProfileTypeRuntimeDefault && !out.Privileged
	return out
}

func names(caps []corev1.Capability) []string {
	out := make([]string, len(caps))
	for i, c := range caps {
		out[i] = strings.TrimPrefix(strings.ToUpper(string(c)), "CAP_")
	}
	return out
}
