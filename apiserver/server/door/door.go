// Package door lets connections in, as many as the process can bear, and not so many from one address that others
// find no room. A lack of file descriptors ends no listener: it is said once and waited for.
//
// It must not read from connections: who somebody is shows later.
package door

import (
	"errors"
	"fmt"
	"log/slog"
	"net"
	"sync"
	"syscall"
	"time"
)

// Door counts the connections of several listeners together.
type Door struct {
	most       int // connections
	perAddress int
	log        *slog.Logger

	mu     sync.Mutex
	open   int
	by     map[string]int
	turned turned
}

// turned counts who was turned away since it was last said.
type turned struct {
	n    int
	said time.Time
}

// few is how many connections an address may have and still get in when only the last eighth of the room is left.
const few = 4

// sayEvery is how often it is said that connections are turned away.
const sayEvery = time.Minute

// New returns a door for most connections, at most half of them from one address.
func New(most int, log *slog.Logger) *Door {
	return &Door{most: most, perAddress: max(1, most/2), log: log, by: map[string]int{}}
}

// Room returns how many connections a process should let in that may open files descriptors: half, as the store, the
// container runtime and DNS need some too, and no more than 8192, each of which costs some ten kilobytes.
func Room() (int, error) {
	var limit syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &limit); err != nil {
		return 0, fmt.Errorf("read the limit of open files: %w", err)
	}
	return int(min(limit.Cur/2, 8192)), nil
}

// enter counts a connection of address if there is room for it.
func (d *Door) enter(address string) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	n := d.by[address]
	if d.open < d.most && n < d.perAddress && (d.open < d.most-d.most/8 || n < few) {
		d.open++
		d.by[address]++
		return true
	}
	d.turned.n++
	if now := time.Now(); d.turned.said.IsZero() || now.Sub(d.turned.said) >= sayEvery {
		d.log.Warn("connections to the API are turned away", "number", d.turned.n, "last", address, "open", d.open, "most", d.most, "from-one-address", d.perAddress)
		d.turned = turned{said: now}
	}
	return false
}

func (d *Door) leave(address string) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.open--
	if d.by[address]--; d.by[address] == 0 {
		delete(d.by, address)
	}
}

// Listener returns l behind the door.
func (d *Door) Listener(l net.Listener) net.Listener {
	return &listener{Listener: l, door: d, closed: make(chan struct{})}
}

type listener struct {
	net.Listener
	door   *Door
	once   sync.Once
	closed chan struct{}
}

// Close implements net.Listener.
func (l *listener) Close() error {
	l.once.Do(func() { close(l.closed) })
	return l.Listener.Close()
}

// scarce are the errors of a process or machine that has run out of something for now.
var scarce = []error{syscall.EMFILE, syscall.ENFILE, syscall.ENOBUFS, syscall.ENOMEM}

// longest is the longest pause between two tries to take a connection.
const longest = time.Second

// Accept implements net.Listener.
func (l *listener) Accept() (net.Conn, error) {
	pause := time.Duration(0)
	for {
		conn, err := l.Listener.Accept()
		switch {
		case err == nil:
			if pause > 0 {
				l.door.log.Info("connections to the API are taken again")
				pause = 0
			}
			address := host(conn.RemoteAddr())
			if l.door.enter(address) {
				return &counted{Conn: conn, leave: func() { l.door.leave(address) }}, nil
			}
			_ = conn.Close()
		case isScarce(err):
			if pause == 0 {
				l.door.log.Error("connections to the API cannot be taken, trying on", "err", err)
			}
			pause = min(max(2*pause, 10*time.Millisecond), longest)
			select {
			case <-time.After(pause):
			case <-l.closed:
				return nil, net.ErrClosed
			}
		case errors.Is(err, syscall.ECONNABORTED):
		default:
			return nil, err
		}
	}
}

func isScarce(err error) bool {
	for _, one := range scarce {
		if errors.Is(err, one) {
			return true
		}
	}
	return false
}

func host(address net.Addr) string {
	if tcp, ok := address.(*net.TCPAddr); ok {
		return tcp.IP.String()
	}
	return address.String()
}

// counted is a connection that says when it is closed.
type counted struct {
	net.Conn
	once  sync.Once
	leave func()
}

// Close implements net.Conn.
func (c *counted) Close() error {
	c.once.Do(c.leave)
	return c.Conn.Close()
}
