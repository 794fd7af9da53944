package dns

import (
	"errors"
	"net"
	"time"
)

// Pauses after a connection could not be taken.
const (
	firstPause = 5 * time.Millisecond
	lastPause  = time.Second
)

// patient is a listener that pauses while the process has no file descriptor left: the server would try again at
// once, for ever.
type patient struct{ net.Listener }

// Accept returns the next connection, or net.ErrClosed.
func (p patient) Accept() (net.Conn, error) {
	for pause := firstPause; ; pause = min(2*pause, lastPause) {
		conn, err := p.Listener.Accept()
		if err == nil || errors.Is(err, net.ErrClosed) {
			return conn, err
		}
		time.Sleep(pause)
	}
}
