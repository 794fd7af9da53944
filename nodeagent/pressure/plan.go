// Package pressure keeps a node from running out of memory, disk and process ids: it says which are short, has space
// freed, and where that is not enough picks the Pod to end, by the kubelet's order.
//
// It owns the thresholds and the choice. It must not end Pods or remove files itself: the node agent does.
package pressure

import (
	"fmt"
	"slices"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"

	"github.com/slipway-dev/slipway/nodeagent/stats"
)

// Signal is something a node can be short of, by the kubelet's names.
type Signal string

// Signals.
const (
	Memory      Signal = "memory.available"
	NodeDisk    Signal = "nodefs.available"
	NodeInodes  Signal = "nodefs.inodesFree"
	ImageDisk   Signal = "imagefs.available"
	ImageInodes Signal = "imagefs.inodesFree"
	PIDs        Signal = "pid.available"
)

// disk reports whether removing files helps.
func (s Signal) disk() bool { return s != Memory && s != PIDs }

// condition is what a Node says when it is short of it.
func (s Signal) condition() corev1.NodeConditionType {
	switch s {
	case Memory:
		return corev1.NodeMemoryPressure
	case PIDs:
		return corev1.NodePIDPressure
	}
	return corev1.NodeDiskPressure
}

// resource is what a Pod uses of it, in words of its eviction message.
func (s Signal) resource() corev1.ResourceName {
	switch s {
	case Memory:
		return corev1.ResourceMemory
	case PIDs:
		return "pids"
	case NodeInodes, ImageInodes:
		return "inodes"
	}
	return corev1.ResourceEphemeralStorage
}

// Threshold says from when on a node is short: below Bytes (for inodes and process ids a number) or below Percent of
// all, whichever is more; the share counts up to Most.
type Threshold struct {
	Signal  Signal
	Percent int64
	Bytes   int64
	Most    int64 // 0: no bound
}

// plenty is enough to be left of any disk: a share of a large one, of which somebody uses the most for other things,
// would be more than a node ever needs.
const plenty = 20 << 30

// Defaults are the kubelet's hard thresholds, in the order in which shortages are dealt with, except that 20 GiB are
// enough of any disk. Of process ids, of which it watches none by default, a twentieth must be left. Floor is what must
// stay free on the disk of the data directory however small it is.
func Defaults(floor int64) []Threshold {
	return []Threshold{
		{Signal: Memory, Bytes: 100 << 20},
		{Signal: NodeDisk, Percent: 10, Bytes: floor, Most: plenty},
		{Signal: NodeInodes, Percent: 5},
		{Signal: ImageDisk, Percent: 15, Most: plenty},
		{Signal: ImageInodes, Percent: 5},
		{Signal: PIDs, Percent: 5},
	}
}

// limit is the level below which the node is short.
func (t Threshold) limit(l stats.Level) int64 {
	share := l.Capacity * t.Percent / 100
	if t.Most > 0 {
		share = min(share, t.Most)
	}
	return max(t.Bytes, share)
}

// short reports whether a level is below the threshold. Of what has no capacity (inodes made as needed) nothing is.
func (t Threshold) short(l stats.Level) bool { return l.Capacity > 0 && l.Available < t.limit(l) }

// near reports whether a level is not clear of the threshold by a quarter.
func (t Threshold) near(l stats.Level) bool {
	return l.Capacity > 0 && l.Available < t.limit(l)+t.limit(l)/4
}

// why says what is short, the same as long as it is.
func (t Threshold) why(l stats.Level) string {
	if t.Percent > 0 && t.limit(l) == l.Capacity*t.Percent/100 {
		return fmt.Sprintf("%s is below %d%%", t.Signal, t.Percent)
	}
	return fmt.Sprintf("%s is below %s", t.Signal, amount(t.limit(l)))
}

// left says how much there is: "48Mi of 2Gi left".
func (t Threshold) left(l stats.Level) string {
	if r := t.Signal.resource(); r == "pids" || r == "inodes" {
		return fmt.Sprintf("%d of %d left", l.Available, l.Capacity)
	}
	return fmt.Sprintf("%s of %s left", amount(l.Available), amount(l.Capacity))
}

// amount prints bytes for people, in the API's form: whole mebibytes where there are some.
func amount(n int64) string {
	if n >= 1<<20 {
		n = n >> 20 << 20
	}
	return resource.NewQuantity(n, resource.BinarySI).String()
}

// Levels is how much is left of everything. What is missing is not short.
type Levels struct {
	Of     map[Signal]stats.Level
	Shared bool // images are on the file system of the data directory
}

// Conditions says of each condition of a Node that holds why.
type Conditions map[corev1.NodeConditionType]string

// mark is when a condition was last seen to hold, and why.
type mark struct {
	at    time.Time
	why   string
	ended bool // a Pod was ended for it: what comes in its place may well be short of the same
}

// observed is all a decision depends on. Times carry the monotonic clock.
type observed struct {
	now        time.Time
	levels     Levels
	thresholds []Threshold
	marks      map[corev1.NodeConditionType]mark
	// How long a condition stays after it was last seen, so that it does not flap: hold once a Pod was ended for it,
	// else calm, and that only near the threshold.
	hold, calm time.Duration
}

// lasts reports whether a condition that is not seen now stays.
func (o observed) lasts(c corev1.NodeConditionType, m mark) bool {
	if m.ended {
		return o.now.Sub(m.at) < o.hold
	}
	near := slices.ContainsFunc(o.thresholds, func(t Threshold) bool {
		return t.Signal.condition() == c && t.near(o.levels.Of[t.Signal])
	})
	return near && o.now.Sub(m.at) < o.calm
}

// decision is what the node is short of now, and what it says of itself.
type decision struct {
	short      []Threshold // in the order of the thresholds
	conditions Conditions
	marks      map[corev1.NodeConditionType]mark
}

// decide compares levels with thresholds.
func decide(o observed) decision {
	d := decision{conditions: Conditions{}, marks: map[corev1.NodeConditionType]mark{}}
	for _, t := range o.thresholds {
		level := o.levels.Of[t.Signal]
		if !t.short(level) {
			continue
		}
		d.short = append(d.short, t)
		c := t.Signal.condition()
		if _, told := d.marks[c]; !told {
			d.marks[c] = mark{at: o.now, why: t.why(level)}
		}
	}
	for c, m := range o.marks {
		now, short := d.marks[c]
		switch {
		case short && o.lasts(c, m):
			d.marks[c] = mark{at: now.at, why: m.why, ended: m.ended} // what began it is told until it ends
		case !short && o.lasts(c, m):
			d.marks[c] = m
		}
	}
	for c, m := range d.marks {
		d.conditions[c] = m.why
	}
	return d
}
