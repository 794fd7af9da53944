package lifecycle

import (
	"fmt"
	"time"
)

// Verb says what an Action does.
type Verb string

// What can be done to a Pod. Actions of one plan do not depend on each other: they may run in parallel.
const (
	SetupSandbox    Verb = "set up sandbox"
	MountVolumes    Verb = "mount volumes"
	EnsureImage     Verb = "ensure image"     // for Container, Attempt: look, and pull as the policy says
	Create          Verb = "create container" // and start it
	Start           Verb = "start container"
	Drain           Verb = "drain" // wait until no new connections are led to the Pod
	Stop            Verb = "stop container"
	Kill            Verb = "kill container"
	Remove          Verb = "remove container"
	TeardownSandbox Verb = "tear down sandbox"
	UnmountVolumes  Verb = "unmount volumes"
	WriteStatus     Verb = "write status"
	Finish          Verb = "delete the Pod object"
	Wait            Verb = "wait"
)

// Action is one thing to do. Fields a verb does not name are empty.
type Action struct {
	Verb      Verb
	Container string        // name
	ID        string        // container id
	Attempt   int           // EnsureImage, Create
	BackOff   time.Duration // Create: label of the new attempt
	Reason    string        // Stop: why, for the event
	Grace     time.Duration // Stop: until Kill follows
	After     time.Duration // Wait
}

// Key names the action's target: of two actions with one key only one may be under way.
func (a Action) Key() string {
	if a.Container == "" {
		return string(a.Verb)
	}
	return fmt.Sprintf("%s %s/%d", a.Verb, a.Container, a.Attempt)
}

// String describes the action in one line.
func (a Action) String() string {
	switch a.Verb {
	case Wait:
		return fmt.Sprintf("wait %s", a.After)
	case Create:
		return fmt.Sprintf("create container %s attempt %d", a.Container, a.Attempt)
	case EnsureImage:
		return fmt.Sprintf("ensure image of %s attempt %d", a.Container, a.Attempt)
	case Stop:
		return fmt.Sprintf("stop container %s attempt %d: %s", a.Container, a.Attempt, a.Reason)
	}
	if a.Container != "" {
		return fmt.Sprintf("%s %s attempt %d", a.Verb, a.Container, a.Attempt)
	}
	return string(a.Verb)
}
