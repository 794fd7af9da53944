package local

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"github.com/fsnotify/fsnotify"

	"github.com/slipway-dev/slipway/gitsource"
)

// watcher tells when a directory may have changed. Without kernel events it says so regularly.
type watcher struct {
	events *fsnotify.Watcher  // nil: polling
	every  time.Duration      // polling
	reason string             // why polling
	root   os.FileInfo        // the directory as last seen
	again  time.Time          // when watching is tried again; zero: it is not
	retry  time.Duration      // from one try to the next
	gone   bool               // the directory was not there when it was read last
	added  func(string) error // tests: overrules what watching a directory returned
}

func newWatcher(dir string, opts Options) *watcher {
	w := &watcher{every: opts.Poll, retry: opts.retry, added: opts.addWatch}
	if opts.alwaysPoll {
		w.reason = "watching is switched off"
		return w
	}
	if name := networkFilesystem(dir); name != "" {
		w.reason = fmt.Sprintf("changes on %s cannot be watched", name)
		return w
	}
	w.open()
	return w
}

// open begins to watch; the directories are added when they are read.
func (w *watcher) open() {
	w.again = time.Time{}
	events, err := fsnotify.NewBufferedWatcher(4096)
	if err != nil {
		w.poll(err)
		return
	}
	w.events, w.reason = events, ""
}

// note says why the directory is polled, or "".
func (w *watcher) note() string {
	if w.reason == "" {
		return ""
	}
	return fmt.Sprintf("polling every %s: %s", w.every, w.reason)
}

// poll gives up watching: for a while, where a limit of the system is reached.
func (w *watcher) poll(err error) {
	w.reason = "watching is not possible: " + err.Error()
	if limit := exhausted(err); limit != "" {
		w.reason = limit
		w.again = time.Now().Add(w.retry)
	}
	w.close()
}

func (w *watcher) close() {
	if w.events != nil {
		_ = w.events.Close() // nothing is written through it
		w.events = nil
	}
}

// add watches one directory; watching it again is cheap and follows a directory that was exchanged.
func (w *watcher) add(dir string) {
	if w.events == nil {
		return
	}
	err := w.events.Add(dir)
	if w.added != nil {
		err = w.added(dir)
	}
	if err != nil && !errors.Is(err, os.ErrNotExist) && !errors.Is(err, os.ErrPermission) {
		w.poll(err)
	}
}

// wait blocks until dir may have changed and has been quiet for a moment. It returns ctx's error. Missing says that
// dir could not be read: then its appearance is a change.
func (w *watcher) wait(ctx context.Context, dir string, missing bool) error {
	w.root = nil
	if !w.gone { // else it may have come back since, which is a change that nothing else tells
		w.root, _ = os.Stat(dir)
	}
	every := checkEvery
	if w.events == nil {
		every = w.every
	} else if missing {
		every = longestWait
	}
	ticker := time.NewTicker(every)
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case e, ok := <-w.eventChannel():
			if ok && relevant(e) {
				w.settle(ctx)
				return ctx.Err()
			}
		case err := <-w.errorChannel():
			if err != nil { // such as a full queue: a fresh look mends it
				w.settle(ctx)
				return ctx.Err()
			}
		case <-ticker.C:
			if w.events == nil && !w.again.IsZero() && !time.Now().Before(w.again) {
				w.open() // the reading that follows adds the directories
				return nil
			}
			if w.events == nil || w.exchanged(dir) {
				return nil
			}
		}
	}
}

// exchanged says whether another directory is at dir's place now.
func (w *watcher) exchanged(dir string) bool {
	now, err := os.Stat(dir)
	if err != nil || w.root == nil {
		return (err == nil) != (w.root != nil)
	}
	return !os.SameFile(now, w.root)
}

// settle waits until no change has come for a moment, within bounds.
func (w *watcher) settle(ctx context.Context) {
	longest := time.NewTimer(longestWait)
	defer longest.Stop()
	calm := time.NewTimer(quiet)
	defer calm.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-longest.C:
			return
		case <-calm.C:
			return
		case e, ok := <-w.eventChannel():
			if ok && relevant(e) {
				calm.Reset(quiet)
			}
		case err := <-w.errorChannel():
			if err != nil {
				calm.Reset(quiet)
			}
		}
	}
}

// pending takes the events that are there already and says whether one of them matters.
func (w *watcher) pending() bool {
	found := false
	for {
		select {
		case e, ok := <-w.eventChannel():
			if !ok {
				return found
			}
			found = found || relevant(e)
		case err := <-w.errorChannel():
			found = found || err != nil
		default:
			return found
		}
	}
}

func (w *watcher) eventChannel() <-chan fsnotify.Event {
	if w.events == nil {
		return nil
	}
	return w.events.Events
}

func (w *watcher) errorChannel() <-chan error {
	if w.events == nil {
		return nil
	}
	return w.events.Errors
}

// relevant says whether an event can change a snapshot: a manifest or ignore file, or something without a
// manifest's name that came or went and may be a directory.
func relevant(e fsnotify.Event) bool {
	base := filepath.Base(e.Name)
	if gitsource.IsManifest(base) || base == ".gitignore" {
		return true
	}
	return base[0] != '.' && e.Op&(fsnotify.Create|fsnotify.Remove|fsnotify.Rename) != 0 && directoryLike(e)
}

// directoryLike looks at what came; what went may have been a directory.
func directoryLike(e fsnotify.Event) bool {
	if e.Op&fsnotify.Create == 0 {
		return true
	}
	info, err := os.Lstat(e.Name)
	return err != nil || info.IsDir() || info.Mode()&os.ModeSymlink != 0
}
