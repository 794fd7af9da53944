package pressure

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/slipway-dev/slipway/nodeagent/stats"
)

// model is a node as numbers: its Pods use memory and disk, its garbage disk.
type model struct {
	memory, disk int64 // left when no Pod runs
	garbage      int64
	pods         []*corev1.Pod
	used         map[types.UID]int64 // of memory and of disk
	volumes      map[types.UID]int64
	did          []string
}

func (m *model) Levels() (Levels, error) {
	memory, disk := m.memory, m.disk-m.garbage
	for _, p := range m.pods {
		memory -= m.used[p.UID]
		disk -= m.used[p.UID]
	}
	return rich(map[Signal]stats.Level{Memory: {Available: memory, Capacity: 4 * gi}, NodeDisk: {Available: disk, Capacity: 10 * gi}}), nil
}

func (m *model) Reclaim(_ context.Context, enough func() (bool, error)) error {
	if ok, err := enough(); ok || err != nil {
		return err
	}
	m.did, m.garbage = append(m.did, "reclaim"), 0
	return nil
}

func (m *model) Pods() []*corev1.Pod { return slices.Clone(m.pods) }

func (m *model) Usage(_ context.Context, p *corev1.Pod, s Signal) (Usage, error) {
	return Usage{Whole: m.used[p.UID], Containers: map[string]Part{"main": {Own: m.used[p.UID]}}, Volumes: map[string]int64{"cache": m.volumes[p.UID]}}, nil
}

func (m *model) Evict(_ context.Context, uid types.UID, message string) error {
	m.pods = slices.DeleteFunc(m.pods, func(p *corev1.Pod) bool { return p.UID == uid })
	m.did = append(m.did, fmt.Sprintf("evict %s: %s", uid, message[:min(len(message), 46)]))
	return nil
}

// guard runs a guard on a model for a while and returns what came of it.
func guard(t *testing.T, m *model, before Conditions, runs time.Duration) (did []string) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		ended := make(chan struct{})
		g := New(Config{Node: m, Thresholds: Defaults(0), Before: before,
			Changed: func(c Conditions) { m.did = append(m.did, fmt.Sprint(c)) },
			Event: func(_, reason, message string) {
				if before, _, _ := strings.Cut(message, " ("); reason != "" {
					m.did = append(m.did, reason+" "+before)
				}
			}})
		go func() { defer close(ended); _ = g.Run(ctx) }()
		time.Sleep(runs) // fake time
		synctest.Wait()
		cancel()
		<-ended
		did = m.did
	})
	return did
}

func TestPodsAreEndedOneByOneUntilThereIsEnough(t *testing.T) {
	m := &model{memory: gi, disk: 9 * gi, used: map[types.UID]int64{"a": 300 * mi, "b": 500 * mi, "c": 400 * mi}, pods: []*corev1.Pod{pod("a"), pod("b"), pod("c")}}
	want := []string{"map[MemoryPressure:memory.available is below 100Mi]", "EvictionThresholdMet MemoryPressure: memory.available is below 100Mi",
		"evict b: The node was low on resource: memory (memory.a", "map[]", "PressureEnded MemoryPressure is over"}
	if diff := cmp.Diff(want, guard(t, m, nil, 6*time.Minute)); diff != "" {
		t.Errorf("done (-want +got):\n%s", diff)
	}
	if len(m.pods) != 2 {
		t.Errorf("%d Pods are left, want 2", len(m.pods))
	}
}

func TestGarbageGoesBeforePods(t *testing.T) {
	m := &model{memory: 4 * gi, disk: 2 * gi, garbage: 3 * gi / 2, used: map[types.UID]int64{"a": 300 * mi}, pods: []*corev1.Pod{pod("a")}}
	want := []string{"map[DiskPressure:nodefs.available is below 10%]", "EvictionThresholdMet DiskPressure: nodefs.available is below 10%", "reclaim", "map[]", "PressureEnded DiskPressure is over"}
	if diff := cmp.Diff(want, guard(t, m, nil, time.Minute)); diff != "" {
		t.Errorf("done (-want +got):\n%s", diff)
	}
}

func TestPodsGoWhenGarbageWasNotEnough(t *testing.T) {
	m := &model{memory: 4 * gi, disk: 2 * gi, garbage: mi, used: map[types.UID]int64{"a": 300 * mi, "b": gi}, pods: []*corev1.Pod{pod("a"), pod("b")}}
	did := guard(t, m, nil, time.Minute)
	if diff := cmp.Diff([]string{"reclaim", "evict b: The node was low on resource: ephemeral-storag"}, did[2:]); diff != "" {
		t.Errorf("done (-want +got):\n%s", diff)
	}
}

func TestConditionFromBeforeARestartIsHeld(t *testing.T) {
	m := &model{memory: gi, disk: 9 * gi}
	before := Conditions{corev1.NodeMemoryPressure: "memory.available is below 100Mi"}
	if did := guard(t, m, before, 4*time.Minute); len(did) != 0 {
		t.Errorf("within the hold: %v", did)
	}
	if diff := cmp.Diff([]string{"map[]", "PressureEnded MemoryPressure is over"}, guard(t, &model{memory: gi, disk: 9 * gi}, before, 6*time.Minute)); diff != "" {
		t.Errorf("after it (-want +got):\n%s", diff)
	}
}

func TestPodAboveItsOwnLimitGoesAlone(t *testing.T) {
	m := &model{memory: 4 * gi, disk: 9 * gi, used: map[types.UID]int64{"big": gi}, volumes: map[types.UID]int64{"over": 20 * mi, "within": 5 * mi},
		pods: []*corev1.Pod{pod("big"), pod("within", emptyDir("cache", "10Mi", "")), pod("over", emptyDir("cache", "10Mi", ""))}}
	if diff := cmp.Diff([]string{`evict over: Usage of EmptyDir volume "cache" exceeds the l`}, guard(t, m, nil, time.Minute)); diff != "" {
		t.Errorf("done (-want +got):\n%s", diff)
	}
}
