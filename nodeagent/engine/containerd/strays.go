package containerd

import (
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// strayGrace is how long a shim must be seen to be nobody's before it is ended: one that has just lost its last
// container ends by itself.
const strayGrace = 2 * time.Second

// shim is a shim of this engine's containerd and namespace. It holds the containers of a group, which need not be the
// one that it was started for.
type shim struct {
	pid    int
	id     string // the container it was started for
	socket string // empty: it does not listen any more
}

// sweepShims ends the shims that hold no container of ours: containerd was killed before it noted them, or gave up
// the task they were started for. Whoever begins to make a container waits meanwhile.
func (e *Engine) sweepShims(ctx context.Context) error {
	making := e.socketsInMaking()
	sockets, err := unixSockets()
	if err != nil {
		return err
	}
	shims, err := e.shims(sockets)
	if err != nil {
		return err
	}
	used, err := e.socketsInUse()
	if err != nil {
		return err
	}
	if len(used) == 0 && e.cache.tasks() > 0 {
		return nil // the bundles are elsewhere: nothing is known of any shim
	}
	seen := map[shim]time.Time{}
	var errs []error
	for _, s := range shims {
		if used[filepath.Base(s.socket)] || making[filepath.Base(s.socket)] || s.socket == "" && !e.cache.unknown(s.id) {
			continue
		}
		since, known := e.strays[s]
		switch {
		case !known:
			seen[s] = time.Now()
			time.AfterFunc(strayGrace, e.lookSoon)
		case time.Since(since) < strayGrace:
			seen[s] = since
		default:
			errs = append(errs, e.endShim(ctx, s))
		}
	}
	e.strays = seen
	return errors.Join(append(errs, e.sweepSockets(sockets, making))...)
}

// endShim ends a shim with what it holds.
func (e *Engine) endShim(ctx context.Context, s shim) error {
	fd, err := unix.PidfdOpen(s.pid, 0)
	if errors.Is(err, unix.ESRCH) {
		return nil
	}
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	if id, ok := e.shimOf(s.pid); !ok || id != s.id {
		return nil // another process has its number
	}
	e.cfg.Log.Warn("a shim holds no container: it is ended", "pid", s.pid, "container", s.id)
	own := groupsOf(s.pid)
	groups := map[string]bool{}
	for _, child := range childrenOf(s.pid) {
		for group := range groupsOf(child) {
			groups[group] = true
		}
		_ = unix.Kill(child, unix.SIGKILL)
	}
	if err := unix.PidfdSendSignal(fd, unix.SIGKILL, nil, 0); err != nil && !errors.Is(err, unix.ESRCH) {
		return err
	}
	if s.socket != "" {
		os.Remove(s.socket)
	}
	var errs []error
	for group := range groups {
		if id := filepath.Base(group); !own[group] && (id == s.id || e.knownToRunc(id)) && e.cache.unknown(id) {
			errs = append(errs, cmp.Or(e.killRest(ctx, group), e.removeGroup(ctx, group)))
		}
	}
	return errors.Join(errs...)
}

func (e *Engine) knownToRunc(id string) bool {
	_, err := os.Stat(filepath.Join(e.cfg.RunDir, "runc", e.cfg.Namespace, id))
	return err == nil
}

// sweepSockets removes sockets on which nobody listens: who would have was killed before. Only the bundled
// containerd's are ours.
func (e *Engine) sweepSockets(sockets map[string]string, making map[string]bool) error {
	dir := filepath.Join(filepath.Dir(e.cfg.Address), "s")
	if _, err := os.Stat(e.bundleDirs()[0]); err != nil {
		return nil
	}
	entries, err := os.ReadDir(dir)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	open := map[string]bool{}
	for _, path := range sockets {
		open[path] = true
	}
	var errs []error
	for _, entry := range entries {
		path := filepath.Join(dir, entry.Name())
		info, err := entry.Info()
		if err != nil || open[path] || making[entry.Name()] || time.Since(info.ModTime()) < strayGrace {
			continue
		}
		if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
			errs = append(errs, err)
		}
	}
	return errors.Join(errs...)
}

// socketsInMaking are the names of the sockets of groups with a container that is being made: containerd makes a
// socket's name of its own address, the namespace and the group.
func (e *Engine) socketsInMaking() map[string]bool {
	names := map[string]bool{}
	for _, group := range e.cache.making() {
		sum := sha256.Sum256([]byte(filepath.Join(e.cfg.Address, e.cfg.Namespace, group)))
		names[hex.EncodeToString(sum[:])] = true
	}
	return names
}

// socketsInUse are the names of the sockets that the bundles of our containers note.
func (e *Engine) socketsInUse() (map[string]bool, error) {
	names := map[string]bool{}
	for _, dir := range e.bundleDirs() {
		entries, err := os.ReadDir(dir)
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return nil, err
		}
		for _, entry := range entries {
			if e.cache.unknown(entry.Name()) {
				continue
			}
			var params struct {
				Address string `json:"address"`
			}
			data, err := os.ReadFile(filepath.Join(dir, entry.Name(), "bootstrap.json"))
			if errors.Is(err, fs.ErrNotExist) {
				continue
			}
			if err := cmp.Or(err, json.Unmarshal(data, &params)); err != nil {
				return nil, err
			}
			names[filepath.Base(params.Address)] = true
		}
	}
	return names, nil
}

// shims finds the shims of this containerd and namespace.
func (e *Engine) shims(sockets map[string]string) ([]shim, error) {
	entries, err := os.ReadDir("/proc")
	if err != nil {
		return nil, err
	}
	var found []shim
	for _, entry := range entries {
		pid, err := strconv.Atoi(entry.Name())
		if err != nil {
			continue
		}
		if id, ok := e.shimOf(pid); ok {
			link, _ := os.Readlink("/proc/" + entry.Name() + "/fd/3")
			inode := strings.TrimSuffix(strings.TrimPrefix(link, "socket:["), "]")
			found = append(found, shim{pid: pid, id: id, socket: sockets[inode]})
		}
	}
	return found, nil
}

// shimOf says which container a process was started for, when it is a shim of ours. The short-lived commands by which
// containerd starts a shim or cleans up after one are none.
func (e *Engine) shimOf(pid int) (id string, ok bool) {
	data, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/cmdline")
	if err != nil {
		return "", false
	}
	args := strings.Split(strings.TrimSuffix(string(data), "\x00"), "\x00")
	last := args[len(args)-1]
	if filepath.Base(args[0]) != filepath.Base(e.cfg.Shim) || last == "start" || last == "delete" {
		return "", false
	}
	given := map[string]string{}
	for i := 1; i+1 < len(args); i += 2 {
		given[args[i]] = args[i+1]
	}
	return given["-id"], given["-id"] != "" && given["-address"] == e.cfg.Address && given["-namespace"] == e.cfg.Namespace
}

// unixSockets are the paths of the sockets that are bound, by inode.
func unixSockets() (map[string]string, error) {
	data, err := os.ReadFile("/proc/net/unix")
	if err != nil {
		return nil, err
	}
	paths := map[string]string{}
	for line := range strings.Lines(string(data)) {
		if fields := strings.Fields(line); len(fields) == 8 {
			paths[fields[6]] = fields[7]
		}
	}
	return paths, nil
}

func childrenOf(pid int) []int {
	var pids []int
	lists, _ := filepath.Glob("/proc/" + strconv.Itoa(pid) + "/task/*/children") // of every thread
	for _, list := range lists {
		data, _ := os.ReadFile(list)
		for _, field := range strings.Fields(string(data)) {
			if child, err := strconv.Atoi(field); err == nil {
				pids = append(pids, child)
			}
		}
	}
	return pids
}

// groupsOf are the control groups of a process, one for each hierarchy.
func groupsOf(pid int) map[string]bool {
	data, _ := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/cgroup")
	groups := map[string]bool{}
	for line := range strings.Lines(string(data)) {
		if parts := strings.SplitN(strings.TrimSpace(line), ":", 3); len(parts) == 3 {
			groups[parts[2]] = true
		}
	}
	return groups
}
