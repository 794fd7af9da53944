package dns

import (
	"sync"
	"time"

	"github.com/miekg/dns"
)

const (
	cacheSize   = 4096
	positiveTTL = 30 * time.Second // at most, of an answer
	negativeTTL = 5 * time.Second  // at most, of a missing name
)

type cacheKey struct {
	name                    string
	kind, class             uint16
	edns, secure, unchecked bool
}

type cached struct {
	msg         *dns.Msg
	from, until time.Time
}

// cache remembers resolvers' answers for a short while: enough for the bursts of one program.
type cache struct {
	mu      sync.Mutex
	entries map[cacheKey]cached
}

func newCache() *cache { return &cache{entries: map[cacheKey]cached{}} }

// get returns a copy of the answer with its lifetimes shortened by its age, or nil.
func (c *cache) get(key cacheKey, now time.Time) *dns.Msg {
	c.mu.Lock()
	entry, ok := c.entries[key]
	c.mu.Unlock()
	if !ok || !now.Before(entry.until) {
		return nil
	}
	msg := entry.msg.Copy()
	age := uint32(now.Sub(entry.from) / time.Second)
	for _, section := range [][]dns.RR{msg.Answer, msg.Ns, msg.Extra} {
		for _, rr := range section {
			if h := rr.Header(); h.Rrtype != dns.TypeOPT {
				h.Ttl -= min(h.Ttl, age)
			}
		}
	}
	return msg
}

func (c *cache) put(key cacheKey, msg *dns.Msg, now time.Time) {
	life := lifetime(msg)
	if life <= 0 {
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if len(c.entries) >= cacheSize {
		for old := range c.entries { // any: they are all short-lived
			delete(c.entries, old)
			break
		}
	}
	c.entries[key] = cached{msg: msg.Copy(), from: now, until: now.Add(life)}
}

// lifetime is the shortest lifetime of the records, within bounds.
func lifetime(msg *dns.Msg) time.Duration {
	life := positiveTTL
	switch {
	case msg.Truncated:
		return 0
	case msg.Rcode == dns.RcodeNameError, msg.Rcode == dns.RcodeSuccess && len(msg.Answer) == 0:
		life = negativeTTL
	case msg.Rcode != dns.RcodeSuccess:
		return 0
	}
	for _, section := range [][]dns.RR{msg.Answer, msg.Ns} {
		for _, rr := range section {
			life = min(life, time.Duration(rr.Header().Ttl)*time.Second)
		}
	}
	return life
}
