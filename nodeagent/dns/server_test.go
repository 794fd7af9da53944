package dns

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/miekg/dns"

	"github.com/slipway-dev/slipway/apiserver/api"
	"github.com/slipway-dev/slipway/apiserver/store"
	"github.com/slipway-dev/slipway/apiserver/store/kv/memory"
)

// freePort returns a port nobody listens on, by UDP or TCP.
func freePort(t *testing.T, addr string) netip.AddrPort {
	t.Helper()
	c, err := net.Listen("tcp", addr+":0")
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	return netip.MustParseAddrPort(c.Addr().String())
}

// resolver is a resolver of the host: it knows every name below example.org as 192.0.2.1, except missing.example.org.
type resolver struct {
	at    netip.AddrPort
	asked atomic.Int64
}

func newResolver(t *testing.T) *resolver {
	t.Helper()
	r := &resolver{at: freePort(t, "127.0.0.2")}
	for _, network := range []string{"udp", "tcp"} {
		started := make(chan struct{})
		server := &dns.Server{Addr: r.at.String(), Net: network, Handler: dns.HandlerFunc(r.answer(network)), NotifyStartedFunc: func() { close(started) }}
		go server.ListenAndServe()
		<-started
		t.Cleanup(func() { server.Shutdown() })
	}
	return r
}

func (r *resolver) answer(network string) func(dns.ResponseWriter, *dns.Msg) {
	return func(w dns.ResponseWriter, req *dns.Msg) {
		r.asked.Add(1)
		resp := new(dns.Msg)
		resp.SetReply(req)
		q := req.Question[0]
		count := 1
		switch q.Name {
		case "missing.example.org.":
			resp.Rcode, count = dns.RcodeNameError, 0
		case "large.example.org.":
			count = 200
		}
		for i := range count {
			resp.Answer = append(resp.Answer, &dns.A{Hdr: dns.RR_Header{Name: q.Name, Rrtype: dns.TypeA, Class: dns.ClassINET, Ttl: 300}, A: net.IPv4(192, 0, 2, byte(1+i))})
		}
		if network == "udp" {
			resp.Truncate(dns.MinMsgSize)
		}
		w.WriteMsg(resp)
	}
}

// start runs a server; resolvers are the host's.
func start(t *testing.T, resolvers ...*resolver) (*Server, string) {
	t.Helper()
	conf, port := "", uint16(0)
	for _, r := range resolvers {
		conf += fmt.Sprintf("nameserver %s\n", r.at.Addr())
		port = r.at.Port()
	}
	path := filepath.Join(t.TempDir(), "resolv.conf")
	if err := os.WriteFile(path, []byte(conf), 0o600); err != nil {
		t.Fatal(err)
	}
	at := freePort(t, "127.0.0.1")
	s, err := New(Config{Listen: []netip.AddrPort{at}, ResolvConf: path, ResolverPort: port})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
	return s, at.String()
}

// follow fills the server's zone from a store with the test's Services.
func follow(t *testing.T, s *Server) *store.Store {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	client, err := store.New(ctx, memory.New(), api.StorageCodec{})
	if err != nil {
		t.Fatal(err)
	}
	for _, service := range testServices() {
		objects := []api.Object{service.Service}
		for _, slice := range service.Slices {
			objects = append(objects, slice)
		}
		for _, obj := range objects {
			if _, err := client.Create(ctx, obj, store.CreateOptions{}); err != nil {
				t.Fatal(err)
			}
		}
	}
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		s.Run(ctx, client)
	}()
	t.Cleanup(func() { cancel(); <-ended })
	return client
}

func ask(t *testing.T, network, at, name string, kind uint16) *dns.Msg {
	t.Helper()
	req := new(dns.Msg)
	req.SetQuestion(name, kind)
	resp, _, err := (&dns.Client{Net: network, Timeout: 5 * time.Second}).Exchange(req, at)
	if err != nil {
		t.Fatalf("%s %s: %v", network, name, err)
	}
	return resp
}

// summary is an answer on one line.
func summary(m *dns.Msg) string {
	s := dns.RcodeToString[m.Rcode]
	if m.Authoritative {
		s += " own"
	}
	if m.Truncated {
		return s + " truncated"
	}
	for _, rr := range m.Answer {
		s += " " + rr.(interface{ String() string }).String()[len(rr.Header().String()):]
		s += fmt.Sprintf("/%d", rr.Header().Ttl)
	}
	for _, rr := range m.Ns {
		s += " " + dns.TypeToString[rr.Header().Rrtype]
	}
	return s
}

// until asks until the zone answers.
func until(t *testing.T, at, name, want string) {
	t.Helper()
	deadline := time.Now().Add(10 * time.Second)
	for {
		got := summary(ask(t, "udp", at, name, dns.TypeA))
		if got == want {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("%s: %s, want %s", name, got, want)
		}
		<-time.After(5 * time.Millisecond)
	}
}

func TestServerAnswersByUDPAndTCP(t *testing.T) {
	up := newResolver(t)
	s, at := start(t, up)
	if got := summary(ask(t, "udp", at, "web.shop.svc.cluster.local.", dns.TypeA)); got != "SERVFAIL" {
		t.Errorf("before the Services are known: %s, want SERVFAIL", got)
	}
	if got := summary(ask(t, "udp", at, "www.example.org.", dns.TypeA)); got != "NOERROR 192.0.2.1/300" {
		t.Errorf("another name before the Services are known: %s", got)
	}
	client := follow(t, s)
	until(t, at, "web.shop.svc.cluster.local.", "NOERROR own 10.96.0.20/5")
	for _, network := range []string{"udp", "tcp"} {
		for _, c := range []struct {
			name string
			kind uint16
			want string
		}{
			{"WEB.shop.SVC.cluster.local.", dns.TypeA, "NOERROR own 10.96.0.20/5"},
			{"web.shop.svc.cluster.local.", dns.TypeAAAA, "NOERROR own SOA"},
			{"none.shop.svc.cluster.local.", dns.TypeA, "NXDOMAIN own SOA"},
			{"nearby.shop.svc.cluster.local.", dns.TypeA, "NOERROR own web.shop.svc.cluster.local./5 10.96.0.20/5"},
			{"elsewhere.shop.svc.cluster.local.", dns.TypeA, "NOERROR own example.org./5 192.0.2.1/300"},
			{"missing.example.org.", dns.TypeA, "NXDOMAIN"},
		} {
			if got := summary(ask(t, network, at, c.name, c.kind)); got != c.want {
				t.Errorf("%s %s: %s, want %s", network, c.name, got, c.want)
			}
		}
	}
	if got := ask(t, "udp", at, "WEB.shop.SVC.cluster.local.", dns.TypeA); got.Answer[0].Header().Name != "WEB.shop.SVC.cluster.local." {
		t.Errorf("the name came back as %s", got.Answer[0].Header().Name)
	}
	if _, err := client.Delete(t.Context(), api.Services, "shop", "web", store.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	until(t, at, "web.shop.svc.cluster.local.", "NXDOMAIN own SOA")
}

func TestLargeAnswersGoByTCP(t *testing.T) {
	_, at := start(t, newResolver(t))
	if got := summary(ask(t, "udp", at, "large.example.org.", dns.TypeA)); got != "NOERROR truncated" {
		t.Errorf("by UDP: %s", got)
	}
	if got := len(ask(t, "tcp", at, "large.example.org.", dns.TypeA).Answer); got != 200 {
		t.Errorf("by TCP: %d records, want 200", got)
	}
}

func TestAnswersOfResolversAreCached(t *testing.T) {
	up := newResolver(t)
	_, at := start(t, up)
	for range 5 {
		ask(t, "udp", at, "www.example.org.", dns.TypeA)
	}
	if got := up.asked.Load(); got != 1 {
		t.Errorf("the resolver was asked %d times, want once", got)
	}
}

func TestDeadResolverIsAskedOnce(t *testing.T) {
	up := newResolver(t)
	dead := &resolver{at: netip.AddrPortFrom(netip.MustParseAddr("127.0.0.3"), up.at.Port())}
	s, at := start(t, dead, up)
	if got := summary(ask(t, "udp", at, "www.example.org.", dns.TypeA)); got != "NOERROR 192.0.2.1/300" {
		t.Errorf("answer %s", got)
	}
	if got := s.forwarder.answeringFirst(s.forwarder.resolvers()); got[0] != up.at.Addr() || len(got) != 2 {
		t.Errorf("the next question goes to %v, want %s first", got, up.at.Addr())
	}
}

func TestWithoutResolverTheAnswerFailsAtOnce(t *testing.T) {
	_, at := start(t)
	if got := summary(ask(t, "udp", at, "www.example.org.", dns.TypeA)); got != "SERVFAIL" {
		t.Errorf("answer %s, want SERVFAIL", got)
	}
}

func TestOwnAddressIsNoResolver(t *testing.T) {
	path := filepath.Join(t.TempDir(), "resolv.conf")
	if err := os.WriteFile(path, []byte("nameserver 10.244.0.1\nnameserver 192.0.2.53\nnameserver bad\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	f := newForwarder(Config{Listen: []netip.AddrPort{netip.MustParseAddrPort("10.244.0.1:53")}, ResolvConf: path})
	if diff := cmp.Diff("[192.0.2.53]", fmt.Sprint(f.resolvers())); diff != "" {
		t.Errorf("resolvers (-want +got):\n%s", diff)
	}
}

func TestCacheShortensLifetimes(t *testing.T) {
	c, now := newCache(), time.Unix(1000, 0)
	msg := new(dns.Msg)
	msg.Answer = []dns.RR{&dns.A{Hdr: dns.RR_Header{Name: "a.", Rrtype: dns.TypeA, Class: dns.ClassINET, Ttl: 20}, A: net.IPv4(192, 0, 2, 1)}}
	c.put(cacheKey{name: "a."}, msg, now)
	if got := c.get(cacheKey{name: "a."}, now.Add(5*time.Second)).Answer[0].Header().Ttl; got != 15 {
		t.Errorf("lifetime after 5 s is %d, want 15", got)
	}
	if c.get(cacheKey{name: "a."}, now.Add(20*time.Second)) != nil {
		t.Error("still there after its lifetime")
	}
	for i := range cacheSize + 10 {
		c.put(cacheKey{name: fmt.Sprint(i)}, msg, now)
	}
	if len(c.entries) > cacheSize {
		t.Errorf("%d entries, want at most %d", len(c.entries), cacheSize)
	}
}
