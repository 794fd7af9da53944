package main

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/slipway-dev/slipway/apiserver/registry"
	"github.com/slipway-dev/slipway/apiserver/store/kv/keeper"
	"github.com/slipway-dev/slipway/nodeagent/agent"
	"github.com/slipway-dev/slipway/nodeagent/agent/recipe"
	"github.com/slipway-dev/slipway/nodeagent/agent/registration"
	"github.com/slipway-dev/slipway/nodeagent/collect"
	"github.com/slipway-dev/slipway/nodeagent/dns"
	"github.com/slipway-dev/slipway/nodeagent/engine"
	"github.com/slipway-dev/slipway/nodeagent/engine/containerd"
	"github.com/slipway-dev/slipway/nodeagent/network"
	"github.com/slipway-dev/slipway/nodeagent/pressure"
	"github.com/slipway-dev/slipway/nodeagent/proxy"
	"github.com/slipway-dev/slipway/nodeagent/runtime"
	"github.com/slipway-dev/slipway/reconciler/loop"
)

// podLogs is where containers' logs are, as collectors expect it.
const podLogs = "/var/log/pods"

// node is what runs Pods on this machine. Closing it leaves containers and their network as they are.
type node struct {
	name    string
	version string     // of containerd
	address netip.Addr // as others see it
	gateway netip.Addr // where Pods reach this process
	agent   *agent.Agent
	runtime *runtime.Runtime
	engine  *containerd.Engine
	network network.Network
	images  *collect.Collector
	proxy   *proxy.Proxy
	dns     *dns.Server

	archives *archives
	known    []string // archives that an earlier start loaded
}

// newNode says what this machine is called, and refuses to run Pods where another data directory does.
func newNode(m *machine) (_ *node, err error) {
	if err := network.CheckOwner("", m.data.path); errors.Is(err, network.ErrOwned) { // before anything is started
		return nil, usage("%w: Pods of one data directory run on a machine at a time; end them with `slipway down --data-dir DIR`, or use --no-agent", err)
	}
	if err := runtime.Protect(); err != nil {
		m.log.Warn("protect the process", "err", err)
	}
	n := &node{gateway: network.Gateway(m.nodePods)}
	if n.name, err = nodeName(); err != nil {
		return nil, err
	}
	if n.address, err = network.NodeAddress(); err != nil {
		n.address = n.gateway // a machine without a way out
	}
	return n, nil
}

// openNetwork finds the Pods' network as it was left, or makes it, and listens for questions about names.
func (n *node) openNetwork(ctx context.Context, m *machine) (err error) {
	if n.network, err = network.Open(ctx, network.Config{RunDir: filepath.Join(m.data.run(), "network"), PodCIDR: m.nodePods,
		ClusterCIDRs: []netip.Prefix{m.pods}, Owner: m.data.path, Log: m.log}); err != nil {
		return fmt.Errorf("open network: %w", err)
	}
	if n.proxy, err = proxy.New(proxy.Config{Node: n.name, PodCIDR: m.nodePods, ServiceCIDR: m.services, Log: m.log}); err != nil {
		return fmt.Errorf("open service proxy: %w", err)
	}
	if n.dns, err = dns.New(dns.Config{Listen: []netip.AddrPort{netip.AddrPortFrom(n.gateway, 53)}, Domain: m.clusterDomain,
		Ranges: []netip.Prefix{m.pods, m.services}, Log: m.log}); err != nil {
		return fmt.Errorf("open cluster DNS: %w", err)
	}
	m.account.Part("network", fmt.Sprintf("pods %s, services %s", m.nodePods, m.services))
	return nil
}

// openEngine starts or finds the container runtime, with the images it was given.
func (n *node) openEngine(ctx context.Context, m *machine) (err error) {
	began := time.Now()
	n.runtime, err = runtime.Start(ctx, runtime.Config{BundleDir: m.bundle(), StateDir: m.data.containerd(), Address: m.options.containerd, Log: m.log})
	if err != nil {
		return fmt.Errorf("start container runtime: %w", err)
	}
	registries, err := m.registries()
	if err != nil {
		return err
	}
	limits, err := m.logs.limits()
	if err != nil {
		return err
	}
	n.engine, err = containerd.New(ctx, containerd.Config{Address: n.runtime.Address(), Shim: n.runtime.Shim(), Runc: n.runtime.Runc(),
		StateDir: filepath.Join(m.data.path, "engine"), RunDir: filepath.Join(m.data.run(), "engine"), Registries: registries, LogLimits: limits, PIDs: containerPIDs(m.maxPIDs), Log: m.log})
	if err != nil {
		return fmt.Errorf("open container engine: %w", err)
	}
	if n.version, err = n.engine.Version(ctx); err != nil {
		return err
	}
	m.account.Part("runtime", "ready after "+since(began))
	return n.loadImages(ctx, m)
}

// registries reads --registry-mirror and --registry-plain-http.
func (o options) registries() ([]containerd.Registry, error) {
	byHost := map[string]*containerd.Registry{}
	var order []string
	of := func(host string) *containerd.Registry {
		if byHost[host] == nil {
			byHost[host] = &containerd.Registry{Host: host}
			order = append(order, host)
		}
		return byHost[host]
	}
	for _, text := range o.mirrors {
		host, mirror, ok := strings.Cut(text, "=")
		if !ok || host == "" || mirror == "" {
			return nil, usage("--registry-mirror: got %q, want HOST=URL such as docker.io=http://10.0.0.5:5000", text)
		}
		r := of(host)
		r.Mirrors = append(r.Mirrors, mirror)
	}
	for _, host := range o.plainHTTP {
		of(host).PlainHTTP = true
	}
	registries := make([]containerd.Registry, len(order))
	for i, host := range order {
		registries[i] = *byHost[host]
	}
	return registries, nil
}

// loadImages takes in the archives of --images that are not known from before.
func (n *node) loadImages(ctx context.Context, m *machine) error {
	n.archives = openArchives(m.data.archives(), n.engine)
	for _, path := range m.images {
		path, err := filepath.Abs(path)
		if err != nil {
			return usage("--images: %w", err)
		}
		if n.archives.unchanged(path) {
			n.known = append(n.known, path)
			continue
		}
		loaded, err := n.archives.load(ctx, path)
		if err != nil {
			return err
		}
		m.account.Part("images", fmt.Sprintf("%d from %s", len(loaded), path))
	}
	return nil
}

// openAgent builds the agent, which needs the control plane.
func (n *node) openAgent(m *machine) (err error) {
	dir := n.engine.LayersDir()
	if _, err := os.Stat(dir); err != nil { // a containerd that runs already may have its folders elsewhere
		dir = m.data.path
	}
	n.agent, err = agent.New(agent.Config{
		NodeName: n.name, NodeIPs: []string{n.address.String()}, Client: m.control.registry.As(registry.Node(n.name)),
		Engine: n.engine, Network: n.network, Proxy: n.proxy, Events: m.control.events.For("kubelet"), Log: m.log,
		DataDir: m.data.path, LogDir: podLogs, Cgroup: m.data.cgroup(),
		Cluster: recipe.Cluster{Domain: m.clusterDomain, DNS: m.dnsVIP.String(), APIHost: m.apiVIP.String(), APIPort: 443},
		PodCIDR: m.nodePods.String(), Versions: registration.Versions{Agent: "v" + kubernetesVersion + "+slipway." + version, Runtime: "containerd://" + n.version},
		PullProgress: func(image string, p engine.Progress) { m.account.Pull(image, p) },
		Guard: &agent.Guard{
			ImagesDir: dir, Layer: n.engine.LayerUsage, Thresholds: pressure.Defaults(leastFree), Tell: m.tellPressure,
			Collect: func(ctx context.Context, enough func() (bool, error)) error { return n.images.Free(ctx, enough) },
		},
	})
	if err != nil {
		return fmt.Errorf("open node agent: %w", err)
	}
	n.images = collect.New(collect.Config{Images: n.engine, InUse: n.agent.ImagesInUse, Dir: dir, Floor: leastFree, Plenty: plentyFree, Event: n.agent.NodeEvent, Log: m.log})
	return nil
}

// leastFree is what images and Pods leave free however small the disk is: the store stops writing when only its
// reserve is left.
const leastFree = keeper.Reserve + keeper.Reserve/2

// plentyFree is how much must be free of a large disk before images are removed; it is more than what counts as short.
const plentyFree = 30 << 30

// tellPressure tells what the node is short of.
func (m *machine) tellPressure(line string, over bool) {
	if over {
		m.account.Say(line)
		return
	}
	m.account.Warn(line)
}

// addNames adds what answers for names and Services.
func (n *node) addNames(m *machine, group *loop.Group) {
	client := m.control.registry.As(registry.Node(n.name))
	group.AddFunc("dns", func(ctx context.Context) error { return n.dns.Run(ctx, client) })
	group.AddFunc("proxy", func(ctx context.Context) error { return n.proxy.Run(ctx, client) })
}

// addParts adds the node's other loops.
func (n *node) addParts(group *loop.Group) {
	group.AddFunc("agent", n.agent.Run)
	group.AddFunc("images", func(ctx context.Context) error { return n.archives.restore(ctx, n.known) })
	group.AddFunc("collector", n.images.Run)
}

// close ends what runs in this process.
func (n *node) close() error {
	var errs []error
	if n.dns != nil {
		errs = append(errs, n.dns.Close())
	}
	if n.proxy != nil {
		n.proxy.Stop()
	}
	if n.engine != nil {
		errs = append(errs, n.engine.Close())
	}
	if n.runtime != nil {
		n.runtime.Close()
	}
	return errors.Join(errs...)
}
