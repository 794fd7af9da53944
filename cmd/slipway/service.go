package main

import (
	"fmt"
	"net"
	"os"
)

// notifyEnv names the socket on which systemd wants to hear when a service is ready (sd_notify(3)).
const notifyEnv = "NOTIFY_SOCKET"

// tellSystemd sends lines such as READY=1 to whom systemd named. Started by hand, there is nobody to tell.
func tellSystemd(state string) error {
	socket := os.Getenv(notifyEnv)
	if socket == "" {
		return nil
	}
	conn, err := net.DialUnix("unixgram", nil, &net.UnixAddr{Name: socket, Net: "unixgram"}) // a leading @ is an abstract name
	if err != nil {
		return fmt.Errorf("tell systemd: %w", err)
	}
	defer conn.Close()
	if _, err := conn.Write([]byte(state)); err != nil {
		return fmt.Errorf("tell systemd: %w", err)
	}
	return nil
}
