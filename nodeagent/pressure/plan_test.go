package pressure

import (
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/slipway-dev/slipway/nodeagent/stats"
)

var now = time.Date(2030, 1, 1, 12, 0, 0, 0, time.UTC)

const (
	mi = int64(1) << 20
	gi = int64(1) << 30
)

// rich is a node that is short of nothing, with changes.
func rich(change map[Signal]stats.Level) Levels {
	l := map[Signal]stats.Level{
		Memory: {Available: gi, Capacity: 4 * gi}, NodeDisk: {Available: 50 * gi, Capacity: 100 * gi}, NodeInodes: {Available: 5000, Capacity: 10000},
		ImageDisk: {Available: 50 * gi, Capacity: 100 * gi}, ImageInodes: {Available: 5000, Capacity: 10000}, PIDs: {Available: 30000, Capacity: 32768},
	}
	for s, level := range change {
		l[s] = level
	}
	return Levels{Of: l, Shared: true}
}

func TestDecide(t *testing.T) {
	const hold = 5 * time.Minute
	memory, disk, pids := corev1.NodeMemoryPressure, corev1.NodeDiskPressure, corev1.NodePIDPressure
	for name, tt := range map[string]struct {
		levels map[Signal]stats.Level
		marks  map[corev1.NodeConditionType]mark
		short  []Signal
		want   Conditions
	}{
		"plenty of everything":       {want: Conditions{}},
		"just enough memory":         {levels: map[Signal]stats.Level{Memory: {Available: 100 * mi, Capacity: gi}}, want: Conditions{}},
		"memory":                     {levels: map[Signal]stats.Level{Memory: {Available: 100*mi - 1, Capacity: gi}}, short: []Signal{Memory}, want: Conditions{memory: "memory.available is below 100Mi"}},
		"disk of the node":           {levels: map[Signal]stats.Level{NodeDisk: {Available: 9 * gi, Capacity: 100 * gi}}, short: []Signal{NodeDisk}, want: Conditions{disk: "nodefs.available is below 10%"}},
		"a small disk's floor":       {levels: map[Signal]stats.Level{NodeDisk: {Available: 191 * mi, Capacity: gi}}, short: []Signal{NodeDisk}, want: Conditions{disk: "nodefs.available is below 192Mi"}},
		"a large disk":               {levels: map[Signal]stats.Level{NodeDisk: {Available: 20 * gi, Capacity: 1000 * gi}}, want: Conditions{}},
		"a large disk that is full":  {levels: map[Signal]stats.Level{NodeDisk: {Available: 19 * gi, Capacity: 1000 * gi}}, short: []Signal{NodeDisk}, want: Conditions{disk: "nodefs.available is below 20Gi"}},
		"inodes":                     {levels: map[Signal]stats.Level{NodeInodes: {Available: 499, Capacity: 10000}}, short: []Signal{NodeInodes}, want: Conditions{disk: "nodefs.inodesFree is below 5%"}},
		"disk of images":             {levels: map[Signal]stats.Level{ImageDisk: {Available: 14 * gi, Capacity: 100 * gi}}, short: []Signal{ImageDisk}, want: Conditions{disk: "imagefs.available is below 15%"}},
		"inodes of images":           {levels: map[Signal]stats.Level{ImageInodes: {Available: 499, Capacity: 10000}}, short: []Signal{ImageInodes}, want: Conditions{disk: "imagefs.inodesFree is below 5%"}},
		"inodes made as needed":      {levels: map[Signal]stats.Level{NodeInodes: {}}, want: Conditions{}},
		"process ids":                {levels: map[Signal]stats.Level{PIDs: {Available: 1000, Capacity: 32768}}, short: []Signal{PIDs}, want: Conditions{pids: "pid.available is below 5%"}},
		"several, memory first":      {levels: map[Signal]stats.Level{PIDs: {Capacity: 1000}, NodeDisk: {Capacity: gi}, Memory: {Capacity: gi}}, short: []Signal{Memory, NodeDisk, PIDs}, want: Conditions{memory: "memory.available is below 100Mi", disk: "nodefs.available is below 192Mi", pids: "pid.available is below 5%"}},
		"over, but held":             {marks: map[corev1.NodeConditionType]mark{memory: {now.Add(-hold + 1), "before", true}}, want: Conditions{memory: "before"}},
		"over for long":              {marks: map[corev1.NodeConditionType]mark{memory: {now.Add(-hold), "before", true}}, want: Conditions{}},
		"over, and no Pod was ended": {marks: map[corev1.NodeConditionType]mark{memory: {now.Add(-time.Second), "before", false}}, want: Conditions{}},
		"nearly over":                {levels: map[Signal]stats.Level{Memory: {Available: 124 * mi, Capacity: gi}}, marks: map[corev1.NodeConditionType]mark{memory: {now.Add(-19 * time.Second), "before", false}}, want: Conditions{memory: "before"}},
		"nearly over for a while":    {levels: map[Signal]stats.Level{Memory: {Available: 124 * mi, Capacity: gi}}, marks: map[corev1.NodeConditionType]mark{memory: {now.Add(-20 * time.Second), "before", false}}, want: Conditions{}},
		"the first cause stays":      {levels: map[Signal]stats.Level{ImageDisk: {Capacity: gi}}, marks: map[corev1.NodeConditionType]mark{disk: {now.Add(-time.Minute), "before", true}}, short: []Signal{ImageDisk}, want: Conditions{disk: "before"}},
		"a cause of long ago not":    {levels: map[Signal]stats.Level{ImageDisk: {Capacity: gi}}, marks: map[corev1.NodeConditionType]mark{disk: {now.Add(-time.Hour), "before", true}}, short: []Signal{ImageDisk}, want: Conditions{disk: "imagefs.available is below 15%"}},
	} {
		t.Run(name, func(t *testing.T) {
			d := decide(observed{now: now, levels: rich(tt.levels), thresholds: Defaults(192 * mi), marks: tt.marks, hold: hold, calm: 20 * time.Second})
			var short []Signal
			for _, s := range d.short {
				short = append(short, s.Signal)
			}
			if diff := cmp.Diff(tt.short, short); diff != "" {
				t.Errorf("short (-want +got):\n%s", diff)
			}
			if diff := cmp.Diff(tt.want, d.conditions); diff != "" {
				t.Errorf("conditions (-want +got):\n%s", diff)
			}
		})
	}
}

func TestConditionHoldsFromWhenItWasLastSeen(t *testing.T) {
	o := observed{now: now, thresholds: Defaults(0), hold: 5 * time.Minute}
	short := rich(map[Signal]stats.Level{Memory: {Capacity: gi}})
	var flips []time.Duration
	last := false
	for at := time.Duration(0); at < 20*time.Minute; at += 10 * time.Second {
		o.now, o.levels = now.Add(at), rich(nil)
		if at < time.Minute || at >= 4*time.Minute && at < 6*time.Minute {
			o.levels = short
		}
		d := decide(o)
		o.marks = d.marks
		for c, m := range o.marks {
			m.ended = true
			o.marks[c] = m
		}
		if has := len(d.conditions) > 0; has != last {
			flips, last = append(flips, at), has
		}
	}
	if diff := cmp.Diff([]time.Duration{0, 10*time.Minute + 50*time.Second}, flips); diff != "" {
		t.Errorf("the condition changes at (-want +got):\n%s", diff)
	}
}

func pod(name string, change ...func(*corev1.Pod)) *corev1.Pod {
	p := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Name: name, UID: types.UID(name)}, Spec: corev1.PodSpec{Containers: []corev1.Container{{Name: "main"}}}}
	for _, c := range change {
		c(p)
	}
	return p
}

func requests(name corev1.ResourceName, amount string) func(*corev1.Pod) {
	return func(p *corev1.Pod) {
		p.Spec.Containers[0].Resources.Requests = corev1.ResourceList{name: resource.MustParse(amount)}
	}
}

func limits(amount string) func(*corev1.Pod) {
	return func(p *corev1.Pod) {
		p.Spec.Containers[0].Resources.Limits = corev1.ResourceList{corev1.ResourceEphemeralStorage: resource.MustParse(amount)}
	}
}

func important(n int32) func(*corev1.Pod) { return func(p *corev1.Pod) { p.Spec.Priority = &n } }

func emptyDir(name, limit string, medium corev1.StorageMedium) func(*corev1.Pod) {
	return func(p *corev1.Pod) {
		q := resource.MustParse(limit)
		p.Spec.Volumes = append(p.Spec.Volumes, corev1.Volume{Name: name, VolumeSource: corev1.VolumeSource{EmptyDir: &corev1.EmptyDirVolumeSource{SizeLimit: &q, Medium: medium}}})
	}
}

// order ends one Pod after another.
func order(s Signal, pods []candidate) []string {
	var names []string
	for {
		next := choose(s, pods)
		if next == nil {
			return names
		}
		names = append(names, next.pod.Name)
		for i := range pods {
			if pods[i].pod == next.pod {
				pods = append(pods[:i:i], pods[i+1:]...)
				break
			}
		}
	}
}

func TestChoose(t *testing.T) {
	memory := corev1.ResourceMemory
	for name, tt := range map[string]struct {
		signal Signal
		pods   []candidate
		want   []string
	}{
		"by class: above requests, then within, biggest excess first": {Memory, []candidate{
			{pod: pod("guaranteed", requests(memory, "1Gi")), used: 900 * mi},
			{pod: pod("burstable-within", requests(memory, "500Mi")), used: 450 * mi},
			{pod: pod("burstable-above", requests(memory, "100Mi")), used: 300 * mi},
			{pod: pod("besteffort-small"), used: 10 * mi}, {pod: pod("besteffort-big"), used: 400 * mi},
		}, []string{"besteffort-big", "burstable-above", "besteffort-small", "burstable-within", "guaranteed"}},
		"priority comes before the amount": {Memory, []candidate{
			{pod: pod("big", important(10)), used: 900 * mi}, {pod: pod("small", important(-5)), used: 10 * mi}, {pod: pod("middle"), used: 20 * mi},
		}, []string{"small", "middle", "big"}},
		"but not before being within the request": {Memory, []candidate{
			{pod: pod("unimportant", requests(memory, "1Gi"), important(-5)), used: 10 * mi}, {pod: pod("greedy", important(1000)), used: 10 * mi},
		}, []string{"greedy", "unimportant"}},
		"what the cluster lives on is never ended": {Memory, []candidate{{pod: pod("dns", important(2000000000)), used: gi}}, nil},
		"disk against its own request": {NodeDisk, []candidate{
			{pod: pod("asked", requests(corev1.ResourceEphemeralStorage, "1Gi")), used: 800 * mi}, {pod: pod("did-not"), used: 100 * mi},
		}, []string{"did-not", "asked"}},
		"inodes by number":                   {NodeInodes, []candidate{{pod: pod("few"), used: 10}, {pod: pod("many"), used: 1000}}, []string{"many", "few"}},
		"process ids by priority and number": {PIDs, []candidate{{pod: pod("few"), used: 10}, {pod: pod("many"), used: 1000}, {pod: pod("more-important", important(1)), used: 5000}}, []string{"many", "few", "more-important"}},
		"equal ones by uid":                  {Memory, []candidate{{pod: pod("b"), used: 1}, {pod: pod("a"), used: 1}}, []string{"a", "b"}},
	} {
		t.Run(name, func(t *testing.T) {
			if diff := cmp.Diff(tt.want, order(tt.signal, tt.pods)); diff != "" {
				t.Errorf("order (-want +got):\n%s", diff)
			}
		})
	}
}

func TestOnlyPodsThatHoldSomethingOfADiskAreEnded(t *testing.T) {
	pods := []candidate{{pod: pod("a"), used: 10}, {pod: pod("b"), used: 50 * mi}, {pod: pod("c"), used: 600 * mi}}
	for name, tt := range map[string]struct {
		threshold Threshold
		level     stats.Level
		want      []string
	}{
		"memory":                      {Threshold{Signal: Memory, Bytes: 100 * mi}, stats.Level{Capacity: 100 * gi}, []string{"c", "b", "a"}},
		"a small disk":                {Threshold{Signal: NodeDisk, Percent: 10}, stats.Level{Available: 90 * mi, Capacity: gi}, []string{"c", "b"}},
		"a large disk":                {Threshold{Signal: NodeDisk, Percent: 10}, stats.Level{Available: 9 * gi, Capacity: 100 * gi}, []string{"c"}},
		"one that others have filled": {Threshold{Signal: NodeDisk, Percent: 10}, stats.Level{Capacity: 100 * gi}, nil},
	} {
		if diff := cmp.Diff(tt.want, order(tt.threshold.Signal, worth(tt.threshold, tt.level, pods))); diff != "" {
			t.Errorf("%s (-want +got):\n%s", name, diff)
		}
	}
}

func TestMessageNamesResourceUsageAndRequest(t *testing.T) {
	c := candidate{pod: pod("web", requests(corev1.ResourceMemory, "64Mi")), used: 312 * mi, usage: Usage{Containers: map[string]Part{"main": {Own: 300 * mi}}}}
	got := c.message(Defaults(0)[0], stats.Level{Available: 48*mi + 5, Capacity: 2 * gi})
	want := "The node was low on resource: memory (memory.available is below 100Mi, 48Mi of 2Gi left). The Pod was using 312Mi, request is 64Mi. Container main was using 300Mi, request is 64Mi."
	if got != want {
		t.Errorf("got  %s\nwant %s", got, want)
	}
	c.used, c.usage = 9000, Usage{Volumes: map[string]int64{"v": 9000}}
	got = c.message(Threshold{Signal: NodeInodes, Percent: 5}, stats.Level{Available: 10, Capacity: 10000})
	if want = "The node was low on resource: inodes (nodefs.inodesFree is below 5%, 10 of 10000 left). The Pod was using 9000, request is 0."; got != want {
		t.Errorf("got  %s\nwant %s", got, want)
	}
}

func TestUsageCountsWhatIsOnTheFileSystem(t *testing.T) {
	u := Usage{Whole: 1, Containers: map[string]Part{"a": {Own: 10, Log: 100}, "b": {Own: 20, Log: 200}}, Volumes: map[string]int64{"v": 1000}}
	for _, tt := range []struct {
		signal Signal
		shared bool
		want   int64
	}{{Memory, true, 1}, {PIDs, false, 1}, {NodeDisk, false, 1300}, {ImageDisk, false, 30}, {NodeDisk, true, 1330}, {ImageInodes, true, 1330}} {
		if got := u.on(tt.signal, tt.shared); got != tt.want {
			t.Errorf("%s, shared %v: %d, want %d", tt.signal, tt.shared, got, tt.want)
		}
	}
}

func TestOverrun(t *testing.T) {
	holds := func(n int64) Usage {
		return Usage{Volumes: map[string]int64{"cache": n}, Containers: map[string]Part{"main": {}}}
	}
	wrote := func(layer, log, volume int64) Usage {
		return Usage{Containers: map[string]Part{"main": {Own: layer, Log: log}}, Volumes: map[string]int64{"cache": volume}}
	}
	for name, tt := range map[string]struct {
		pod   *corev1.Pod
		usage Usage
		want  string
	}{
		"no limits":                   {pod("a"), wrote(gi, gi, gi), ""},
		"volume within its limit":     {pod("a", emptyDir("cache", "10Mi", "")), holds(10 * mi), ""},
		"volume above its limit":      {pod("a", emptyDir("cache", "10Mi", "")), holds(11 * mi), `Usage of EmptyDir volume "cache" exceeds the limit "10Mi": it holds 11Mi.`},
		"a volume in memory":          {pod("a", emptyDir("cache", "10Mi", corev1.StorageMediumMemory)), holds(11 * mi), ""},
		"container within its limit":  {pod("a", limits("10Mi")), wrote(4*mi, 4*mi, 0), ""},
		"layer and log count as one":  {pod("a", limits("10Mi")), wrote(6*mi, 6*mi, 0), `Container main exceeded its local ephemeral storage limit "10Mi": it wrote 12Mi.`},
		"volumes count for the whole": {pod("a", limits("10Mi")), wrote(4*mi, 4*mi, 4*mi), `Pod ephemeral local storage usage exceeds the total limit of containers 10Mi: it is 12Mi.`},
	} {
		t.Run(name, func(t *testing.T) {
			if got := overrun(tt.pod, tt.usage); got != tt.want {
				t.Errorf("got  %s\nwant %s", got, tt.want)
			}
		})
	}
}
