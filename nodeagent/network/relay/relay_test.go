package relay

import (
	"io"
	"net"
	"net/netip"
	"strings"
	"testing"
	"time"
)

// echo answers what it is sent in capitals, with its name, once the sender has no more.
func echo(t *testing.T, name string) netip.AddrPort {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.2:0")
	check(t, err)
	t.Cleanup(func() { l.Close() })
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go func() {
				defer c.Close()
				data, _ := io.ReadAll(c)
				io.WriteString(c, name+" "+strings.ToUpper(string(data)))
			}()
		}
	}()
	return netip.MustParseAddrPort(l.Addr().String())
}

func free(t *testing.T) (Port, net.Listener) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	check(t, err)
	return Port{"tcp", uint16(l.Addr().(*net.TCPAddr).Port)}, l
}

func dial(t *testing.T, p Port) net.Conn {
	t.Helper()
	c, err := net.Dial(p.Network, netip.AddrPortFrom(netip.MustParseAddr("127.0.0.1"), p.Number).String())
	check(t, err)
	t.Cleanup(func() { c.Close() })
	c.SetDeadline(time.Now().Add(5 * time.Second))
	return c
}

// finish sends the last words on a connection and returns the whole answer.
func finish(t *testing.T, c net.Conn, text string) string {
	t.Helper()
	_, err := io.WriteString(c, text)
	check(t, err)
	check(t, c.(*net.TCPConn).CloseWrite())
	data, err := io.ReadAll(c)
	check(t, err)
	return string(data)
}

func TestConnectionOutlivesItsBackendsRule(t *testing.T) {
	one, two := echo(t, "one"), echo(t, "two")
	port, l := free(t)
	l.Close()
	var relays Relays
	defer relays.Close()
	check(t, relays.Serve(port, []netip.AddrPort{one}))
	held := dial(t, port)
	_, err := io.WriteString(held, "from ")
	check(t, err)
	if got := finish(t, dial(t, port), "hello"); got != "one HELLO" {
		t.Errorf("first backend: %q", got)
	}
	check(t, relays.Serve(port, []netip.AddrPort{two}))
	if got := finish(t, dial(t, port), "hello"); got != "two HELLO" {
		t.Errorf("second backend: %q", got)
	}
	check(t, relays.Serve(port, nil))
	if c, err := net.Dial("tcp", held.RemoteAddr().String()); err == nil {
		c.Close()
		t.Error("the port is open without backends")
	}
	if got := finish(t, held, "before"); got != "one FROM BEFORE" {
		t.Errorf("the connection from before: %q", got)
	}
}

func TestDeadBackendIsPassedOver(t *testing.T) {
	alive := echo(t, "alive")
	port, l := free(t)
	l.Close()
	_, gone := free(t)
	dead := netip.MustParseAddrPort(gone.Addr().String())
	gone.Close()
	var relays Relays
	defer relays.Close()
	check(t, relays.Serve(port, []netip.AddrPort{dead, alive}))
	for range 10 {
		if got := finish(t, dial(t, port), "x"); got != "alive X" {
			t.Errorf("with a living backend: %q", got)
		}
	}
	check(t, relays.Serve(port, []netip.AddrPort{dead}))
	c, err := net.Dial("tcp", netip.AddrPortFrom(netip.MustParseAddr("127.0.0.1"), port.Number).String())
	if err == nil { // else it was reset already
		_, err = io.ReadAll(c)
		c.Close()
	}
	if err == nil || !strings.Contains(err.Error(), "reset") {
		t.Errorf("only a dead backend: %v, want a reset", err)
	}
}

func TestTakenPortIsServedOnceItIsFree(t *testing.T) {
	port, taken := free(t)
	var relays Relays
	defer relays.Close()
	if err := relays.Serve(port, []netip.AddrPort{echo(t, "one")}); err == nil || !strings.Contains(err.Error(), "in use") {
		t.Errorf("Serve: %v, want address in use", err)
	}
	relays.Retry()
	taken.Close()
	relays.Retry()
	if got := finish(t, dial(t, port), "x"); got != "one X" {
		t.Errorf("answer %q", got)
	}
}

func TestUDPCallerMovesWhenItsBackendGoes(t *testing.T) {
	backend := func(name string) netip.AddrPort {
		c, err := net.ListenPacket("udp", "127.0.0.2:0")
		check(t, err)
		t.Cleanup(func() { c.Close() })
		go func() {
			buf := make([]byte, 10)
			for {
				_, from, err := c.ReadFrom(buf)
				if err != nil {
					return
				}
				c.WriteTo([]byte(name), from)
			}
		}()
		return netip.MustParseAddrPort(c.LocalAddr().String())
	}
	probe, err := net.ListenPacket("udp", "127.0.0.1:0")
	check(t, err)
	port := Port{"udp", uint16(probe.LocalAddr().(*net.UDPAddr).Port)}
	probe.Close()
	var relays Relays
	defer relays.Close()
	c := net.Conn(nil)
	for _, name := range []string{"one", "two"} {
		check(t, relays.Serve(port, []netip.AddrPort{backend(name)}))
		if c == nil {
			c = dial(t, port)
		}
		_, err := c.Write([]byte("?"))
		check(t, err)
		buf := make([]byte, 10)
		n, err := c.Read(buf)
		check(t, err)
		if got := string(buf[:n]); got != name {
			t.Errorf("answer from %q, want %q", got, name)
		}
	}
}

func check(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// TestCallsUnderWayAreTold: a backend that was chosen is called, whatever Serve said since.
func TestCallsUnderWayAreTold(t *testing.T) {
	one, two := echo(t, "one"), echo(t, "two")
	port, l := free(t)
	l.Close()
	var relays Relays
	defer relays.Close()
	check(t, relays.Serve(port, []netip.AddrPort{one}))
	r := relays.ports[port]
	chosen, _ := r.choose(nil)
	check(t, relays.Serve(port, []netip.AddrPort{two}))
	if !relays.Calling(one.Addr()) {
		t.Error("a call under way is not told")
	}
	if next, ok := r.choose([]netip.AddrPort{chosen}); !ok || next != two {
		t.Errorf("after %s did not answer %s is called, want %s", chosen, next, two)
	}
	r.called(chosen)
	r.called(two)
	if relays.Calling(one.Addr()) {
		t.Error("a call that has ended is told as under way")
	}
}
