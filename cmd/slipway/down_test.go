package main

import (
	"bytes"
	"fmt"
	"os"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/slipway-dev/slipway/cmd/slipway/purge"
)

// terminal returns both ends of a terminal: what is written to the first is read from the second as if typed.
func terminal(t *testing.T) (keyboard, in *os.File) {
	t.Helper()
	keyboard, err := os.OpenFile("/dev/ptmx", os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { keyboard.Close() })
	if err := unix.IoctlSetPointerInt(int(keyboard.Fd()), unix.TIOCSPTLCK, 0); err != nil {
		t.Fatal(err)
	}
	n, err := unix.IoctlGetInt(int(keyboard.Fd()), unix.TIOCGPTN)
	if err != nil {
		t.Fatal(err)
	}
	in, err = os.OpenFile(fmt.Sprintf("/dev/pts/%d", n), os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { in.Close() })
	return keyboard, in
}

func TestPurgeAsks(t *testing.T) {
	plan := purge.Plan{Dir: "/data", Items: []purge.Item{{Name: "etcd", What: "the store", Bytes: 1}}}
	for answer, agrees := range map[string]bool{"yes\n": true, "y\n": false, "\n": false, "no\n": false} {
		keyboard, in := terminal(t)
		if _, err := keyboard.WriteString(answer); err != nil {
			t.Fatal(err)
		}
		var out bytes.Buffer
		err := agreed(plan, false, in, &out)
		if (err == nil) != agrees {
			t.Errorf("after %q: %v", answer, err)
		}
		if !strings.Contains(out.String(), "etcd") || !strings.Contains(out.String(), "type yes") {
			t.Errorf("asked without naming what goes: %s", out.String())
		}
	}
}
