package main

import (
	"encoding/json"
	"fmt"
	"io"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"text/tabwriter"
	"time"

	"golang.org/x/sys/unix"
)

// figure is one line of the table.
type figure struct {
	What   string  `json:"what"`
	Target float64 `json:"target,omitempty"` // 0: none was set
	Got    float64 `json:"measured"`
	Unit   string  `json:"unit"`
	Note   string  `json:"note,omitempty"`
}

// missed says whether the target was not reached.
func (f figure) missed() bool { return f.Target > 0 && f.Got > f.Target }

// failure is what could not be measured, and why.
type failure struct {
	What string `json:"what"`
	Why  string `json:"why"`
}

// report collects everything of one run.
type report struct {
	Machine  string               `json:"machine"`
	Version  string               `json:"version"`
	Time     time.Time            `json:"time"`
	Rounds   int                  `json:"rounds"`
	Figures  []figure             `json:"figures"`
	Failures []failure            `json:"failures,omitempty"`
	Samples  map[string][]float64 `json:"samples"` // every measurement, in the figure's unit
}

func newReport(binary string, rounds int) *report {
	r := &report{Rounds: rounds, Time: time.Now().UTC(), Samples: map[string][]float64{}}
	release := "unknown kernel"
	var name unix.Utsname
	if unix.Uname(&name) == nil {
		release = "Linux " + unix.ByteSliceToString(name.Release[:])
	}
	load := "unknown"
	if text, err := os.ReadFile("/proc/loadavg"); err == nil {
		load, _, _ = strings.Cut(string(text), " ")
	}
	// Other work on the machine goes into every figure: say how much of it there was.
	r.Machine = fmt.Sprintf("%d cores, %s, %s, load %s before", runtime.NumCPU(), release, runtime.GOARCH, load)
	r.Version = "unknown version"
	if out, err := exec.Command(binary, "version").Output(); err == nil {
		r.Version, _, _ = strings.Cut(strings.TrimSpace(string(out)), "\n")
	}
	return r
}

// seconds adds figures of measured durations: the middle, and the 99th percentile where there is a target for it or
// none at all.
func (r *report) seconds(what string, samples []time.Duration, p50, p99 float64) {
	values := make([]float64, len(samples))
	for i, d := range samples {
		values[i] = d.Seconds()
	}
	r.Samples[what] = values
	note := fmt.Sprintf("%d rounds", len(values))
	r.Figures = append(r.Figures,
		figure{What: what + ", p50", Target: p50, Got: percentile(values, 50), Unit: "s", Note: note},
		figure{What: what + ", p99", Target: p99, Got: percentile(values, 99), Unit: "s", Note: note})
}

// stages adds the way from a beginning to each stage, which is shown in the raw results only.
func (r *report) stages(what string, began time.Time, stages []stage) {
	for _, s := range stages {
		name := what + " until " + s.name
		r.Samples[name] = append(r.Samples[name], s.at.Sub(began).Seconds())
	}
}

// add adds a single figure.
func (r *report) add(f figure) {
	r.Figures = append(r.Figures, f)
	r.Samples[f.What] = []float64{f.Got}
}

func (r *report) fail(what string, err error) {
	r.Failures = append(r.Failures, failure{What: what, Why: err.Error()})
}

func (r *report) failed() bool { return len(r.Failures) > 0 }

// print writes the table.
func (r *report) print(out io.Writer) {
	fmt.Fprintf(out, "%s; %s\n\n", r.Version, r.Machine)
	table := tabwriter.NewWriter(out, 0, 0, 3, ' ', 0)
	fmt.Fprintln(table, "WHAT\tTARGET\tMEASURED\tRATIO\t")
	for _, f := range r.Figures {
		target, ratio := "-", "-"
		if f.Target > 0 {
			target, ratio = "≤ "+quantity(f.Target, f.Unit), fmt.Sprintf("%.2f", f.Got/f.Target)
		}
		if f.missed() {
			ratio += "  MISSED"
		}
		fmt.Fprintf(table, "%s\t%s\t%s\t%s\t%s\n", f.What, target, quantity(f.Got, f.Unit), ratio, f.Note)
	}
	for _, f := range r.Failures {
		why, _, _ := strings.Cut(f.Why, "\n")
		fmt.Fprintf(table, "%s\t-\tnot measured\t-\t%s\n", f.What, why)
	}
	_ = table.Flush() // what cannot be printed cannot be helped
}

// quantity prints a number with three digits that mean something.
func quantity(n float64, unit string) string {
	switch {
	case n >= 100:
		return fmt.Sprintf("%.0f %s", n, unit)
	case n >= 10:
		return fmt.Sprintf("%.1f %s", n, unit)
	default:
		return fmt.Sprintf("%.2f %s", n, unit)
	}
}

func (r *report) write(path string) error {
	text, err := json.MarshalIndent(r, "", "  ")
	if err != nil {
		return fmt.Errorf("encode results: %w", err)
	}
	if err := os.WriteFile(path, append(text, '\n'), 0o644); err != nil {
		return fmt.Errorf("write results: %w", err)
	}
	return nil
}
