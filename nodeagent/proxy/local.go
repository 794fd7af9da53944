package proxy

import (
	"errors"
	"io"
	"log/slog"
	"math/rand/v2"
	"net"
	"net/netip"
	"slices"
	"sync"
	"sync/atomic"
	"time"
)

const (
	dialTimeout = 5 * time.Second
	dialTries   = 3
	udpIdle     = time.Minute
	udpClients  = 1024 // per port; more are not served until others fall silent
)

// local serves node ports on the node's loopback addresses. The packet filter cannot: the kernel takes no answer from
// a Pod for 127.0.0.1 unless route_localnet opens every loopback service to the neighbours. So these calls, from
// this machine only, are relayed in user space, to the same backends. A relayed connection lasts until an end closes
// it, whatever happens to rules.
type local struct {
	log *slog.Logger

	mu     sync.Mutex
	relays map[Front]*relay
}

// relay serves one node port.
type relay struct {
	backends atomic.Pointer[[]netip.AddrPort]
	close    []io.Closer

	mu      sync.Mutex
	clients map[netip.AddrPort]*net.UDPConn // UDP: by caller, connected to its backend
}

func newLocal(log *slog.Logger) *local { return &local{log: log, relays: map[Front]*relay{}} }

// apply follows the steps; fronts with an address are not its business.
func (l *local) apply(steps []Step) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, step := range steps {
		switch {
		case step.New != nil && len(step.New.Backends) > 0:
			l.open(*step.New)
		case step.New != nil:
			l.shut(step.New.Front)
		default:
			l.shut(step.Old.Front)
		}
	}
}

func (l *local) open(rule Rule) {
	if rule.Front.Addr.IsValid() || (rule.Front.Proto != TCP && rule.Front.Proto != UDP) {
		return
	}
	r := l.relays[rule.Front]
	if r == nil {
		r = &relay{clients: map[netip.AddrPort]*net.UDPConn{}}
		r.backends.Store(&rule.Backends)
		if err := r.listen(rule.Front); err != nil {
			l.log.Warn("node port is not served on 127.0.0.1", "port", rule.Front.Port, "service", rule.Name, "error", err)
			return
		}
		l.relays[rule.Front] = r
	}
	r.backends.Store(&rule.Backends)
	r.drop(func(backend netip.AddrPort) bool { return !slices.Contains(rule.Backends, backend) })
}

func (l *local) shut(front Front) {
	r := l.relays[front]
	if r == nil {
		return
	}
	delete(l.relays, front)
	for _, c := range r.close {
		c.Close()
	}
	r.drop(func(netip.AddrPort) bool { return true })
}

func (l *local) closeAll() {
	l.mu.Lock()
	defer l.mu.Unlock()
	for front := range l.relays {
		l.shut(front)
	}
}

// listen opens 127.0.0.1, and ::1 where there is one.
func (r *relay) listen(front Front) error {
	for i, addr := range []netip.Addr{netip.AddrFrom4([4]byte{127, 0, 0, 1}), netip.IPv6Loopback()} {
		at := netip.AddrPortFrom(addr, front.Port)
		var err error
		if front.Proto == TCP {
			var listener *net.TCPListener
			if listener, err = net.ListenTCP("tcp", net.TCPAddrFromAddrPort(at)); err == nil {
				r.close = append(r.close, listener)
				go r.serveTCP(listener)
			}
		} else {
			var conn *net.UDPConn
			if conn, err = net.ListenUDP("udp", net.UDPAddrFromAddrPort(at)); err == nil {
				r.close = append(r.close, conn)
				go r.serveUDP(conn)
			}
		}
		if err != nil && i == 0 {
			return err
		}
	}
	return nil
}

func (r *relay) pick() netip.AddrPort {
	backends := *r.backends.Load()
	return backends[rand.IntN(len(backends))]
}

func (r *relay) serveTCP(listener *net.TCPListener) {
	for {
		client, err := listener.AcceptTCP()
		if errors.Is(err, net.ErrClosed) {
			return
		}
		if err != nil { // out of file descriptors, or the caller gone already
			time.Sleep(10 * time.Millisecond)
			continue
		}
		go r.relayTCP(client)
	}
}

func (r *relay) relayTCP(client *net.TCPConn) {
	defer client.Close()
	var backend net.Conn
	var err error
	for range dialTries {
		if backend, err = net.DialTimeout("tcp", r.pick().String(), dialTimeout); err == nil {
			break
		}
	}
	if err != nil {
		client.SetLinger(0) // the caller sees a reset, as from a closed port
		return
	}
	defer backend.Close()
	done := make(chan struct{})
	go func() {
		defer close(done)
		copyHalf(backend.(*net.TCPConn), client)
	}()
	copyHalf(client, backend.(*net.TCPConn))
	<-done
}

// copyHalf carries one direction until its sender has no more.
func copyHalf(to, from *net.TCPConn) {
	if _, err := io.Copy(to, from); err != nil {
		to.Close() // broken: the other direction ends as well
		from.Close()
		return
	}
	to.CloseWrite()
}

func (r *relay) serveUDP(conn *net.UDPConn) {
	buf := make([]byte, 64<<10)
	for {
		n, client, err := conn.ReadFromUDPAddrPort(buf)
		if errors.Is(err, net.ErrClosed) {
			return
		}
		if err != nil {
			continue
		}
		if backend := r.backendFor(conn, client); backend != nil {
			backend.Write(buf[:n]) // as a lost packet, if it fails
		}
	}
}

// backendFor returns the socket that stands for client towards its backend.
func (r *relay) backendFor(conn *net.UDPConn, client netip.AddrPort) *net.UDPConn {
	r.mu.Lock()
	defer r.mu.Unlock()
	backend := r.clients[client]
	if backend == nil {
		if len(r.clients) >= udpClients {
			return nil
		}
		var err error
		if backend, err = net.DialUDP("udp", nil, net.UDPAddrFromAddrPort(r.pick())); err != nil {
			return nil
		}
		r.clients[client] = backend
		go r.answer(conn, client, backend)
	}
	backend.SetReadDeadline(time.Now().Add(udpIdle))
	return backend
}

// answer carries a backend's answers to client until neither spoke for long.
func (r *relay) answer(conn *net.UDPConn, client netip.AddrPort, backend *net.UDPConn) {
	defer func() {
		r.mu.Lock()
		defer r.mu.Unlock()
		backend.Close()
		if r.clients[client] == backend {
			delete(r.clients, client)
		}
	}()
	buf := make([]byte, 64<<10)
	for {
		n, err := backend.Read(buf)
		if err != nil {
			return
		}
		if _, err := conn.WriteToUDPAddrPort(buf[:n], client); errors.Is(err, net.ErrClosed) {
			return
		}
		backend.SetReadDeadline(time.Now().Add(udpIdle))
	}
}

// drop ends UDP exchanges with certain backends; their callers get another one with their next packet.
func (r *relay) drop(which func(netip.AddrPort) bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for client, backend := range r.clients {
		if to := backend.RemoteAddr().(*net.UDPAddr).AddrPort(); which(netip.AddrPortFrom(to.Addr().Unmap(), to.Port())) {
			backend.Close()
			delete(r.clients, client)
		}
	}
}
