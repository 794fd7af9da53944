package main

import (
	"net"
	"path/filepath"
	"testing"
)

func TestTellSystemd(t *testing.T) {
	for name, socket := range map[string]string{"a file": filepath.Join(t.TempDir(), "notify"), "an abstract name": "@slipway-test-" + t.Name()} {
		t.Run(name, func(t *testing.T) {
			conn, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: socket, Net: "unixgram"})
			if err != nil {
				t.Fatal(err)
			}
			defer conn.Close()
			t.Setenv(notifyEnv, socket)
			if err := tellSystemd("READY=1"); err != nil {
				t.Fatal(err)
			}
			got := make([]byte, 100)
			n, err := conn.Read(got)
			if err != nil || string(got[:n]) != "READY=1" {
				t.Errorf("systemd hears %q (%v), want READY=1", got[:n], err)
			}
		})
	}
	t.Setenv(notifyEnv, "")
	if err := tellSystemd("READY=1"); err != nil {
		t.Errorf("by hand: %v", err)
	}
	t.Setenv(notifyEnv, filepath.Join(t.TempDir(), "nobody"))
	if err := tellSystemd("READY=1"); err == nil {
		t.Error("nobody listens, and that is no error")
	}
}
