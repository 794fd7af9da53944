package logs

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"k8s.io/apimachinery/pkg/types"
)

// ownerFile names, in a Pod's log folder, who made it. The folder of all logs is shared with others, and what is left
// of a Pod there may be all that is left of it.
const ownerFile = ".slipway"

// Claim makes a Pod's log folder, or the folder of one of its containers, and notes its owner.
func Claim(podDir, owner string) error {
	if err := os.MkdirAll(podDir, 0o755); err != nil {
		return fmt.Errorf("make log folder: %w", err)
	}
	path := filepath.Join(podDir, ownerFile)
	if _, err := os.Lstat(path); err == nil {
		return nil
	}
	if err := os.WriteFile(path, []byte(owner+"\n"), 0o644); err != nil {
		return fmt.Errorf("note owner of log folder: %w", err)
	}
	return nil
}

// Owned returns the log folders below root that owner made, by the uid of their Pod.
func Owned(root, owner string) (map[types.UID]string, error) {
	entries, err := os.ReadDir(root)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("list logs: %w", err)
	}
	owned := map[types.UID]string{}
	for _, e := range entries {
		dir := filepath.Join(root, e.Name())
		text, err := os.ReadFile(filepath.Join(dir, ownerFile))
		if err != nil || strings.TrimSuffix(string(text), "\n") != owner {
			continue
		}
		owned[types.UID(e.Name()[strings.LastIndex(e.Name(), "_")+1:])] = dir
	}
	return owned, nil
}
