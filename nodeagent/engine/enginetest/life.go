package enginetest

import (
	"context"
	"slices"
	"syscall"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/slipway-dev/slipway/nodeagent/engine"
)

// lifeRows hold for every engine.
func lifeRows() []row {
	return []row{
		{"container goes from created to running to exited", lifecycle},
		{"exit code of a killed container", killed},
		{"list is sorted and keeps labels", listed},
		{"remove is idempotent", removedTwice},
		{"remove ends what runs", removeRunning},
		{"remove of a created container", removeCreated},
		{"an id is used once", doubleCreate},
		{"unknown ids", unknownIDs},
		{"unknown and invalid images", unknownImages},
		{"image is listed under its full name", listedImage},
		{"watch tells of every change", watched},
	}
}

func lifecycle(t *testing.T, b *Box) {
	c := b.Spec("sleep")
	b.Create(c)
	created := b.Await(c.ID, engine.Created)
	if created.CreatedAt.IsZero() || !created.StartedAt.IsZero() || !created.FinishedAt.IsZero() {
		t.Errorf("times of a created container: %+v", created)
	}
	if err := b.Engine.Start(t.Context(), c.ID); err != nil {
		t.Fatal(err)
	}
	running := b.Await(c.ID, engine.Running)
	if running.PID == 0 || running.StartedAt.IsZero() || !running.FinishedAt.IsZero() {
		t.Errorf("a running container: %+v", running)
	}
	if running.LogPath != c.LogPath || running.ImageID == "" || running.Image != c.Image {
		t.Errorf("a running container: %+v", running)
	}
	if err := b.Engine.Signal(t.Context(), c.ID, int(syscall.SIGKILL), false); err != nil {
		t.Fatal(err)
	}
	exited := b.Await(c.ID, engine.Exited)
	if exited.PID != 0 || exited.FinishedAt.Before(exited.StartedAt) {
		t.Errorf("an exited container: %+v", exited)
	}
	if err := b.Engine.Signal(t.Context(), c.ID, int(syscall.SIGTERM), false); err != nil {
		t.Errorf("signal to an exited container: %v", err)
	}
}

func killed(t *testing.T, b *Box) {
	c := b.Spec("sleep")
	b.Start(c)
	if err := b.Engine.Signal(t.Context(), c.ID, int(syscall.SIGKILL), true); err != nil {
		t.Fatal(err)
	}
	if got := b.Await(c.ID, engine.Exited); got.ExitCode != 137 || got.OOMKilled {
		t.Errorf("exit code %d, out of memory %v; want 137 and false", got.ExitCode, got.OOMKilled)
	}
}

func listed(t *testing.T, b *Box) {
	var want []string
	for range 3 {
		c := b.Spec("sleep")
		b.Create(c)
		want = append(want, c.ID)
	}
	list, err := b.Engine.List(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, s := range list {
		if slices.Contains(want, s.ID) {
			got = append(got, s.ID)
			if diff := cmp.Diff(map[string]string{"test": t.Name()}, s.Labels); diff != "" {
				t.Errorf("labels (-want +got):\n%s", diff)
			}
		}
	}
	slices.Sort(want)
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("ids (-want +got):\n%s", diff)
	}
}

func removedTwice(t *testing.T, b *Box) {
	c := b.Spec("sleep")
	b.Start(c)
	for range 2 {
		if err := b.Engine.Remove(t.Context(), c.ID); err != nil {
			t.Fatal(err)
		}
	}
	if _, ok := b.Status(c.ID); ok {
		t.Error("the container is still listed")
	}
}

func removeRunning(t *testing.T, b *Box) {
	c := b.Spec("stubborn")
	b.Start(c)
	status := b.Await(c.ID, engine.Running)
	if err := b.Engine.Remove(t.Context(), c.ID); err != nil {
		t.Fatal(err)
	}
	if !b.Suite.Hollow && syscall.Kill(status.PID, 0) == nil {
		t.Errorf("process %d still runs", status.PID)
	}
}

func removeCreated(t *testing.T, b *Box) {
	c := b.Spec("sleep")
	b.Create(c)
	if err := b.Engine.Remove(t.Context(), c.ID); err != nil {
		t.Fatal(err)
	}
	if _, ok := b.Status(c.ID); ok {
		t.Error("the container is still listed")
	}
}

func doubleCreate(t *testing.T, b *Box) {
	c := b.Spec("sleep")
	b.Start(c)
	if err := b.Engine.Create(t.Context(), c); err == nil {
		t.Error("a second container with the same id was made")
	}
	if got, ok := b.Status(c.ID); !ok || got.State != engine.Running {
		t.Errorf("the first container is %+v, want it running", got)
	}
}

func unknownIDs(t *testing.T, b *Box) {
	ctx := t.Context()
	wantClass(t, b.Engine.Start(ctx, "nobody"), engine.ErrNotFound)
	wantClass(t, b.Engine.Signal(ctx, "nobody", 15, false), engine.ErrNotFound)
	_, err := b.Engine.Exec(ctx, "nobody", engine.Exec{Command: []string{"/app", "env"}})
	wantClass(t, err, engine.ErrNotFound)
	if err := b.Engine.Remove(ctx, "nobody"); err != nil {
		t.Errorf("remove: %v", err)
	}
}

func unknownImages(t *testing.T, b *Box) {
	for ref, class := range map[string]error{
		"example.invalid/none:1": engine.ErrImageNotFound,
		"Not An Image":           engine.ErrImageName,
	} {
		_, err := b.Engine.Image(t.Context(), ref)
		wantClass(t, err, class)
		c := b.Spec("sleep")
		c.Image = ref
		wantClass(t, b.Engine.Create(t.Context(), c), class)
		if _, ok := b.Status(c.ID); ok {
			t.Errorf("a container of image %q is left", ref)
		}
	}
}

func listedImage(t *testing.T, b *Box) {
	image, err := b.Engine.Image(t.Context(), b.Suite.Image)
	if err != nil {
		t.Fatal(err)
	}
	list, err := b.Engine.ListImages(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if !slices.Contains(list, image) {
		t.Errorf("%+v is not in %+v", image, list)
	}
	if image.Bytes == 0 || len(image.ID) != len("sha256:")+64 {
		t.Errorf("image is %+v", image)
	}
}

func watched(t *testing.T, b *Box) {
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	events := b.Engine.Watch(ctx)
	await := func(id, what string, done func(engine.Status, bool) bool) {
		t.Helper()
		for event := range events {
			if event.ID == id || event.ID == "" {
				if status, ok := b.Status(id); done(status, ok) {
					return
				}
			}
		}
		t.Fatalf("no event that %s was %s", id, what)
	}
	c := b.Spec("sleep")
	b.Create(c)
	await(c.ID, "created", func(_ engine.Status, ok bool) bool { return ok })
	if err := b.Engine.Start(t.Context(), c.ID); err != nil {
		t.Fatal(err)
	}
	await(c.ID, "started", func(s engine.Status, _ bool) bool { return s.State == engine.Running })
	if err := b.Engine.Signal(t.Context(), c.ID, int(syscall.SIGKILL), false); err != nil {
		t.Fatal(err)
	}
	await(c.ID, "ended", func(s engine.Status, _ bool) bool { return s.State == engine.Exited })
	if err := b.Engine.Remove(t.Context(), c.ID); err != nil {
		t.Fatal(err)
	}
	await(c.ID, "removed", func(_ engine.Status, ok bool) bool { return !ok })
	cancel()
	for range events { // ends when ctx does
	}
}
