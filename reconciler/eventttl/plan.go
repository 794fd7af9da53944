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

// last returns when ev happened last.
func last(ev *corev1.Event) time.Time {
	newest := ev.CreationTimestamp.Time
	for _, t := range []time.Time{ev.LastTimestamp.Time, ev.EventTime.Time} {
		if t.After(newest) {
			newest = t
		}
	}
	if ev.Series != nil && ev.Series.LastObservedTime.After(newest) {
		newest = ev.Series.LastObservedTime.Time
	}
	return newest
}
