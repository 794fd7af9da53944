package replicaset

import (
	"fmt"
	"hash/fnv"

	appsv1 "k8s.io/api/apps/v1"
)

// Names of Pods look like those Kubernetes generates: the set's name, cut, and five characters that make no words.
const (
	suffixLetters = "bcdfghjklmnpqrstvwxz2456789"
	suffixLength  = 5
	maxPrefix     = 57 // a name is a host name too, of at most 63 characters
)

// freshNames returns n names for new Pods. They follow from the set and its version, so that two turns that saw the
// same version of the set choose the same names, whatever each had seen of the Pods: a Pod that one of them did not
// see is a name that is taken. A turn that saw another version than the present one is stopped before it acts.
func freshNames(o observed, n int) []string {
	names := make([]string, 0, n)
	for slot := 0; len(names) < n; slot++ {
		if name := podName(o.Set, slot); !o.Taken[name] {
			names = append(names, name)
		}
	}
	return names
}

func podName(rs *appsv1.ReplicaSet, slot int) string {
	h := fnv.New64a()
	fmt.Fprintf(h, "%s/%s/%d", rs.UID, rs.ResourceVersion, slot)
	sum := h.Sum64()
	suffix := make([]byte, suffixLength)
	for i := range suffix {
		suffix[i] = suffixLetters[sum%uint64(len(suffixLetters))]
		sum /= uint64(len(suffixLetters))
	}
	return rs.Name[:min(len(rs.Name), maxPrefix)] + "-" + string(suffix)
}
