package network

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"os"
	"path/filepath"
	"sync"
	"time"

	"github.com/vishvananda/netlink"

	"github.com/slipway-dev/slipway/nodeagent/network/nft"
	"github.com/slipway-dev/slipway/nodeagent/network/relay"
)

// guardPeriod is how often the node looks whether somebody changed the packet filter.
const guardPeriod = 2 * time.Second

// Config describes a node's network.
type Config struct {
	RunDir       string         // holds pinned namespaces and records; empty after a reboot
	PodCIDR      netip.Prefix   // this node's range of Pod addresses, IPv4
	ClusterCIDRs []netip.Prefix // ranges Pods reach with their own address: all nodes' Pods
	Device       string         // link that holds the gateway address; empty: slipway0
	MTU          int            // of Pods' links; 0: the outward link's
	NodeIP       netip.Addr     // address of Pods on the host's network; zero: the outward one
	Owner        string         // whose network this is, written on the device; another's is refused. Empty: not asked
	Log          *slog.Logger   // nil: none

	did   func(what string) // of tests: told of every change on the way of a sandbox
	sweep time.Duration     // of tests
}

// node is the Network of a Linux host. Each Pod has a routed link of its own to the host; there is no shared segment
// between Pods, so a Pod can neither answer nor listen for another.
type node struct {
	cfg     Config
	gateway netip.Addr
	links   *netlink.Handle
	records records
	filter  *filter

	local relay.Relays    // host ports on the loopback addresses
	turns [256]sync.Mutex // by sandbox id's hash

	mu     sync.Mutex // guards pool, owners and filter
	pool   *pool
	owners map[portKey]string // sandbox that has a host port
	guard  context.CancelFunc
	ended  chan struct{}
}

// Open takes over the network of this host: what an earlier process set up is kept, links without a sandbox are
// removed. Until ctx ends or Close is called, rules that somebody removes are put back.
func Open(ctx context.Context, cfg Config) (Network, error) {
	if cfg.Device == "" {
		cfg.Device = defaultDevice
	}
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	if cfg.sweep == 0 {
		cfg.sweep = sweepPeriod
	}
	if cfg.did == nil {
		cfg.did = func(string) {}
	}
	if !cfg.PodCIDR.IsValid() || !cfg.PodCIDR.Addr().Is4() || cfg.PodCIDR.Bits() < 16 || cfg.PodCIDR.Bits() > 30 {
		return nil, fmt.Errorf("Pod range %s is not an IPv4 range between /16 and /30", cfg.PodCIDR)
	}
	if err := errors.Join(CheckOwner(cfg.Device, cfg.Owner), CheckFree(cfg.PodCIDR, cfg.Device)); err != nil {
		return nil, err
	}
	n := &node{cfg: cfg, gateway: Gateway(cfg.PodCIDR), owners: map[portKey]string{}, ended: make(chan struct{})}
	n.records = records{dir: filepath.Join(cfg.RunDir, "pods")}
	if err := n.open(); err != nil {
		return nil, err
	}
	guarded, cancel := context.WithCancel(ctx)
	n.guard = cancel
	go n.watch(guarded)
	return n, nil
}

func (n *node) open() (err error) {
	if err := os.MkdirAll(n.records.dir, 0o700); err != nil {
		return err
	}
	if n.links, err = netlink.NewHandle(); err != nil {
		return fmt.Errorf("open netlink: %w", err)
	}
	if n.cfg.MTU == 0 {
		n.cfg.MTU = n.outwardMTU()
	}
	if n.filter, err = newFilter(n.cfg); err != nil {
		return err
	}
	recs, err := n.adopt()
	if err != nil {
		return err
	}
	if err := n.openDevice(); err != nil {
		return err
	}
	if err := n.filter.install(n.claim(recs)); err != nil {
		return err
	}
	for _, rec := range recs {
		n.relay(rec, true)
	}
	if err := n.passForeign(); err != nil {
		return err
	}
	if hasLegacyFirewall() {
		n.cfg.Log.Warn("this host has rules of iptables-legacy: where they drop what is forwarded, allow links named " + vethPrefix + "+ there")
	}
	return forward(n.cfg.RunDir)
}

// adopt reads what an earlier process left, and removes links that belong to no sandbox.
func (n *node) adopt() ([]record, error) {
	ids, err := n.records.ids()
	if err != nil {
		return nil, err
	}
	last, _ := os.ReadFile(n.lastFile())
	lastAddr, _ := netip.ParseAddr(string(last))
	n.pool = newPool(n.cfg.PodCIDR, lastAddr)
	known := map[string]bool{}
	var recs []record
	for _, id := range ids {
		rec, ok := n.records.load(id)
		if !ok {
			continue
		}
		if rec.Address.IsValid() && n.pool.take(rec.Address) {
			recs = append(recs, rec)
			known[vethName(id)] = true
		}
	}
	links, err := n.podLinks()
	if err != nil {
		return nil, err
	}
	for _, name := range links {
		if known[name] {
			continue
		}
		n.cfg.Log.Info("remove a link without a Pod", "link", name)
		if err := n.removeLink(name); err != nil {
			return nil, err
		}
	}
	return recs, nil
}

// watch puts rules back that somebody removed, opens other programs' chains that closed, and keeps the host routing.
func (n *node) watch(ctx context.Context) {
	defer close(n.ended)
	defer n.local.Close()
	tick, sweep := time.NewTicker(guardPeriod), time.NewTicker(n.cfg.sweep)
	defer tick.Stop()
	defer sweep.Stop()
	var seen uint32
	var stray map[int]string
	for {
		select {
		case <-ctx.Done():
			return
		case <-sweep.C:
			var err error
			if stray, err = n.sweepLinks(stray); err != nil {
				n.cfg.Log.Error("look for links without a Pod", "error", err)
			}
			continue
		case <-tick.C:
		}
		n.local.Retry()
		now, err := nft.Generation()
		if err == nil && now != seen {
			err = n.mend()
		}
		if err == nil {
			err = forward(n.cfg.RunDir)
		}
		if err != nil {
			n.cfg.Log.Error("keep the host's network as it should be", "error", err)
			continue
		}
		seen = now // our own changes make one more look, which finds nothing
	}
}

func (n *node) mend() error {
	n.mu.Lock()
	defer n.mu.Unlock()
	if !n.filter.intact() {
		n.cfg.Log.Warn("the packet filter was changed by somebody else; put back", "table", tableName)
		ids, err := n.records.ids()
		if err != nil {
			return err
		}
		var recs []record
		for _, id := range ids {
			if rec, ok := n.records.load(id); ok && rec.Address.IsValid() {
				recs = append(recs, rec)
			}
		}
		if err := n.filter.install(n.claim(recs)); err != nil {
			return err
		}
	}
	return n.passForeign()
}

func (n *node) passForeign() error {
	changed, err := n.filter.openForeign()
	for _, chain := range changed {
		n.cfg.Log.Info("another program's packet filter now lets Pods through", "chain", chain)
	}
	return err
}

// Close puts the host back as it was. It waits until every link is gone.
func (n *node) Close(ctx context.Context) error {
	n.guard()
	<-n.ended
	ids, err := n.List(ctx)
	if err != nil {
		return err
	}
	if len(ids) > 0 {
		return fmt.Errorf("%d sandboxes still exist, the first is %s", len(ids), ids[0])
	}
	links, err := n.podLinks()
	if err != nil {
		return err
	}
	errs := []error{}
	for _, name := range links {
		errs = append(errs, n.removeLink(name))
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	errs = append(errs, n.closeDevice(), n.filter.closeForeign(), n.filter.remove(), forwardAsBefore(n.cfg.RunDir),
		os.RemoveAll(n.lastFile()), os.RemoveAll(n.records.dir))
	n.links.Close()
	return errors.Join(errs...)
}

func (n *node) lastFile() string { return filepath.Join(n.cfg.RunDir, "last-address") }
