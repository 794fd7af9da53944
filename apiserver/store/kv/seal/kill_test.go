package seal

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/slipway-dev/slipway/apiserver/store/kv"
	"github.com/slipway-dev/slipway/apiserver/store/kv/memory"
)

// waitALook lets as much time pass as Run needs to look again.
func waitALook() { <-time.After(lookEvery) }

var errKilled = errors.New("killed")

// life is how many more steps a process takes before it is killed. A step that kills may have been done or not, and
// a file may be half written.
type life struct {
	left int
	done bool // the last step was done before the end
}

// step does one thing, or the end of the process.
func (l *life) step(do func() error) error {
	l.left--
	switch {
	case l.left > 0:
		return do()
	case l.left == 0 && l.done:
		_ = do() // it happened, and nobody heard of it
	}
	return errKilled
}

type mortalDisk struct {
	files
	life *life
}

func (d mortalDisk) write(path string, data []byte) error {
	if d.life.left == 1 && !d.life.done {
		_ = os.WriteFile(path, data[:len(data)/2], 0o600)
	}
	return d.life.step(func() error { return d.files.write(path, data) })
}

func (d mortalDisk) rename(from, to string) error {
	return d.life.step(func() error { return d.files.rename(from, to) })
}

type mortalBackend struct {
	kv.Backend
	life *life
}

func (b mortalBackend) Txn(ctx context.Context, ops []kv.Op) (revision uint64, err error) {
	err = b.life.step(func() error {
		revision, err = b.Backend.Txn(ctx, ops)
		return err
	})
	return revision, err
}

// TestAKillAtAnyStepOfARotationLosesNothing kills a rotation at its first step, its second, and so on, each time
// with that step done and not done, and looks whether a new process reads everything and comes to the same end.
func TestAKillAtAnyStepOfARotationLosesNothing(t *testing.T) {
	want := map[string]string{}
	for n := range 5 {
		want[fmt.Sprintf("%sa/%d", prefix, n)] = fmt.Sprint("hunter", n)
	}
	survived := 0
	for steps := 1; survived < 2; steps++ {
		for _, done := range []bool{false, true} {
			inner, path := memory.New(), filepath.Join(t.TempDir(), "k")
			b := reopen(t, inner, path)
			for k, v := range want {
				put(t, b, k, v)
			}
			before := stored(t, inner)
			err := rotation(t.Context(), inner, path, &life{left: steps, done: done})
			if err == nil {
				survived++
			} else if !errors.Is(err, errKilled) {
				t.Fatal(err)
			}
			next := reopen(t, inner, path) // refuses what it could not read
			if diff := cmp.Diff(want, stored(t, next)); diff != "" {
				t.Fatalf("killed at step %d, done %t (-want +got):\n%s", steps, done, diff)
			}
			if _, err := next.Settle(t.Context()); err != nil {
				t.Fatal(err)
			}
			if ks, err := next.file.read(); err != nil || len(ks) != 1 {
				t.Errorf("killed at step %d, done %t: %d keys in the file, %v; want 1", steps, done, len(ks), err)
			}
			if after := stored(t, reopen(t, inner, path)); !cmp.Equal(want, after) || (survived > 0 && cmp.Equal(before, stored(t, inner))) {
				t.Errorf("killed at step %d, done %t: the end reads %v", steps, done, after)
			}
		}
		if steps > 50 {
			t.Fatal("the rotation has no end")
		}
	}
}

// rotation is what the command and the process do, up to the end of their lives.
func rotation(ctx context.Context, inner kv.Backend, path string, l *life) error {
	file := keyFile{path: path, disk: mortalDisk{life: l}}
	if _, _, err := addKey(file); err != nil {
		return err
	}
	b, err := open(ctx, Config{Backend: mortalBackend{inner, l}, KeyFile: path, Prefix: prefix}, file)
	if err != nil {
		return err
	}
	_, err = b.Settle(ctx)
	return err
}

// slowBackend holds a write back until it is told.
type slowBackend struct {
	kv.Backend
	arrived, proceed chan struct{}
}

func (b slowBackend) Txn(ctx context.Context, ops []kv.Op) (uint64, error) {
	if ops[0].Key == prefix+"a/slow" {
		b.arrived <- struct{}{}
		<-b.proceed
	}
	return b.Backend.Txn(ctx, ops)
}

func TestAKeyChangesNotUnderAWriteOnItsWay(t *testing.T) {
	inner, path := memory.New(), filepath.Join(t.TempDir(), "k")
	slow := slowBackend{inner, make(chan struct{}, 2), make(chan struct{})}
	b := reopen(t, slow, path)
	go func() {
		_, _ = b.Txn(t.Context(), []kv.Op{{Verb: kv.Put, Key: prefix + "a/slow", Value: []byte("hunter2"), Revision: kv.Any}})
	}()
	<-slow.arrived // sealed with the first key, not stored yet
	if _, _, err := AddKey(path); err != nil {
		t.Fatal(err)
	}
	rotated := make(chan error)
	go func() {
		_, err := b.reload()
		if err == nil {
			_, err = b.Settle(t.Context())
		}
		rotated <- err
	}()
	for waits := 0; waits < 1000; { // until the rotation waits for the write, not only passes by
		if waits++; b.mu.TryRLock() {
			b.mu.RUnlock()
			waits = 0
		}
		select {
		case err := <-rotated:
			t.Fatalf("the rotation ended before the write did: %v", err)
		default:
			runtime.Gosched()
		}
	}
	close(slow.proceed)
	if err := <-rotated; err != nil {
		t.Fatal(err)
	}
	if got := stored(t, reopen(t, inner, path))[prefix+"a/slow"]; got != "hunter2" {
		t.Errorf("the value reads %q", got)
	}
}
