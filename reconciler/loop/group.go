package loop

import (
	"context"
	"log/slog"
	"sync"
	"time"

	"github.com/slipway-dev/slipway/apiserver/store"
)

// steady is how long a member must have run for its next failure to count as the first.
const steady = time.Minute

// Group runs the long-running parts of a process side by side. A part that ends with an error is started again
// after a while (back-off as for keys, from 160 ms); one that ends without is left alone.
type Group struct {
	log     *slog.Logger
	members []member
}

type member struct {
	name string
	run  func(context.Context) error
}

// NewGroup returns an empty group that logs to log.
func NewGroup(log *slog.Logger) *Group { return &Group{log: log} }

// Add adds controllers that read with client.
func (g *Group) Add(client store.Reader, controllers ...Controller) {
	for _, c := range controllers {
		g.AddFunc(c.Name, func(ctx context.Context) error { return Run(ctx, client, g.log, c) })
	}
}

// AddFunc adds another long-running part: run works until its context ends.
func (g *Group) AddFunc(name string, run func(context.Context) error) {
	g.members = append(g.members, member{name, run})
}

// Run runs all members and returns when ctx has ended and all of them have stopped.
func (g *Group) Run(ctx context.Context) {
	var running sync.WaitGroup
	for _, m := range g.members {
		running.Go(func() { g.keep(ctx, m) })
	}
	running.Wait()
}

// keep runs one member again and again. The same error in a row is logged once.
func (g *Group) keep(ctx context.Context, m member) {
	logged := ""
	for failures := 1; ; failures++ {
		started := time.Now()
		err := guard(func() error { return m.run(ctx) })
		if err == nil || ctx.Err() != nil {
			return
		}
		if time.Since(started) > steady {
			failures, logged = 1, ""
		}
		if text := err.Error(); text != logged {
			g.log.LogAttrs(ctx, slog.LevelError, "part ended, starting it again", slog.String("part", m.name), slog.Any("err", err))
			logged = text
		}
		if !sleep(ctx, backoff(failures+5)) {
			return
		}
	}
}
