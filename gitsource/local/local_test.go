package local

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/slipway-dev/slipway/gitsource"
	"github.com/slipway-dev/slipway/testing/gitserver"
)

// watching is a running source with what it emitted.
type watching struct {
	t       *testing.T
	updates chan gitsource.Update
}

func watch(t *testing.T, dir string, opts Options) *watching {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	w := &watching{t: t, updates: make(chan gitsource.Update, 1000)}
	done := make(chan error, 1)
	go func() { done <- New(dir, opts).Run(ctx, func(u gitsource.Update) { w.updates <- u }) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; !errors.Is(err, context.Canceled) {
			t.Errorf("Run returned %v", err)
		}
	})
	return w
}

func (w *watching) next() gitsource.Update {
	w.t.Helper()
	select {
	case u := <-w.updates:
		return u
	case <-time.After(20 * time.Second):
		w.t.Fatal("nothing was emitted")
		return gitsource.Update{}
	}
}

// snapshot waits for the next update, which must be a snapshot.
func (w *watching) snapshot() *gitsource.Snapshot {
	w.t.Helper()
	u := w.next()
	if u.Err != nil || u.Snapshot == nil {
		w.t.Fatalf("got error %v, want a snapshot", u.Err)
	}
	return u.Snapshot
}

func (w *watching) err(want string) {
	w.t.Helper()
	if u := w.next(); u.Err == nil || !strings.Contains(u.Err.Error(), want) {
		w.t.Fatalf("got %v with error %v, want error %q", u.Snapshot, u.Err, want)
	}
}

// none checks that nothing but what is already known is emitted: a change made now is the next thing seen.
func (w *watching) none(dir string) {
	w.t.Helper()
	w.t.Logf("marking")
	write(w.t, dir, map[string]string{"zz-mark.yaml": fmt.Sprint(time.Now().UnixNano())})
	snap := w.snapshot()
	if _, ok := content(snap)["zz-mark.yaml"]; !ok {
		w.t.Errorf("an unexpected snapshot was emitted: %v", content(snap))
	}
}

func content(s *gitsource.Snapshot) map[string]string {
	files := map[string]string{}
	for _, f := range s.Files {
		files[f.Path] = string(f.Data)
	}
	return files
}

func write(t *testing.T, dir string, files map[string]string) {
	t.Helper()
	for name, text := range files {
		name = filepath.Join(dir, name)
		must(t, os.MkdirAll(filepath.Dir(name), 0o755))
		must(t, os.WriteFile(name, []byte(text), 0o644))
	}
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func expect(t *testing.T, s *gitsource.Snapshot, want map[string]string) {
	t.Helper()
	if diff := cmp.Diff(want, content(s)); diff != "" {
		t.Errorf("snapshot: %s", diff)
	}
}

// modes runs a test with kernel events and with polling.
func modes(t *testing.T, test func(t *testing.T, opts Options)) {
	t.Run("watched", func(t *testing.T) { test(t, Options{}) })
	t.Run("polled", func(t *testing.T) { test(t, Options{alwaysPoll: true, Poll: 10 * time.Millisecond}) })
}

func TestChangesAreSeen(t *testing.T) {
	modes(t, func(t *testing.T, opts Options) {
		dir := t.TempDir()
		write(t, dir, map[string]string{"a.yaml": "1", "sub/b.yml": "2", "c.json": "3", "README.md": "no", ".hidden/d.yaml": "no", ".e.yaml": "no"})
		w := watch(t, dir, opts)
		first := w.snapshot()
		expect(t, first, map[string]string{"a.yaml": "1", "sub/b.yml": "2", "c.json": "3"})
		if id := first.Revision.ID; len(id) != 44 || !strings.HasPrefix(id, "dir-") || first.Revision.Head != "" || first.Revision.Dirty {
			t.Errorf("revision %+v", first.Revision)
		}

		write(t, dir, map[string]string{"a.yaml": "one"})
		expect(t, w.snapshot(), map[string]string{"a.yaml": "one", "sub/b.yml": "2", "c.json": "3"})

		must(t, os.Remove(filepath.Join(dir, "c.json")))
		expect(t, w.snapshot(), map[string]string{"a.yaml": "one", "sub/b.yml": "2"})

		write(t, dir, map[string]string{"a.yaml": "1"})
		w.snapshot()
		write(t, dir, map[string]string{"c.json": "3"})
		if again := w.snapshot(); again.Revision.ID != first.Revision.ID {
			t.Errorf("the same content is named %s and %s", first.Revision.ID, again.Revision.ID)
		}
	})
}

func TestEditorsSave(t *testing.T) {
	saves := map[string]func(dir string){
		"in place": func(dir string) { write(t, dir, map[string]string{"a.yaml": "new"}) },
		"vim": func(dir string) {
			write(t, dir, map[string]string{".a.yaml.swp": "x", "4913": ""})
			must(t, os.Remove(filepath.Join(dir, "4913")))
			must(t, os.Rename(filepath.Join(dir, "a.yaml"), filepath.Join(dir, "a.yaml~")))
			write(t, dir, map[string]string{"a.yaml": "new"})
			must(t, os.Remove(filepath.Join(dir, "a.yaml~")))
		},
		"rename over": func(dir string) {
			write(t, dir, map[string]string{"a.yaml.tmp": "new", ".goutputstream-X": "new"})
			must(t, os.Rename(filepath.Join(dir, "a.yaml.tmp"), filepath.Join(dir, "a.yaml")))
		},
		"emacs": func(dir string) {
			must(t, os.Symlink("ada@host.1:1", filepath.Join(dir, ".#a.yaml")))
			write(t, dir, map[string]string{"#a.yaml#": "ne", "flycheck_a.yaml": "ne"})
			must(t, os.Rename(filepath.Join(dir, "a.yaml"), filepath.Join(dir, "a.yaml~")))
			write(t, dir, map[string]string{"a.yaml": "new"})
		},
		"slow writer": func(dir string) {
			f, err := os.OpenFile(filepath.Join(dir, "a.yaml"), os.O_WRONLY|os.O_TRUNC, 0)
			must(t, err)
			<-time.After(150 * time.Millisecond) // the writer's pause is what is tested
			_, err = f.WriteString("new")
			must(t, err)
			must(t, f.Close())
		},
	}
	for name, save := range saves {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			write(t, dir, map[string]string{"a.yaml": "old", "b.yaml": "b"})
			w := watch(t, dir, Options{})
			w.snapshot()
			save(dir)
			expect(t, w.snapshot(), map[string]string{"a.yaml": "new", "b.yaml": "b"})
		})
	}
}

func TestNewAndMovedDirectories(t *testing.T) {
	modes(t, func(t *testing.T, opts Options) {
		dir, outside := t.TempDir(), t.TempDir()
		write(t, dir, map[string]string{"a.yaml": "a"})
		write(t, outside, map[string]string{"app/deep/er/b.yaml": "b"})
		w := watch(t, dir, opts)
		w.snapshot()

		must(t, os.Rename(filepath.Join(outside, "app"), filepath.Join(dir, "app"))) // full when it appears
		expect(t, w.snapshot(), map[string]string{"a.yaml": "a", "app/deep/er/b.yaml": "b"})
		write(t, dir, map[string]string{"app/deep/er/b.yaml": "bb"})
		expect(t, w.snapshot(), map[string]string{"a.yaml": "a", "app/deep/er/b.yaml": "bb"})
		must(t, os.Rename(filepath.Join(dir, "app"), filepath.Join(dir, "web.d")))
		expect(t, w.snapshot(), map[string]string{"a.yaml": "a", "web.d/deep/er/b.yaml": "bb"})
		write(t, dir, map[string]string{"web.d/deep/er/b.yaml": "bbb"})
		expect(t, w.snapshot(), map[string]string{"a.yaml": "a", "web.d/deep/er/b.yaml": "bbb"})
		must(t, os.RemoveAll(filepath.Join(dir, "web.d")))
		for snap := w.snapshot(); len(snap.Files) != 1; snap = w.snapshot() {
		}
		write(t, dir, map[string]string{"web.d/c.yaml": "c"})
		expect(t, w.snapshot(), map[string]string{"a.yaml": "a", "web.d/c.yaml": "c"})
	})
}

func TestDirectoryGoesAndComesBack(t *testing.T) {
	modes(t, func(t *testing.T, opts Options) {
		dir := filepath.Join(t.TempDir(), "deploy")
		w := watch(t, dir, opts)
		w.err("does not exist")
		write(t, dir+".new", map[string]string{"a.yaml": "1"})
		must(t, os.Rename(dir+".new", dir))
		expect(t, w.snapshot(), map[string]string{"a.yaml": "1"})
		must(t, os.Rename(dir, dir+".old"))
		w.err("does not exist")
		must(t, os.Rename(dir+".old", dir))
		expect(t, w.snapshot(), map[string]string{"a.yaml": "1"}) // the same revision again: the error is over
		write(t, dir, map[string]string{"a.yaml": "2"})
		expect(t, w.snapshot(), map[string]string{"a.yaml": "2"})
	})
}

func TestParentIsExchanged(t *testing.T) {
	base := t.TempDir()
	write(t, base, map[string]string{"one/deploy/a.yaml": "1", "two/deploy/a.yaml": "2"})
	w := watch(t, filepath.Join(base, "one", "deploy"), Options{})
	w.snapshot()
	must(t, os.Rename(filepath.Join(base, "one"), filepath.Join(base, "three")))
	must(t, os.Rename(filepath.Join(base, "two"), filepath.Join(base, "one")))
	u := w.next()
	if u.Err != nil { // seen between the two renames
		u = w.next()
	}
	expect(t, u.Snapshot, map[string]string{"a.yaml": "2"})
}

func TestLinksAreRefused(t *testing.T) {
	outside := t.TempDir()
	write(t, outside, map[string]string{"secret.yaml": "secret", "d/secret.yaml": "secret"})
	tests := []struct{ name, link, target, want string }{
		{"file outside", "a.yaml", filepath.Join(outside, "secret.yaml"), "a.yaml: is a symbolic link"},
		{"directory outside", "sub/d", filepath.Join(outside, "d"), "sub/d: is a symbolic link"},
		{"relative and outside", "a.yaml", "../../../../etc/passwd", "a.yaml: is a symbolic link"},
		{"itself", "a.yaml", "a.yaml", "a.yaml: is a symbolic link"},
		{"itself, without a manifest's name", "loop", "loop", "loop: is a symbolic link"},
		{"parent", "up", ".", "up: is a symbolic link"},
		{"inside", "a.yaml", "real.yaml", "a.yaml: is a symbolic link"},
		{"no manifest", "doc", "README", ""},
		{"nowhere", "gone", "nothing", ""},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			dir := t.TempDir()
			write(t, dir, map[string]string{"real.yaml": "real", "sub/x.yaml": "x", "README": ""})
			must(t, os.Symlink(tt.target, filepath.Join(dir, tt.link)))
			snap, err := Read(t.Context(), dir)
			if tt.want == "" {
				must(t, err)
				expect(t, snap, map[string]string{"real.yaml": "real", "sub/x.yaml": "x"})
				return
			}
			if err == nil || !strings.Contains(err.Error(), tt.want) || snap != nil {
				t.Errorf("got %v, want %q", err, tt.want)
			}
		})
	}
}

func TestOddFilesAreRefused(t *testing.T) {
	tests := []struct {
		name, want string
		make       func(t *testing.T, dir string)
	}{
		{"pipe", "a.yaml: is not a regular file", func(t *testing.T, dir string) { must(t, syscall.Mkfifo(filepath.Join(dir, "a.yaml"), 0o600)) }},
		{"gigabyte", "a.yaml: file is too large (got 1073741824 bytes", func(t *testing.T, dir string) {
			write(t, dir, map[string]string{"a.yaml": ""})
			must(t, os.Truncate(filepath.Join(dir, "a.yaml"), 1<<30))
		}},
		{"file instead of a directory", "is a file, not a directory", func(t *testing.T, dir string) {
			must(t, os.Remove(dir))
			must(t, os.WriteFile(dir, nil, 0o600))
		}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			dir := filepath.Join(t.TempDir(), "deploy")
			must(t, os.Mkdir(dir, 0o755))
			tt.make(t, dir)
			if _, err := Read(t.Context(), dir); err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("got %v, want %q", err, tt.want)
			}
		})
	}
}

func TestRefusedFilesAreToldAllAtOnce(t *testing.T) {
	dir := t.TempDir()
	write(t, dir, map[string]string{"a.yaml": "1"})
	must(t, syscall.Mkfifo(filepath.Join(dir, "pipe.yaml"), 0o600))
	must(t, os.Mkdir(filepath.Join(dir, "sub"), 0o755))
	for n := range 25 {
		must(t, os.Symlink("a.yaml", filepath.Join(dir, "sub", fmt.Sprintf("l%02d.yaml", n))))
	}
	_, err := Read(t.Context(), dir)
	if err == nil {
		t.Fatal("want an error")
	}
	lines := strings.Split(err.Error(), "\n")
	if len(lines) != 21 || !strings.Contains(lines[0], "pipe.yaml: is not a regular file") || !strings.HasPrefix(lines[1], "sub/l00.yaml: is a symbolic link") || lines[20] != "and 6 more" {
		t.Errorf("%d lines:\n%s", len(lines), err)
	}
}

func TestErrorsAreSaidOnce(t *testing.T) {
	dir := t.TempDir()
	write(t, dir, map[string]string{"a.yaml": "1"})
	must(t, os.Symlink("a.yaml", filepath.Join(dir, "b.yaml")))
	w := watch(t, dir, Options{})
	w.err("b.yaml: is a symbolic link")
	write(t, dir, map[string]string{"a.yaml": "2"})
	must(t, os.Remove(filepath.Join(dir, "b.yaml")))
	expect(t, w.snapshot(), map[string]string{"a.yaml": "2"})
}

func TestPollingIsSaidOnce(t *testing.T) {
	dir := t.TempDir()
	write(t, dir, map[string]string{"a.yaml": "1"})
	w := watch(t, dir, Options{alwaysPoll: true, Poll: 10 * time.Millisecond})
	if u := w.next(); !strings.HasPrefix(u.Note, "polling every 10ms: ") || u.Snapshot == nil {
		t.Errorf("got note %q and snapshot %v", u.Note, u.Snapshot)
	}
	write(t, dir, map[string]string{"a.yaml": "2"})
	if u := w.next(); u.Note != "" {
		t.Errorf("said again: %q", u.Note)
	}
}

func TestWatchLimitMeansPolling(t *testing.T) {
	for limit, knob := range map[error]string{syscall.ENOSPC: "fs.inotify.max_user_watches", syscall.EMFILE: "fs.inotify.max_user_instances"} {
		dir := t.TempDir()
		write(t, dir, map[string]string{"a.yaml": "1"})
		full := make(chan struct{}) // closed when the second directory finds no watch left
		w := watch(t, dir, Options{Poll: 10 * time.Millisecond, addWatch: func(name string) error {
			if name == dir {
				return nil
			}
			close(full)
			return limit
		}})
		if u := w.next(); u.Note != "" {
			t.Errorf("polling before the limit: %q", u.Note)
		}
		write(t, dir, map[string]string{"sub/b.yaml": "2"})
		u := w.next()
		expect(t, u.Snapshot, map[string]string{"a.yaml": "1", "sub/b.yaml": "2"})
		if !strings.HasPrefix(u.Note, "polling every 10ms: the limit "+knob+" = ") {
			t.Errorf("%v: note %q", limit, u.Note)
		}
		<-full
		write(t, dir, map[string]string{"sub/b.yaml": "3"})
		if u := w.next(); u.Note != "" || content(u.Snapshot)["sub/b.yaml"] != "3" {
			t.Errorf("after the limit: %+v", u)
		}
	}
}

func TestHead(t *testing.T) {
	repo := gitserver.NewRepo(t)
	repo.Write(map[string]string{"deploy/a.yaml": "1"})
	deploy := filepath.Join(repo.Dir, "deploy")
	read := func() gitsource.Revision {
		t.Helper()
		snap, err := Read(t.Context(), deploy)
		must(t, err)
		return snap.Revision
	}
	if r := read(); r.Head != "" || r.Dirty {
		t.Errorf("before the first commit: %+v", r)
	}
	id := repo.Commit(map[string]string{"other.yaml": "x"}, "Add a\n\nbecause")
	want := gitsource.Revision{ID: contentID([]gitsource.File{{Path: "a.yaml", Data: []byte("1")}}), Head: id, Subject: "Add a", Author: "Ada", Time: time.Date(2026, 1, 1, 12, 0, 0, 0, time.UTC)}
	if diff := cmp.Diff(want, read()); diff != "" {
		t.Errorf("clean: %s", diff)
	}
	repo.Write(map[string]string{"other.yaml": "changed elsewhere"})
	if r := read(); r.Dirty {
		t.Errorf("a change beside the directory: %+v", r)
	}
	for name, change := range map[string]func(){
		"changed": func() { repo.Write(map[string]string{"deploy/a.yaml": "2"}) },
		"added":   func() { repo.Write(map[string]string{"deploy/b.yaml": "2"}) },
		"removed": func() { must(t, os.Remove(filepath.Join(deploy, "a.yaml"))) },
	} {
		change()
		if r := read(); !r.Dirty || r.Head != id || r.Subject != "" || r.Short() != id[:7]+"+dirty" {
			t.Errorf("%s: %+v", name, r)
		}
		repo.Git("checkout", "-q", ".")
		repo.Git("clean", "-qfd")
	}
	tree := t.TempDir()
	repo.Git("worktree", "add", "-q", filepath.Join(tree, "wt"), "HEAD")
	if snap, err := Read(t.Context(), filepath.Join(tree, "wt", "deploy")); err != nil || snap.Revision.Head != id || snap.Revision.Dirty {
		t.Errorf("in a worktree: %+v, %v", snap, err)
	}
}

func TestDamagedRepositoryIsOnlyAFolder(t *testing.T) {
	dir := t.TempDir()
	write(t, dir, map[string]string{".git/HEAD": "nonsense", ".git/objects/x": "", "a.yaml": "1"})
	snap, err := Read(t.Context(), dir)
	must(t, err)
	expect(t, snap, map[string]string{"a.yaml": "1"})
	if snap.Revision.Head != "" || snap.Revision.Dirty {
		t.Errorf("%+v", snap.Revision)
	}
}

func TestIgnored(t *testing.T) {
	repo := gitserver.NewRepo(t)
	repo.Commit(map[string]string{
		".gitignore": "*.local.yaml\nbuild/\n/deploy/only-here\nkept.yaml\n", "deploy/.gitignore": "!wanted.local.yaml\nnode_modules\n", "deploy/kept.yaml": "1", "deploy/a.yaml": "1",
	}, "first")
	repo.Git("add", "-f", "deploy/kept.yaml")
	repo.Commit(nil, "keep")
	repo.Write(map[string]string{"deploy/x.local.yaml": "no", "deploy/wanted.local.yaml": "1", "deploy/build/b.yaml": "no", "deploy/node_modules/p/package.json": "no",
		"deploy/only-here/c.yaml": "no", "deploy/sub/only-here/d.yaml": "1", "build/e.yaml": "1", ".git/info/exclude": "excluded.yaml\n", "deploy/excluded.yaml": "no"})
	snap, err := Read(t.Context(), filepath.Join(repo.Dir, "deploy"))
	must(t, err)
	expect(t, snap, map[string]string{"kept.yaml": "1", "a.yaml": "1", "wanted.local.yaml": "1", "sub/only-here/d.yaml": "1"})

	snap, err = Read(t.Context(), filepath.Join(repo.Dir, "build")) // asked for although ignored
	must(t, err)
	expect(t, snap, map[string]string{"e.yaml": "1"})

	w := watch(t, filepath.Join(repo.Dir, "deploy"), Options{})
	w.snapshot()
	repo.Write(map[string]string{"deploy/.gitignore": "a.yaml\nsub\n"})
	expect(t, w.snapshot(), map[string]string{"kept.yaml": "1", "a.yaml": "1", "node_modules/p/package.json": "no"})
}

func TestCheckoutIsOneSnapshot(t *testing.T) {
	modes(t, func(t *testing.T, opts Options) {
		repo := gitserver.NewRepo(t)
		files := func(text string) map[string]string {
			all := map[string]string{}
			for i := range 300 {
				all[fmt.Sprintf("app-%d/%d.yaml", i%20, i)] = text
			}
			return all
		}
		one := repo.Commit(files("one"), "one")
		repo.Git("branch", "old")
		two := repo.Commit(files("two"), "two")
		w := watch(t, repo.Dir, opts)
		if r := w.snapshot().Revision; r.Head != two || r.Dirty {
			t.Errorf("first: %+v", r)
		}
		for _, step := range []struct{ branch, text string }{{"old", "one"}, {"main", "two"}, {"old", "one"}} {
			repo.Git("checkout", "-q", step.branch)
			snap := w.snapshot()
			for _, f := range snap.Files {
				if string(f.Data) != step.text {
					t.Fatalf("%s: torn: %s is %q", step.branch, f.Path, f.Data)
				}
			}
			want := map[string]string{"one": one, "two": two}[step.text]
			if r := snap.Revision; len(snap.Files) != 300 || r.Head != want || r.Dirty {
				t.Errorf("%s: %d files at %+v, want 300 at %s", step.branch, len(snap.Files), r, want)
			}
		}
		w.none(repo.Dir)
	})
}

// TestHeadFollowsTheIndex stops a checkout between its two steps: files and index first, HEAD after.
func TestHeadFollowsTheIndex(t *testing.T) {
	repo := gitserver.NewRepo(t)
	one := repo.Commit(map[string]string{"a.yaml": "1"}, "one")
	repo.Git("branch", "old")
	repo.Commit(map[string]string{"a.yaml": "2"}, "two")
	w := watch(t, repo.Dir, Options{})
	w.snapshot()
	repo.Git("read-tree", "-u", "--reset", "old")
	soon := time.Now().Add(youngIndex - 20*time.Millisecond) // so that the index is young for longer than the pause
	must(t, os.Chtimes(filepath.Join(repo.Dir, ".git", "index"), soon, soon))
	<-time.After(4 * quiet) // git's pause
	repo.Git("symbolic-ref", "HEAD", "refs/heads/old")
	if r := w.snapshot().Revision; r.Head != one || r.Dirty {
		t.Errorf("%+v, want %s", r, one)
	}
}

// TestChangeWhileReading changes a file that was read before the reading is over.
func TestChangeWhileReading(t *testing.T) {
	for name, change := range map[string]func(dir string){
		"content": func(dir string) { write(t, dir, map[string]string{"a.yaml": "2"}) },
		"new":     func(dir string) { write(t, dir, map[string]string{"b.yaml": "2"}) },
		"gone":    func(dir string) { must(t, os.Remove(filepath.Join(dir, "a.yaml"))) },
		"renamed": func(dir string) { must(t, os.Rename(dir, dir+".old")) },
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			write(t, dir, map[string]string{"one/a.yaml": "1", "two/a.yaml": "1"})
			past := time.Now().Add(-time.Hour) // clocks of filesystems are coarse
			for _, d := range []string{"one", "two"} {
				must(t, os.Chtimes(filepath.Join(dir, d, "a.yaml"), past, past))
			}
			var entered []string
			w := newWatcher(dir, Options{addWatch: func(folder string) error {
				if entered = append(entered, folder); len(entered) == 3 {
					change(entered[1])
				}
				return nil
			}})
			defer w.close()
			if _, err := New(dir, Options{}).scan(w); !errors.Is(err, errChanged) {
				t.Errorf("got %v, want %v", err, errChanged)
			}
		})
	}
}

func TestIndexLockIsWaitedFor(t *testing.T) {
	repo := gitserver.NewRepo(t)
	repo.Commit(map[string]string{"a.yaml": "1", "b.yaml": "1"}, "one")
	w := watch(t, repo.Dir, Options{})
	w.snapshot()
	lock := filepath.Join(repo.Dir, ".git", "index.lock")
	must(t, os.WriteFile(lock, nil, 0o600))
	repo.Write(map[string]string{"a.yaml": "2"})
	select {
	case u := <-w.updates:
		t.Errorf("emitted under the lock: %v", u)
	case <-time.After(2 * longestWait): // longer than any debounce
	}
	repo.Write(map[string]string{"b.yaml": "2"})
	must(t, os.Remove(lock))
	expect(t, w.snapshot(), map[string]string{"a.yaml": "2", "b.yaml": "2"})
}

// TestNeverTorn writes two files, always the same text in both, by renaming a directory; every snapshot must show
// a pair.
func TestNeverTorn(t *testing.T) {
	dir := t.TempDir()
	write(t, dir, map[string]string{"d/a.yaml": "0", "d/b.yaml": "0"})
	w := watch(t, dir, Options{})
	w.snapshot()
	for i := 1; i <= 200; i++ {
		text := fmt.Sprint(i)
		write(t, dir, map[string]string{".next/a.yaml": text, ".next/b.yaml": text})
		must(t, os.Rename(filepath.Join(dir, "d"), filepath.Join(dir, ".old")))
		must(t, os.Rename(filepath.Join(dir, ".next"), filepath.Join(dir, "d")))
		must(t, os.RemoveAll(filepath.Join(dir, ".old")))
	}
	for {
		files := content(w.snapshot())
		if files["d/a.yaml"] != files["d/b.yaml"] {
			t.Fatalf("torn: %v", files)
		}
		if files["d/a.yaml"] == "200" {
			return
		}
	}
}

func TestBusyDirectoryIsStillRead(t *testing.T) {
	dir := t.TempDir()
	write(t, dir, map[string]string{"a.yaml": "1"})
	stop := make(chan struct{})
	done := make(chan struct{})
	go func() {
		defer close(done)
		for i := 0; ; i++ {
			select {
			case <-stop:
				return
			case <-time.After(20 * time.Millisecond): // a log beside the manifests, always changing
				_ = os.WriteFile(filepath.Join(dir, "noise.log"), []byte(fmt.Sprint(i)), 0o600)
				_ = os.WriteFile(filepath.Join(dir, "busy.json"), []byte(fmt.Sprint(i)), 0o600)
			}
		}
	}()
	w := watch(t, dir, Options{})
	w.snapshot()
	write(t, dir, map[string]string{"a.yaml": "2"})
	for content(w.snapshot())["a.yaml"] != "2" {
	}
	close(stop)
	<-done
}

func BenchmarkScan(b *testing.B) {
	dir := b.TempDir()
	for i := range 1000 {
		if err := os.WriteFile(filepath.Join(dir, fmt.Sprintf("%d.yaml", i)), []byte(strings.Repeat("x", 1000)), 0o600); err != nil {
			b.Fatal(err)
		}
	}
	s := New(dir, Options{})
	for b.Loop() {
		if _, err := s.scan(&watcher{}); err != nil {
			b.Fatal(err)
		}
	}
}

// BenchmarkSaveToSnapshot is how long a saved file takes to be emitted.
func BenchmarkSaveToSnapshot(b *testing.B) {
	dir := b.TempDir()
	name := filepath.Join(dir, "a.yaml")
	ctx, cancel := context.WithCancel(context.Background())
	updates := make(chan gitsource.Update)
	done := make(chan struct{})
	go func() {
		defer close(done)
		_ = New(dir, Options{}).Run(ctx, func(u gitsource.Update) { updates <- u })
	}()
	<-updates
	for i := 0; b.Loop(); i++ {
		if err := os.WriteFile(name, []byte(fmt.Sprint(i)), 0o600); err != nil {
			b.Fatal(err)
		}
		<-updates
	}
	cancel()
	<-done
}
