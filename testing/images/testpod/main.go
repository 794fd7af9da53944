// Command testpod is the one program in the images of container tests. Its first argument says what it does; run it
// without one for the list.
package main

import (
	"fmt"
	"os"
	"os/signal"
	"sort"
	"strconv"
	"strings"
	"syscall"
	"time"
)

type command struct {
	usage string
	run   func(args []string) error
}

func commands() map[string]command {
	return map[string]command{
		"serve":    {"[ADDR=:8080] HTTP: / hostname, /env, /file?path=, /healthz, /fail toggles healthz, /exit?code=", serve},
		"graceful": {"[VERSION] [ADDR=:8080] HTTP: / VERSION hostname, ?work=DURATION, /readyz, /flip toggles readyz; ends as it should", graceful},
		"serial":   {"[VERSION] as graceful on :8080, but one caller after the other", serial},
		"caller":   {"URL… call them without a pause; reports on :8081", caller},
		"grpc":     {"[ADDR=:9090] gRPC health service", serveGRPC},
		"tcp":      {"[ADDR=:7070] TCP echo", serveTCP},
		"exit":     {"CODE [AFTER] exit with CODE after a duration", exit},
		"sleep":    {"[DURATION] wait (for ever) and end on SIGTERM", sleep},
		"stubborn": {"ignore SIGTERM", stubborn},
		"lines":    {"COUNT [INTERVAL] [stderr] write numbered lines", lines},
		"partial":  {"BYTES write that many bytes and no newline", partial},
		"flood":    {"write lines as fast as possible", flood},
		"steady":   {"[BYTES/S] [FILE] numbered lines of 100 bytes until FILE appears, never waiting; says whether it would have", steady},
		"bomb":     {"start processes until one is refused, and keep them", bomb},
		"memory":   {"MIB take and touch that much memory, then wait", memory},
		"count":    {"FILE… print the number in each file (0: none), put the next one there for good, then wait", count},
		"child":    {"COMMAND… run another command in a child process, say how it ended, then wait", child},
		"env":      {"print the environment", env},
		"args":     {"… print the arguments, one a line", printArgs},
		"id":       {"print uid, gid, groups, capabilities, seccomp, working folder", id},
		"cat":      {"FILE… print files", cat},
		"write":    {"FILE TEXT write a file", write},
		"keyring":  {"ask for a keyring, which the default seccomp profile forbids", keyring},
		"mounts":   {"print the mount points", func([]string) error { return cat([]string{"/proc/self/mountinfo"}) }},
		"orphan":   {"leave a child process behind and exit", orphan},
		"pids":     {"print how many processes /proc shows", pids},
	}
}

func main() {
	all := commands()
	if len(os.Args) < 2 || all[os.Args[1]].run == nil {
		names := make([]string, 0, len(all))
		for name := range all {
			names = append(names, name)
		}
		sort.Strings(names)
		for _, name := range names {
			fmt.Fprintf(os.Stderr, "%-9s %s\n", name, all[name].usage)
		}
		os.Exit(2)
	}
	if err := all[os.Args[1]].run(os.Args[2:]); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

// arg returns args[i] or a default.
func arg(args []string, i int, otherwise string) string {
	if i < len(args) {
		return args[i]
	}
	return otherwise
}

func exit(args []string) error {
	code, err := strconv.Atoi(arg(args, 0, "0"))
	if err != nil {
		return err
	}
	after, err := time.ParseDuration(arg(args, 1, "0s"))
	if err != nil {
		return err
	}
	time.Sleep(after)
	os.Exit(code)
	return nil
}

func sleep(args []string) error {
	d, err := time.ParseDuration(arg(args, 0, "100000h"))
	if err != nil {
		return err
	}
	stop := make(chan os.Signal, 1)
	signal.Notify(stop, syscall.SIGTERM, syscall.SIGINT, syscall.SIGQUIT, syscall.SIGUSR1)
	fmt.Println("waiting")
	select {
	case sig := <-stop:
		fmt.Println("got", sig)
	case <-time.After(d):
	}
	return nil
}

func stubborn([]string) error {
	signal.Ignore(syscall.SIGTERM, syscall.SIGINT)
	fmt.Println("ignoring SIGTERM")
	for {
		time.Sleep(time.Hour)
	}
}

func lines(args []string) error {
	count, err := strconv.Atoi(arg(args, 0, "10"))
	if err != nil {
		return err
	}
	interval, err := time.ParseDuration(arg(args, 1, "0s"))
	if err != nil {
		return err
	}
	out := os.Stdout
	if arg(args, 2, "") == "stderr" {
		out = os.Stderr
	}
	for i := range count {
		fmt.Fprintf(out, "line %d\n", i)
		time.Sleep(interval)
	}
	return nil
}

func partial(args []string) error {
	n, err := strconv.Atoi(arg(args, 0, "20000"))
	if err != nil {
		return err
	}
	_, err = os.Stdout.WriteString(strings.Repeat("x", n))
	return err
}

func flood([]string) error {
	line := []byte(strings.Repeat("x", 99) + "\n")
	for {
		if _, err := os.Stdout.Write(line); err != nil {
			return err
		}
	}
}

func memory(args []string) error {
	mib, err := strconv.Atoi(arg(args, 0, "64"))
	if err != nil {
		return err
	}
	held := make([][]byte, 0, mib)
	for range mib {
		page := make([]byte, 1<<20)
		for i := 0; i < len(page); i += 4096 {
			page[i] = 1
		}
		held = append(held, page)
	}
	fmt.Println("holding", len(held), "MiB")
	return sleep(nil)
}
