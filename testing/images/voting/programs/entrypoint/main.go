// Command entrypoint starts redis or PostgreSQL in a container as their official images do: what belongs to the
// server is given to its user, an empty data folder of PostgreSQL is filled, and the server takes this process's
// place as that user.
package main

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"strconv"
	"syscall"
)

func main() {
	if err := run(os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "entrypoint:", err)
		os.Exit(1)
	}
}

// run replaces this process by the command, or says why it does not.
func run(command []string) error {
	if len(command) == 0 {
		return errors.New("no command is given")
	}
	switch filepath.Base(command[0]) {
	case "redis-server":
		return redis(command)
	case "postgres":
		return postgres(command)
	}
	return execute(command)
}

func redis(command []string) error {
	if os.Geteuid() != 0 {
		return execute(command)
	}
	owner, err := account("redis")
	if err != nil {
		return err
	}
	if err := owner.own("."); err != nil {
		return err
	}
	if err := owner.become(); err != nil {
		return err
	}
	return execute(command)
}

// execute replaces this process.
func execute(command []string) error {
	path, err := exec.LookPath(command[0])
	if err != nil {
		return err
	}
	return fmt.Errorf("execute %s: %w", path, syscall.Exec(path, command, os.Environ()))
}

// owner is a user of the image.
type owner struct{ uid, gid int }

func account(name string) (owner, error) {
	u, err := user.Lookup(name)
	if err != nil {
		return owner{}, fmt.Errorf("find user: %w", err)
	}
	uid, uidErr := strconv.Atoi(u.Uid)
	gid, gidErr := strconv.Atoi(u.Gid)
	return owner{uid, gid}, errors.Join(uidErr, gidErr)
}

// own gives the user a folder and what is in it.
func (o owner) own(dir string) error {
	return filepath.WalkDir(dir, func(path string, _ fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		return os.Lchown(path, o.uid, o.gid)
	})
}

// become makes this process the user's, for good.
func (o owner) become() error {
	if err := errors.Join(syscall.Setgroups([]int{o.gid}), syscall.Setgid(o.gid), syscall.Setuid(o.uid)); err != nil {
		return fmt.Errorf("become user %d: %w", o.uid, err)
	}
	return nil
}
