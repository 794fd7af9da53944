// Package enginetest is the conformance suite of engine.Engine. Every engine passes the rows on the life of a
// container; one that runs real processes passes all.
package enginetest

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/slipway-dev/slipway/nodeagent/engine"
)

// Suite says what is tested.
type Suite struct {
	Engine engine.Engine
	Image  string // reference of a present image of testing/images/testpod
	Cgroup string // parent of the tests' containers
	Hollow bool   // the engine runs no real processes: only rows on the life of containers are run
}

// patience bounds every wait; it is reached only by a test that fails.
const patience = 30 * time.Second

// Run runs the suite.
func Run(t *testing.T, s Suite) {
	rows := lifeRows()
	if !s.Hollow {
		rows = append(rows, realRows()...)
	}
	for _, row := range rows {
		t.Run(row.name, func(t *testing.T) { row.run(t, newBox(t, s)) })
	}
}

type row struct {
	name string
	run  func(*testing.T, *Box)
}

// Box makes containers for one test and removes them after it. It serves other packages' tests, too.
type Box struct {
	Engine engine.Engine
	Suite  Suite
	Logs   string // folder of the log files
	t      testing.TB
}

var serial atomic.Int64

func newBox(t testing.TB, s Suite) *Box {
	return &Box{Engine: s.Engine, Suite: s, Logs: t.TempDir(), t: t}
}

// NewBox returns a box for the test.
func NewBox(t testing.TB, s Suite) *Box { return newBox(t, s) }

// Spec returns a container that runs the test program with the arguments given, in a group of its own.
func (b *Box) Spec(args ...string) engine.Container {
	id := fmt.Sprintf("test-%d-%d", time.Now().UnixNano()%1e9, serial.Add(1))
	return engine.Container{
		ID: id, Group: "group-" + id, Image: b.Suite.Image, Args: args, Labels: map[string]string{"test": b.t.Name()},
		LogPath: filepath.Join(b.Logs, id+".log"), Cgroup: b.Suite.Cgroup,
		Security: engine.Security{SeccompDefault: true},
	}
}

// Create makes a container and removes it when the test ends.
func (b *Box) Create(c engine.Container) {
	b.t.Helper()
	b.t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), patience)
		defer cancel()
		if err := b.Engine.Remove(ctx, c.ID); err != nil {
			b.t.Errorf("remove %s: %v", c.ID, err)
		}
	})
	if err := b.Engine.Create(b.t.Context(), c); err != nil {
		b.t.Fatal(err)
	}
}

// Start creates and starts a container.
func (b *Box) Start(c engine.Container) {
	b.t.Helper()
	b.Create(c)
	if err := b.Engine.Start(b.t.Context(), c.ID); err != nil {
		b.t.Fatal(err)
	}
}

// Finish starts a container and waits for its end.
func (b *Box) Finish(c engine.Container) engine.Status {
	b.t.Helper()
	b.Start(c)
	return b.Await(c.ID, engine.Exited)
}

// Status returns a container's status; false when there is none.
func (b *Box) Status(id string) (engine.Status, bool) {
	b.t.Helper()
	list, err := b.Engine.List(b.t.Context())
	if err != nil {
		b.t.Fatal(err)
	}
	i := slices.IndexFunc(list, func(s engine.Status) bool { return s.ID == id })
	if i < 0 {
		return engine.Status{}, false
	}
	return list[i], true
}

// Await waits until a container has the state.
func (b *Box) Await(id string, state engine.State) engine.Status {
	b.t.Helper()
	return b.AwaitThat(id, string(state), func(s engine.Status) bool { return s.State == state })
}

// AwaitThat waits until a container's status is as wanted, going by the engine's events.
func (b *Box) AwaitThat(id, what string, wanted func(engine.Status) bool) engine.Status {
	b.t.Helper()
	ctx, cancel := context.WithTimeout(b.t.Context(), patience)
	defer cancel()
	events := b.Engine.Watch(ctx)
	for {
		status, ok := b.Status(id)
		if ok && wanted(status) {
			return status
		}
		if _, more := <-events; !more {
			b.t.Fatalf("container %s is not %s after %v: %+v", id, what, patience, status)
		}
	}
}

// Line is one line of a container's log.
type Line struct {
	At     time.Time
	Stream string // "stdout", "stderr"
	Tag    string // "F", "P"
	Text   string
}

// Log reads a container's log.
func (b *Box) Log(path string) []Line {
	b.t.Helper()
	lines, err := ReadLog(path)
	if err != nil {
		b.t.Fatal(err)
	}
	return lines
}

// Text is the text of a container's log, a line each.
func (b *Box) Text(path string) []string {
	b.t.Helper()
	var out []string
	for _, line := range b.Log(path) {
		out = append(out, line.Text)
	}
	return out
}

// AwaitLine waits until the log holds a line with the text.
func (b *Box) AwaitLine(path, text string) {
	b.t.Helper()
	deadline := time.Now().Add(patience)
	tick := time.NewTicker(2 * time.Millisecond)
	defer tick.Stop()
	for {
		lines, err := ReadLog(path)
		if err == nil && slices.ContainsFunc(lines, func(l Line) bool { return strings.Contains(l.Text, text) }) {
			return
		}
		if time.Now().After(deadline) {
			b.t.Fatalf("no line %q in %s (%v)", text, path, err)
		}
		<-tick.C
	}
}

// values reads "name=value" lines.
func values(lines []string) map[string]string {
	out := map[string]string{}
	for _, line := range lines {
		if name, value, ok := strings.Cut(line, "="); ok {
			out[name] = value
		}
	}
	return out
}

func wantClass(t *testing.T, err, class error) {
	t.Helper()
	if !errors.Is(err, class) {
		t.Errorf("got %v, want an error of class %q", err, class)
	}
}

func wantText(t *testing.T, err error, text string) {
	t.Helper()
	if err == nil || !strings.Contains(err.Error(), text) {
		t.Errorf("got %v, want %q in it", err, text)
	}
}
