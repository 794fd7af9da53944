package main

import (
	"net"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"
)

func TestMain(m *testing.M) {
	testscript.Main(m, map[string]func(){"slipway": main})
}

// TestScripts runs the real command. Scripts see $PORT, which nobody listens on, and $TAKEN, which is taken.
func TestScripts(t *testing.T) {
	testscript.Run(t, testscript.Params{Dir: "testdata/script", Setup: func(env *testscript.Env) error {
		taken, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			return err
		}
		env.Defer(func() { taken.Close() })
		free, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			return err
		}
		defer free.Close()
		env.Setenv("TAKEN", taken.Addr().String())
		env.Setenv("FREE", free.Addr().String())
		return nil
	}, Cmds: map[string]func(*testscript.TestScript, bool, []string){
		// waitfor FILE TEXT waits until a background command has written TEXT to FILE.
		"waitfor": waitFor,
		// exits CODE COMMAND… runs a command that must end with this exit code.
		"exits": exits,
		// confirm runs the command that up.log asks for, as it is printed.
		"confirm": confirmAsked,
	}})
}

func exits(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 2 {
		ts.Fatalf("usage: exits CODE COMMAND [ARG...]")
	}
	err := ts.Exec(args[1], args[2:]...)
	code := "0"
	if err != nil {
		code = err.Error()
	}
	if code != "exit status "+args[0] {
		ts.Fatalf("%v ended with %q, want exit status %s", args[1:], code, args[0])
	}
}

func confirmAsked(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 0 {
		ts.Fatalf("usage: confirm")
	}
	_, asked, _ := strings.Cut(ts.ReadFile("up.log"), "slipway confirm ")
	line, _, _ := strings.Cut(asked, "\n")
	ts.Check(ts.Exec("slipway", append([]string{"confirm"}, strings.Fields(line)...)...))
}

func waitFor(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 2 {
		ts.Fatalf("usage: waitfor FILE TEXT")
	}
	waitUntil(ts, func() bool {
		data, err := os.ReadFile(ts.MkAbs(args[0]))
		return err == nil && strings.Contains(string(data), args[1])
	})
}

// waitUntil looks again and again until done or the test's patience ends.
func waitUntil(ts *testscript.TestScript, done func() bool) {
	patience := time.NewTimer(time.Minute)
	defer patience.Stop()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for !done() {
		select {
		case <-tick.C:
		case <-patience.C:
			ts.Fatalf("waited a minute in vain")
		}
	}
}
