package shim

import (
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"

	taskapi "github.com/containerd/containerd/api/runtime/task/v3"

	"github.com/slipway-dev/slipway/nodeagent/runtime/bundle/crilog"
)

func TestParseTarget(t *testing.T) {
	tests := map[string]struct {
		want  target
		mine  bool
		fails bool
	}{
		"":                                 {},
		"/run/fifo":                        {},
		"file:///tmp/x":                    {},
		"slipway-log:///var/0":             {want: target{"/var/0", crilog.DefaultLimits, ""}, mine: true},
		"slipway-log:///a%20b/0":           {want: target{"/a b/0", crilog.DefaultLimits, ""}, mine: true},
		"slipway-log:///0?bytes=7&files=2": {want: target{"/0", crilog.Limits{Bytes: 7, Files: 2}, ""}, mine: true},
		"slipway-log:///0?exit=%2Fs%2Fx":   {want: target{"/0", crilog.DefaultLimits, "/s/x"}, mine: true},
		"slipway-log:///0?bytes=x":         {mine: true, fails: true},
		"slipway-log:relative":             {mine: true, fails: true},
	}
	for address, tt := range tests {
		got, mine, err := parseTarget(address)
		if got != tt.want || mine != tt.mine || (err != nil) != tt.fails {
			t.Errorf("%q: got %+v, %v, %v", address, got, mine, err)
		}
	}
}

func TestRedirectLeavesOtherOutputsAlone(t *testing.T) {
	r := &taskapi.CreateTaskRequest{Bundle: t.TempDir(), Stdout: "/run/fifo", Stderr: "/run/fifo2"}
	out, err := redirect(r)
	if out != nil || err != nil || r.Stdout != "/run/fifo" || r.Stderr != "/run/fifo2" {
		t.Errorf("got %v, %v, %+v", out, err, r)
	}
}

func TestOutputGoesFromThePipesToTheLog(t *testing.T) {
	log := filepath.Join(t.TempDir(), "0.log")
	r := &taskapi.CreateTaskRequest{Bundle: t.TempDir(), Stdout: LogScheme + "://" + log, Stdin: StdinPipe}
	out, err := redirect(r)
	if err != nil {
		t.Fatal(err)
	}
	var pipes []*os.File
	for _, path := range []string{r.Stdout, r.Stderr} {
		pipe, err := os.OpenFile(path, os.O_WRONLY, 0)
		if err != nil {
			t.Fatal(err)
		}
		pipes = append(pipes, pipe)
	}
	out.release()
	for i, text := range []string{"one\n", "two"} {
		if _, err := pipes[i].WriteString(text); err != nil {
			t.Fatal(err)
		}
		pipes[i].Close()
	}
	<-out.done
	data, err := os.ReadFile(log)
	if err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(string(data), " stdout F one\n") || !strings.Contains(string(data), " stderr F two\n") {
		t.Errorf("log is %q", data)
	}
	if left, _ := filepath.Glob(filepath.Join(r.Bundle, "std[oe]*")); len(left) != 0 {
		t.Errorf("pipes are left: %v", left)
	}
}

func TestOutputEndsWhenNobodyCame(t *testing.T) {
	out, err := openOutput(t.TempDir(), target{filepath.Join(t.TempDir(), "0.log"), crilog.DefaultLimits, ""}, crilog.Stdout)
	if err != nil {
		t.Fatal(err)
	}
	out.release()
	<-out.done
}

func TestSocketOfAnotherShimIsNotRemoved(t *testing.T) {
	path := filepath.Join(t.TempDir(), "s")
	first, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	file, err := first.(*net.UnixListener).File()
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	mine := socketOf(int(file.Fd()))
	if mine.path != path {
		t.Fatalf("found %+v", mine)
	}
	first.(*net.UnixListener).SetUnlinkOnClose(false)
	first.Close()
	kept := path + ".old" // keeps the inode from being used again
	if err := os.Rename(path, kept); err != nil {
		t.Fatal(err)
	}
	second, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	defer second.Close()
	mine.remove()
	if _, err := os.Lstat(path); err != nil {
		t.Error("the socket of the next shim was removed")
	}
	second.Close()
	if err := os.Rename(kept, path); err != nil {
		t.Fatal(err)
	}
	mine.remove()
	if _, err := os.Lstat(path); err == nil {
		t.Error("the shim's own socket is left")
	}
}
