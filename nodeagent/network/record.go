package network

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"os"
	"path/filepath"
	"sort"
	"strings"
)

// record is what is remembered of a sandbox: enough to find it again after a restart, and to tear down what a
// killed process left half made.
type record struct {
	Pod     Pod
	Address netip.Addr // the zero Addr with HostNetwork
	Making  bool       `json:",omitempty"` // not everything is there: who made it was cut off, or has not ended yet
}

// records keeps a folder per sandbox under its own folder: sandbox.json beside the pinned namespaces and shm.
type records struct{ dir string }

func (r records) path(id string, more ...string) string {
	return filepath.Join(append([]string{r.dir, id}, more...)...)
}

func (r records) save(rec record) error {
	if err := os.MkdirAll(r.path(rec.Pod.ID), 0o700); err != nil {
		return err
	}
	data, err := json.Marshal(rec)
	if err != nil {
		return err
	}
	return replaceFile(r.path(rec.Pod.ID, "sandbox.json"), data)
}

// load returns the record of a sandbox; ok is false where there is none that can be read.
func (r records) load(id string) (rec record, ok bool) {
	data, err := os.ReadFile(r.path(id, "sandbox.json"))
	if err != nil {
		return record{}, false
	}
	if err := json.Unmarshal(data, &rec); err != nil || rec.Pod.ID != id {
		return record{}, false
	}
	return rec, true
}

// ids returns every sandbox that has a folder, whole or not, sorted.
func (r records) ids() ([]string, error) {
	entries, err := os.ReadDir(r.dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	var ids []string
	for _, entry := range entries {
		if entry.IsDir() {
			ids = append(ids, entry.Name())
		}
	}
	sort.Strings(ids)
	return ids, nil
}

// checkID refuses ids that would lead outside the folder of sandboxes.
func checkID(id string) error {
	if id == "" || len(id) > 128 || strings.HasPrefix(id, ".") || strings.ContainsAny(id, "/\x00") {
		return fmt.Errorf("sandbox id %q is not a Pod UID", id)
	}
	return nil
}

// replaceFile writes a file as a whole or not at all.
func replaceFile(path string, data []byte) error {
	next := path + ".next"
	if err := os.WriteFile(next, data, 0o600); err != nil {
		return err
	}
	return os.Rename(next, path)
}
