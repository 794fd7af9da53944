// Command guest is the test's hand inside the virtual machine. As process 1 of the initial file system it mounts the
// disk and starts what is on it; as a service it runs commands and passes files; `guest dns` measures gaps.
package main

import (
	"fmt"
	"os"
)

func main() {
	if err := run(os.Args); err != nil {
		fmt.Fprintln(os.Stderr, "guest:", err)
		os.Exit(1)
	}
}

func run(args []string) error {
	switch {
	case os.Getpid() == 1:
		return startDisk()
	case len(args) == 3 && args[1] == "serve":
		return serve(args[2])
	case len(args) == 5 && args[1] == "dns":
		return watchDNS(args[2], args[3], args[4])
	}
	return fmt.Errorf("usage: guest serve ADDR | guest dns SERVER NAME DURATION")
}
