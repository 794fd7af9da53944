package eventttl

import (
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

func TestWhenAnEventHappenedLast(t *testing.T) {
	at := func(hour int) time.Time { return time.Date(2026, 5, 1, hour, 0, 0, 0, time.UTC) }
	created := metav1.ObjectMeta{CreationTimestamp: metav1.NewTime(at(1))}
	tests := []struct {
		name string
		ev   corev1.Event
		want time.Time
	}{
		{"creation", corev1.Event{ObjectMeta: created}, at(1)},
		{"last timestamp", corev1.Event{ObjectMeta: created, LastTimestamp: metav1.NewTime(at(3))}, at(3)},
		{"event time", corev1.Event{ObjectMeta: created, EventTime: metav1.NewMicroTime(at(5))}, at(5)},
		{"series", corev1.Event{ObjectMeta: created, EventTime: metav1.NewMicroTime(at(5)), Series: &corev1.EventSeries{LastObservedTime: metav1.NewMicroTime(at(7))}}, at(7)},
	}
	for _, tt := range tests {
		if got := last(&tt.ev); !got.Equal(tt.want) {
			t.Errorf("%s: got %s, want %s", tt.name, got, tt.want)
		}
	}
}
