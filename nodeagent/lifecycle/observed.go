// Package lifecycle decides what happens to one Pod on its node: from what is observed it plans the next actions and
// composes the status the API shows, as the kubelet would.
//
// It is pure: no engine, no store, no clock, no goroutine. Everything it knows comes in as one Observed value, so a
// restarted agent that observes the same decides the same. Restart counts and back-off are read from the labels of
// the containers themselves.
package lifecycle

import (
	"time"

	corev1 "k8s.io/api/core/v1"

	"github.com/slipway-dev/slipway/nodeagent/engine"
)

// Observed is all a decision depends on.
type Observed struct {
	Now     time.Time
	Active  time.Duration // since the Pod's startTime, by a clock nobody sets; for activeDeadlineSeconds
	Pod     *corev1.Pod   // the newest known object, with the status stored last; never changed here
	Gone    bool          // the object left the API: nothing may stay on the node
	Refusal *Refusal      // not nil: the node does not run this Pod
	// Eviction ends a Pod that runs, because the node is short of something or the Pod took more than its limit.
	Eviction *Eviction
	// DiskShort takes away what ended containers left, logs included, as soon as the status tells of them.
	DiskShort bool
	HostIPs   []string

	Sandbox Sandbox
	Volumes Volumes

	Containers  []engine.Status      // every container with this Pod's UID label
	Images      map[string]Image     // by container name
	CreateFails map[string]Failure   // by container name: creating the next attempt did not work
	StartFails  map[string]Failure   // by container id: the command could not be executed
	Probes      map[string]Probe     // by container id; absent: not probed (yet)
	Signalled   map[string]time.Time // by container id: when it was asked to end
	Hooked      map[string]struct{}  // by container id: its postStart hook has run
	Messages    map[string]string    // by container id: termination message
	Busy        map[string]struct{}  // Action.Key of what is under way
	Drained     bool                 // no new connections reach the Pod any more
}

// Refusal is why a node does not run a Pod, as status.reason and status.message show it.
type Refusal struct {
	Reason, Message string
}

// Eviction is why a node ends a Pod it took, as status.reason and status.message show it.
type Eviction struct {
	Message string
	Grace   time.Duration // of its containers, at most
}

// ReasonEvicted is the status reason of a Pod the node ended or refused because it is short of something.
const ReasonEvicted = "Evicted"

// Presence says whether something of a Pod exists on the node.
type Presence int

// Presence of a sandbox or of volumes.
const (
	Unknown Presence = iota // not looked at since the agent started
	Ready
	Gone // torn down
)

// Sandbox is the Pod's network, IPC and UTS namespaces.
type Sandbox struct {
	Presence
	ID      string // changes when the namespaces are other ones, after a reboot for example
	IP      string
	Failure Failure
}

// Volumes are the Pod's volumes as a whole.
type Volumes struct {
	Presence
	Failure Failure
}

// Image is how far the image of a container got.
type Image struct {
	Attempt int  // the attempt of the container it was looked up for
	Present bool // ready to create that attempt
	Failure Failure
}

// Failure is why something did not work and when to try again. The zero value means none.
type Failure struct {
	Reason  string // "ErrImagePull", "CreateContainerConfigError", …
	Message string
	At      time.Time
	Retry   time.Time // zero: not before something changes
}

// failed reports whether f stands for a failure.
func (f Failure) failed() bool { return f.Reason != "" }

// Probe is what the probes of one running container said last.
type Probe struct {
	Started bool // the startup probe succeeded, or there is none
	Ready   bool // the readiness probe's opinion; true when there is none
	Failed  bool // liveness or startup gave up: restart
	Message string
	Grace   *int64 // Failed: the probe's own terminationGracePeriodSeconds
}

// Back-off of restarts, as the kubelet: the first restart is immediate, then 10 s doubling to 300 s, forgotten after
// a container ran for ten minutes.
const (
	BackOffStart = 10 * time.Second
	BackOffLimit = 300 * time.Second
	BackOffReset = 10 * time.Minute
)

// NextBackOff returns the back-off that follows d.
func NextBackOff(d time.Duration) time.Duration {
	if d == 0 {
		return BackOffStart
	}
	return min(2*d, BackOffLimit)
}
