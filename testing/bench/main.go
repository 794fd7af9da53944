// Command bench measures the real slipway binary on this machine and prints its figures beside those it is meant to
// reach. It runs in namespaces of its own, with data on disk and fsync on, and removes what it made. It asserts
// nothing: a missed target is marked, and only what could not be measured makes it exit with 1.
package main

import (
	"context"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"

	"github.com/slipway-dev/slipway/testing/cluster"
	"github.com/slipway-dev/slipway/testing/images"
	"github.com/slipway-dev/slipway/testing/isolated"
	"github.com/slipway-dev/slipway/testing/need"
)

// image is what all measured Pods run; it is loaded before anything is measured.
const image = "test.local/testpod:1"

// settings are what the command line says.
type settings struct {
	only    string
	rounds  int
	dir     string
	archive string
}

func main() {
	var s settings
	flag.StringVar(&s.only, "only", "", "measure only what has this in its name: "+strings.Join(names(), ", "))
	flag.IntVar(&s.rounds, "rounds", 20, "how often each figure is taken (50 Pods at once: a quarter of it)")
	flag.StringVar(&s.dir, "dir", filepath.Join(need.ModuleRoot(), "build"), "where data are kept while measuring; not a file system in memory, where figures are to count")
	flag.Parse()
	if os.Geteuid() != 0 {
		fmt.Fprintln(os.Stderr, "bench: running containers needs root")
		os.Exit(2)
	}
	if len(s.chosen()) == 0 {
		fmt.Fprintf(os.Stderr, "bench: -only %s: there is %s\n", s.only, strings.Join(names(), ", "))
		os.Exit(2)
	}
	os.Exit(isolated.Run(func() int { return measure(s) }))
}

// measure takes all chosen figures and returns the exit code.
func measure(s settings) int {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	dir, err := scratch(s.dir)
	if err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		return 1
	}
	defer os.RemoveAll(dir)
	fmt.Println("building the image the Pods run")
	if s.archive, err = archive(ctx, dir); err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		return 1
	}
	var binary string
	if err := try(ctx, dir, func(h *host) error { binary = cluster.Binary(h); return nil }); err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		return 1
	}
	report := newReport(binary, s.rounds)
	for _, group := range s.chosen() {
		if ctx.Err() != nil {
			break
		}
		run(ctx, group, s, dir, report)
	}
	fmt.Println()
	report.print(os.Stdout)
	path := filepath.Join(s.dir, "bench.json")
	if err := report.write(path); err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		return 1
	}
	fmt.Printf("\nevery single measurement is in %s\n", path)
	if report.failed() || ctx.Err() != nil {
		return 1
	}
	return 0
}

// scratch makes a folder for the run below base.
func scratch(base string) (string, error) {
	if err := os.MkdirAll(base, 0o755); err != nil {
		return "", fmt.Errorf("make folder for data: %w", err)
	}
	dir, err := os.MkdirTemp(base, "bench-*")
	if err != nil {
		return "", fmt.Errorf("make folder for data: %w", err)
	}
	return dir, nil
}

// archive writes the image to a file that slipway loads.
func archive(ctx context.Context, dir string) (string, error) {
	built, err := images.Testpod(ctx, image)
	if err != nil {
		return "", fmt.Errorf("build image: %w", err)
	}
	path := filepath.Join(dir, "image.tar")
	return path, images.WriteArchive(path, built)
}
