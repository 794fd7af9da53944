// Package account tells a person what Slipway does, calmly: one line per fact, workloads under way in a block that
// is redrawn in place on a terminal and as plain lines elsewhere, colour only on terminals.
//
// It prints what it is told and decides nothing.
package account

import (
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"sync"
	"time"

	"golang.org/x/term"

	slipwayv1 "github.com/slipway-dev/slipway/apiserver/api/v1alpha1"
	"github.com/slipway-dev/slipway/nodeagent/engine"
	"github.com/slipway-dev/slipway/reconciler/gitops"
	"github.com/slipway-dev/slipway/reconciler/gitops/health"
)

// Account prints to one writer. Its methods may be called by several goroutines.
type Account struct {
	// Tail returns the last lines a workload's failing container wrote; nil: not wanted.
	Tail func(gitops.Progress) []string
	// Flags follow the commands that are shown: "--data-dir DIR", where it is not the usual one.
	Flags string

	now      func() time.Time
	received time.Time // when the commit shown came; Progress is told by one goroutine at a time

	mu    sync.Mutex
	out   io.Writer
	fancy bool
	width func() int
	block []entry // what is under way, redrawn on a terminal
	drawn int     // lines of the block on the screen
}

type entry struct{ key, line string }

// New returns an account on out. It is redrawn and coloured when out is a terminal and NO_COLOR is not set.
func New(out io.Writer) *Account {
	a := &Account{now: time.Now, out: out, width: func() int { return 120 }}
	if file, ok := out.(*os.File); ok && term.IsTerminal(int(file.Fd())) && os.Getenv("TERM") != "dumb" {
		a.fancy = os.Getenv("NO_COLOR") == ""
		a.width = func() int {
			if w, _, err := term.GetSize(int(file.Fd())); err == nil && w > 20 {
				return w
			}
			return 120
		}
	}
	return a
}

// Styles of a line.
const (
	plain = ""
	bold  = "\033[1m"
	dim   = "\033[2m"
	green = "\033[32m"
	red   = "\033[31m"
	amber = "\033[33m"
)

// Part tells that a part of the process is ready.
func (a *Account) Part(name, text string) { a.say(plain, fmt.Sprintf("  %-9s %s", name, text)) }

// Title begins a paragraph.
func (a *Account) Title(text string) { a.say(bold, text) }

// Say prints one line.
func (a *Account) Say(text string) { a.say(plain, text) }

// Warn prints one line that should not be overlooked.
func (a *Account) Warn(text string) { a.say(amber, text) }

// Under shows what is under way under a key, such as the pull of an image. An empty line ends it.
func (a *Account) Under(key, line string) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.set(key, line) && !a.fancy && line != "" {
		fmt.Fprintln(a.out, line)
	}
	a.redraw()
}

// Pull shows how far the pull of an image got: a bar on a terminal, elsewhere a line when it starts and one when the
// image is here. Why a pull failed is told with the workload that wants it.
func (a *Account) Pull(image string, p engine.Progress) {
	key := "pull " + image
	switch {
	case p.Ended:
		begun := a.under(key)
		a.Under(key, "")
		if begun && p.Err == nil {
			a.say(dim, fmt.Sprintf("  pulled %s, %s", image, megabytes(p.Done)))
		}
	case a.fancy:
		a.Under(key, fmt.Sprintf("  pulling %s %s %s of %s", image, bar(p.Done, p.Total), megabytes(p.Done), megabytes(p.Total)))
	case !a.under(key):
		a.Under(key, "  pulling "+image)
	}
}

// under says whether something is shown under a key.
func (a *Account) under(key string) bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	return slices.ContainsFunc(a.block, func(e entry) bool { return e.key == key })
}

func megabytes(n int64) string { return fmt.Sprintf("%.1f MB", float64(n)/1e6) }

func bar(done, total int64) string {
	const width = 24
	filled := 0
	if total > 0 {
		filled = int(done * width / total)
	}
	return "[" + strings.Repeat("=", filled) + strings.Repeat(" ", width-filled) + "]"
}

// Progress tells what the GitOps engine does.
func (a *Account) Progress(p gitops.Progress) {
	switch p.Step {
	case gitops.StepNote:
		a.say(dim, p.Text)
	case gitops.StepFetch:
		a.fetched(p)
	case gitops.StepReceived:
		a.clear()
		a.received = a.now()
		a.say(plain, "")
		a.say(bold, strings.TrimRight(fmt.Sprintf("%s  %s", p.Revision.Short(), p.Revision.Subject), " "))
	case gitops.StepRefused:
		for _, line := range p.Lines {
			a.say(red, "  "+line)
		}
		a.say(red, fmt.Sprintf("  refused: %s, nothing was changed", count(len(p.Lines), "problem")))
	case gitops.StepPlanned:
		a.planned(p)
	case gitops.StepNotDone:
		a.say(red, "  "+p.Text)
	case gitops.StepPutBack:
		a.say(amber, "  put back: "+p.Text)
	case gitops.StepAwaiting:
		a.say(amber, "  waiting: "+p.Text)
		a.say(amber, strings.TrimRight("  to let it happen: slipway confirm "+p.Revision.ID+" "+a.Flags, " "))
	case gitops.StepWorkload:
		a.workload(p)
	case gitops.StepSettled:
		a.settled(p)
	case gitops.StepSuperseded:
		a.clear()
		a.say(dim, "  "+p.Revision.Short()+" is superseded by a newer commit")
	}
}

func (a *Account) fetched(p gitops.Progress) {
	if p.Text == "" {
		a.say(dim, "the source can be read again")
		return
	}
	a.say(amber, "the source cannot be read, what runs stays: "+p.Text)
}

func (a *Account) planned(p gitops.Progress) {
	const shown = 40
	lines := p.Plan.Lines()
	for i, line := range lines {
		if i == shown {
			a.say(dim, fmt.Sprintf("  … and %d more", len(lines)-shown))
			break
		}
		a.say(planStyle(line), "  "+line)
	}
	a.say(dim, "  "+p.Plan.Counts().String())
}

func planStyle(line string) string {
	switch {
	case strings.HasPrefix(line, "+"):
		return green
	case strings.HasPrefix(line, "-"):
		return red
	case strings.HasPrefix(line, "~"):
		return amber
	case strings.HasPrefix(line, "!"):
		return red
	}
	return dim
}

// workload shows one workload's progress; what is current leaves the block.
func (a *Account) workload(p gitops.Progress) {
	name := p.Ref.String()
	line := fmt.Sprintf("  … %s%s", name, replicas(p.Health))
	switch {
	case p.Health.Status == health.Current:
		a.Under(name, "")
		a.say(green, fmt.Sprintf("  ✓ %s%s", name, replicas(p.Health)))
	case p.Health.Stuck || p.Health.Status == health.Failed:
		a.Under(name, "")
		a.say(red, fmt.Sprintf("  ✗ %s%s: %s", name, replicas(p.Health), why(p.Health)))
		if a.Tail != nil {
			for _, text := range a.Tail(p) {
				a.say(dim, "      | "+text)
			}
		}
	default:
		switch {
		case p.Health.Cause != "":
			line += ": " + p.Health.Cause
		case a.fancy && p.Health.Message != "": // elsewhere the count is enough
			line += ": " + p.Health.Message
		}
		a.Under(name, line)
	}
}

func replicas(h health.Health) string {
	if h.Wanted == 0 && h.Ready == 0 {
		return ""
	}
	return fmt.Sprintf(" %d/%d ready", h.Ready, h.Wanted)
}

func why(h health.Health) string {
	if h.Cause != "" {
		return h.Cause
	}
	return h.Message
}

func (a *Account) settled(p gitops.Progress) {
	a.clear()
	took := " after " + a.now().Sub(a.received).Round(10*time.Millisecond).String()
	if p.Status.Phase == slipwayv1.RolloutSucceeded {
		a.say(green, "  everything is current"+took)
		return
	}
	a.say(red, strings.TrimRight("  "+p.Status.Phase+": "+p.Status.Message, ": "))
}

func count(n int, noun string) string {
	if n == 1 {
		return "1 " + noun
	}
	return fmt.Sprintf("%d %ss", n, noun)
}

// say prints a line above the block.
func (a *Account) say(style, line string) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.erase()
	if a.fancy && style != plain {
		line = style + line + "\033[0m"
	}
	fmt.Fprintln(a.out, line)
	a.redraw()
}

// set changes the block and reports whether anything is different.
func (a *Account) set(key, line string) bool {
	at := slices.IndexFunc(a.block, func(e entry) bool { return e.key == key })
	switch {
	case at < 0 && line == "":
		return false
	case at < 0:
		a.block = append(a.block, entry{key, line})
	case line == "":
		a.block = slices.Delete(a.block, at, at+1)
	case a.block[at].line == line:
		return false
	default:
		a.block[at].line = line
	}
	return true
}

func (a *Account) clear() {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.block = nil
	a.redraw()
}

// erase takes the block off the screen.
func (a *Account) erase() {
	if a.drawn > 0 {
		fmt.Fprintf(a.out, "\033[%dA\033[J", a.drawn)
		a.drawn = 0
	}
}

// redraw puts the block on the screen, one line each, cut to the terminal's width so that it can be erased.
func (a *Account) redraw() {
	if !a.fancy {
		return
	}
	a.erase()
	width := a.width()
	for _, e := range a.block {
		line := []rune(e.line)
		if len(line) > width-1 {
			line = append(line[:width-2], '…')
		}
		fmt.Fprintln(a.out, string(line))
		a.drawn++
	}
}
