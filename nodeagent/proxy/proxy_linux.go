// Package proxy leads what is sent to a Service on this node to one of its ready endpoints: cluster addresses and node
// ports, by an nftables table of its own. It compiles Services into rules (pure), compares them with those in place,
// and sends the difference in one transaction; it never lists the table for that.
//
// It must not touch other programs' rules, and knows Pods only by their addresses.
package proxy

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
	"k8s.io/apimachinery/pkg/types"

	"github.com/slipway-dev/slipway/apiserver/store"
	"github.com/slipway-dev/slipway/nodeagent/catalog"
	"github.com/slipway-dev/slipway/nodeagent/network"
	"github.com/slipway-dev/slipway/nodeagent/network/nft"
	"github.com/slipway-dev/slipway/nodeagent/network/relay"
)

// Config describes the node a proxy serves.
type Config struct {
	Node        string        // its name
	PodCIDR     netip.Prefix  // its Pods' addresses
	ServiceCIDR netip.Prefix  // the cluster addresses of Services, IPv4
	Device      string        // link of the gateway address, as network.Config has it; empty: "slipway0"
	Period      time.Duration // how often to look for changes by others; 0: 2 s
	Log         *slog.Logger  // nil: none
}

// Proxy keeps a node's packet filter as Services ask for it.
type Proxy struct {
	cfg   Config
	table *table
	local relay.Relays // node ports on the loopback addresses

	mu        sync.Mutex
	services  map[string]map[string]led // by namespace and name
	have      State                     // in the packet filter, when last we knew
	known     bool                      // that it is so still: no change failed
	want      State
	changed   []Front                 // where want may differ from have
	unstuck   map[netip.AddrPort]bool // backends that are gone, whose clients are still to be let go
	stale     map[Front]Rule          // of UDP, as they are now: flows by what was before are still to be forgotten
	moved     chan struct{}           // closed when have changes
	generate  uint32                  // of the packet filter after our last change
	suspicion bool                    // somebody changed the packet filter since all of it was looked at
	looked    time.Time               // when that was
}

// New checks that the addresses of Services are free on this host and leads them to Device, which must exist. Rules
// of an earlier process stay in force until Run knows better.
func New(cfg Config) (*Proxy, error) {
	if cfg.Device == "" {
		cfg.Device = "slipway0"
	}
	if cfg.Period == 0 {
		cfg.Period = 2 * time.Second
	}
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	if !cfg.ServiceCIDR.IsValid() || !cfg.ServiceCIDR.Addr().Is4() || !cfg.PodCIDR.IsValid() || !cfg.PodCIDR.Addr().Is4() {
		return nil, fmt.Errorf("Service range %s and Pod range %s must be IPv4 ranges", cfg.ServiceCIDR, cfg.PodCIDR)
	}
	if cfg.ServiceCIDR.Overlaps(cfg.PodCIDR) {
		return nil, fmt.Errorf("Service range %s and Pod range %s overlap", cfg.ServiceCIDR, cfg.PodCIDR)
	}
	if err := network.CheckFree(cfg.ServiceCIDR, cfg.Device); err != nil {
		return nil, err
	}
	table, err := newTable(cfg)
	if err != nil {
		return nil, err
	}
	p := &Proxy{cfg: cfg, table: table, services: map[string]map[string]led{},
		have: State{}, want: State{}, unstuck: map[netip.AddrPort]bool{}, stale: map[Front]Rule{}, moved: make(chan struct{})}
	return p, p.route()
}

// route makes cluster addresses callable from the host itself, also where it has no default route. What the packet
// filter does not translate on the way is refused, and never sent.
func (p *Proxy) route() error {
	device, err := netlink.LinkByName(p.cfg.Device)
	if err != nil {
		return fmt.Errorf("find %s: %w", p.cfg.Device, err)
	}
	if err := netlink.RouteReplace(p.serviceRoute(device)); err != nil {
		return fmt.Errorf("route %s: %w", p.cfg.ServiceCIDR, err)
	}
	return nil
}

func (p *Proxy) serviceRoute(device netlink.Link) *netlink.Route {
	dst := &net.IPNet{IP: p.cfg.ServiceCIDR.Masked().Addr().AsSlice(), Mask: net.CIDRMask(p.cfg.ServiceCIDR.Bits(), 32)}
	return &netlink.Route{LinkIndex: device.Attrs().Index, Dst: dst, Scope: netlink.SCOPE_LINK, Src: network.Gateway(p.cfg.PodCIDR).AsSlice()}
}

// Run keeps the rules up to date until ctx ends. They stay in place afterwards.
func (p *Proxy) Run(ctx context.Context, client store.Reader) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	var wg sync.WaitGroup
	defer wg.Wait()
	wg.Go(func() { p.guard(ctx) })
	err := catalog.Follow(ctx, client, p.cfg.Log, p.apply)
	cancel()
	return err
}

// apply takes over changed Services.
func (p *Proxy) apply(changes catalog.Changes) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	for name := range changes { // first what goes, so that an address may pass from one Service to another
		for _, front := range p.services[name.Namespace][name.Name].fronts {
			delete(p.want, front)
			p.changed = append(p.changed, front)
		}
		delete(p.services[name.Namespace], name.Name)
	}
	for name, service := range changes {
		p.lead(name, service)
	}
	return p.settle()
}

// lead takes over one Service; nil is one that is gone.
func (p *Proxy) lead(name types.NamespacedName, service *catalog.Service) {
	if service == nil {
		return
	}
	l := led{Service: service}
	for _, rule := range Compile(service, p.cfg.Node) {
		p.want[rule.Front] = rule
		l.fronts = append(l.fronts, rule.Front)
		p.changed = append(p.changed, rule.Front)
	}
	if p.services[name.Namespace] == nil {
		p.services[name.Namespace] = map[string]led{}
	}
	p.services[name.Namespace][name.Name] = l
}

// settle makes the packet filter what is wanted. The caller holds the lock.
func (p *Proxy) settle() error {
	before, err := nft.Generation()
	if err != nil {
		return err
	}
	p.suspicion = p.suspicion || (p.known && before != p.generate)
	var steps []Step
	if !p.known {
		steps = Diff(p.have, p.want, append(p.have.fronts(), p.want.fronts()...))
		err = p.table.install(p.want)
	} else {
		steps = Diff(p.have, p.want, p.changed)
		err = p.table.apply(steps)
	}
	if err != nil {
		p.known = false // the next attempt installs everything
		return err
	}
	p.record(steps)
	if p.generate, err = nft.Generation(); err != nil {
		return err
	}
	p.relay(steps)
	p.noteStale(steps)
	p.noteUnstuck(steps)
	if slices.ContainsFunc(steps, Step.remembered) {
		passed() // a packet that still saw the old rules may be remembered by them anew
	}
	return errors.Join(p.forget(), p.unstick())
}

// relay serves node ports on the node's loopback addresses, by the same backends.
func (p *Proxy) relay(steps []Step) {
	for _, step := range steps {
		rule := or(step.New, or(step.Old, Rule{}))
		if step.New == nil {
			rule.Backends = nil
		}
		if rule.Front.Addr.IsValid() || rule.Front.Proto == SCTP {
			continue
		}
		port := relay.Port{Network: strings.ToLower(rule.Front.Proto.String()), Number: rule.Front.Port}
		if err := p.local.Serve(port, rule.Backends); err != nil {
			p.cfg.Log.Warn("a node port is not to be had on 127.0.0.1", "service", rule.Name, "error", err)
		}
	}
}

// record notes that the steps are done.
func (p *Proxy) record(steps []Step) {
	for _, step := range steps {
		if step.New == nil {
			delete(p.have, step.Old.Front)
			continue
		}
		p.have[step.New.Front] = *step.New
	}
	p.known, p.changed = true, nil
	close(p.moved)
	p.moved = make(chan struct{})
}

// noteUnstuck notes the backends of sticky rules that the steps took away.
func (p *Proxy) noteUnstuck(steps []Step) {
	for _, step := range steps {
		if step.Old == nil || step.Old.Sticky == 0 {
			continue
		}
		for _, backend := range step.Old.Backends {
			if step.New == nil || !slices.Contains(step.New.Backends, backend) {
				p.unstuck[backend] = true
			}
		}
	}
}

// unstick lets clients go whose backend was taken away. Until it is done they are led there still, so Settled waits for
// it; what fails is done with the next change.
func (p *Proxy) unstick() error {
	if len(p.unstuck) == 0 {
		return nil
	}
	err := p.table.unstick(p.unstuck)
	if err == nil {
		clear(p.unstuck)
		p.generate, err = nft.Generation()
	}
	return err
}

// guard puts back what others changed. Between their changes a look costs one message.
func (p *Proxy) guard(ctx context.Context) {
	tick := time.NewTicker(p.cfg.Period)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
			p.local.Retry()
			if err := p.mend(); err != nil {
				p.cfg.Log.Error("keep the packet filter as it should be", "error", err)
			}
		}
	}
}

func (p *Proxy) mend() error {
	p.mu.Lock()
	defer p.mu.Unlock()
	now, err := nft.Generation()
	if err != nil {
		return err
	}
	if !p.known || (now == p.generate && !p.suspicion) {
		return nil
	}
	// Rules are few; elements of maps may be many, and others (Docker) change their own rules often.
	whole := time.Since(p.looked) >= 10*p.cfg.Period
	if !p.table.hasRules() || (whole && !p.table.hasElements(p.have)) {
		p.cfg.Log.Warn("the packet filter was changed by somebody else; put back", "table", tableName)
		if err := p.table.install(p.have); err != nil {
			return err
		}
		if now, err = nft.Generation(); err != nil {
			return err
		}
		whole = true
	}
	p.generate, p.suspicion = now, !whole
	if whole {
		p.looked = time.Now()
	}
	return nil
}

// State returns the rules in place.
func (p *Proxy) State() State {
	p.mu.Lock()
	defer p.mu.Unlock()
	state := make(State, len(p.have))
	for front, rule := range p.have {
		state[front] = rule
	}
	return state
}

// Stop ends connections served in user space and leaves the rules in place.
func (p *Proxy) Stop() { p.local.Close() }

// Close takes all rules away. Run must have ended.
func (p *Proxy) Close() error {
	p.Stop()
	p.mu.Lock()
	defer p.mu.Unlock()
	p.have, p.known = State{}, false
	err := p.table.remove()
	device, missing := netlink.LinkByName(p.cfg.Device)
	if missing != nil { // and its routes with it
		return err
	}
	if gone := netlink.RouteDel(p.serviceRoute(device)); gone != nil && !errors.Is(gone, unix.ESRCH) {
		err = errors.Join(err, fmt.Errorf("remove the route of %s: %w", p.cfg.ServiceCIDR, gone))
	}
	return err
}
