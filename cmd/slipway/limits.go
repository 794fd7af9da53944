package main

import (
	"context"
	"runtime"
	"sync"

	corev1 "k8s.io/api/core/v1"

	"github.com/slipway-dev/slipway/nodeagent/limits"
)

// watchLimits tells, on the terminal, in the log and as Events of the node, when a limit of the system is near.
func (m *machine) watchLimits(ctx context.Context) error {
	dirs := []string{m.data.path}
	if m.node != nil {
		dirs = append(dirs, podLogs)
	}
	return limits.Watch(ctx, dirs, func(line limits.Line) {
		reason, eventType := "LimitNear", corev1.EventTypeWarning
		if line.Near {
			m.log.Warn("a limit of the system is near", "limit", line.Text)
			m.account.Warn("limit: " + line.Text)
		} else {
			reason, eventType = "LimitRelieved", corev1.EventTypeNormal
			m.log.Info("a limit of the system has room again", "limit", line.Text)
			m.account.Say("limit: " + line.Text)
		}
		if m.node != nil {
			m.node.agent.NodeEvent(eventType, reason, line.Text)
		}
	})
}

// readyThreads is how many threads are made ahead. The process does not survive that the system refuses it another:
// what it uses on a busy machine is there before somebody else takes the last.
const readyThreads = 40

// prepareThreads makes threads and leaves them to the Go runtime, which keeps them.
func prepareThreads() {
	var ready, done sync.WaitGroup
	release := make(chan struct{})
	ready.Add(readyThreads)
	for range readyThreads {
		done.Go(func() {
			runtime.LockOSThread() // so that each needs one of its own
			defer runtime.UnlockOSThread()
			ready.Done()
			<-release
		})
	}
	ready.Wait()
	close(release)
	done.Wait()
}

// Bounds of what a container may have by itself: the share that systemd gives a service, so that one container, or a
// few, cannot take the machine its last process; and more than any sound program has.
const (
	pidsShare = 15 // percent
	mostPIDs  = 16384
)

// containerPIDs returns how many processes and threads a container may have; 0: any number.
func containerPIDs(asked int64) int64 {
	if asked != 0 {
		return max(asked, 0)
	}
	machine, ok := limits.Machine()
	if !ok {
		return mostPIDs
	}
	return min(int64(machine.Limit)*pidsShare/100, mostPIDs)
}
