package gitsource

import (
	"fmt"
	"path"
	"strings"
)

// Bounds on what a source reads. A tree beyond them is refused with a clear error: it is either hostile or not a
// tree of manifests, and reading it must not starve what else runs in the process.
const (
	MaxFiles     = 50_000    // manifest files in a tree
	MaxFileBytes = 8 << 20   // one manifest file
	MaxTreeBytes = 256 << 20 // all manifest files of a tree together
	MaxPath      = 1024      // bytes of a file's path
)

// IsManifest says whether a file of this name can hold manifests.
func IsManifest(name string) bool {
	switch path.Ext(name) {
	case ".yaml", ".yml", ".json":
		return !strings.HasPrefix(path.Base(name), ".")
	}
	return false
}

// Budget counts a tree's files against the bounds while a source reads it. The zero value is ready to use.
type Budget struct {
	files int
	bytes int64
}

// Add counts one file of size bytes. It returns an error that names the file and the bound when it is too much.
func (b *Budget) Add(name string, size int64) error {
	b.files++
	b.bytes += size
	switch {
	case len(name) > MaxPath:
		return fmt.Errorf("%s…: path is too long (got %d bytes, want at most %d)", name[:64], len(name), MaxPath)
	case size > MaxFileBytes:
		return fmt.Errorf("%s: file is too large (got %d bytes, want at most %d)", name, size, MaxFileBytes)
	case b.files > MaxFiles:
		return fmt.Errorf("%s: too many manifest files in the tree (want at most %d)", name, MaxFiles)
	case b.bytes > MaxTreeBytes:
		return fmt.Errorf("%s: the tree's manifests are too large together (want at most %d bytes)", name, MaxTreeBytes)
	}
	return nil
}

// Subject returns the first line of a commit message, at most 200 bytes.
func Subject(message string) string {
	line, _, _ := strings.Cut(strings.TrimSpace(message), "\n")
	if len(line) > 200 {
		line = strings.ToValidUTF8(line[:200], "")
	}
	return strings.TrimSpace(line)
}
