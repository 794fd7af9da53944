package dns

import (
	"errors"
	"net"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/sys/unix"
)

// exhausted is a listener without file descriptors for a while.
type exhausted struct {
	net.Listener
	until time.Time
	tries int
}

func (e *exhausted) Accept() (net.Conn, error) {
	if e.tries++; time.Now().Before(e.until) {
		return nil, &net.OpError{Op: "accept", Err: unix.EMFILE}
	}
	return nil, net.ErrClosed
}

func TestAcceptPausesWithoutDescriptors(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e := &exhausted{until: time.Now().Add(time.Minute)}
		if _, err := (patient{e}).Accept(); !errors.Is(err, net.ErrClosed) {
			t.Error(err)
		}
		if e.tries > 80 {
			t.Errorf("tried %d times in a minute", e.tries)
		}
	})
}
