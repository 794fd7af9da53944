package main

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
)

// remote lets everybody in who knows the password.
const remote = "\nhost all all all scram-sha-256\n"

// postgres starts the server on PGDATA, which is made first when it is empty. POSTGRES_USER and POSTGRES_PASSWORD
// say who may log in to it; they count at the first start only.
func postgres(command []string) error {
	programs, err := findPrograms()
	if err != nil {
		return err
	}
	if err := os.Setenv("PATH", programs+":"+os.Getenv("PATH")); err != nil {
		return err
	}
	data := os.Getenv("PGDATA")
	if data == "" {
		return errors.New("PGDATA is not set")
	}
	if os.Geteuid() == 0 {
		if err := prepare(data); err != nil {
			return err
		}
	}
	_, err = os.Stat(filepath.Join(data, "PG_VERSION"))
	if errors.Is(err, os.ErrNotExist) {
		err = initialize(data)
	}
	if err != nil {
		return err
	}
	return execute(slices.Insert(slices.Clone(command), 1, "-c", "listen_addresses=*"))
}

// findPrograms returns the folder of the newest PostgreSQL, which Debian keeps by version.
func findPrograms() (string, error) {
	found, err := filepath.Glob("/usr/lib/postgresql/*/bin/initdb")
	if err != nil {
		return "", err
	}
	if len(found) == 0 {
		return "", errors.New("there is no PostgreSQL in /usr/lib/postgresql")
	}
	return filepath.Dir(found[len(found)-1]), nil
}

// prepare gives the server's user its folders and becomes that user.
func prepare(data string) error {
	owner, err := account("postgres")
	if err != nil {
		return err
	}
	const sockets = "/var/run/postgresql"
	for _, dir := range []string{data, sockets} {
		if err := os.MkdirAll(dir, 0o700); err != nil {
			return err
		}
		if err := owner.own(dir); err != nil {
			return err
		}
	}
	if err := errors.Join(os.Chmod(data, 0o700), os.Chmod(sockets, 0o775)); err != nil {
		return err
	}
	return owner.become()
}

// initialize makes an empty database cluster with one user.
func initialize(data string) error {
	password := os.Getenv("POSTGRES_PASSWORD")
	if password == "" {
		return errors.New("POSTGRES_PASSWORD is not set: an empty data folder needs one")
	}
	name := os.Getenv("POSTGRES_USER")
	if name == "" {
		name = "postgres"
	}
	file, err := os.CreateTemp("", "password-*")
	if err != nil {
		return err
	}
	defer os.Remove(file.Name())
	if _, err := file.WriteString(password + "\n"); err != nil {
		return err
	}
	if err := file.Close(); err != nil {
		return err
	}
	initdb := exec.Command("initdb", "--pgdata", data, "--username", name, "--pwfile", file.Name(),
		"--auth-local=trust", "--auth-host=scram-sha-256", "--encoding=UTF8", "--no-locale")
	initdb.Stdout, initdb.Stderr = os.Stdout, os.Stderr
	if err := initdb.Run(); err != nil {
		return fmt.Errorf("run initdb: %w", err)
	}
	access, err := os.OpenFile(filepath.Join(data, "pg_hba.conf"), os.O_APPEND|os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	_, err = access.WriteString(remote)
	return errors.Join(err, access.Close())
}
