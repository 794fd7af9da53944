package containerd

import (
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestLeftoversAreNotTakenFromWhoMakesThemAgain(t *testing.T) {
	var c cache
	c.leave("a")
	c.leave("b")
	c.begin("b", "b")
	if diff := cmp.Diff([]string{"a"}, c.leftovers()); diff != "" {
		t.Errorf("leftovers (-want +got):\n%s", diff)
	}
	if !c.isLeft("b") {
		t.Error("who makes b again is not told to remove it first")
	}
	c.end("b")
	if diff := cmp.Diff([]string{"a", "b"}, c.leftovers()); diff != "" {
		t.Errorf("leftovers after the try (-want +got):\n%s", diff)
	}
}
