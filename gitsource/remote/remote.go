// Package remote follows one branch of a repository by polling and gives an immutable snapshot of each new commit.
//
// It speaks git's protocol in this process: no program is run, no hook, filter or submodule is followed, nothing is
// checked out, and what a server may send is bounded. It must not know what is done with a snapshot.
package remote

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/go-git/go-git/v5"
	"github.com/go-git/go-git/v5/plumbing"
	"github.com/go-git/go-git/v5/plumbing/transport"
	gitssh "github.com/go-git/go-git/v5/plumbing/transport/ssh"

	"github.com/slipway-dev/slipway/gitsource"
)

const (
	defaultInterval = 5 * time.Second
	defaultTimeout  = 2 * time.Minute
	slowPoll        = 10 * time.Second
	longestBackOff  = 2 * time.Minute
	pokeGap         = 200 * time.Millisecond // between polls that were asked for
)

// Options say what is followed.
type Options struct {
	URL      string        // https, http, ssh (user@host:path too), or an absolute path; may hold credentials
	Branch   string        // empty: the repository's default branch
	Path     string        // folder inside the tree; empty: all of it. Files are named from the top all the same
	Dir      string        // for the cache; made when missing; nothing else may be in it
	Interval time.Duration // between polls; 0: 5 seconds
	Timeout  time.Duration // of one poll; 0: 2 minutes
	Log      *slog.Logger  // nil: silent
}

// Source follows a branch.
type Source struct {
	opts    Options
	address address
	http    transport.Transport
	poke    chan struct{}
	slow    time.Duration // after which a poll is spoken of
}

// New checks opts. It does not look at the repository yet.
func New(opts Options) (*Source, error) {
	a, err := parse(opts.URL)
	if err != nil {
		return nil, err
	}
	if opts.Path = path.Clean(opts.Path); opts.Path == "." {
		opts.Path = ""
	}
	if opts.Path != "" && !filepath.IsLocal(opts.Path) {
		return nil, fmt.Errorf("path %q is not a folder inside the repository", opts.Path)
	}
	if strings.HasPrefix(opts.Branch, "-") || strings.ContainsAny(opts.Branch, " \t\r\n~^:?*[\\") || strings.Contains(opts.Branch, "..") {
		return nil, fmt.Errorf("branch %q is not a branch name", opts.Branch)
	}
	opts.Branch = strings.TrimPrefix(opts.Branch, "refs/heads/")
	if opts.Interval <= 0 {
		opts.Interval = defaultInterval
	}
	if opts.Timeout <= 0 {
		opts.Timeout = defaultTimeout
	}
	if opts.Log == nil {
		opts.Log = slog.New(slog.DiscardHandler)
	}
	opts.URL = a.String() // credentials are in address only
	return &Source{opts: opts, address: a, http: newHTTP(), poke: make(chan struct{}, 1), slow: slowPoll}, nil
}

// String returns the repository's URL without credentials.
func (s *Source) String() string { return s.address.String() }

// Poke asks for a poll now, as a webhook does. Many pokes at once are one.
func (s *Source) Poke() {
	select {
	case s.poke <- struct{}{}:
	default:
	}
}

// state is what Run remembers between polls.
type state struct {
	cache    *cache
	emitted  plumbing.Hash // commit of the last snapshot
	refused  plumbing.Hash // commit that was refused last
	failed   bool          // the last poll
	failures int           // of reaching the repository, in a row
	noted    string
}

// refusal is an error of a commit's content: only another commit mends it.
type refusal struct{ error }

// Run implements gitsource.Source. The last commit read by an earlier run is emitted at once, even if the
// repository cannot be reached. It returns ctx's error, or why there can be no cache.
func (s *Source) Run(ctx context.Context, emit func(gitsource.Update)) error {
	c, err := openCache(s.opts.Dir, s.opts.URL, s.opts.Branch)
	if err != nil {
		return err
	}
	st := &state{cache: c}
	if last := c.last(); !last.IsZero() {
		if snap, _, err := s.guarded(func() (*gitsource.Snapshot, []string, error) { return c.read(last, s.opts.Path) }); err == nil {
			st.emitted = last
			emit(gitsource.Update{Snapshot: snap})
		} else {
			s.opts.Log.Warn("cached commit is not read", "source", s.String(), "error", err)
		}
	}
	for {
		update := s.patiently(ctx, st, emit)
		if ctx.Err() != nil {
			return ctx.Err()
		}
		if update != (gitsource.Update{}) {
			emit(update)
		}
		if err := s.wait(ctx, delay(s.opts.Interval, st.failures, rand.Float64())); err != nil {
			return err
		}
	}
}

// wait blocks until the next poll is due or asked for.
func (s *Source) wait(ctx context.Context, d time.Duration) error {
	gap := time.NewTimer(min(pokeGap, d))
	defer gap.Stop()
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-gap.C:
	}
	due := time.NewTimer(max(0, d-pokeGap))
	defer due.Stop()
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-due.C:
	case <-s.poke:
	}
	return nil
}

// delay is the time to the next poll: the interval, doubled with each failure in a row, give or take a tenth so
// that many followers do not come at once. Random is between 0 and 1.
func delay(interval time.Duration, failures int, random float64) time.Duration {
	d := interval
	for range failures {
		if d >= longestBackOff {
			break
		}
		d = min(2*d, longestBackOff)
	}
	return time.Duration(float64(d) * (0.9 + 0.2*random))
}

// patiently is poll that speaks when it takes long, before the time for it is over.
func (s *Source) patiently(ctx context.Context, st *state, emit func(gitsource.Update)) gitsource.Update {
	done := make(chan gitsource.Update, 1)
	go func() { done <- s.poll(ctx, st) }()
	slow := time.NewTimer(s.slow)
	defer slow.Stop()
	select {
	case update := <-done:
		return update
	case <-slow.C:
	}
	emit(gitsource.Update{Err: fmt.Errorf("follow %s: still fetching: no complete answer within %s yet", s, s.slow)})
	update := <-done
	st.failed = st.failed || update.Snapshot == nil // the next poll says that it is over
	return update
}

// poll looks once. The zero Update means that nothing is new.
func (s *Source) poll(ctx context.Context, st *state) gitsource.Update {
	ctx, cancel := context.WithTimeout(ctx, s.opts.Timeout)
	defer cancel()
	snap, modules, err := s.guarded(func() (*gitsource.Snapshot, []string, error) { return s.advance(ctx, st) })
	switch {
	case errors.As(err, new(refusal)):
		st.failed, st.failures = true, 0
		return gitsource.Update{Err: s.explain(ctx, err, st)}
	case err != nil:
		st.failed, st.failures = true, st.failures+1
		return gitsource.Update{Err: s.explain(ctx, err, st)}
	}
	st.failures = 0
	if snap == nil {
		return gitsource.Update{}
	}
	st.failed = false
	update := gitsource.Update{Snapshot: snap}
	if len(modules) > 0 {
		slices.Sort(modules)
		if note := "submodules are not followed: " + strings.Join(modules, ", "); note != st.noted {
			update.Note, st.noted = note, note
		}
	}
	return update
}

// guarded turns a panic of the git library on malformed input into an error.
func (s *Source) guarded(f func() (*gitsource.Snapshot, []string, error)) (snap *gitsource.Snapshot, modules []string, err error) {
	defer func() {
		if p := recover(); p != nil {
			snap, modules, err = nil, nil, fmt.Errorf("malformed data: %v", p)
		}
	}()
	return f()
}

// advance reads the branch's tip if it is new, or known and an error was emitted since.
func (s *Source) advance(ctx context.Context, st *state) (*gitsource.Snapshot, []string, error) {
	up := s.upstream()
	defer up.close()
	tip, err := up.tip(ctx, s.opts.Branch)
	if err != nil {
		return nil, nil, err
	}
	if tip.id == st.refused || tip.id == st.emitted && !st.failed {
		return nil, nil, nil
	}
	last := st.cache.last()
	snap, modules, known, err := s.obtain(ctx, up, st.cache, tip.id, last)
	st.refused = plumbing.ZeroHash
	if err != nil {
		if errors.As(err, new(refusal)) {
			st.refused = tip.id
		}
		return nil, nil, err
	}
	snap.Revision.Rewritten = known && !last.IsZero() && !st.cache.descends(tip.id, last)
	if err := st.cache.remember(tip.id); err != nil {
		return nil, nil, fmt.Errorf("remember commit: %w", err)
	}
	st.emitted = tip.id
	if st.cache.crowded() {
		if err := s.renew(ctx, st.cache, tip.id); err != nil {
			s.opts.Log.Debug("cache is not renewed", "source", s.String(), "error", s.address.redact(err.Error()))
		}
	}
	return snap, modules, nil
}

func (s *Source) upstream() upstream {
	switch s.address.scheme {
	case "file":
		return &disk{path: s.address.path}
	case "ssh":
		return &wire{address: s.address, transport: gitssh.NewClient(nil)}
	}
	return &wire{address: s.address, transport: s.http}
}

// obtain reads a commit: from the cache if it is there, else after fetching what is new since last, else after
// fetching its tree into a new cache. It says whether the commits since last are known.
func (s *Source) obtain(ctx context.Context, up upstream, c *cache, id, last plumbing.Hash) (snap *gitsource.Snapshot, modules []string, known bool, err error) {
	final := func(err error) bool { return err == nil || errors.As(err, new(refusal)) || ctx.Err() != nil }
	if snap, modules, err = c.read(id, s.opts.Path); final(err) {
		return snap, modules, true, err
	}
	if !last.IsZero() {
		if err = up.fetch(ctx, c, id, last); err == nil {
			snap, modules, err = c.read(id, s.opts.Path)
		}
		if final(err) {
			return snap, modules, true, err
		}
		s.opts.Log.Debug("cache is made anew", "source", s.String(), "error", s.address.redact(err.Error()))
	}
	if err = s.renew(ctx, c, id); err != nil {
		return nil, nil, false, err
	}
	snap, modules, err = c.read(id, s.opts.Path)
	return snap, modules, false, err
}

// renew fetches a commit's tree into a new cache, which then takes the old one's place.
func (s *Source) renew(ctx context.Context, c *cache, id plumbing.Hash) error {
	up := s.upstream()
	defer up.close()
	if now, err := up.tip(ctx, s.opts.Branch); err != nil {
		return err
	} else if now.id != id {
		return errors.New("the branch moved meanwhile")
	}
	next := filepath.Join(filepath.Dir(c.dir), fresh)
	if err := os.RemoveAll(next); err != nil {
		return fmt.Errorf("clear cache: %w", err)
	}
	n, err := makeCache(next, s.opts.URL, s.opts.Branch)
	if err != nil {
		return err
	}
	if err := up.fetch(ctx, n, id, plumbing.ZeroHash); err != nil {
		return err
	}
	if last := c.last(); !last.IsZero() && last == id {
		if err := n.remember(id); err != nil {
			return fmt.Errorf("remember commit: %w", err)
		}
	}
	return c.replace(n, s.opts.URL, s.opts.Branch)
}

// explain says in words what went wrong, without credentials. The original error is not wrapped: it may hold them.
func (s *Source) explain(ctx context.Context, err error, st *state) error {
	what := s.address.redact(err.Error())
	var missing *noBranchError
	switch {
	case errors.Is(err, transport.ErrEmptyRemoteRepository):
		what = "the repository is empty; push a commit to it"
	case errors.Is(err, transport.ErrAuthenticationRequired), errors.Is(err, transport.ErrAuthorizationFailed):
		what = "access is refused; put user and password (or a token) into the URL"
	case errors.Is(err, transport.ErrRepositoryNotFound), errors.Is(err, git.ErrRepositoryNotExists):
		what = "there is no such repository, or it is private"
	case errors.As(err, &missing) && !st.emitted.IsZero():
		what += "; it was there before, and the last commit read stays in force"
	case ctx.Err() != nil && errors.Is(ctx.Err(), context.DeadlineExceeded):
		what = fmt.Sprintf("no complete answer within %s", s.opts.Timeout)
	}
	return fmt.Errorf("follow %s: %s", s, shorten(what))
}

// shorten keeps a server's own words within bounds and on one line.
func shorten(text string) string {
	text = strings.Join(strings.Fields(text), " ")
	if len(text) > 2*maxReason {
		text = strings.ToValidUTF8(text[:2*maxReason], "") + "…"
	}
	return text
}
