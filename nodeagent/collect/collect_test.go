package collect

import (
	"context"
	"errors"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/slipway-dev/slipway/nodeagent/engine"
	"github.com/slipway-dev/slipway/nodeagent/stats"
)

// model is a node's images as a list.
type model struct {
	list  []engine.Image
	noted []string
}

func (m *model) ListImages(context.Context) ([]engine.Image, error) { return slices.Clone(m.list), nil }

func (m *model) RemoveImage(_ context.Context, ref string) error {
	m.list = slices.DeleteFunc(m.list, func(i engine.Image) bool { return i.Ref == ref })
	return nil
}

func (m *model) NoteUse(_ context.Context, ref string) error {
	m.noted = append(m.noted, ref)
	return nil
}

func (m *model) refs() []string {
	var refs []string
	for _, i := range m.list {
		refs = append(refs, i.Ref)
	}
	return refs
}

// unused is an image that nothing used for some hours of this machine's clock.
func unused(ref, id string, hours int) engine.Image {
	return engine.Image{Ref: ref, ID: id, Bytes: 10, Since: time.Now().Add(-time.Duration(hours) * time.Hour)}
}

func TestFreeStopsWhenThereIsEnough(t *testing.T) {
	m := &model{list: []engine.Image{unused("a", "1", 1), unused("b", "2", 2), unused("c", "3", 3), unused("d", "4", 4)}}
	c := New(Config{Images: m, InUse: func() ([]string, bool) { return []string{"c"}, true }})
	if err := c.Free(t.Context(), func() (bool, error) { return len(m.list) <= 2, nil }); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff([]string{"a", "c"}, m.refs()); diff != "" {
		t.Errorf("images left (-want +got):\n%s", diff)
	}
}

func TestImageNamedWhileOthersAreRemovedStays(t *testing.T) {
	m := &model{list: []engine.Image{unused("docker.io/library/a:1", "1", 2), unused("docker.io/library/b:1", "2", 1)}}
	c := New(Config{Images: m, InUse: func() ([]string, bool) {
		if len(m.list) == 1 { // a Pod comes when the first is gone
			return []string{"b:1"}, true
		}
		return nil, true
	}})
	if err := c.Free(t.Context(), func() (bool, error) { return false, nil }); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff([]string{"docker.io/library/b:1"}, m.refs()); diff != "" {
		t.Errorf("images left (-want +got):\n%s", diff)
	}
}

func TestNothingIsRemovedBeforeThePodsAreKnown(t *testing.T) {
	m := &model{list: []engine.Image{unused("a", "1", 1)}}
	c := New(Config{Images: m, InUse: func() ([]string, bool) { return nil, false }})
	if err := c.Free(t.Context(), func() (bool, error) { return false, nil }); !errors.Is(err, errUnknown) || len(m.list) != 1 {
		t.Errorf("error %v, images %v", err, m.refs())
	}
}

func TestNotEnoughIsToldOnce(t *testing.T) {
	var told []string
	loaded := unused("a", "1", 1)
	loaded.Loaded = true
	full := true
	c := New(Config{Images: &model{list: []engine.Image{loaded}}, InUse: func() ([]string, bool) { return nil, true }, Dir: "/d",
		Event: func(eventType, reason, message string) { told = append(told, eventType+" "+reason+": "+message) }})
	free := func() {
		t.Helper()
		if err := c.Free(t.Context(), func() (bool, error) { return !full, nil }); err != nil {
			t.Fatal(err)
		}
	}
	free()
	free()
	full = false
	free()
	full = true
	free()
	line := "Warning FreeDiskSpaceFailed: the disk of /d is nearly full and no image can be removed: 1 loaded from archives, so that no registry has them"
	if diff := cmp.Diff([]string{line, line}, told); diff != "" {
		t.Errorf("events (-want +got):\n%s", diff)
	}
}

func TestEndOfUseIsNoted(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		m := &model{list: []engine.Image{unused("a", "1", 1), unused("b", "2", 1)}}
		uses := []string{"a", "2"}
		c := New(Config{Images: m, InUse: func() ([]string, bool) { return uses, true }, Dir: t.TempDir(), High: 101})
		ended := make(chan struct{})
		go func() { defer close(ended); _ = c.Run(ctx) }()
		time.Sleep(notePeriod + defaultPeriod) // fake time, here and below
		synctest.Wait()
		uses = []string{"a"}
		time.Sleep(notePeriod + defaultPeriod)
		synctest.Wait()
		if diff := cmp.Diff([]string{"b"}, m.noted); diff != "" {
			t.Errorf("noted (-want +got):\n%s", diff)
		}
		cancel()
		<-ended
	})
}

func TestFullAndRoomy(t *testing.T) {
	const gi = int64(1) << 30
	c := New(Config{Floor: gi, Plenty: 30 * gi})
	for name, tt := range map[string]struct {
		available, capacity int64
		full, roomy         bool
	}{
		"half":                           {50 * gi, 100 * gi, false, true},
		"at 84 %":                        {16 * gi, 100 * gi, false, false},
		"at 85 %":                        {15 * gi, 100 * gi, true, false},
		"at 80 %":                        {20 * gi, 100 * gi, false, true},
		"a small disk, half":             {gi - 1, 2 * gi, true, false},
		"a small disk, its floor":        {gi + gi/8, 4 * gi, false, false},
		"a large disk, nearly all":       {40 * gi, 1000 * gi, false, true},
		"a large disk, more than nearly": {29 * gi, 1000 * gi, true, false},
		"a large disk, a little over it": {31 * gi, 1000 * gi, false, false},
	} {
		l := stats.Level{Available: tt.available, Capacity: tt.capacity}
		if full, roomy := c.full(l), c.roomy(l); full != tt.full || roomy != tt.roomy {
			t.Errorf("%s: full %v, roomy %v; want %v and %v", name, full, roomy, tt.full, tt.roomy)
		}
	}
}
