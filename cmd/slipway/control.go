package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"runtime"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"
	corev1 "k8s.io/api/core/v1"
	kubeversion "k8s.io/apimachinery/pkg/version"

	"github.com/slipway-dev/slipway/apiserver/api"
	"github.com/slipway-dev/slipway/apiserver/event"
	"github.com/slipway-dev/slipway/apiserver/pki"
	"github.com/slipway-dev/slipway/apiserver/registry"
	"github.com/slipway-dev/slipway/apiserver/server"
	"github.com/slipway-dev/slipway/apiserver/store"
	"github.com/slipway-dev/slipway/apiserver/store/kv/keeper"
	"github.com/slipway-dev/slipway/apiserver/store/kv/seal"
	"github.com/slipway-dev/slipway/reconciler/deployment"
	"github.com/slipway-dev/slipway/reconciler/drain"
	"github.com/slipway-dev/slipway/reconciler/endpoints"
	"github.com/slipway-dev/slipway/reconciler/eventttl"
	"github.com/slipway-dev/slipway/reconciler/garbage"
	"github.com/slipway-dev/slipway/reconciler/loop"
	"github.com/slipway-dev/slipway/reconciler/namespace"
	nodecontroller "github.com/slipway-dev/slipway/reconciler/node"
	"github.com/slipway-dev/slipway/reconciler/replicaset"
	"github.com/slipway-dev/slipway/reconciler/scheduler"
	"github.com/slipway-dev/slipway/reconciler/systemservice"
)

// kubernetesVersion is the release whose API is spoken; it is the one in go.mod.
const kubernetesVersion = "1.37.1"

// control is the control plane: store, registry and what serves and uses them.
type control struct {
	backend   *keeper.Keeper
	sealed    *seal.Backend // backend, with Secrets encrypted
	store     *store.Store
	registry  *registry.Registry
	authority *pki.Authority
	tokens    *pki.Tokens
	events    *event.Writer
	log       *slog.Logger
}

// openControl opens keys and store. It serves nothing yet.
func openControl(ctx context.Context, m *machine) (_ *control, err error) {
	began := time.Now()
	c := &control{log: m.log}
	defer func() {
		if err != nil {
			err = errors.Join(err, c.close())
		}
	}()
	if c.authority, err = pki.Open(m.data.pki(), time.Now); err != nil {
		return nil, err
	}
	if c.tokens, err = c.authority.Tokens("https://kubernetes.default.svc." + m.clusterDomain); err != nil {
		return nil, err
	}
	if c.backend, err = openStore(ctx, m.data, m.log); err != nil {
		return nil, err
	}
	if c.sealed, err = openSealed(ctx, c.backend, m.data, m.log); err != nil {
		return nil, err
	}
	if c.store, err = store.New(ctx, c.sealed, api.StorageCodec{}); err != nil {
		return nil, fmt.Errorf("read store: %w", err)
	}
	if c.registry, err = registry.New(registry.Config{Store: c.store, ServiceCIDR: m.services, Tokens: c.tokens}); err != nil {
		return nil, err
	}
	c.events = event.New(c.registry.As(registry.Controller("events")), "slipway", m.log)
	m.account.Part("store", "ready after "+since(began))
	return c, nil
}

// close ends what openControl opened.
func (c *control) close() error {
	var errs []error
	if c.store != nil {
		errs = append(errs, c.store.Close())
	}
	if c.backend != nil {
		errs = append(errs, c.backend.Close())
	}
	return errors.Join(errs...)
}

func (c *control) serverConfig(m *machine) server.Config {
	metrics := prometheus.NewRegistry()
	metrics.MustRegister(collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	config := server.Config{
		Registry: c.registry,
		Tokens:   c.tokens,
		Metrics:  promhttp.HandlerFor(metrics, promhttp.HandlerOpts{}),
		Version: kubeversion.Info{Major: "1", Minor: "37", GitVersion: "v" + kubernetesVersion + "+slipway." + version, GitTreeState: "clean",
			GoVersion: runtime.Version(), Compiler: runtime.Compiler, Platform: runtime.GOOS + "/" + runtime.GOARCH},
		Log: c.log,
		// A store that takes no writes is not mended by a restart, which would end reads too.
		Checks: []server.Check{{Name: "store", Probe: func(context.Context) error { return c.backend.Err() }}},
	}
	if m.node != nil {
		config.Logs = m.node.agent
		config.Checks = append(config.Checks, server.Check{Name: "engine", Probe: func(ctx context.Context) error {
			_, err := m.node.engine.ListImages(ctx)
			return err
		}})
	}
	return config
}

// parts returns the loops of the control plane.
func (c *control) parts(m *machine) *loop.Group {
	group := loop.NewGroup(c.log)
	group.AddFunc("events", c.events.Run)
	group.AddFunc("secrets", c.sealed.Run)
	add := func(name string, build func(store.Client, event.Recorder) loop.Controller) {
		client := c.registry.As(registry.Controller(name))
		group.Add(client, build(client, c.events.For(name+"-controller")))
	}
	add("deployment", deployment.New)
	add("replicaset", replicaset.New)
	add("endpoints", endpoints.New)
	add("namespace", namespace.New)
	add("garbage", garbage.New)
	add("eventttl", eventttl.New)
	group.AddFunc("certificates", c.keeper(m).Run)
	group.AddFunc("serviceaccount", c.serviceAccounts)
	add("node", nodecontroller.New)
	add("drain", func(client store.Client, events event.Recorder) loop.Controller {
		return drain.New(client, events, time.Now)
	})
	add("systemservice", func(client store.Client, _ event.Recorder) loop.Controller {
		return systemservice.New(client, m.systemServices())
	})
	client := c.registry.As(registry.Scheduler())
	group.Add(client, scheduler.New(client, c.events.For("default-scheduler"), time.Now))
	return group
}

// systemServices are the Services that lead to this process.
func (m *machine) systemServices() []systemservice.Service {
	if m.node == nil {
		return nil
	}
	gateway := []string{m.node.gateway.String()}
	return []systemservice.Service{
		{Namespace: "default", Name: "kubernetes", ClusterIP: m.apiVIP.String(), Labels: map[string]string{"component": "apiserver", "provider": "kubernetes"}, Addresses: gateway,
			Ports: []systemservice.Port{{Name: "https", Protocol: corev1.ProtocolTCP, Port: 443, Target: int32(m.api.Port())}}},
		{Namespace: "kube-system", Name: "kube-dns", ClusterIP: m.dnsVIP.String(), Labels: map[string]string{"k8s-app": "kube-dns"}, Addresses: gateway,
			Ports: []systemservice.Port{{Name: "dns", Protocol: corev1.ProtocolUDP, Port: 53, Target: 53}, {Name: "dns-tcp", Protocol: corev1.ProtocolTCP, Port: 53, Target: 53}}},
	}
}
