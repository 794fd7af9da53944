package vm

import (
	"bytes"
	"compress/gzip"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
)

// writeInitrd writes the first file system: the program that starts the disk, as /init, and the modules it loads.
func writeInitrd(path, init string, modules []string) error {
	var archive bytes.Buffer
	entry := func(name string, mode uint32, data []byte) {
		// The kernel's "newc" format (Documentation/driver-api/early-userspace/buffer-format.rst).
		fmt.Fprintf(&archive, "070701%08x%08x%08x%08x%08x%08x%08x%08x%08x%08x%08x%08x%08x%s\x00",
			0, mode, 0, 0, 1, 0, len(data), 0, 0, 0, 0, len(name)+1, 0, name)
		archive.Write(make([]byte, -archive.Len()&3))
		archive.Write(data)
		archive.Write(make([]byte, -archive.Len()&3))
	}
	for _, dir := range []string{"dev", "modules", "root"} {
		entry(dir, 0o040755, nil)
	}
	program, err := os.ReadFile(init)
	if err != nil {
		return err
	}
	entry("init", 0o100755, program)
	slices.Sort(modules)
	for _, module := range modules {
		data, err := os.ReadFile(module)
		if err != nil {
			return err
		}
		entry("modules/"+filepath.Base(module), 0o100644, data)
	}
	entry("TRAILER!!!", 0, nil)
	var zipped bytes.Buffer
	zip, err := gzip.NewWriterLevel(&zipped, gzip.BestSpeed)
	if err != nil {
		return err
	}
	if _, err := zip.Write(archive.Bytes()); err != nil {
		return err
	}
	return errors.Join(zip.Close(), os.WriteFile(path, zipped.Bytes(), 0o644))
}
