// Package dns is the cluster's DNS on a node: it answers for Services and Pods from what it follows, without locks and
// without asking anybody, and forwards other names to the host's resolvers.
//
// It must not know the packet filter: the Service kube-dns leads here by its endpoints.
package dns

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"strings"
	"sync"
	"sync/atomic"

	"github.com/miekg/dns"

	"github.com/slipway-dev/slipway/apiserver/store"
	"github.com/slipway-dev/slipway/nodeagent/catalog"
)

// Config describes a node's DNS.
type Config struct {
	Listen       []netip.AddrPort // UDP and TCP: the gateway address, port 53
	Domain       string           // empty: "cluster.local"
	Ranges       []netip.Prefix   // addresses of Pods and Services: their names are known here or nowhere
	ResolvConf   string           // names the host's resolvers; empty: /etc/resolv.conf
	ResolverPort uint16           // of the host's resolvers; 0: 53
	Log          *slog.Logger     // nil: none
}

// Server answers questions. Until Run knows all Services, it fails those about the cluster's names, so that nobody
// takes a name for missing.
type Server struct {
	authority authority
	forwarder *forwarder
	known     atomic.Bool // the zone is complete
	log       *slog.Logger
	listeners []*dns.Server
	serving   sync.WaitGroup
}

// New listens on all addresses and begins to answer.
func New(cfg Config) (*Server, error) {
	if cfg.Domain == "" {
		cfg.Domain = "cluster.local"
	}
	if cfg.ResolvConf == "" {
		cfg.ResolvConf = "/etc/resolv.conf"
	}
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	s := &Server{forwarder: newForwarder(cfg), log: cfg.Log}
	s.authority = authority{domain: dns.Fqdn(strings.ToLower(cfg.Domain)), ranges: cfg.Ranges, zone: &zone{}}
	for _, at := range cfg.Listen {
		if err := s.listen(at); err != nil {
			s.Close()
			return nil, err
		}
	}
	return s, nil
}

func (s *Server) listen(at netip.AddrPort) error {
	packets, err := net.ListenPacket("udp", at.String())
	if err != nil {
		return fmt.Errorf("answer DNS on %s: %w", at, err)
	}
	streams, err := net.Listen("tcp", at.String())
	if err != nil {
		packets.Close()
		return fmt.Errorf("answer DNS on %s: %w", at, err)
	}
	s.serve(&dns.Server{PacketConn: packets, Handler: s.handler("udp")})
	s.serve(&dns.Server{Listener: patient{streams}, Handler: s.handler("tcp")})
	return nil
}

func (s *Server) serve(server *dns.Server) {
	s.listeners = append(s.listeners, server)
	started := make(chan struct{})
	server.NotifyStartedFunc = func() { close(started) }
	s.serving.Go(func() {
		if err := server.ActivateAndServe(); err != nil {
			s.log.Error("answer DNS", "error", err)
		}
	})
	<-started // only then can it be shut down
}

// Run follows Services until ctx ends. The server goes on answering from what it knows.
func (s *Server) Run(ctx context.Context, client store.Reader) error {
	return catalog.Follow(ctx, client, s.log, func(changes catalog.Changes) error {
		s.authority.zone.apply(changes)
		if !s.known.Swap(true) {
			s.log.Info("cluster DNS answers", "services", len(changes))
		}
		return nil
	})
}

// Close stops answering.
func (s *Server) Close() error {
	var errs []error
	for _, server := range s.listeners {
		errs = append(errs, server.Shutdown())
	}
	s.serving.Wait()
	return errors.Join(errs...)
}

func (s *Server) handler(network string) dns.HandlerFunc {
	return func(w dns.ResponseWriter, req *dns.Msg) {
		resp := s.respond(req, network)
		if network == "udp" {
			size := dns.MinMsgSize
			if opt := req.IsEdns0(); opt != nil {
				size = max(size, int(opt.UDPSize()))
			}
			resp.Truncate(size)
		}
		if err := w.WriteMsg(resp); err != nil {
			s.log.Debug("send an answer", "to", w.RemoteAddr().String(), "error", err)
		}
	}
}

// respond answers one message.
func (s *Server) respond(req *dns.Msg, network string) *dns.Msg {
	resp := new(dns.Msg)
	resp.SetReply(req)
	resp.RecursionAvailable = true
	resp.Compress = true
	if opt := req.IsEdns0(); opt != nil {
		resp.SetEdns0(1232, false) // what crosses any link in one piece
	}
	switch {
	case req.Opcode != dns.OpcodeQuery:
		resp.Rcode = dns.RcodeNotImplemented
	case len(req.Question) != 1:
		resp.Rcode = dns.RcodeFormatError
	case req.Question[0].Qclass != dns.ClassINET:
		resp.Rcode = dns.RcodeRefused
	case s.authority.owns(strings.ToLower(req.Question[0].Name)):
		s.own(resp, req, network)
	default:
		return s.forward(resp, req, network)
	}
	return resp
}

// own answers for the cluster's names.
func (s *Server) own(resp, req *dns.Msg, network string) {
	if !s.known.Load() {
		resp.Rcode = dns.RcodeServerFailure
		return
	}
	q := req.Question[0]
	a := s.authority.ask(strings.ToLower(q.Name), q.Name, q.Qtype)
	resp.Authoritative = true
	resp.Answer = a.answers
	resp.Extra = append(resp.Extra, a.extra...)
	if a.chase != "" && q.Qtype != dns.TypeCNAME {
		s.chase(resp, a.chase, q.Qtype, network)
	}
	if !a.exists {
		resp.Rcode = dns.RcodeNameError
	}
	if len(resp.Answer) == 0 {
		resp.Ns = []dns.RR{s.authority.soa()}
	}
}

// chase adds the records of the name an ExternalName Service stands for. A chain of such Services is followed one step
// only: a circle of them ends.
func (s *Server) chase(resp *dns.Msg, name string, kind uint16, network string) {
	if s.authority.owns(name) {
		resp.Answer = append(resp.Answer, s.authority.ask(name, name, kind).answers...)
		return
	}
	query := new(dns.Msg)
	query.SetQuestion(name, kind)
	answer, err := s.forwarder.ask(context.Background(), query, network)
	if err != nil {
		s.log.Debug("forward", "name", name, "error", err)
		resp.Rcode = dns.RcodeServerFailure
		return
	}
	resp.Answer = append(resp.Answer, answer.Answer...)
}

// forward answers with what the host's resolvers say.
func (s *Server) forward(resp, req *dns.Msg, network string) *dns.Msg {
	answer, err := s.forwarder.ask(context.Background(), req, network)
	if err != nil {
		s.log.Debug("forward", "name", req.Question[0].Name, "error", err)
		resp.Rcode = dns.RcodeServerFailure
		return resp
	}
	answer.Id, answer.Question = req.Id, req.Question // also in the caller's spelling
	answer.Compress = true
	return answer
}
