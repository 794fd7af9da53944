// Package eventttl removes Events an hour after they last happened.
//
// It must not remove an Event that happens again meanwhile: a deletion carries the version that was looked at.
package eventttl

import (
	"time"

	corev1 "k8s.io/api/core/v1"
)

// Keep is how long an Event stays after it last happened, as in Kubernetes.
const Keep = time.Hour

// expiry returns when ev is to go.
func expiry(ev *corev1.Event) time.Time {
	last := ev.CreationTimestamp.Time
	for _, t := range []time.Time{ev.LastTimestamp.Time, ev.EventTime.Time} {
		if t.After(last) {
			last = t
		}
	}
	if ev.Series != nil && ev.Series.LastObservedTime.After(last) {
		last = ev.Series.LastObservedTime.Time
	}
	return last.Add(Keep)
}
