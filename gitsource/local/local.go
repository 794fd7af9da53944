// Package local watches a directory of manifests and gives an immutable snapshot of it after each change.
//
// It reads the directory and, where it lies in a repository, that repository's HEAD and ignore rules. It writes
// nothing, starts no process, follows no symbolic link, and must not know what is done with a snapshot.
package local

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"time"

	"github.com/slipway-dev/slipway/gitsource"
)

// How long a change is waited out. An editor's save is over within a few milliseconds, so the quiet time decides
// how soon a save is seen; the longest wait bounds it while files keep changing.
const (
	quiet        = 30 * time.Millisecond
	longestWait  = 250 * time.Millisecond
	lockWait     = 10 * time.Second       // for .git/index.lock: a checkout is under way
	youngIndex   = 200 * time.Millisecond // after it git moves HEAD
	youngFile    = time.Second            // an emptied file younger than this is probably being written
	maxAttempts  = 40                     // readings before a tree that never holds still is given up until its next change
	patience     = 8                      // readings that are repeated only because an event came meanwhile
	checkEvery   = 2 * time.Second        // whether the directory itself was exchanged
	defaultEvery = time.Second            // polling
	retryEvery   = 30 * time.Second       // watching, after a limit of the system was reached
)

// Options qualify a directory source.
type Options struct {
	Log  *slog.Logger  // nil: silent
	Poll time.Duration // how often to look where changes cannot be watched; 0: every second

	retry      time.Duration      // tests: how often watching is tried again; 0: retryEvery
	alwaysPoll bool               // tests: as if watching were impossible
	addWatch   func(string) error // tests: overrules what watching a directory returned
}

// Source watches one directory.
type Source struct {
	dir  string
	opts Options
	repo repository
	last *gitsource.Snapshot // as last read
}

// New returns a source for dir. It does not look at dir yet.
func New(dir string, opts Options) *Source {
	if abs, err := filepath.Abs(dir); err == nil {
		dir = abs
	}
	if opts.Log == nil {
		opts.Log = slog.New(slog.DiscardHandler)
	}
	if opts.Poll <= 0 {
		opts.Poll = defaultEvery
	}
	if opts.retry <= 0 {
		opts.retry = retryEvery
	}
	return &Source{dir: dir, opts: opts}
}

// Read reads dir once, as `slipway validate` does.
func Read(ctx context.Context, dir string) (*gitsource.Snapshot, error) {
	s := New(dir, Options{})
	return s.settled(ctx, &watcher{every: quiet})
}

// String returns the directory.
func (s *Source) String() string { return s.dir }

// Run implements gitsource.Source. It returns ctx's error.
func (s *Source) Run(ctx context.Context, emit func(gitsource.Update)) error {
	w := newWatcher(s.dir, s.opts)
	defer w.close()
	last, failure, noted := "", "", ""
	for {
		snap, err := s.settled(ctx, w)
		if ctx.Err() != nil {
			return ctx.Err()
		}
		update := gitsource.Update{Snapshot: snap, Err: err}
		if note := w.note(); note != noted {
			update.Note, noted = note, note
			if note == "" {
				update.Note = "watching again: a save is seen at once"
			}
			s.opts.Log.Info("how the directory is followed changed", "dir", s.dir, "now", update.Note)
		}
		switch {
		case err != nil && err.Error() != failure:
			last, failure = "", err.Error()
			emit(update)
		case err == nil && snap.Revision.ID != last:
			last, failure = snap.Revision.ID, ""
			emit(update)
		case update.Note != "":
			emit(gitsource.Update{Note: update.Note})
		}
		if err := w.wait(ctx, s.dir, err != nil); err != nil {
			return err
		}
	}
}

// settled reads the directory until it holds still: nothing changed while it was read, no checkout is under way,
// and no file was emptied just now.
func (s *Source) settled(ctx context.Context, w *watcher) (*gitsource.Snapshot, error) {
	locked := time.Duration(0)
	for attempt := 1; ; attempt++ {
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		if s.repo.locked(s.dir) && locked < lockWait {
			locked += quiet
			attempt = 0
			w.settle(ctx)
			continue
		}
		w.gone = false
		t, err := s.scan(w)
		switch {
		case errors.Is(err, errChanged):
		case err != nil && attempt < 3 && w.pending():
		case err != nil:
			err, w.gone = s.explain(err)
			return nil, err
		case t.emptied && attempt < maxAttempts:
		case w.pending() && attempt < patience:
		default:
			if snap := s.snapshot(t); attempt >= maxAttempts || !s.mayMove(snap) {
				s.last = snap
				return snap, nil
			}
		}
		if attempt >= maxAttempts {
			return nil, fmt.Errorf("read %s: it changes faster than it can be read", s.dir)
		}
		w.settle(ctx)
	}
}

// mayMove says that HEAD may be about to follow what was read.
func (s *Source) mayMove(snap *gitsource.Snapshot) bool { return snap.Revision.Dirty && s.repo.young() }

// explain says what to do about an error of the directory as a whole, and whether it is not there at all.
func (s *Source) explain(err error) (explained error, gone bool) {
	info, statErr := os.Stat(s.dir)
	switch {
	case errors.Is(statErr, os.ErrNotExist):
		return fmt.Errorf("directory %s does not exist; it is read again as soon as it is there", s.dir), true
	case errors.Is(statErr, os.ErrPermission) || errors.Is(err, os.ErrPermission):
		return fmt.Errorf("read %s: %w; let uid %d read it", s.dir, err, os.Geteuid()), false
	case statErr == nil && !info.IsDir():
		return fmt.Errorf("%s is a file, not a directory", s.dir), false
	}
	return fmt.Errorf("read %s: %w", s.dir, err), false
}
