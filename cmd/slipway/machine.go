package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/slipway-dev/slipway/apiserver/registry"
	"github.com/slipway-dev/slipway/apiserver/store"
	"github.com/slipway-dev/slipway/cmd/slipway/account"
	"github.com/slipway-dev/slipway/gitsource"
	"github.com/slipway-dev/slipway/reconciler/gitops"
	"github.com/slipway-dev/slipway/reconciler/loop"
	"github.com/slipway-dev/slipway/reconciler/namespace"
)

// machine is everything `slipway up` runs, as far as it is built.
type machine struct {
	options
	addresses
	source  source
	data    *dataDir
	log     *slog.Logger
	account *account.Account

	control *control
	node    *node // nil with --no-agent
}

// run builds the parts in dependency order, runs them until ctx ends, and ends them in the reverse order.
func (m *machine) run(ctx context.Context) (err error) {
	prepareThreads()
	if err := m.data.checkSpace(leastSpace); err != nil {
		return err
	}
	if !m.noAgent {
		if m.node, err = newNode(m); err != nil {
			return err
		}
	}
	answering := m.answering(ctx)
	defer func() {
		answering.end()
		if m.node != nil {
			err = errors.Join(err, m.node.close())
		}
		if m.control != nil {
			err = errors.Join(err, m.control.close())
		}
	}()
	err = m.build(ctx, answering)
	if err != nil {
		return err
	}
	err = m.work(ctx)
	if ctx.Err() != nil {
		if err := tellSystemd("STOPPING=1"); err != nil {
			m.log.Warn("systemd does not learn that slipway stops", "err", err)
		}
	}
	if ctx.Err() != nil && m.node != nil {
		m.account.Say(strings.TrimRight("stopped; containers go on running, to remove them: slipway down "+m.account.Flags, " "))
	}
	return err
}

// build opens control plane, network and container runtime side by side. Names and Services are answered for as soon
// as the first two stand: after a crash nobody waits for the third.
func (m *machine) build(ctx context.Context, answering *answering) error {
	var building errgroup.Group
	opened := make(chan struct{})
	building.Go(func() (err error) {
		defer close(opened)
		m.control, err = openControl(context.WithoutCancel(ctx), m) // the store is closed last, when nobody uses it
		return err
	})
	if m.node != nil {
		building.Go(func() error { return m.node.openEngine(ctx, m) })
		building.Go(func() error {
			if err := m.node.openNetwork(ctx, m); err != nil {
				return err
			}
			<-opened
			if m.control != nil {
				answering.begin()
			}
			return nil
		})
	}
	return building.Wait()
}

// answering is the part of the node that others' calls depend on at any moment: cluster DNS and service proxy.
type answering struct {
	begin func()
	end   func() // waits until it has ended
}

func (m *machine) answering(ctx context.Context) *answering {
	ctx, cancel := context.WithCancel(ctx)
	var running sync.WaitGroup
	return &answering{
		begin: func() {
			parts := loop.NewGroup(m.log)
			m.node.addNames(m, parts)
			running.Go(func() { parts.Run(ctx) })
		},
		end: func() {
			cancel()
			running.Wait()
		},
	}
}

// work runs everything that was built.
func (m *machine) work(ctx context.Context) error {
	if m.node != nil {
		if err := m.node.openAgent(m); err != nil {
			return err
		}
	}
	if err := namespace.Ensure(ctx, m.control.registry.As(registry.Controller("namespace"))); err != nil {
		return err
	}
	running, ctx := errgroup.WithContext(ctx)
	if err := m.control.listen(ctx, running, m); err != nil {
		return err
	}
	m.account.Part("api", "https://"+m.api.String())
	parts := m.control.parts(m)
	if m.node != nil {
		m.node.addParts(parts)
	}
	engine := m.engine()
	updates := make(chan gitsource.Update, 1)
	running.Go(func() error {
		parts.Run(ctx)
		return ctx.Err()
	})
	running.Go(func() error { return engine.Run(ctx, updates) })
	running.Go(func() error { return m.follow(ctx, updates) })
	running.Go(func() error { return m.watchLimits(ctx) })
	m.account.Say("")
	m.account.Say("following " + described(m.source.spec))
	m.account.Say("kubectl --kubeconfig " + m.data.kubeconfig() + " get pods -A")
	if err := tellSystemd("READY=1\nSTATUS=following " + described(m.source.spec)); err != nil {
		m.log.Warn("systemd does not learn that slipway is ready", "err", err)
	}
	return running.Wait()
}

// engine builds the GitOps engine, whose progress the account tells.
func (m *machine) engine() *gitops.Engine {
	client := m.control.registry.As(registry.GitOps())
	m.account.Tail = m.tail
	return gitops.New(client, m.control.events.For("gitops"), m.log, gitops.Config{Spec: m.source.spec, ReplaceSource: m.replaceSource, Observe: m.account.Progress})
}

// follow reads the source and hands on what it finds. A newer update replaces one that was not taken yet.
func (m *machine) follow(ctx context.Context, updates chan gitsource.Update) error {
	err := m.source.Run(ctx, func(u gitsource.Update) {
		select {
		case updates <- u:
		case <-ctx.Done():
		}
	})
	if err != nil && ctx.Err() == nil {
		return fmt.Errorf("follow %s: %w", m.source, err)
	}
	return ctx.Err()
}

// reader reads as the process itself.
func (m *machine) reader() store.Reader { return m.control.registry.As(registry.Admin()) }

// since says how long ago t was, for people.
func since(t time.Time) string { return time.Since(t).Round(10 * time.Millisecond).String() }
