package shim

import (
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/slipway-dev/slipway/nodeagent/runtime/bundle/crilog"
)

// BenchmarkOutput is the way of a fast writer's lines from its pipe to the log, the copy that containerd's library
// makes included, and what that costs this process: processor time per megabyte. "plain" is that copy into a file.
func BenchmarkOutput(b *testing.B) {
	const megabytes = 256
	run := func(b *testing.B, sink func(dir string) (io.WriteCloser, func())) {
		var cpu int64
		for b.Loop() {
			to, wait := sink(b.TempDir())
			from, pipe, err := os.Pipe()
			if err != nil {
				b.Fatal(err)
			}
			yes := exec.Command("sh", "-c", "yes "+string(make99())+" | head -c 268435456")
			yes.Stdout = pipe
			before := cpuTime(b)
			if err := yes.Start(); err != nil {
				b.Fatal(err)
			}
			pipe.Close()
			if _, err := io.CopyBuffer(struct{ io.Writer }{to}, struct{ io.Reader }{from}, make([]byte, 32<<10)); err != nil {
				b.Fatal(err)
			}
			to.Close()
			wait()
			cpu += cpuTime(b) - before
			from.Close()
			if err := yes.Wait(); err != nil {
				b.Fatal(err)
			}
		}
		b.SetBytes(megabytes << 20)
		b.ReportMetric(float64(cpu)/1e3/float64(b.N)/megabytes, "cpu-ms/MB")
	}
	b.Run("log", func(b *testing.B) {
		run(b, func(dir string) (io.WriteCloser, func()) {
			out, err := openOutput(dir, target{path: filepath.Join(dir, "0.log"), limits: crilog.DefaultLimits}, crilog.Stdout)
			if err != nil {
				b.Fatal(err)
			}
			pipe, err := os.OpenFile(out.pipes[0], os.O_WRONLY, 0)
			if err != nil {
				b.Fatal(err)
			}
			out.release()
			return pipe, func() { <-out.done }
		})
	})
	b.Run("plain", func(b *testing.B) {
		run(b, func(dir string) (io.WriteCloser, func()) {
			file, err := os.Create(filepath.Join(dir, "plain"))
			if err != nil {
				b.Fatal(err)
			}
			return file, func() {}
		})
	})
}

// make99 is the text of a line of 100 bytes.
func make99() []byte {
	text := make([]byte, 99)
	for i := range text {
		text[i] = 'x'
	}
	return text
}

// cpuTime is the processor time this process took, in microseconds.
func cpuTime(b *testing.B) int64 {
	var usage unix.Rusage
	if err := unix.Getrusage(unix.RUSAGE_SELF, &usage); err != nil {
		b.Fatal(err)
	}
	return (usage.Utime.Nano() + usage.Stime.Nano()) / 1000
}
