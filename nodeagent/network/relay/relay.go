// Package relay serves ports on the node's loopback addresses in user space. The packet filter cannot: the kernel takes
// no answer from a Pod for 127.0.0.1 unless route_localnet opens every loopback service to the neighbours. So calls
// from this machine to 127.0.0.1 or ::1 are relayed to a backend. A relayed connection lasts until an end closes it,
// whatever becomes of its backend's rules.
//
// It must not decide which backends there are.
package relay

import (
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/netip"
	"slices"
	"sync"
	"time"
)

const (
	dialTimeout = 5 * time.Second
	dialTries   = 3
	udpIdle     = time.Minute
	udpClients  = 1024 // per port; more are not served until others fall silent
)

// Port is a port of the loopback addresses.
type Port struct {
	Network string // "tcp" or "udp"
	Number  uint16
}

// Relays are the ports served now. The zero value serves none.
type Relays struct {
	mu    sync.Mutex
	ports map[Port]*relay
}

// relay serves one port.
type relay struct {
	close []io.Closer

	mu       sync.Mutex
	backends []netip.AddrPort
	calling  map[netip.AddrPort]int          // TCP: backends being called, and how many times over
	clients  map[netip.AddrPort]*net.UDPConn // UDP: by caller, connected to its backend
}

// Serve leads new calls of a port to the backends, from now on; without any the port is closed. It returns an error
// when the port is taken by another process; Retry tries again.
func (l *Relays) Serve(port Port, backends []netip.AddrPort) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	r := l.ports[port]
	if len(backends) == 0 {
		delete(l.ports, port)
		r.shut()
		return nil
	}
	if r == nil {
		r = &relay{calling: map[netip.AddrPort]int{}, clients: map[netip.AddrPort]*net.UDPConn{}}
		if l.ports == nil {
			l.ports = map[Port]*relay{}
		}
		l.ports[port] = r
	}
	r.lead(backends)
	r.drop(func(backend netip.AddrPort) bool { return !slices.Contains(backends, backend) })
	return r.listen(port)
}

// Calling says whether a connection to an address is being opened. Once Serve has been called without the address for
// every port, and this was false, no relay opens one any more.
func (l *Relays) Calling(addr netip.Addr) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, r := range l.ports {
		if r.callingTo(addr) {
			return true
		}
	}
	return false
}

// Retry opens the ports that were taken when they were asked for, and are free now.
func (l *Relays) Retry() {
	l.mu.Lock()
	defer l.mu.Unlock()
	for port, r := range l.ports {
		_ = r.listen(port) // still taken: Serve said so
	}
}

// Close closes all ports. TCP connections go on.
func (l *Relays) Close() {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, r := range l.ports {
		r.shut()
	}
	l.ports = nil
}

func (r *relay) shut() {
	if r == nil {
		return
	}
	for _, c := range r.close {
		c.Close()
	}
	r.drop(func(netip.AddrPort) bool { return true })
}

// listen opens 127.0.0.1, and ::1 where that is free and exists, once.
func (r *relay) listen(port Port) error {
	if len(r.close) > 0 {
		return nil
	}
	for i, addr := range []netip.Addr{netip.AddrFrom4([4]byte{127, 0, 0, 1}), netip.IPv6Loopback()} {
		err := r.listenOn(port.Network, netip.AddrPortFrom(addr, port.Number))
		if err != nil && i == 0 {
			return fmt.Errorf("serve %s port %d on 127.0.0.1: %w", port.Network, port.Number, err)
		}
	}
	return nil
}

func (r *relay) listenOn(network string, at netip.AddrPort) error {
	if network == "udp" {
		conn, err := net.ListenUDP(network, net.UDPAddrFromAddrPort(at))
		if err != nil {
			return err
		}
		r.close = append(r.close, conn)
		go r.serveUDP(conn)
		return nil
	}
	listener, err := net.ListenTCP(network, net.TCPAddrFromAddrPort(at))
	if err != nil {
		return err
	}
	r.close = append(r.close, listener)
	go r.serveTCP(listener)
	return nil
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
	backend := r.dial()
	if backend == nil {
		_ = client.SetLinger(0) // the caller sees a reset, as from a closed port
		return
	}
	defer backend.Close()
	done := make(chan struct{})
	go func() {
		defer close(done)
		copyHalf(backend, client)
	}()
	copyHalf(client, backend)
	<-done
}

// dial connects to a backend; when it does not answer, to another one. It returns nil when none does.
func (r *relay) dial() *net.TCPConn {
	var tried []netip.AddrPort
	for range dialTries {
		backend, ok := r.choose(tried)
		if !ok {
			break
		}
		tried = append(tried, backend)
		c, err := net.DialTimeout("tcp", backend.String(), dialTimeout)
		r.called(backend)
		if err == nil {
			return c.(*net.TCPConn)
		}
	}
	return nil
}

// lead takes over the backends for calls from now on.
func (r *relay) lead(backends []netip.AddrPort) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.backends = backends
}

// choose picks a backend as they are now, none of those tried, and notes that it is being called.
func (r *relay) choose(tried []netip.AddrPort) (netip.AddrPort, bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	left := slices.DeleteFunc(slices.Clone(r.backends), func(b netip.AddrPort) bool { return slices.Contains(tried, b) })
	if len(left) == 0 {
		return netip.AddrPort{}, false
	}
	backend := left[rand.IntN(len(left))]
	r.calling[backend]++
	return backend, true
}

func (r *relay) called(backend netip.AddrPort) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.calling[backend]--; r.calling[backend] == 0 {
		delete(r.calling, backend)
	}
}

func (r *relay) callingTo(addr netip.Addr) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	for backend := range r.calling {
		if backend.Addr() == addr {
			return true
		}
	}
	return false
}

// copyHalf carries one direction until its sender has no more.
func copyHalf(to, from *net.TCPConn) {
	if _, err := io.Copy(to, from); err != nil {
		to.Close() // broken: the other direction ends as well
		from.Close()
		return
	}
	_ = to.CloseWrite()
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
			_, _ = backend.Write(buf[:n]) // as a lost packet, if it fails
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
		to := r.backends[rand.IntN(len(r.backends))]
		if backend, err = net.DialUDP("udp", nil, net.UDPAddrFromAddrPort(to)); err != nil {
			return nil
		}
		r.clients[client] = backend
		go r.answer(conn, client, backend)
	}
	_ = backend.SetReadDeadline(time.Now().Add(udpIdle))
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
		_ = backend.SetReadDeadline(time.Now().Add(udpIdle))
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
