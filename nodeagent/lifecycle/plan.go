package lifecycle

import (
	"fmt"
	"slices"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"

	"github.com/slipway-dev/slipway/nodeagent/engine"
)

// Plan returns what to do next for a Pod. Applied to a world that works, and planned again after every change, it
// ends with no actions. Actions do not depend on each other; those under way (Busy) are left out.
func Plan(o Observed) []Action {
	p := planner{view: look(o)}
	if e, ending := p.ending(); ending {
		p.end(e)
	} else {
		p.run()
	}
	if !o.Gone && !p.told() {
		p.add(Action{Verb: WriteStatus})
	}
	if !p.wake.IsZero() {
		p.actions = append(p.actions, Action{Verb: Wait, After: max(p.wake.Sub(o.Now), 0)})
	}
	return p.actions
}

type planner struct {
	view
	actions []Action
	wake    time.Time // earliest time at which the plan changes by itself
}

func (p *planner) add(a Action) {
	if _, busy := p.Busy[a.Key()]; !busy {
		p.actions = append(p.actions, a)
	}
}

// try adds an action that may have failed before: not before its time to try again.
func (p *planner) try(a Action, f Failure) {
	switch {
	case !f.failed() || (!f.Retry.IsZero() && !p.Now.Before(f.Retry)):
		p.add(a)
	case !f.Retry.IsZero():
		p.wakeAt(f.Retry)
	}
}

func (p *planner) wakeAt(t time.Time) {
	if p.wake.IsZero() || t.Before(p.wake) {
		p.wake = t
	}
}

// run plans for a Pod that is to run.
func (p *planner) run() {
	if p.Sandbox.Presence != Ready {
		p.try(Action{Verb: SetupSandbox}, p.Sandbox.Failure)
	}
	if p.Volumes.Presence != Ready {
		p.try(Action{Verb: MountVolumes}, p.Volumes.Failure)
	}
	ready := p.Sandbox.Presence == Ready && p.Volumes.Presence == Ready
	turn := true // every init container before this one is done
	for _, c := range p.Pod.Spec.InitContainers {
		if !p.mainsBegan() || sidecar(c) {
			p.runOne(c, true, ready && turn)
		}
		turn = turn && p.initDone(c)
	}
	for _, c := range p.Pod.Spec.Containers {
		p.runOne(c, false, ready && turn)
	}
	p.removeOld()
	if d := p.Pod.Spec.ActiveDeadlineSeconds; d != nil && p.Pod.Status.StartTime != nil {
		p.wakeAt(p.Now.Add(seconds(*d) - p.Active))
	}
}

// runOne plans for one container; may says whether it is its turn to be created.
func (p *planner) runOne(c corev1.Container, init, may bool) {
	next := p.judge(c, init)
	switch next.turn {
	case turnCreate:
		image := p.Images[c.Name]
		if image.Attempt != next.attempt {
			image = Image{}
		}
		if !image.Present {
			p.try(Action{Verb: EnsureImage, Container: c.Name, Attempt: next.attempt}, image.Failure)
			return
		}
		if may {
			create := Action{Verb: Create, Container: c.Name, Attempt: next.attempt, BackOff: next.backOff,
				ID: ContainerID(p.Pod.UID, c.Name, next.attempt)}
			p.try(create, p.CreateFails[c.Name])
		}
	case turnBackOff:
		p.wakeAt(next.until)
	case turnHold:
		inst, _ := p.latest(c.Name)
		p.hold(c, inst)
	}
}

// hold plans for a container that exists: start it, or stop it when its probes gave up on it.
func (p *planner) hold(c corev1.Container, inst instance) {
	if inst.State == engine.Created {
		if !p.starting(c.Name, inst.attempt) {
			p.add(Action{Verb: Start, Container: c.Name, Attempt: inst.attempt, ID: inst.ID})
		}
		return
	}
	grace := seconds(gracePeriod(p.Pod))
	probe := p.Probes[inst.ID]
	_, signalled := p.asked(inst)
	switch {
	case !p.current(inst):
		p.stop(inst, "Pod sandbox changed, it will be killed and re-created.", grace)
	case probe.Failed:
		if probe.Grace != nil {
			grace = seconds(*probe.Grace)
		}
		p.stop(inst, probe.Message, grace)
	case signalled:
		p.stop(inst, "", grace)
	}
}

// stop asks a running container to end, and kills it when its grace is over.
func (p *planner) stop(inst instance, reason string, grace time.Duration) {
	a := Action{Verb: Stop, Container: inst.name, Attempt: inst.attempt, ID: inst.ID, Reason: reason, Grace: grace}
	asked, signalled := p.asked(inst)
	if !signalled {
		p.add(a)
		return
	}
	if due := asked.Add(grace); p.Now.Before(due) {
		p.wakeAt(due)
		return
	}
	p.add(Action{Verb: Kill, Container: inst.name, Attempt: inst.attempt, ID: inst.ID})
}

// asked returns when a container was asked to end: by this agent, or by an earlier one, as the engine remembers.
func (p *planner) asked(inst instance) (time.Time, bool) {
	if at, ok := p.Signalled[inst.ID]; ok {
		return at, true
	}
	return inst.StopAskedAt, !inst.StopAskedAt.IsZero()
}

// removeOld removes all but the two newest attempts of each container: the newest, and the one `--previous` means.
// Where the disk is short only the newest stays, and none of a Pod whose status tells the end.
func (p *planner) removeOld() {
	keep := 2
	switch {
	case p.DiskShort && terminal(p.Pod.Status.Phase) && p.told():
		keep = 0
	case p.DiskShort && p.told():
		keep = 1
	}
	for _, name := range p.names() {
		list := p.instances[name]
		for i := 0; i < len(list)-keep; i++ {
			p.remove(list[i])
		}
	}
}

// told reports whether the stored status says all there is to say.
func (p *planner) told() bool { return equality.Semantic.DeepEqual(Status(p.Observed), p.Pod.Status) }

func (p *planner) remove(inst instance) {
	p.add(Action{Verb: Remove, Container: inst.name, Attempt: inst.attempt, ID: inst.ID})
}

// names returns the names of the containers that exist, sorted.
func (p *planner) names() []string {
	names := make([]string, 0, len(p.instances))
	for name := range p.instances {
		names = append(names, name)
	}
	slices.Sort(names)
	return names
}

// ending is how a Pod leaves the node.
type ending struct {
	grace time.Duration
	drain bool // connections are led away before the containers are asked to end
	purge bool // nothing stays, containers included
}

// ending says whether and how the Pod ends.
func (p *planner) ending() (ending, bool) {
	switch {
	case p.Gone:
		return ending{grace: time.Second, purge: true}, true
	case p.Pod.DeletionTimestamp != nil:
		return ending{grace: p.grace(), drain: p.Eviction == nil, purge: true}, true
	case p.outcome() != "":
		return ending{grace: p.grace()}, true
	}
	return ending{}, false
}

// grace is what the Pod's containers get on the way out.
func (p *planner) grace() time.Duration {
	grace := seconds(gracePeriod(p.Pod))
	if p.Eviction != nil {
		grace = min(grace, p.Eviction.Grace)
	}
	return grace
}

// end plans the way out: drain, stop, kill, tear down, remove, delete the object.
func (p *planner) end(e ending) {
	if p.anyAlive() {
		if e.drain && !p.Drained {
			p.add(Action{Verb: Drain})
			return
		}
		p.stopAll(e)
		return
	}
	if p.creating() {
		return // what is being made must be seen before it can be taken away
	}
	if p.Sandbox.Presence != Gone {
		p.try(Action{Verb: TeardownSandbox}, p.Sandbox.Failure)
	}
	if p.Volumes.Presence != Gone {
		p.try(Action{Verb: UnmountVolumes}, p.Volumes.Failure)
	}
	if !e.purge {
		p.removeOld()
		return
	}
	for _, name := range p.names() {
		for _, inst := range p.instances[name] {
			p.remove(inst)
		}
	}
	if !p.Gone && len(p.Containers) == 0 && len(p.Busy) == 0 && p.Sandbox.Presence == Gone && p.Volumes.Presence == Gone {
		p.add(Action{Verb: Finish})
	}
}

// stopAll stops the main and init containers, and when they have ended the sidecars, last started first.
func (p *planner) stopAll(e ending) {
	late := map[string]bool{}
	for _, c := range p.Pod.Spec.InitContainers {
		late[c.Name] = sidecar(c)
	}
	waiting := false
	for _, name := range p.names() {
		for _, inst := range p.instances[name] {
			if inst.State == engine.Running && !late[name] {
				p.stop(inst, stopping(name), e.grace)
				waiting = true
			}
		}
	}
	for _, c := range slices.Backward(p.Pod.Spec.InitContainers) {
		inst, ok := p.latest(c.Name)
		if waiting || !ok || !late[c.Name] || inst.State != engine.Running {
			continue
		}
		p.stop(inst, stopping(c.Name), e.grace)
		waiting = true
	}
}

// creating reports whether something is being made for this Pod right now.
func (p *planner) creating() bool {
	for _, verb := range []Verb{SetupSandbox, MountVolumes} {
		if _, busy := p.Busy[string(verb)]; busy {
			return true
		}
	}
	for _, c := range slices.Concat(p.Pod.Spec.InitContainers, p.Pod.Spec.Containers) {
		for attempt := range p.attempts(c.Name) {
			if p.starting(c.Name, attempt) {
				return true
			}
		}
	}
	return false
}

// attempts returns one more than the highest attempt that can be under way.
func (p *planner) attempts(name string) int {
	highest := int(p.stored[name].RestartCount)
	if inst, ok := p.latest(name); ok {
		highest = max(highest, inst.attempt)
	}
	return highest + 2
}

// gracePeriod returns the seconds a container gets between being asked to end and being killed.
func gracePeriod(pod *corev1.Pod) int64 {
	if g := pod.DeletionGracePeriodSeconds; g != nil && pod.DeletionTimestamp != nil {
		return *g
	}
	if g := pod.Spec.TerminationGracePeriodSeconds; g != nil {
		return *g
	}
	return corev1.DefaultTerminationGracePeriodSeconds
}

// Grace returns how long the Pod's containers get between being asked to end and being killed.
func Grace(pod *corev1.Pod) time.Duration { return seconds(gracePeriod(pod)) }

func stopping(name string) string { return fmt.Sprintf("Stopping container %s", name) }

func seconds(n int64) time.Duration { return time.Duration(n) * time.Second }
