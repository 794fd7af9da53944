package containerd

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"github.com/slipway-dev/slipway/nodeagent/engine"
)

// record is what the engine keeps of a container in a file of its own, because containerd does not: when it started,
// and how it ended once its task is deleted.
type record struct {
	Started    time.Time `json:"started,omitzero"`
	Finished   time.Time `json:"finished,omitzero"`
	ExitCode   int       `json:"exitCode,omitempty"`
	OOMKilled  bool      `json:"oomKilled,omitempty"`
	StartFault string    `json:"startFault,omitempty"`
}

func (e *Engine) recordPath(id string) string {
	return filepath.Join(e.cfg.StateDir, "exits", id+".json")
}

// save writes an entry's record. A record that cannot be written costs only times and an exit code after a restart.
func (e *Engine) save(st entry, ok bool) {
	if !ok {
		return
	}
	if err := e.write(st); err != nil {
		e.cfg.Log.Warn("exit record could not be written", "id", st.status.ID, "err", err)
	}
}

func (e *Engine) write(st entry) error {
	data, err := json.Marshal(record{
		Started: st.status.StartedAt, Finished: st.status.FinishedAt, ExitCode: st.status.ExitCode,
		OOMKilled: st.status.OOMKilled, StartFault: st.startFault,
	})
	if err != nil {
		return err
	}
	path := e.recordPath(st.status.ID)
	tmp := fmt.Sprintf("%s.%d", path, st.touched) // two may be written at once
	if err := os.WriteFile(tmp, data, 0o600); err != nil {
		return err
	}
	return os.Rename(tmp, path)
}

// load completes an entry with its record, if there is one.
func (e *Engine) load(st *entry) {
	data, err := os.ReadFile(e.recordPath(st.status.ID))
	if err != nil {
		return
	}
	var r record
	if json.Unmarshal(data, &r) != nil {
		return
	}
	st.status.StartedAt, st.startFault = r.Started, r.StartFault
	if !r.Finished.IsZero() {
		st.status.State, st.status.FinishedAt = engine.Exited, r.Finished
		st.status.ExitCode, st.status.OOMKilled = r.ExitCode, r.OOMKilled
	}
}
