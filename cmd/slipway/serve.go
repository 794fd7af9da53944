package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/slipway-dev/slipway/apiserver/event"
	"github.com/slipway-dev/slipway/apiserver/pki"
	"github.com/slipway-dev/slipway/apiserver/registry"
	"github.com/slipway-dev/slipway/apiserver/server"
	"github.com/slipway-dev/slipway/apiserver/server/door"
	"github.com/slipway-dev/slipway/reconciler/loop"
	"github.com/slipway-dev/slipway/reconciler/serviceaccount"
)

// listen serves the API where people reach it and, with containers on this machine, where Pods do.
func (c *control) listen(ctx context.Context, running *errgroup.Group, m *machine) error {
	config := &net.ListenConfig{}
	first, err := config.Listen(ctx, "tcp", m.api.String())
	if err != nil {
		return usage("the API cannot listen on %s: %w; choose another address with --api-address", m.api, err)
	}
	listeners := []net.Listener{first}
	ips := []net.IP{net.IPv4(127, 0, 0, 1), m.apiVIP.AsSlice()} // others are found out when they are called
	if m.node != nil {
		gateway := m.gatewayAddress()
		if !m.api.Addr().IsUnspecified() {
			second, err := config.Listen(ctx, "tcp", gateway.String())
			if err != nil {
				first.Close()
				return fmt.Errorf("the API cannot listen for Pods on %s: %w", gateway, err)
			}
			listeners = append(listeners, second)
		}
	}
	names := []string{"localhost", "kubernetes", "kubernetes.default", "kubernetes.default.svc", "kubernetes.default.svc." + m.clusterDomain}
	if err := c.authority.Renew(); err != nil {
		return err
	}
	secure, err := c.authority.TLS(names, ips)
	if err != nil {
		return err
	}
	if _, err := c.kubeconfig(m).Refresh(c.authority); err != nil {
		return err
	}
	serve := &http.Server{
		Handler:           server.New(c.serverConfig(m)),
		TLSConfig:         secure,
		ReadHeaderTimeout: 10 * time.Second, // of the handshake, too
		MaxHeaderBytes:    128 << 10,
		HTTP2:             &http.HTTP2Config{SendPingTimeout: 30 * time.Second, PingTimeout: 15 * time.Second}, // a watcher that is gone without a word
		IdleTimeout:       2 * time.Minute,
		ErrorLog:          slog.NewLogLogger(c.log.Handler(), slog.LevelDebug),
		BaseContext:       func(net.Listener) context.Context { return ctx },
	}
	room, err := door.Room()
	if err != nil {
		return err
	}
	entrance := door.New(room, c.log)
	for _, listener := range listeners {
		running.Go(func() error {
			if err := serve.ServeTLS(entrance.Listener(listener), "", ""); !errors.Is(err, http.ErrServerClosed) {
				return fmt.Errorf("serve the API: %w", err)
			}
			return nil
		})
	}
	running.Go(func() error {
		<-ctx.Done()
		return serve.Close()
	})
	return nil
}

// gatewayAddress is where Pods reach the API.
func (m *machine) gatewayAddress() netip.AddrPort {
	return netip.AddrPortFrom(m.node.gateway, m.api.Port())
}

// reachable is the API's address as the kubeconfig has it.
func (m *machine) reachable() netip.AddrPort {
	if m.api.Addr().IsUnspecified() {
		return netip.AddrPortFrom(netip.AddrFrom4([4]byte{127, 0, 0, 1}), m.api.Port())
	}
	return m.api
}

// kubeconfig is the one people use.
func (c *control) kubeconfig(m *machine) pki.Kubeconfig {
	return pki.Kubeconfig{Path: m.data.kubeconfig(), Server: "https://" + m.reachable().String(), User: "reader", Groups: []string{registry.GroupPeople}}
}

// keeper keeps certificates valid, whatever the clock does.
func (c *control) keeper(m *machine) pki.Keeper {
	return pki.Keeper{Authority: c.authority, Kubeconfigs: []pki.Kubeconfig{c.kubeconfig(m)}, Log: m.log, Tell: func(line string) {
		m.log.Warn(line)
		m.account.Warn(line)
	}}
}

// serviceAccounts runs the controller that tells namespaces which authority to trust, anew when that changes.
func (c *control) serviceAccounts(ctx context.Context) error {
	client := c.registry.As(registry.Controller("serviceaccount"))
	for {
		text, changed := c.authority.Trust()
		until, cancel := context.WithCancel(ctx)
		stop := make(chan struct{})
		go func() {
			defer close(stop)
			select {
			case <-changed:
			case <-until.Done():
			}
			cancel()
		}()
		err := loop.Run(until, client, c.log, serviceaccount.New(client, event.Discard, string(text)))
		cancel()
		<-stop
		select {
		case <-changed:
		default:
			return err
		}
	}
}
