package proxy

import (
	"cmp"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"time"
)

// Protocol is a transport protocol, by its number.
type Protocol uint8

// Protocols a Service may have.
const (
	TCP  Protocol = 6
	UDP  Protocol = 17
	SCTP Protocol = 132
)

// String returns "TCP", "UDP" or "SCTP".
func (p Protocol) String() string {
	switch p {
	case TCP:
		return "TCP"
	case UDP:
		return "UDP"
	case SCTP:
		return "SCTP"
	}
	return fmt.Sprintf("protocol %d", uint8(p))
}

// Front is what a client calls: an address and port. Without an address it is a port of the node, on all the node's
// addresses.
type Front struct {
	Addr  netip.Addr
	Port  uint16
	Proto Protocol
}

// String returns "10.96.0.10:53/UDP" or "node:30080/TCP".
func (f Front) String() string {
	if !f.Addr.IsValid() {
		return fmt.Sprintf("node:%d/%s", f.Port, f.Proto)
	}
	return fmt.Sprintf("%s:%d/%s", f.Addr, f.Port, f.Proto)
}

// Rule leads a Front to one of its backends. Without backends calls are refused.
type Rule struct {
	Front    Front
	Name     string           // of the Service and its port, for people
	Backends []netip.AddrPort // sorted, each once
	Draining bool             // the backends are all terminating: there is no other
	Sticky   time.Duration    // a client keeps its backend until it was silent for this long; 0: each connection anew
}

// String returns the rule on one line, as in tests and logs.
func (r Rule) String() string {
	var b strings.Builder
	fmt.Fprintf(&b, "%s %s ->", r.Front, r.Name)
	for _, backend := range r.Backends {
		fmt.Fprintf(&b, " %s", backend)
	}
	if len(r.Backends) == 0 {
		b.WriteString(" refused")
	}
	if r.Draining {
		b.WriteString(" (draining)")
	}
	if r.Sticky > 0 {
		fmt.Fprintf(&b, " (sticky %s)", r.Sticky)
	}
	return b.String()
}

func (r Rule) equal(o Rule) bool {
	return r.Front == o.Front && r.Draining == o.Draining && r.Sticky == o.Sticky && slices.Equal(r.Backends, o.Backends)
}

// State is a set of rules by what they are for.
type State map[Front]Rule

// String returns the rules one a line, sorted by front.
func (s State) String() string {
	var b strings.Builder
	for _, front := range s.fronts() {
		fmt.Fprintln(&b, s[front])
	}
	return b.String()
}

func (s State) fronts() []Front {
	fronts := make([]Front, 0, len(s))
	for front := range s {
		fronts = append(fronts, front)
	}
	slices.SortFunc(fronts, compareFronts)
	return fronts
}

func compareFronts(a, b Front) int {
	return cmp.Or(a.Addr.Compare(b.Addr), cmp.Compare(a.Port, b.Port), cmp.Compare(a.Proto, b.Proto))
}

// Step changes the packet filter for one front. Old is nil for a new one, New for one that goes.
type Step struct {
	Old, New *Rule
}

// String returns the step on one line.
func (s Step) String() string {
	switch {
	case s.Old == nil:
		return "+ " + s.New.String()
	case s.New == nil:
		return "- " + s.Old.String()
	}
	return "~ " + s.New.String()
}

// remembered says whether the step takes away a backend that clients are remembered to have: by their stickiness, or by
// the kernel's table of UDP flows.
func (s Step) remembered() bool {
	if s.Old == nil || s.Old.Sticky == 0 && s.Old.Front.Proto != UDP {
		return false
	}
	return slices.ContainsFunc(s.Old.Backends, func(b netip.AddrPort) bool { return s.New == nil || !slices.Contains(s.New.Backends, b) })
}

// Diff returns the steps from have to want, looking only at the given fronts, sorted.
func Diff(have, want State, fronts []Front) []Step {
	slices.SortFunc(fronts, compareFronts)
	var steps []Step
	for _, front := range slices.Compact(fronts) {
		old, had := have[front]
		rule, wanted := want[front]
		switch {
		case had && wanted && !old.equal(rule):
			steps = append(steps, Step{&old, &rule})
		case had && !wanted:
			steps = append(steps, Step{Old: &old})
		case wanted && !had:
			steps = append(steps, Step{New: &rule})
		}
	}
	return steps
}
