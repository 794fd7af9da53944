package containerd

import (
	"testing"

	"github.com/containerd/containerd/v2/core/leases"
)

// What a killed process was pulling is held by its lease, and is let go of by the next.
func TestLeasesOfAnEarlierProcessAreDropped(t *testing.T) {
	n := startNode(t)
	service := n.engine.client.LeasesService()
	if _, err := service.Create(n.engine.in(t.Context()), leases.WithRandomID()); err != nil {
		t.Fatal(err)
	}
	next := n.newEngine(t)
	defer next.Close()
	if list, err := service.List(n.engine.in(t.Context())); err != nil || len(list) != 0 {
		t.Errorf("leases %v (%v), want none", list, err)
	}
}
