package containerd

import (
	"errors"
	"io/fs"
	"testing"
	"testing/fstest"
	"time"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"

	"github.com/slipway-dev/slipway/nodeagent/engine"
)

func TestFind32(t *testing.T) {
	program := func(class byte, mode uint32) fstest.MapFS {
		return fstest.MapFS{
			"bin/x":    {Data: append([]byte("\x7fELF"), class, 0), Mode: fs.FileMode(mode)},
			"bin/s":    {Data: []byte("#!"), Mode: 0o755},
			"etc/conf": {Data: []byte("\x7fELF\x01"), Mode: 0o644},
		}
	}
	for name, tt := range map[string]struct {
		files fstest.MapFS
		want  bool
	}{
		"64-bit program":      {program(2, 0o755), false},
		"32-bit program":      {program(1, 0o755), true},
		"32-bit, no program":  {program(1, 0o644), false},
		"nothing in the file": {fstest.MapFS{"x": {Mode: 0o755}}, false},
	} {
		if got, err := find32(tt.files); got != tt.want || err != nil {
			t.Errorf("%s: got %v (%v), want %v", name, got, err, tt.want)
		}
	}
}

func TestParseSignal(t *testing.T) {
	for name, want := range map[string]unix.Signal{
		"": unix.SIGTERM, "SIGQUIT": unix.SIGQUIT, "QUIT": unix.SIGQUIT, "2": unix.SIGINT, "nonsense": unix.SIGTERM,
	} {
		if got := parseSignal(name); got != want {
			t.Errorf("parseSignal(%q) = %v, want %v", name, got, want)
		}
	}
}

func TestCommandError(t *testing.T) {
	for text, want := range map[string]string{
		`failed to create shim task: OCI runtime create failed: runc create failed: unable to start container process: error during container init: exec: "nosuch": executable file not found in $PATH: unknown`: `exec: "nosuch": executable file not found in $PATH`,
		`OCI runtime create failed: runc create failed: unable to start container process: error during container init: exec /etc/passwd: permission denied: unknown`:                                            `exec /etc/passwd: permission denied`,
		`OCI runtime create failed: runc create failed: unable to start container process: error during container init: error mounting "/x" to rootfs at "/y": no such file`:                                     "",
	} {
		if got := commandError(errors.New(text)); got != want {
			t.Errorf("got %q, want %q", got, want)
		}
	}
}

func TestSplitMirror(t *testing.T) {
	for mirror, want := range map[string]string{
		"http://10.0.0.1:5000":     "http 10.0.0.1:5000 /v2",
		"https://mirror.local/hub": "https mirror.local /v2/hub",
		"mirror.local":             "https mirror.local /v2",
	} {
		scheme, host, path := splitMirror(mirror)
		if got := scheme + " " + host + " " + path; got != want {
			t.Errorf("%s is %s, want %s", mirror, got, want)
		}
	}
}

func TestCacheKeepsTheFirstEnd(t *testing.T) {
	c := cache{entries: map[string]*entry{}}
	c.put(entry{status: engine.Status{ID: "a", State: engine.Running}})
	c.exited("a", exit{code: 3})
	c.exited("a", exit{code: 137})
	c.started("a", 5, time.Now())
	got, _ := c.get("a")
	if got.status.ExitCode != 3 || got.status.State != engine.Exited || got.status.PID != 0 {
		t.Errorf("got %+v", got.status)
	}
}

func TestCacheReplaceLeavesWhatChangedSince(t *testing.T) {
	c := cache{entries: map[string]*entry{}}
	c.put(entry{status: engine.Status{ID: "old", State: engine.Running}})
	c.put(entry{status: engine.Status{ID: "gone", State: engine.Running}})
	since := c.now()
	c.put(entry{status: engine.Status{ID: "new", State: engine.Created}})
	c.exited("old", exit{code: 1})
	c.begin("making")
	changed := c.replace(map[string]entry{
		"old":    {status: engine.Status{ID: "old", State: engine.Running}},
		"making": {status: engine.Status{ID: "making", State: engine.Exited}},
		"other":  {status: engine.Status{ID: "other", State: engine.Exited}},
	}, since)
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
