package main

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"sort"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

func env([]string) error {
	vars := os.Environ()
	sort.Strings(vars)
	fmt.Println(strings.Join(vars, "\n"))
	return nil
}

func printArgs(args []string) error {
	for _, a := range args {
		fmt.Println(a)
	}
	return nil
}

// id prints what the security settings of a container come to.
func id([]string) error {
	groups, err := os.Getgroups()
	if err != nil {
		return err
	}
	sort.Ints(groups)
	dir, err := os.Getwd()
	if err != nil {
		return err
	}
	host, err := os.Hostname()
	if err != nil {
		return err
	}
	fmt.Printf("uid=%d\ngid=%d\ngroups=%v\ndir=%s\nhost=%s\n", os.Getuid(), os.Getgid(), groups, dir, host)
	data, err := os.ReadFile("/proc/self/status")
	if err != nil {
		return err
	}
	for line := range strings.SplitSeq(string(data), "\n") {
		for _, name := range []string{"CapEff", "CapBnd", "NoNewPrivs", "Seccomp"} {
			if v, ok := strings.CutPrefix(line, name+":"); ok {
				fmt.Printf("%s=%s\n", name, strings.TrimSpace(v))
			}
		}
	}
	score, err := os.ReadFile("/proc/self/oom_score_adj")
	if err != nil {
		return err
	}
	fmt.Printf("oom=%s\n", strings.TrimSpace(string(score)))
	return nil
}

func cat(args []string) error {
	for _, path := range args {
		data, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		os.Stdout.Write(data)
	}
	return nil
}

func write(args []string) error {
	return os.WriteFile(arg(args, 0, "/tmp/x"), []byte(arg(args, 1, "")), 0o644)
}

func keyring([]string) error {
	if _, err := unix.KeyctlGetKeyringID(unix.KEY_SPEC_PROCESS_KEYRING, true); err != nil {
		return fmt.Errorf("keyctl: %w", err)
	}
	fmt.Println("got a keyring")
	return nil
}

// count tells from a file how often it was started on it: what volumes keep, and what they lose.
func count(args []string) error {
	for _, path := range args {
		data, err := os.ReadFile(path)
		if err != nil && !os.IsNotExist(err) {
			return err
		}
		n, _ := strconv.Atoi(string(data)) // none yet: 0
		fmt.Println(path, n)
		file, err := os.Create(path)
		if err != nil {
			return err
		}
		_, err = file.WriteString(strconv.Itoa(n + 1))
		if err := errors.Join(err, file.Sync(), file.Close()); err != nil {
			return err
		}
	}
	return sleep(nil)
}

// child does a command in another process of the container.
func child(args []string) error {
	cmd := exec.Command("/proc/self/exe", args...)
	cmd.Stdout, cmd.Stderr = os.Stdout, os.Stderr
	fmt.Println("the child ended:", cmd.Run())
	return sleep(nil)
}

// orphan leaves a child that holds the standard output.
func orphan([]string) error {
	child := exec.Command("/proc/self/exe", "sleep")
	child.Stdout = os.Stdout
	return child.Start()
}

func pids([]string) error {
	entries, err := os.ReadDir("/proc")
	if err != nil {
		return err
	}
	n := 0
	for _, entry := range entries {
		if _, err := strconv.Atoi(entry.Name()); err == nil {
			n++
		}
	}
	fmt.Println(n)
	return nil
}
