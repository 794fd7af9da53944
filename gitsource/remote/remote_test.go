package remote

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/slipway-dev/slipway/gitsource"
	"github.com/slipway-dev/slipway/testing/gitserver"
)

// following is a running source with what it emitted.
type following struct {
	t       *testing.T
	source  *Source
	updates chan gitsource.Update
	stop    func()
}

func follow(t *testing.T, opts Options, changes ...func(*Source)) *following {
	t.Helper()
	if opts.Dir == "" {
		opts.Dir = filepath.Join(t.TempDir(), "cache")
	}
	if opts.Interval == 0 {
		opts.Interval = 10 * time.Millisecond
	}
	s, err := New(opts)
	if err != nil {
		t.Fatal(err)
	}
	for _, change := range changes {
		change(s)
	}
	ctx, cancel := context.WithCancel(context.Background())
	f := &following{t: t, source: s, updates: make(chan gitsource.Update)}
	done := make(chan error, 1)
	go func() {
		done <- s.Run(ctx, func(u gitsource.Update) {
			select {
			case f.updates <- u:
			case <-ctx.Done():
			}
		})
	}()
	stopped := false
	f.stop = func() {
		if stopped {
			return
		}
		stopped = true
		cancel()
		if err := <-done; !errors.Is(err, context.Canceled) {
			t.Errorf("Run returned %v", err)
		}
	}
	t.Cleanup(f.stop)
	return f
}

func (f *following) next() gitsource.Update {
	f.t.Helper()
	select {
	case u := <-f.updates:
		return u
	case <-time.After(20 * time.Second):
		f.t.Fatal("nothing was emitted")
		return gitsource.Update{}
	}
}

// snapshot waits for the next snapshot; errors before it are passed over.
func (f *following) snapshot() *gitsource.Snapshot {
	f.t.Helper()
	for {
		if u := f.next(); u.Snapshot != nil {
			return u.Snapshot
		}
	}
}

// err waits for an error that contains want.
func (f *following) err(want string) error {
	f.t.Helper()
	for range 100 {
		if u := f.next(); u.Err != nil && strings.Contains(u.Err.Error(), want) {
			return u.Err
		} else if u.Snapshot != nil {
			f.t.Fatalf("got snapshot %s, want error %q", u.Snapshot.Revision.ID, want)
		} else {
			f.t.Logf("got %v", u.Err)
		}
	}
	f.t.Fatalf("error %q did not come", want)
	return nil
}

func content(s *gitsource.Snapshot) map[string]string {
	files := map[string]string{}
	for _, f := range s.Files {
		files[f.Path] = string(f.Data)
	}
	return files
}

func expect(t *testing.T, s *gitsource.Snapshot, id string, want map[string]string) {
	t.Helper()
	if s.Revision.ID != id {
		t.Errorf("got revision %s, want %s", s.Revision.ID, id)
	}
	if diff := cmp.Diff(want, content(s)); diff != "" {
		t.Errorf("snapshot: %s", diff)
	}
}

func fetches(s *gitserver.Server) int {
	n := 0
	for _, r := range s.Requests() {
		if strings.HasPrefix(r, "POST ") && strings.HasSuffix(r, "/git-upload-pack") {
			n++
		}
	}
	return n
}

func TestCommitsAreFollowed(t *testing.T) {
	server := gitserver.Start(t)
	one := server.Push(map[string]string{"a.yaml": "1", "sub/b.yml": "b", "README.md": "no", ".github/w.yaml": "no", ".x.yaml": "no"}, "Add a and b\n\nbecause")
	f := follow(t, Options{URL: server.URL})
	first := f.snapshot()
	expect(t, first, one, map[string]string{"a.yaml": "1", "sub/b.yml": "b"})
	if diff := cmp.Diff(gitsource.Revision{ID: one, Subject: "Add a and b", Author: "Ada", Time: time.Date(2026, 1, 1, 12, 0, 0, 0, time.UTC)}, first.Revision); diff != "" {
		t.Error(diff)
	}

	two := server.Push(map[string]string{"a.yaml": "2"}, "two")
	expect(t, f.snapshot(), two, map[string]string{"a.yaml": "2", "sub/b.yml": "b"})
	for i := range 20 {
		server.Commit(map[string]string{"a.yaml": fmt.Sprint("many", i)}, "many")
	}
	server.Git("checkout", "-q", "-b", "side", two)
	server.Commit(map[string]string{"c.yaml": "c"}, "side")
	server.Git("checkout", "-q", "main")
	server.Git("merge", "-q", "-m", "merge", "side")
	three := server.Push(nil, "three")
	merged := f.snapshot()
	expect(t, merged, three, map[string]string{"a.yaml": "many19", "sub/b.yml": "b", "c.yaml": "c"})
	if merged.Revision.Rewritten {
		t.Error("a merge is said to rewrite history")
	}
	if got := fetches(server); got != 3 {
		t.Errorf("%d fetches for 3 new tips: %v", got, server.Requests())
	}
}

func TestOnlyWhatIsNewIsFetched(t *testing.T) {
	server := gitserver.Start(t)
	files := map[string]string{}
	for i := range 100 {
		files[fmt.Sprintf("%d.yaml", i)] = fmt.Sprint(i)
	}
	server.Commit(files, "old history")
	server.Push(map[string]string{"0.yaml": "zero"}, "one")
	opts := Options{URL: server.URL, Dir: filepath.Join(t.TempDir(), "cache")}
	f := follow(t, opts)
	f.snapshot()
	server.Push(map[string]string{"1.yaml": "one"}, "two")
	f.snapshot()
	packs, err := filepath.Glob(filepath.Join(opts.Dir, current, "objects", "pack", "*.pack"))
	if err != nil {
		t.Fatal(err)
	}
	got := map[byte]bool{}
	for _, name := range packs {
		data, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		got[data[11]] = true // number of objects, below 256
	}
	if diff := cmp.Diff(map[byte]bool{102: true, 3: true}, got); diff != "" { // commit, tree and blobs
		t.Error(diff)
	}
}

func TestRewrittenHistoryIsSaid(t *testing.T) {
	for name, rewrite := range map[string]func(s *gitserver.Server) string{
		"amended": func(s *gitserver.Server) string {
			s.Git("commit", "-q", "--amend", "-m", "better")
			return s.Push(map[string]string{"a.yaml": "3"}, "three")
		},
		"unrelated": func(s *gitserver.Server) string {
			s.Git("checkout", "-q", "--orphan", "new")
			s.Commit(map[string]string{"a.yaml": "3"}, "unrelated")
			s.Git("branch", "-M", "main")
			s.Publish()
			return s.Head()
		},
		"turned back": func(s *gitserver.Server) string {
			s.Git("reset", "-q", "--hard", "HEAD~1")
			s.Publish()
			return s.Head()
		},
	} {
		t.Run(name, func(t *testing.T) {
			server := gitserver.Start(t)
			server.Push(map[string]string{"a.yaml": "0"}, "zero")
			server.Commit(map[string]string{"a.yaml": "3"}, "one")
			server.Push(map[string]string{"a.yaml": "2"}, "two")
			f := follow(t, Options{URL: server.URL})
			if f.snapshot().Revision.Rewritten {
				t.Error("the first snapshot rewrites nothing")
			}
			id := rewrite(server)
			snap := f.snapshot()
			expect(t, snap, id, map[string]string{"a.yaml": "3"})
			if !snap.Revision.Rewritten {
				t.Error("it is not said that history was rewritten")
			}
		})
	}
}

func TestBranches(t *testing.T) {
	server := gitserver.Start(t)
	f := follow(t, Options{URL: server.URL, Branch: "live"})
	f.err("the repository is empty; push a commit to it")
	server.Push(map[string]string{"a.yaml": "1"}, "one")
	f.err(`branch "live" does not exist (it has main)`)
	server.Git("branch", "live")
	server.Publish()
	f.snapshot()
	server.Git("branch", "-D", "live")
	server.Publish()
	f.err("it was there before, and the last commit read stays in force")
	server.Git("branch", "live")
	server.Publish()
	expect(t, f.snapshot(), server.Head(), map[string]string{"a.yaml": "1"})
	if got := f.source.String(); got != server.URL {
		t.Errorf("String: %s", got)
	}
}

func TestFaultsKeepTheLastGoodState(t *testing.T) {
	faults := map[string]struct {
		fault gitserver.Fault
		want  string
	}{
		"500":            {gitserver.Fault{Status: 500}, "500"},
		"404":            {gitserver.Fault{Status: 404}, "there is no such repository, or it is private"},
		"403":            {gitserver.Fault{Status: 403}, "access is refused"},
		"hangs":          {gitserver.Fault{Hang: true}, "no complete answer within 300ms"},
		"hangs on fetch": {gitserver.Fault{Hang: true, Only: "/git-upload-pack"}, "no complete answer within 300ms"},
		"500 on fetch":   {gitserver.Fault{Status: 500, Only: "/git-upload-pack"}, "500"},
	}
	for name, tt := range faults {
		t.Run(name, func(t *testing.T) {
			server := gitserver.Start(t)
			server.Push(map[string]string{"a.yaml": "1"}, "one")
			f := follow(t, Options{URL: server.URL, Timeout: 300 * time.Millisecond})
			f.snapshot()
			server.Fail(tt.fault)
			two := server.Push(map[string]string{"a.yaml": "2"}, "two")
			f.err(tt.want)
			f.err(tt.want)
			server.Fail(gitserver.Fault{})
			expect(t, f.snapshot(), two, map[string]string{"a.yaml": "2"})
		})
	}
}

func TestASlowRepositoryIsSpokenOfBeforeItsTimeIsOver(t *testing.T) {
	server := gitserver.Start(t)
	server.Push(map[string]string{"a.yaml": "1"}, "one")
	f := follow(t, Options{URL: server.URL, Timeout: 2 * time.Second}, func(s *Source) { s.slow = 50 * time.Millisecond })
	f.snapshot()
	server.Fail(gitserver.Fault{Hang: true})
	f.err("still fetching: no complete answer within 50ms yet")
	f.err("no complete answer within 2s")
	server.Fail(gitserver.Fault{})
	f.snapshot()
}

func TestRecoveryIsSaidByTheSameSnapshot(t *testing.T) {
	server := gitserver.Start(t)
	one := server.Push(map[string]string{"a.yaml": "1"}, "one")
	f := follow(t, Options{URL: server.URL})
	f.snapshot()
	server.Fail(gitserver.Fault{Status: 502})
	f.err("502")
	server.Fail(gitserver.Fault{})
	expect(t, f.snapshot(), one, map[string]string{"a.yaml": "1"})
}

func TestUntrustedCertificateIsRefused(t *testing.T) {
	server := gitserver.StartTLS(t)
	server.Push(map[string]string{"a.yaml": "1"}, "one")
	follow(t, Options{URL: server.URL}).err("failed to verify certificate")
}

func TestRestartWithoutTheServer(t *testing.T) {
	server := gitserver.Start(t)
	one := server.Push(map[string]string{"d/a.yaml": "1", "e/b.yaml": "2"}, "one")
	opts := Options{URL: server.URL, Dir: filepath.Join(t.TempDir(), "cache")}
	f := follow(t, opts)
	f.snapshot()
	f.stop()
	server.Stop()

	f = follow(t, opts)
	expect(t, f.next().Snapshot, one, map[string]string{"d/a.yaml": "1", "e/b.yaml": "2"})
	f.err("connection refused")
	f.stop()

	opts.Path = "e"
	f = follow(t, opts)
	expect(t, f.next().Snapshot, one, map[string]string{"e/b.yaml": "2"})
	f.stop()

	opts.Branch = "other"
	f = follow(t, opts)
	f.err("connection refused") // nothing is known of that branch
	f.stop()

	opts.Branch, opts.URL = "", strings.Replace(server.URL, "app.git", "other.git", 1)
	follow(t, opts).err("connection refused") // nor of another repository
}

func TestDamagedCacheIsMadeAnew(t *testing.T) {
	server := gitserver.Start(t)
	one := server.Push(map[string]string{"a.yaml": "1"}, "one")
	for name, damage := range map[string]func(cache string) error{
		"packs gone": func(cache string) error { return os.RemoveAll(filepath.Join(cache, "objects", "pack")) },
		"packs empty": func(cache string) error {
			packs, err := filepath.Glob(filepath.Join(cache, "objects", "pack", "*.pack"))
			if err != nil || len(packs) == 0 {
				return fmt.Errorf("no packs: %w", err)
			}
			if err := os.Remove(packs[0]); err != nil {
				return err
			}
			return os.WriteFile(packs[0], nil, 0o600)
		},
		"no config":  func(cache string) error { return os.Remove(filepath.Join(cache, "config")) },
		"bad config": func(cache string) error { return os.WriteFile(filepath.Join(cache, "config"), []byte("[[["), 0o600) },
		"half made":  func(cache string) error { return os.Rename(cache, filepath.Join(filepath.Dir(cache), fresh)) },
	} {
		t.Run(name, func(t *testing.T) {
			opts := Options{URL: server.URL, Dir: filepath.Join(t.TempDir(), "cache")}
			f := follow(t, opts)
			f.snapshot()
			f.stop()
			if err := damage(filepath.Join(opts.Dir, current)); err != nil {
				t.Fatal(err)
			}
			f = follow(t, opts)
			expect(t, f.snapshot(), one, map[string]string{"a.yaml": "1"})
		})
	}
}

func TestManyCommitsDoNotFillTheCache(t *testing.T) {
	server := gitserver.Start(t)
	server.Push(map[string]string{"a.yaml": "0"}, "zero")
	opts := Options{URL: server.URL, Dir: filepath.Join(t.TempDir(), "cache")}
	f := follow(t, opts)
	f.snapshot()
	for i := range manyPacks + 5 {
		id := server.Push(map[string]string{"a.yaml": fmt.Sprint(i)}, "more")
		snap := f.snapshot()
		expect(t, snap, id, map[string]string{"a.yaml": fmt.Sprint(i)})
		if snap.Revision.Rewritten {
			t.Errorf("commit %d is said to rewrite history", i)
		}
	}
	f.stop()
	packs, err := filepath.Glob(filepath.Join(opts.Dir, current, "objects", "pack", "*.pack"))
	if err != nil || len(packs) > 10 {
		t.Errorf("%d packs are left (%v)", len(packs), err)
	}
	if left, err := filepath.Glob(filepath.Join(opts.Dir, "*", "incoming-*")); err != nil || len(left) > 0 {
		t.Errorf("left behind: %v (%v)", left, err)
	}
}

func TestFolderOfTheTree(t *testing.T) {
	server := gitserver.Start(t)
	id := server.Push(map[string]string{"a.yaml": "1", "deploy/b.yaml": "2", "deploy/c/d.yaml": "3", "deployed/e.yaml": "4"}, "one")
	f := follow(t, Options{URL: server.URL, Path: "deploy/"})
	expect(t, f.snapshot(), id, map[string]string{"deploy/b.yaml": "2", "deploy/c/d.yaml": "3"})
	server.Git("mv", "deploy", "renamed")
	server.Push(nil, "rename")
	f.err(`there is no folder "deploy" in commit`)
	server.Git("mv", "renamed", "deploy")
	f2 := server.Push(nil, "back")
	expect(t, f.snapshot(), f2, map[string]string{"deploy/b.yaml": "2", "deploy/c/d.yaml": "3"})
}

func TestLinksAreRefused(t *testing.T) {
	for name, tt := range map[string]struct{ link, target, want string }{
		"file outside":    {"a.yaml", "/etc/passwd", "a.yaml: is a symbolic link"},
		"folder outside":  {"sub/d", "../../..", "sub/d: is a symbolic link"},
		"manifest inside": {"b.yaml", "real.yaml", "b.yaml: is a symbolic link"},
		"itself":          {"a.yaml", "a.yaml", "a.yaml: is a symbolic link"},
		"folder inside":   {"d", "sub", "d: is a symbolic link"},
		"parent":          {"sub/up", "..", "sub/up: is a symbolic link"},
		"no manifest":     {"doc", "README", ""},
		"nowhere":         {"doc", "nothing/at/all", ""},
	} {
		t.Run(name, func(t *testing.T) {
			server := gitserver.Start(t)
			server.Write(map[string]string{"real.yaml": "1", "sub/x.yaml": "2", "README": ""})
			if err := os.Symlink(tt.target, filepath.Join(server.Dir, tt.link)); err != nil {
				t.Fatal(err)
			}
			id := server.Push(nil, "link")
			f := follow(t, Options{URL: server.URL})
			if tt.want == "" {
				expect(t, f.snapshot(), id, map[string]string{"real.yaml": "1", "sub/x.yaml": "2"})
				return
			}
			f.err(tt.want)
			if err := os.Remove(filepath.Join(server.Dir, tt.link)); err != nil {
				t.Fatal(err)
			}
			expect(t, f.snapshotAfter(server), server.Head(), map[string]string{"real.yaml": "1", "sub/x.yaml": "2"})
		})
	}
}

func (f *following) snapshotAfter(server *gitserver.Server) *gitsource.Snapshot {
	f.t.Helper()
	server.Push(nil, "mended")
	return f.snapshot()
}

func TestSubmodulesAreNoted(t *testing.T) {
	other := gitserver.NewRepo(t)
	other.Commit(map[string]string{"evil.yaml": "x"}, "one")
	server := gitserver.Start(t)
	server.Push(map[string]string{"a.yaml": "1"}, "one")
	server.Git("-c", "protocol.file.allow=always", "submodule", "add", "-q", other.Dir, "vendor/other")
	id := server.Push(nil, "submodule")
	f := follow(t, Options{URL: server.URL})
	u := f.next()
	expect(t, u.Snapshot, id, map[string]string{"a.yaml": "1"})
	if u.Note != "submodules are not followed: vendor/other" {
		t.Errorf("note %q", u.Note)
	}
	server.Push(map[string]string{"a.yaml": "2"}, "two")
	if u := f.next(); u.Note != "" {
		t.Errorf("said again: %q", u.Note)
	}
}

func TestCredentialsAreUsedAndNeverShown(t *testing.T) {
	server := gitserver.Start(t)
	server.RequirePassword("ada", "hun/ter 2")
	id := server.Push(map[string]string{"a.yaml": "1"}, "one")
	with := func(credentials string) string { return strings.Replace(server.URL, "://", "://"+credentials+"@", 1) }

	opts := Options{URL: with("ada:hun%2Fter%202"), Dir: filepath.Join(t.TempDir(), "cache")}
	f := follow(t, opts)
	expect(t, f.snapshot(), id, map[string]string{"a.yaml": "1"})
	server.Fail(gitserver.Fault{Status: 500})
	shown := []string{f.err("500").Error(), f.source.String(), fmt.Sprintf("%v", f.source.opts)}
	f.stop()
	config, err := os.ReadFile(filepath.Join(opts.Dir, current, "config"))
	if err != nil {
		t.Fatal(err)
	}
	shown = append(shown, string(config))

	server.Fail(gitserver.Fault{})
	shown = append(shown, follow(t, Options{URL: with("ada:hun%2Fter%203")}).err("access is refused").Error())
	shown = append(shown, follow(t, Options{URL: with("hunter-token")}).err("access is refused").Error())
	server.Stop()
	shown = append(shown, follow(t, Options{URL: with("hunter-token")}).err("refused").Error())
	for _, text := range shown {
		if strings.Contains(text, "hun") {
			t.Errorf("shown: %s", text)
		}
	}
}

func TestPokeIsAPollNow(t *testing.T) {
	server := gitserver.Start(t)
	server.Push(map[string]string{"a.yaml": "1"}, "one")
	f := follow(t, Options{URL: server.URL, Interval: time.Hour})
	f.snapshot()
	two := server.Push(map[string]string{"a.yaml": "2"}, "two")
	for range 1000 {
		f.source.Poke()
	}
	expect(t, f.snapshot(), two, map[string]string{"a.yaml": "2"})
	if n := len(server.Requests()); n > 8 {
		t.Errorf("%d requests for a flood of pokes", n)
	}
}

func TestRepositoryOnThisMachine(t *testing.T) {
	repo := gitserver.NewRepo(t)
	gone := filepath.Join(t.TempDir(), "none")
	follow(t, Options{URL: gone}).err("there is no such repository")
	opts := Options{URL: "file://" + repo.Dir, Dir: filepath.Join(t.TempDir(), "cache")}
	f := follow(t, opts)
	f.err("the repository is empty")
	one := repo.Commit(map[string]string{"a.yaml": "1", "d/b.yaml": "2", "large.bin": strings.Repeat("x", 1<<20)}, "one")
	expect(t, f.snapshot(), one, map[string]string{"a.yaml": "1", "d/b.yaml": "2"})
	repo.Commit(map[string]string{"a.yaml": "between"}, "between")
	two := repo.Commit(map[string]string{"a.yaml": "2"}, "two")
	for {
		snap := f.snapshot()
		if snap.Revision.Rewritten {
			t.Error("said to be rewritten")
		}
		if snap.Revision.ID == two {
			break
		}
	}
	repo.Git("commit", "-q", "--amend", "-m", "amended")
	if snap := f.snapshot(); !snap.Revision.Rewritten || snap.Revision.ID != repo.Head() {
		t.Errorf("%+v", snap.Revision)
	}
	f.stop()
	if err := os.Rename(repo.Dir, repo.Dir+".gone"); err != nil {
		t.Fatal(err)
	}
	f = follow(t, opts)
	expect(t, f.next().Snapshot, f.source.lastOnDisk(t), map[string]string{"a.yaml": "2", "d/b.yaml": "2"})
}

func (s *Source) lastOnDisk(t *testing.T) string {
	t.Helper()
	c, err := makeCache(filepath.Join(s.opts.Dir, current), s.opts.URL, s.opts.Branch)
	if err != nil {
		t.Fatal(err)
	}
	return c.last().String()
}

func TestDelay(t *testing.T) {
	const base = 5 * time.Second
	for _, tt := range []struct {
		failures int
		random   float64
		want     time.Duration
	}{{0, 0.5, base}, {0, 0, 4500 * time.Millisecond}, {0, 1, 5500 * time.Millisecond}, {1, 0.5, 2 * base}, {3, 0.5, 8 * base}, {1000, 0.5, longestBackOff}} {
		if got := delay(base, tt.failures, tt.random); got.Round(time.Millisecond) != tt.want {
			t.Errorf("%d failures, %v: got %s, want %s", tt.failures, tt.random, got, tt.want)
		}
	}
	if got := delay(time.Hour, 5, 0.5); got != time.Hour {
		t.Errorf("an interval beyond the longest back-off becomes %s", got)
	}
}

// TestHostileServers answers with nonsense. No answer may end the process or be believed.
func TestHostileServers(t *testing.T) {
	id := strings.Repeat("a", 40)
	line := func(s string) string { return fmt.Sprintf("%04x%s", len(s)+4, s) }
	advertise := line("# service=git-upload-pack\n") + "0000" + line(id+" HEAD\x00shallow ofs-delta side-band-64k symref=HEAD:refs/heads/main\n") + line(id+" refs/heads/main\n") + "0000"
	endless := strings.Repeat(line(id+" refs/heads/"+strings.Repeat("x", 1000)+"\n"), 1000)
	for name, tt := range map[string]struct{ refs, pack, want string }{
		"no git":          {"<html>hello</html>", "", ""},
		"empty":           {"", "", "empty"},
		"huge line":       {line("# service=git-upload-pack\n") + "0000ffff" + strings.Repeat("x", 100_000), "", ""},
		"endless":         {"endless", "", ""},
		"no pack":         {advertise, "", ""},
		"no such commit":  {advertise, "0000" + line("NAK\n") + line("\x01"+emptyPack), ""},
		"garbage pack":    {advertise, "0000" + line("NAK\n") + line("\x01garbage"), ""},
		"error channel":   {advertise, "0000" + line("NAK\n") + line("\x03go away"), "go away"},
		"truncated pack":  {advertise, "0000" + line("NAK\n") + line("\x01PACK\x00\x00\x00\x02\xff\xff\xff\xff"), ""},
		"truncated lines": {advertise, "0000" + line("NAK\n") + "00ff\x01PACK", ""},
	} {
		t.Run(name, func(t *testing.T) {
			server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				if r.Method == http.MethodPost {
					fmt.Fprint(w, tt.pack)
					return
				}
				if tt.refs != "endless" {
					fmt.Fprint(w, tt.refs)
					return
				}
				fmt.Fprint(w, strings.TrimSuffix(advertise, "0000"))
				for {
					if _, err := fmt.Fprint(w, endless); err != nil {
						return
					}
				}
			}))
			defer server.Close()
			err := follow(t, Options{URL: server.URL + "/x", Timeout: 10 * time.Second}).err(tt.want)
			if len(err.Error()) > 3*maxReason || strings.Contains(err.Error(), "\n") {
				t.Errorf("the error has %d bytes: %.500q", len(err.Error()), err)
			}
			t.Log(err)
		})
	}
}

func BenchmarkPollUnchanged(b *testing.B) {
	server := gitserver.Start(b)
	server.Push(map[string]string{"a.yaml": "1"}, "one")
	s, err := New(Options{URL: server.URL, Dir: b.TempDir()})
	if err != nil {
		b.Fatal(err)
	}
	c, err := openCache(s.opts.Dir, s.opts.URL, "")
	if err != nil {
		b.Fatal(err)
	}
	st := &state{cache: c}
	for b.Loop() {
		if u := s.poll(context.Background(), st); u.Err != nil {
			b.Fatal(u.Err)
		}
	}
}

func TestSSH(t *testing.T) {
	server := gitserver.Start(t)
	url := server.ServeSSH(t)
	one := server.Push(map[string]string{"a.yaml": "1"}, "one")
	f := follow(t, Options{URL: url, Interval: 50 * time.Millisecond})
	expect(t, f.snapshot(), one, map[string]string{"a.yaml": "1"})
	two := server.Push(map[string]string{"a.yaml": "2"}, "two")
	snap := f.snapshot()
	expect(t, snap, two, map[string]string{"a.yaml": "2"})
	if snap.Revision.Rewritten {
		t.Error("said to be rewritten")
	}
	if strings.Contains(f.source.String(), "git@") {
		t.Errorf("String: %s", f.source)
	}
	t.Setenv("SSH_KNOWN_HOSTS", filepath.Join(t.TempDir(), "none"))
	follow(t, Options{URL: url}).err("known")
}
