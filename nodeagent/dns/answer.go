package dns

import (
	"net/netip"
	"slices"
	"strings"

	"github.com/miekg/dns"
)

const (
	ttl     = 5 // seconds, of everything in the zone
	version = "1.1.0"
)

// answer is what the zone says to a question.
type answer struct {
	exists  bool // the name exists, perhaps with nothing of the type asked for
	answers []dns.RR
	extra   []dns.RR
	chase   string // a name outside whose records belong into the answer
}

// authority answers questions about the cluster's own names. It reads the zone and nothing else.
type authority struct {
	domain string // "cluster.local."
	ranges []netip.Prefix
	zone   *zone
}

// owns says whether a name (lower case, with a final dot) is the cluster's, or of an address of its ranges.
func (a *authority) owns(name string) bool {
	if name == a.domain || strings.HasSuffix(name, "."+a.domain) {
		return true
	}
	addr, ok := reverseAddr(name)
	return ok && slices.ContainsFunc(a.ranges, func(p netip.Prefix) bool { return p.Contains(addr) })
}

// ask answers a question about a name the authority owns. Name is in lower case; as is how the question spelled it.
func (a *authority) ask(name, as string, kind uint16) answer {
	if addr, ok := reverseAddr(name); ok {
		return a.askReverse(addr, as, kind)
	}
	if name == a.domain {
		return a.askApex(kind)
	}
	labels := strings.Split(strings.TrimSuffix(name, "."+a.domain), ".")
	slices.Reverse(labels) // the most general first
	switch labels[0] {
	case "svc":
		return a.askService(labels[1:], as, kind)
	case "pod":
		return a.askPod(labels[1:], as, kind)
	case "dns-version":
		if len(labels) == 1 {
			return found(kind, dns.TypeTXT, &dns.TXT{Hdr: header(as, dns.TypeTXT), Txt: []string{version}})
		}
	case "dns":
		return answer{exists: len(labels) == 1 || len(labels) == 2 && labels[1] == "ns"}
	}
	return answer{}
}

func (a *authority) askApex(kind uint16) answer {
	switch kind {
	case dns.TypeSOA:
		return answer{exists: true, answers: []dns.RR{a.soa()}}
	case dns.TypeNS:
		return answer{exists: true, answers: []dns.RR{&dns.NS{Hdr: header(a.domain, dns.TypeNS), Ns: "ns.dns." + a.domain}}}
	}
	return answer{exists: true}
}

// askService answers for names below svc: namespace, Service, then host or protocol and port.
func (a *authority) askService(labels []string, as string, kind uint16) answer {
	switch len(labels) {
	case 0:
		return answer{exists: true}
	case 1:
		return answer{exists: a.zone.hasNamespace(labels[0])}
	}
	r := a.zone.service(labels[0], labels[1])
	if r == nil {
		return answer{}
	}
	if r.external != "" {
		return a.askExternal(r, labels, as)
	}
	switch len(labels) {
	case 2:
		return addresses(kind, as, r.addrs)
	case 3:
		if addrs, ok := r.hosts[labels[2]]; ok {
			return addresses(kind, as, addrs)
		}
		return answer{exists: r.hasProtocol(labels[2])}
	case 4:
		return a.askPort(r, labels, as, kind)
	}
	return answer{}
}

// askExternal leads to the name an ExternalName Service stands for.
func (a *authority) askExternal(r *records, labels []string, as string) answer {
	if len(labels) != 2 {
		return answer{}
	}
	cname := &dns.CNAME{Hdr: header(as, dns.TypeCNAME), Target: r.external}
	return answer{exists: true, answers: []dns.RR{cname}, chase: r.external}
}

// askPort answers for "_http._tcp" of a Service.
func (a *authority) askPort(r *records, labels []string, as string, kind uint16) answer {
	targets, ok := r.ports[labels[3]+"."+labels[2]]
	if !ok || kind != dns.TypeSRV {
		return answer{exists: ok}
	}
	own := labels[1] + "." + labels[0] + ".svc." + a.domain
	result := answer{exists: true}
	for _, t := range targets {
		name, addrs := own, r.addrs
		if t.host != "" {
			name, addrs = t.host+"."+own, r.hosts[t.host]
		}
		weight := uint16(100 / len(targets))
		result.answers = append(result.answers, &dns.SRV{Hdr: header(as, dns.TypeSRV), Weight: max(weight, 1), Port: t.port, Target: name})
		result.extra = append(result.extra, addresses(dns.TypeA, name, addrs).answers...)
	}
	return result
}

// askPod answers for "10-244-0-5.shop.pod": the address in the name, whether or not a Pod has it.
func (a *authority) askPod(labels []string, as string, kind uint16) answer {
	switch len(labels) {
	case 0:
		return answer{exists: true}
	case 1:
		return answer{exists: a.zone.hasNamespace(labels[0])}
	case 2:
		addr, err := netip.ParseAddr(strings.ReplaceAll(labels[1], "-", "."))
		if err != nil || !addr.Is4() || !a.zone.hasNamespace(labels[0]) {
			return answer{}
		}
		return addresses(kind, as, []netip.Addr{addr})
	}
	return answer{}
}

func (a *authority) askReverse(addr netip.Addr, as string, kind uint16) answer {
	name := a.zone.nameOf(addr)
	if name == "" {
		return answer{}
	}
	return found(kind, dns.TypePTR, &dns.PTR{Hdr: header(as, dns.TypePTR), Ptr: name + ".svc." + a.domain})
}

// soa is the zone's record that says for how long a missing name may be remembered.
func (a *authority) soa() dns.RR {
	return &dns.SOA{Hdr: header(a.domain, dns.TypeSOA), Ns: "ns.dns." + a.domain, Mbox: "hostmaster." + a.domain,
		Serial: 1, Refresh: 7200, Retry: 1800, Expire: 86400, Minttl: ttl}
}

// addresses answers with the addresses where the question is for them.
func addresses(kind uint16, as string, addrs []netip.Addr) answer {
	result := answer{exists: true}
	if kind != dns.TypeA {
		return result
	}
	for _, addr := range addrs {
		result.answers = append(result.answers, &dns.A{Hdr: header(as, dns.TypeA), A: addr.AsSlice()})
	}
	return result
}

func found(asked, kind uint16, rr dns.RR) answer {
	if asked != kind {
		return answer{exists: true}
	}
	return answer{exists: true, answers: []dns.RR{rr}}
}

func header(name string, kind uint16) dns.RR_Header {
	return dns.RR_Header{Name: name, Rrtype: kind, Class: dns.ClassINET, Ttl: ttl}
}

// reverseAddr reads the IPv4 address of a name such as "5.0.244.10.in-addr.arpa.".
func reverseAddr(name string) (netip.Addr, bool) {
	labels, ok := strings.CutSuffix(name, ".in-addr.arpa.")
	if !ok {
		return netip.Addr{}, false
	}
	parts := strings.Split(labels, ".")
	slices.Reverse(parts)
	addr, err := netip.ParseAddr(strings.Join(parts, "."))
	return addr, err == nil && addr.Is4()
}
