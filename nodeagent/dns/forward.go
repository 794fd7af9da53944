package dns

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"os"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/miekg/dns"
)

const (
	upstreamTimeout = 2 * time.Second // of one resolver's answer
	forwardTimeout  = 5 * time.Second // of all of them together
	inFlight        = 256             // questions to resolvers at once; more fail at once
	resolvPeriod    = 5 * time.Second // how often the host's resolv.conf may be looked at
)

var (
	errNoResolver = errors.New("the host has no resolver outside this one")
	errBusy       = errors.New("too many questions are being forwarded")
)

// forwarder asks the host's resolvers for names outside the cluster.
type forwarder struct {
	path  string        // of the host's resolv.conf
	port  uint16        // of resolvers: 53 but in tests
	self  []netip.Addr  // own addresses: asking them would go round in circles
	slots chan struct{} // taken while a question is on its way
	cache *cache
	log   *slog.Logger

	answered atomic.Pointer[netip.Addr] // the resolver that answered last

	mu      sync.Mutex
	servers []netip.Addr
	looked  time.Time // when resolv.conf was last looked at
	changed time.Time // its modification time then
}

func newForwarder(cfg Config) *forwarder {
	f := &forwarder{path: cfg.ResolvConf, port: cmp.Or(cfg.ResolverPort, 53), slots: make(chan struct{}, inFlight), cache: newCache(), log: cfg.Log}
	for _, at := range cfg.Listen {
		f.self = append(f.self, at.Addr())
	}
	return f
}

// ask returns a resolver's answer to the question in req. The answer may be a cached one; it is the caller's.
func (f *forwarder) ask(ctx context.Context, req *dns.Msg, network string) (*dns.Msg, error) {
	key := keyOf(req)
	if hit := f.cache.get(key, time.Now()); hit != nil {
		return hit, nil
	}
	servers := f.resolvers()
	if len(servers) == 0 {
		return nil, errNoResolver
	}
	select {
	case f.slots <- struct{}{}:
		defer func() { <-f.slots }()
	default:
		return nil, errBusy
	}
	ctx, cancel := context.WithTimeout(ctx, forwardTimeout)
	defer cancel()
	var failed error
	for _, server := range f.answeringFirst(servers) {
		resp, err := f.exchange(ctx, req, network, server)
		if err == nil {
			f.answered.Store(&server)
			f.cache.put(key, resp, time.Now())
			return resp, nil
		}
		failed = errors.Join(failed, fmt.Errorf("ask %s: %w", server, err))
		if ctx.Err() != nil {
			break
		}
	}
	return nil, failed
}

// answeringFirst puts the resolver that answered last before the others: one that is dead costs one wait, not one for
// every question.
func (f *forwarder) answeringFirst(servers []netip.Addr) []netip.Addr {
	last := f.answered.Load()
	if last == nil || !slices.Contains(servers, *last) {
		return servers
	}
	first := []netip.Addr{*last}
	for _, server := range servers {
		if server != *last {
			first = append(first, server)
		}
	}
	return first
}

// exchange asks one resolver. An answer too long for UDP is asked for again by TCP, whatever the caller used: the
// caller's own limit is applied later.
func (f *forwarder) exchange(ctx context.Context, req *dns.Msg, network string, server netip.Addr) (*dns.Msg, error) {
	query := req.Copy()
	query.Id = dns.Id()
	query.RecursionDesired = true
	address := netip.AddrPortFrom(server, f.port).String()
	client := &dns.Client{Net: network, Timeout: upstreamTimeout}
	resp, _, err := client.ExchangeContext(ctx, query, address)
	if err == nil && resp.Truncated && network == "udp" {
		client.Net = "tcp"
		resp, _, err = client.ExchangeContext(ctx, query, address)
	}
	if err != nil {
		return nil, err
	}
	if resp.Rcode == dns.RcodeServerFailure || resp.Rcode == dns.RcodeRefused {
		return nil, fmt.Errorf("%s", dns.RcodeToString[resp.Rcode])
	}
	return resp, nil
}

// resolvers returns the host's resolvers as its resolv.conf names them now.
func (f *forwarder) resolvers() []netip.Addr {
	f.mu.Lock()
	defer f.mu.Unlock()
	if time.Since(f.looked) < resolvPeriod {
		return f.servers
	}
	f.looked = time.Now()
	info, err := os.Stat(f.path)
	if err == nil && info.ModTime().Equal(f.changed) {
		return f.servers
	}
	text, err := HostResolvConf(f.path)
	if err != nil {
		f.log.Warn("read the host's resolvers", "error", err)
		return f.servers
	}
	if info != nil {
		f.changed = info.ModTime()
	}
	f.servers = slices.DeleteFunc(nameservers(text), func(a netip.Addr) bool { return slices.Contains(f.self, a) })
	return f.servers
}

// keyOf is what tells questions apart, beside their id.
func keyOf(req *dns.Msg) cacheKey {
	q := req.Question[0]
	key := cacheKey{name: strings.ToLower(q.Name), kind: q.Qtype, class: q.Qclass, unchecked: req.CheckingDisabled}
	if opt := req.IsEdns0(); opt != nil {
		key.edns, key.secure = true, opt.Do()
	}
	return key
}
