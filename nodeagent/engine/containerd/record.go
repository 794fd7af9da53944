package containerd

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/slipway-dev/slipway/nodeagent/engine"
)

// record is what the engine keeps of a container in a file of its own, because containerd does not: when it was told
// to start (written before containerd is asked to, so that no container ever runs without one), when it was asked to
// end, and how it ended once its task is deleted.
type record struct {
	Started    time.Time `json:"started,omitzero"`
	Asked      time.Time `json:"asked,omitzero"`
	Finished   time.Time `json:"finished,omitzero"`
	ExitCode   int       `json:"exitCode,omitempty"`
	OOMKilled  bool      `json:"oomKilled,omitempty"`
	StartFault string    `json:"startFault,omitempty"`
	Lost       string    `json:"lost,omitempty"`
	Cgroup     string    `json:"cgroup,omitempty"` // to be emptied when containerd has forgotten the container
}

// Files of one container in the folder of records: the engine's own, and the one in which the shim notes the exit.
const (
	recordSuffix = ".json"
	exitSuffix   = ".exit"
)

func (e *Engine) recordPath(id string) string {
	return filepath.Join(e.cfg.StateDir, "exits", id+recordSuffix)
}

func (e *Engine) exitPath(id string) string {
	return filepath.Join(e.cfg.StateDir, "exits", id+exitSuffix)
}

// save writes an entry's record. A record that cannot be written costs only times and an exit code after a restart.
func (e *Engine) save(st entry, ok bool) {
	if !ok {
		return
	}
	if err := e.write(st); err != nil {
		e.cfg.Log.Warn("container's record could not be written", "id", st.status.ID, "err", err)
	}
}

func (e *Engine) write(st entry) error {
	r := record{
		Started: st.status.StartedAt, Asked: st.status.StopAskedAt, Finished: st.status.FinishedAt, ExitCode: st.status.ExitCode,
		OOMKilled: st.status.OOMKilled, StartFault: st.startFault, Lost: st.status.Lost, Cgroup: st.cgroup,
	}
	if r.Started.IsZero() && !st.ended() {
		r.Started = st.begun
	}
	data, err := json.Marshal(r)
	if err != nil {
		return err
	}
	path := e.recordPath(st.status.ID)
	return replaceFile(path, fmt.Sprintf("%s.%d", path, st.touched), data) // two may be written at once
}

// replaceFile writes a file as a whole or not at all, also when the power fails: a name never leads to half a record.
func replaceFile(path, temporary string, data []byte) (err error) {
	f, err := os.OpenFile(temporary, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return err
	}
	_, err = f.Write(data)
	if err == nil {
		err = f.Sync()
	}
	if err = errors.Join(err, f.Close()); err == nil {
		err = os.Rename(temporary, path)
	}
	if err != nil {
		return errors.Join(err, os.Remove(temporary))
	}
	return nil
}

// read returns a container's record. One that is torn counts as none: what it said is found out again.
func (e *Engine) read(id string) (record, bool) {
	data, err := os.ReadFile(e.recordPath(id))
	if err != nil {
		return record{}, false
	}
	var r record
	if err := json.Unmarshal(data, &r); err != nil {
		e.cfg.Log.Warn("a container's record is damaged and not used", "path", e.recordPath(id), "err", err)
		return record{}, false
	}
	return r, true
}

// load completes an entry with its record, if there is one.
func (e *Engine) load(st *entry) {
	r, ok := e.read(st.status.ID)
	if !ok {
		return
	}
	st.begun, st.startFault, st.status.StopAskedAt = r.Started, r.StartFault, r.Asked
	if !r.Finished.IsZero() {
		st.status.State, st.status.StartedAt, st.status.FinishedAt = engine.Exited, r.Started, r.Finished
		st.status.ExitCode, st.status.OOMKilled, st.status.Lost = r.ExitCode, r.OOMKilled, r.Lost
	}
}

// note is what the shim writes of a container's exit, "CODE NANOSECONDS". It makes the file, empty, with the
// container: an empty one says that the shim ended before the container's exit was known.
type note struct {
	kept bool // the shim keeps notes at all
	exit exit
}

// noted reads the shim's note of a container.
func (e *Engine) noted(id string) (n note) {
	data, err := os.ReadFile(e.exitPath(id))
	if err != nil {
		return n
	}
	n.kept = true
	code, nanoseconds, _ := strings.Cut(strings.TrimSpace(string(data)), " ")
	value, errCode := strconv.Atoi(code)
	stamp, errTime := strconv.ParseInt(nanoseconds, 10, 64)
	if errCode == nil && errTime == nil {
		n.exit = exit{code: value, at: time.Unix(0, stamp)}
	}
	return n
}

// forget removes what is kept of a container.
func (e *Engine) forget(id string) error {
	for _, path := range []string{e.recordPath(id), e.exitPath(id)} {
		if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}
	return nil
}
