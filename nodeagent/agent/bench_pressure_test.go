package agent

import "testing"

// BenchmarkLevels is what a look at the machine costs, every ten seconds.
func BenchmarkLevels(b *testing.B) {
	r, _, _ := modelRig(b)
	r.config.Guard = &Guard{ImagesDir: r.config.DataDir}
	a, err := New(r.config)
	if err != nil {
		b.Fatal(err)
	}
	for b.Loop() {
		if _, err := (guarded{a}).Levels(); err != nil {
			b.Fatal(err)
		}
	}
}
