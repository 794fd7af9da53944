package main

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"time"

	"golang.org/x/sys/unix"
)

const (
	disk    = "/dev/vda"
	newRoot = "/root"
	self    = "/usr/local/bin/guest"
)

// startDisk loads what the disk needs, mounts it, leaves a copy of this program there, and becomes its init.
func startDisk() error {
	modules, err := filepath.Glob("/modules/*.ko")
	if err != nil {
		return err
	}
	slices.Sort(modules)
	for _, path := range modules {
		if err := load(path); err != nil {
			return err
		}
	}
	if err := unix.Mount("dev", "/dev", "devtmpfs", 0, ""); err != nil {
		return fmt.Errorf("mount /dev: %w", err)
	}
	for _, err := os.Stat(disk); errors.Is(err, fs.ErrNotExist); _, err = os.Stat(disk) {
		time.Sleep(10 * time.Millisecond) // the driver is still looking for it
	}
	if err := unix.Mount(disk, newRoot, "ext4", 0, ""); err != nil {
		return fmt.Errorf("mount %s: %w", disk, err)
	}
	program, err := os.ReadFile("/init")
	if err != nil {
		return err
	}
	if err := os.WriteFile(newRoot+self, program, 0o755); err != nil {
		return err
	}
	if err := unix.Mount("/dev", newRoot+"/dev", "", unix.MS_MOVE, ""); err != nil {
		return fmt.Errorf("move /dev: %w", err)
	}
	if err := errors.Join(unix.Chdir(newRoot), unix.Mount(".", "/", "", unix.MS_MOVE, ""), unix.Chroot("."), unix.Chdir("/")); err != nil {
		return fmt.Errorf("change to the disk: %w", err)
	}
	return unix.Exec("/sbin/init", []string{"/sbin/init"}, os.Environ())
}

func load(path string) error {
	file, err := os.Open(path)
	if err != nil {
		return err
	}
	defer file.Close()
	if err := unix.FinitModule(int(file.Fd()), "", 0); err != nil && !errors.Is(err, unix.EEXIST) {
		return fmt.Errorf("load %s: %w", path, err)
	}
	return nil
}
