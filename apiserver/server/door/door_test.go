package door

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"strings"
	"sync"
	"syscall"
	"testing"
	"testing/synctest"

	"github.com/google/go-cmp/cmp"
)

func TestNoAddressTakesTheRoomOfOthers(t *testing.T) {
	d := New(32, slog.New(slog.DiscardHandler))
	enter := func(address string, times int) (in int) {
		for range times {
			if d.enter(address) {
				in++
			}
		}
		return in
	}
	got := []int{enter("10.0.0.1", 100), enter("10.0.0.2", 100), enter("10.0.0.3", 2), enter("10.0.0.4", 100)}
	d.leave("10.0.0.1")
	got = append(got, enter("10.0.0.1", 1), enter("10.0.0.5", 1))
	// One address gets half, a second one what is left but the last eighth, others some of that.
	if diff := cmp.Diff([]int{16, 12, 2, 2, 0, 1}, got); diff != "" {
		t.Errorf("let in (-want +got):\n%s", diff)
	}
}

// flaky is a listener that fails in turn with errs before it gives out connections.
type flaky struct {
	net.Listener
	mu   sync.Mutex
	errs []error
}

func (f *flaky) Accept() (net.Conn, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if len(f.errs) > 0 {
		err := f.errs[0]
		f.errs = f.errs[1:]
		return nil, &net.OpError{Op: "accept", Err: err}
	}
	client, server := net.Pipe()
	_ = client.Close()
	return server, nil
}

func (f *flaky) Close() error { return nil }

func TestALackOfDescriptorsEndsNothingAndIsSaidOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var said bytes.Buffer
		d := New(10, slog.New(slog.NewTextHandler(&said, nil)))
		errs := []error{syscall.ECONNABORTED}
		for range 50 {
			errs = append(errs, syscall.EMFILE)
		}
		l := d.Listener(&flaky{errs: append(errs, nil)[:len(errs)]})
		conn, err := l.Accept()
		if err != nil {
			t.Fatal(err)
		}
		if n := strings.Count(said.String(), "cannot be taken"); n != 1 || !strings.Contains(said.String(), "taken again") {
			t.Errorf("said %d times:\n%s", n, said.String())
		}
		_, _ = conn.Close(), conn.Close()
		if d.open != 0 || len(d.by) != 0 {
			t.Errorf("closed connections are counted: %d, %v", d.open, d.by)
		}
		broken := errors.New("broken")
		if _, err := d.Listener(&flaky{errs: []error{broken}}).Accept(); !errors.Is(err, broken) {
			t.Errorf("another error: %v", err)
		}
		waiting := d.Listener(&flaky{errs: append(errs, errs...)})
		ended := make(chan error)
		go func() {
			_, err := waiting.Accept()
			ended <- err
		}()
		synctest.Wait()
		_ = waiting.Close()
		if err := <-ended; !errors.Is(err, net.ErrClosed) {
			t.Errorf("closed while waiting: %v", err)
		}
	})
}

func TestAFloodIsTurnedAwayAndRoomComesBack(t *testing.T) {
	inner, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var said bytes.Buffer
	l := New(8, slog.New(slog.NewTextHandler(&said, nil))).Listener(inner)
	defer l.Close()
	go func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			go func() {
				fmt.Fprint(conn, "hello")
				_, _ = io.Copy(io.Discard, conn) // until the client goes
				_ = conn.Close()
			}()
		}
	}()
	greeted := func() (net.Conn, bool) {
		conn, err := net.Dial("tcp", inner.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		hello := make([]byte, 5)
		_, err = io.ReadFull(conn, hello)
		return conn, err == nil
	}
	var in []net.Conn
	for range 50 {
		if conn, ok := greeted(); ok {
			in = append(in, conn)
		} else {
			_ = conn.Close()
		}
	}
	if len(in) != 4 {
		t.Errorf("%d connections of one address were let in, want half of 8", len(in))
	}
	_ = in[0].Close()
	for { // the server notices in its own time
		if conn, ok := greeted(); ok {
			_ = conn.Close()
			break
		}
	}
	for _, conn := range in[1:] {
		_ = conn.Close()
	}
	if n := strings.Count(said.String(), "turned away"); n != 1 {
		t.Errorf("it was said %d times, want once:\n%s", n, said.String())
	}
}
