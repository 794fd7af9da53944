package main

import (
	"testing"

	corev1 "k8s.io/api/core/v1"
)

func TestFailingIsTheContainerThatIsNotBack(t *testing.T) {
	ended := corev1.ContainerState{Terminated: &corev1.ContainerStateTerminated{ExitCode: 1}}
	fine := corev1.ContainerState{Terminated: &corev1.ContainerStateTerminated{}}
	running := corev1.ContainerState{Running: &corev1.ContainerStateRunning{}}
	waiting := corev1.ContainerState{Waiting: &corev1.ContainerStateWaiting{Reason: "CrashLoopBackOff"}}
	status := func(name string, now, last corev1.ContainerState) corev1.ContainerStatus {
		return corev1.ContainerStatus{Name: name, State: now, LastTerminationState: last}
	}
	for name, tt := range map[string]struct {
		init, main []corev1.ContainerStatus
		want       string
	}{
		"none":                   {main: []corev1.ContainerStatus{status("a", running, fine)}},
		"the one that backs off": {main: []corev1.ContainerStatus{status("a", running, ended), status("b", waiting, ended)}, want: "b"},
		"the one that ended":     {main: []corev1.ContainerStatus{status("a", running, ended), status("b", ended, corev1.ContainerState{})}, want: "b"},
		"one that is back":       {main: []corev1.ContainerStatus{status("a", running, fine), status("b", running, ended)}, want: "b"},
		"an init container":      {init: []corev1.ContainerStatus{status("i", waiting, ended)}, main: []corev1.ContainerStatus{status("a", waiting, corev1.ContainerState{})}, want: "i"},
	} {
		t.Run(name, func(t *testing.T) {
			pod := &corev1.Pod{Status: corev1.PodStatus{InitContainerStatuses: tt.init, ContainerStatuses: tt.main}}
			if got := failing(pod); got != tt.want {
				t.Errorf("failing %q, want %q", got, tt.want)
			}
		})
	}
}
