package main

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
)

// firstFormat is the version of what the first Slipway wrote in a data directory.
const firstFormat = 1

// upgrade brings a data directory from one format to the next. It may be interrupted at any moment, and is then done
// again from its beginning.
type upgrade func(dir string) error

// upgrades returns the way from firstFormat to this binary's, in order. A change that an older binary would misread or
// destroy needs one; a new file that it ignores does not.
func upgrades() []upgrade {
	return []upgrade{
		func(string) error { return nil }, // 2: Secrets are sealed. The store seals what it finds plain when it is opened
	}
}

// settleFormat writes the format at the first start, refuses what a newer binary wrote, and upgrades what an older one
// did. The number is that of the last step that has ended.
func (d *dataDir) settleFormat(steps []upgrade) error {
	known := firstFormat + len(steps)
	text, err := os.ReadFile(filepath.Join(d.path, formatFile))
	if errors.Is(err, fs.ErrNotExist) {
		return d.writeFormat(known)
	}
	if err != nil {
		return err
	}
	found, err := strconv.Atoi(strings.TrimSpace(string(text)))
	if err != nil || found < firstFormat {
		return fmt.Errorf("its format file holds %q, want a number: is this a data directory of Slipway?", strings.TrimSpace(string(text)))
	}
	if found > known {
		return fmt.Errorf("it was written by a newer Slipway (format %d, this binary knows %d): use that version", found, known)
	}
	for ; found < known; found++ {
		if err := steps[found-firstFormat](d.path); err != nil {
			return fmt.Errorf("upgrade from format %d to %d: %w", found, found+1, err)
		}
		if err := d.writeFormat(found + 1); err != nil {
			return err
		}
	}
	return nil
}

// writeFormat replaces the format file, durably: half of a number would be another.
func (d *dataDir) writeFormat(format int) error {
	next := filepath.Join(d.path, "."+formatFile)
	file, err := os.OpenFile(next, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return err
	}
	_, err = fmt.Fprintln(file, format)
	if err = errors.Join(err, file.Sync(), file.Close()); err != nil {
		return errors.Join(err, os.Remove(next))
	}
	return errors.Join(os.Rename(next, filepath.Join(d.path, formatFile)), syncDir(d.path))
}
