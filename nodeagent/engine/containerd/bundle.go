package containerd

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/slipway-dev/slipway/nodeagent/engine/fault"
)

const (
	// settleLimit is how long containerd may take to give up a task whose maker is gone: twice its own limit for that.
	settleLimit = 10 * time.Second
	// settleLeast is for one that has been there for long: containerd may be taking it away just now.
	settleLeast = 2 * time.Second
	// clearLimit bounds how long the making of a container waits for what an earlier try left.
	clearLimit = 30 * time.Second
)

// bundleDirs are where containerd keeps its bundles, the folders of tasks: in the bundled containerd and in others.
func (e *Engine) bundleDirs() []string {
	below, tasks := filepath.Dir(e.cfg.Address), "io.containerd.runtime.v2.task"
	return []string{filepath.Join(below, "state", tasks, e.cfg.Namespace), filepath.Join(below, tasks, e.cfg.Namespace)}
}

// bundle finds a container's bundle.
func (e *Engine) bundle(id string) (path string, changed time.Time) {
	for _, dir := range e.bundleDirs() {
		if info, err := os.Lstat(filepath.Join(dir, id)); err == nil && info.IsDir() {
			return filepath.Join(dir, id), info.ModTime()
		}
	}
	return "", time.Time{}
}

// bundleInTheWay tells that a task cannot be made since another try's bundle is there.
func bundleInTheWay(err error, id string) bool {
	text := fault.Plain(err).Error()
	return strings.Contains(text, "mkdir ") && strings.Contains(text, "/"+id+": file exists")
}

// settle returns when nothing of a container's task is left in containerd, which goes on for a while with a task
// whose maker was killed: it has no task then, or not yet, but the task's bundle. What is there for too long
// containerd has forgotten. The container's record must still be there: without it no task can be deleted. It says
// whether there was anything to wait for.
func (e *Engine) settle(ctx context.Context, id string) (met bool, err error) {
	least := time.Now().Add(settleLeast)
	for {
		if err := e.deleteTask(ctx, id); err != nil {
			return met, err
		}
		path, changed := e.bundle(id)
		if path == "" {
			return met, nil
		}
		met = true
		if now := time.Now(); now.After(least) && now.After(changed.Add(settleLimit)) {
			e.cfg.Log.Warn("containerd has left the folder of a task: removed", "container", id)
			return met, removeBundle(path)
		}
		select {
		case <-time.After(retryAfter):
		case <-ctx.Done():
			return met, ctx.Err()
		}
	}
}

// removeBundle removes a bundle and its work folder. What is mounted in it is not touched.
func removeBundle(path string) error {
	rootfs := filepath.Join(path, "rootfs")
	for {
		err := unix.Unmount(rootfs, unix.MNT_DETACH|unix.UMOUNT_NOFOLLOW)
		if errors.Is(err, unix.EINVAL) || errors.Is(err, fs.ErrNotExist) {
			break
		}
		if err != nil {
			return &fs.PathError{Op: "unmount", Path: rootfs, Err: err}
		}
	}
	if work, err := os.Readlink(filepath.Join(path, "work")); err == nil && filepath.Base(work) == filepath.Base(path) {
		if err := os.RemoveAll(work); err != nil {
			return err
		}
	}
	return os.RemoveAll(path)
}

// clearRest removes what runc no longer removes of a container whose making was cut off.
func (e *Engine) clearRest(ctx context.Context, id, group string) error {
	if err := e.killRest(ctx, group); err != nil {
		return err
	}
	if err := e.removeGroup(ctx, group); err != nil {
		return err
	}
	return os.RemoveAll(filepath.Join(e.cfg.RunDir, "runc", e.cfg.Namespace, id))
}

// clearTask removes what an earlier try left of the task of a container that is being made again.
func (e *Engine) clearTask(ctx context.Context, id string) error {
	group, _, err := e.groupOf(ctx, id)
	if err != nil {
		return err
	}
	if _, err := e.settle(ctx, id); err != nil {
		return err
	}
	return e.clearRest(ctx, id, group)
}

// groupOf is the control group of a container that is to be removed.
func (e *Engine) groupOf(ctx context.Context, id string) (group string, known bool, err error) {
	if st, ok := e.cache.get(id); ok {
		return st.cgroup, true, nil
	}
	record, err := e.client.ContainerService().Get(ctx, id)
	if fault.NotFound(err) {
		return "", false, nil
	}
	return record.Labels[labelCgroup], false, err
}
