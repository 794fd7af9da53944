// Command report runs the tests of every module of the repository and prints, per package, how long building and
// testing took and what failed with its output; the last line is "N passed, N failed, N skipped". With
// SLIPWAY_TEST_STRICT=1 a skipped test fails the run. Arguments are passed on to `go test`.
package main

import (
	"bufio"
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"time"
)

// modules are the folders with a go.mod whose tests are run, relative to the top.
var modules = []string{".", "nodeagent/runtime/bundle", "testing/images/voting/programs"}

func main() {
	if err := run(os.Stdout, os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func run(out io.Writer, args []string) error {
	total := &report{out: out, strict: os.Getenv("SLIPWAY_TEST_STRICT") == "1"}
	var broken error
	for _, dir := range modules {
		if err := total.module(dir, args); err != nil && broken == nil {
			broken = err
		}
	}
	for _, line := range total.skips {
		fmt.Fprintln(out, line)
	}
	fmt.Fprintf(out, "%d passed, %d failed, %d skipped\n", total.passed, total.failed, total.skipped)
	switch {
	case total.failed > 0:
		return fmt.Errorf("%d tests failed", total.failed)
	case broken != nil:
		return broken
	case total.passed == 0:
		return fmt.Errorf("no test ran")
	case total.strict && total.skipped > 0:
		return fmt.Errorf("%d tests were skipped", total.skipped)
	}
	return nil
}

// event is one line of `go test -json`.
type event struct {
	Action     string
	Package    string
	ImportPath string
	Test       string
	Elapsed    float64
	Output     string
}

type report struct {
	out                     io.Writer
	strict                  bool
	passed, failed, skipped int
	skips                   []string
}

// module runs one module's tests.
func (t *report) module(dir string, args []string) error {
	graph, err := os.CreateTemp("", "slipway-actions-")
	if err != nil {
		return err
	}
	defer os.Remove(graph.Name())
	defer graph.Close()
	args = append([]string{"test", "-json", "-count=1", "-timeout=20m", "-debug-actiongraph=" + graph.Name()}, append(args, "./...")...)
	cmd := exec.Command("go", args...)
	cmd.Dir = dir
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		return err
	}
	if err := cmd.Start(); err != nil {
		return fmt.Errorf("run go test: %w", err)
	}
	packages := t.read(stdout)
	runErr := cmd.Wait()
	if stderr.Len() > 0 {
		fmt.Fprint(t.out, stderr.String())
	}
	builds := buildTimes(graph.Name())
	t.print(dir, packages, builds)
	if runErr != nil && t.failed == 0 {
		return fmt.Errorf("go test in %s: %w", dir, runErr)
	}
	return nil
}

// result is what one package did.
type result struct {
	name    string
	verdict string
	elapsed float64
	tests   int
}

// read counts tests and prints the output of those that failed as soon as they have.
func (t *report) read(stream io.Reader) []result {
	var packages []result
	output := map[[2]string]*strings.Builder{}
	tests := map[string]int{}
	scanner := bufio.NewScanner(stream)
	scanner.Buffer(make([]byte, 1<<20), 64<<20)
	for scanner.Scan() {
		var e event
		if json.Unmarshal(scanner.Bytes(), &e) != nil {
			fmt.Fprintln(t.out, scanner.Text())
			continue
		}
		if e.Package == "" {
			e.Package = e.ImportPath
		}
		key := [2]string{e.Package, e.Test}
		switch e.Action {
		case "output", "build-output":
			if output[key] == nil {
				output[key] = &strings.Builder{}
			}
			output[key].WriteString(e.Output)
			continue
		case "pass", "fail", "skip", "build-fail":
		default:
			continue
		}
		if e.Action == "fail" || e.Action == "build-fail" {
			t.show(e, output[key])
		}
		if e.Test != "" {
			t.count(e, output[key])
			tests[e.Package]++
		} else if e.Action != "build-fail" && !(e.Action == "skip") {
			packages = append(packages, result{name: e.Package, verdict: e.Action, elapsed: e.Elapsed, tests: tests[e.Package]})
			if e.Action == "fail" && tests[e.Package] == 0 {
				t.failed++ // did not build, or died before its first test
			}
		}
		delete(output, key)
	}
	return packages
}

func (t *report) count(e event, output *strings.Builder) {
	switch e.Action {
	case "pass":
		t.passed++
	case "fail":
		t.failed++
	case "skip":
		t.skipped++
		why := ""
		if output != nil {
			why = strings.Join(strings.Fields(output.String()), " ")
		}
		t.skips = append(t.skips, fmt.Sprintf("skipped: %s %s: %s", e.Package, e.Test, why))
	}
}

func (t *report) show(e event, output *strings.Builder) {
	if output == nil || output.Len() == 0 {
		return
	}
	fmt.Fprintf(t.out, "\n---- %s %s\n%s", e.Package, e.Test, output.String())
}

// print lists the packages of a module that have tests, slowest build and test last.
func (t *report) print(dir string, packages []result, builds map[string]time.Duration) {
	slices.SortFunc(packages, func(a, b result) int { return strings.Compare(a.name, b.name) })
	fmt.Fprintf(t.out, "\n%-6s %6s %9s %9s  %s\n", "", "tests", "build", "test", "package of module "+filepath.Clean(dir))
	for _, p := range packages {
		fmt.Fprintf(t.out, "%-6s %6d %8.1fs %8.1fs  %s\n", p.verdict, p.tests, builds[p.name].Seconds(), p.elapsed, p.name)
	}
	fmt.Fprintln(t.out)
}

// buildTimes reads the go command's action graph: compiling and linking of each package's test, in summed time.
func buildTimes(path string) map[string]time.Duration {
	data, err := os.ReadFile(path)
	if err != nil {
		return nil
	}
	var actions []struct {
		Mode, Package       string
		TimeStart, TimeDone time.Time
	}
	if json.Unmarshal(data, &actions) != nil {
		return nil
	}
	times := map[string]time.Duration{}
	for _, a := range actions {
		if (a.Mode == "build" || a.Mode == "link") && !a.TimeStart.IsZero() {
			name, _, _ := strings.Cut(a.Package, " ") // "pkg [pkg.test]"
			times[strings.TrimSuffix(strings.TrimSuffix(name, ".test"), "_test")] += a.TimeDone.Sub(a.TimeStart)
		}
	}
	return times
}
