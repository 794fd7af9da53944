package containerd

import (
	"context"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/slipway-dev/slipway/nodeagent/engine/enginetest"
)

// BenchmarkOne makes and starts one container at a time.
func BenchmarkOne(b *testing.B) {
	n := startNode(b)
	box := enginetest.NewBox(b, n.suite())
	var create, start []time.Duration
	var used time.Duration
	cpu := newCPUMeter(b, n.runtime.PID())
	for b.Loop() {
		c := box.Spec("sleep")
		before := cpu.read()
		t0 := time.Now()
		must(b, n.engine.Create(b.Context(), c))
		t1 := time.Now()
		must(b, n.engine.Start(b.Context(), c.ID))
		create, start = append(create, t1.Sub(t0)), append(start, time.Since(t1))
		b.StopTimer()
		used += cpu.read() - before
		must(b, n.engine.Remove(b.Context(), c.ID))
		b.StartTimer()
	}
	b.ReportMetric(ms(used)/float64(b.N), "cpu-ms")
	b.ReportMetric(ms(median(create)), "create-ms")
	b.ReportMetric(ms(median(start)), "start-ms")
}

// BenchmarkFifty makes and starts 50 containers at once, each in a group of its own.
func BenchmarkFifty(b *testing.B) {
	n := startNode(b)
	box := enginetest.NewBox(b, n.suite())
	var all []time.Duration
	var used time.Duration
	cpu := newCPUMeter(b, n.runtime.PID())
	for b.Loop() {
		ids := make([]string, 50)
		took := make([]time.Duration, 50)
		began, before := time.Now(), cpu.read()
		each(50, func(i int) {
			c := box.Spec("sleep")
			ids[i] = c.ID
			must(b, n.engine.Create(b.Context(), c))
			must(b, n.engine.Start(b.Context(), c.ID))
			took[i] = time.Since(began)
		})
		all = append(all, took...)
		b.StopTimer()
		used += cpu.read() - before
		each(50, func(i int) { must(b, n.engine.Remove(context.Background(), ids[i])) })
		b.StartTimer()
	}
	b.ReportMetric(ms(used)/float64(b.N), "cpu-ms")
	b.ReportMetric(ms(median(all)), "p50-ms")
}

func each(n int, do func(int)) {
	var wg sync.WaitGroup
	for i := range n {
		wg.Go(func() { do(i) })
	}
	wg.Wait()
}

func must(b *testing.B, err error) {
	if err != nil {
		b.Error(err)
	}
}

func median(d []time.Duration) time.Duration {
	slices.Sort(d)
	return d[len(d)/2]
}

func ms(d time.Duration) float64 { return float64(d.Microseconds()) / 1000 }
