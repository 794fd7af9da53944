package containerd

import (
	"testing"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"

	"github.com/slipway-dev/slipway/nodeagent/engine"
)

func TestParseSignal(t *testing.T) {
	for name, want := range map[string]unix.Signal{
		"": unix.SIGTERM, "SIGQUIT": unix.SIGQUIT, "QUIT": unix.SIGQUIT, "2": unix.SIGINT, "nonsense": unix.SIGTERM,
	} {
		if got := parseSignal(name); got != want {
			t.Errorf("parseSignal(%q) = %v, want %v", name, got, want)
		}
	}
}

func TestCacheKeepsTheFirstEnd(t *testing.T) {
	c := cache{entries: map[string]*entry{}}
	c.put(entry{status: engine.Status{ID: "a", State: engine.Running}})
	c.exited("a", exit{code: 3})
	c.exited("a", exit{code: 137})
	c.started("a", 5)
	got, _ := c.get("a")
	if got.status.ExitCode != 3 || got.status.State != engine.Exited || got.status.PID != 0 {
		t.Errorf("got %+v", got.status)
	}
}

func TestCacheReplaceLeavesWhatChangedSince(t *testing.T) {
	c := cache{entries: map[string]*entry{}}
	c.put(entry{status: engine.Status{ID: "old", State: engine.Running}})
	c.put(entry{status: engine.Status{ID: "gone", State: engine.Running}})
	c.put(entry{status: engine.Status{ID: "removed", State: engine.Running}})
	before := c.picture()
	c.put(entry{status: engine.Status{ID: "new", State: engine.Created}})
	c.exited("old", exit{code: 1})
	c.drop("removed")
	c.begin("making", "making")
	changed := c.replace(map[string]entry{
		"old":     {status: engine.Status{ID: "old", State: engine.Running}},
		"making":  {status: engine.Status{ID: "making", State: engine.Exited}},
		"new":     {status: engine.Status{ID: "new", State: engine.Exited}},
		"removed": {status: engine.Status{ID: "removed", State: engine.Exited}},
		"other":   {status: engine.Status{ID: "other", State: engine.Exited}},
	}, before)
	var got []string
	for _, s := range c.list() {
		got = append(got, s.ID+" "+string(s.State))
	}
	if diff := cmp.Diff([]string{"new created", "old exited", "other exited"}, got); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	if diff := cmp.Diff([]string{"gone", "other"}, changed); diff != "" {
		t.Errorf("changed (-want +got):\n%s", diff)
	}
}
