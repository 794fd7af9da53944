package main

import (
	"bytes"
	"encoding/base64"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"strconv"
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
		env.Values[connsKey{}] = &conns{}
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
		// nowhere PATH… looks for the Secrets of the script in files and folders: as they are and in base64.
		"nowhere": nowhere,
		// flood N ADDRESS opens connections and says nothing on them; ebb closes them.
		"flood": flood,
		"ebb":   ebb,
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

// conns are the connections of flood.
type conns []net.Conn

type connsKey struct{}

func flood(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 2 {
		ts.Fatalf("usage: flood N ADDRESS")
	}
	n, err := strconv.Atoi(args[0])
	ts.Check(err)
	for range n {
		conn, err := net.Dial("tcp", args[1])
		ts.Check(err)
		ts.Defer(func() { _ = conn.Close() })
		*ts.Value(connsKey{}).(*conns) = append(*ts.Value(connsKey{}).(*conns), conn)
	}
}

func ebb(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 0 {
		ts.Fatalf("usage: ebb")
	}
	for _, conn := range *ts.Value(connsKey{}).(*conns) {
		_ = conn.Close()
	}
}

func nowhere(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) == 0 {
		ts.Fatalf("usage: nowhere PATH...")
	}
	const secret = "-correct-horse-battery-staple"
	forms := [][]byte{[]byte(secret)}
	for before := range 3 { // base64 looks different at each place in a group of three bytes
		text := base64.StdEncoding.EncodeToString([]byte("012"[:before] + secret))
		forms = append(forms, []byte(text[4:len(text)-4]))
	}
	read := 0
	for _, path := range args {
		ts.Check(filepath.WalkDir(ts.MkAbs(path), func(path string, entry fs.DirEntry, err error) error {
			if err != nil || !entry.Type().IsRegular() {
				return err
			}
			data, err := os.ReadFile(path)
			for _, form := range forms {
				if bytes.Contains(data, form) {
					ts.Fatalf("%s shows a Secret: %q", path, form)
				}
			}
			read += len(data)
			return err
		}))
	}
	if read < 1<<20 {
		ts.Fatalf("only %d bytes were looked at", read)
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
