package containerd

import (
	"cmp"
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
)

// execsLeft returns the commands that an earlier process ran in containers and cannot wait for any more, before this
// one runs any: the names of their folders, "CONTAINER.COMMAND".
func (e *Engine) execsLeft() ([]string, error) {
	entries, err := os.ReadDir(e.execDir())
	if err != nil {
		return nil, err
	}
	var names []string
	for _, entry := range entries {
		names = append(names, entry.Name())
	}
	return names, nil
}

// endExecs ends commands nobody waits for: probes and hooks, which are run again.
func (e *Engine) endExecs(ctx context.Context, names []string) {
	for _, name := range names {
		if container, command, ok := strings.Cut(name, execSeparator); ok {
			e.deleteExec(ctx, container, command)
		}
		if err := os.RemoveAll(filepath.Join(e.execDir(), name)); err != nil {
			e.cfg.Log.Warn("remove what a command left", "err", err)
		}
	}
	if len(names) > 0 {
		e.cfg.Log.Info("ended commands in containers that an earlier process had begun", "count", len(names))
	}
}

func (e *Engine) execDir() string { return filepath.Join(e.cfg.RunDir, "exec") }

// sweep removes what is kept of containers that containerd does not know: it lost them, or forgot them after this
// process noted something. What may still run of them is ended first.
func (e *Engine) sweep(ctx context.Context) error {
	e.undoing.Lock() // who begins to make a container waits here: what is unknown stays so
	defer e.undoing.Unlock()
	files, err := os.ReadDir(filepath.Join(e.cfg.StateDir, "exits"))
	if err != nil {
		return err
	}
	var errs []error
	for _, file := range files {
		name := file.Name()
		id, suffix, _ := strings.Cut(name, ".")
		if !e.cache.unknown(id) {
			continue
		}
		if suffix == recordSuffix[1:] {
			if r, ok := e.read(id); ok && r.Finished.IsZero() && !r.Started.IsZero() {
				e.cfg.Log.Warn("containerd has forgotten a container: what is left of it is ended", "id", id)
				if err := cmp.Or(e.killRest(ctx, r.Cgroup), e.removeGroup(ctx, r.Cgroup)); err != nil {
					errs = append(errs, err)
					continue // with its record, to be tried again
				}
			}
		}
		if err := os.Remove(filepath.Join(e.cfg.StateDir, "exits", name)); err != nil && !errors.Is(err, fs.ErrNotExist) {
			errs = append(errs, err)
		}
	}
	return errors.Join(append(errs, e.sweepShims(ctx), e.sweepRunc())...)
}

// sweepRunc removes runc's notes on containers that are gone.
func (e *Engine) sweepRunc() error {
	dir := filepath.Join(e.cfg.RunDir, "runc", e.cfg.Namespace)
	entries, err := os.ReadDir(dir)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	var errs []error
	for _, entry := range entries {
		if e.cache.unknown(entry.Name()) {
			errs = append(errs, os.RemoveAll(filepath.Join(dir, entry.Name())))
		}
	}
	return errors.Join(errs...)
}
