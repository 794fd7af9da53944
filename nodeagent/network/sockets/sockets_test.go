package sockets

import (
	"context"
	"errors"
	"net"
	"testing"
	"time"

	"github.com/slipway-dev/slipway/nodeagent/network/networktest"
	"github.com/slipway-dev/slipway/testing/need"
)

func TestMain(m *testing.M) { networktest.Main(m) }

const here = "/proc/self/ns/net"

// passes says whether wait returns nil; it is given long enough to look many times.
func passes(t *testing.T, wait func(context.Context, string) error) bool {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	err := wait(ctx, here)
	if err != nil && !errors.Is(err, context.DeadlineExceeded) {
		t.Fatal(err)
	}
	return err == nil
}

func TestAcceptedWaitsForTheProgram(t *testing.T) {
	need.Root(t)
	for _, address := range []string{"127.0.0.1:0", "[::1]:0", ":0"} {
		listener, err := net.Listen("tcp", address)
		if err != nil {
			t.Fatal(err)
		}
		defer listener.Close()
		if !passes(t, Accepted) {
			t.Fatalf("%s: waits although nobody called", address)
		}
		caller, err := net.Dial("tcp", listener.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		defer caller.Close()
		if passes(t, Accepted) {
			t.Fatalf("%s: does not wait for the program to accept", address)
		}
		accepted, err := listener.Accept()
		if err != nil {
			t.Fatal(err)
		}
		defer accepted.Close()
		if !passes(t, Accepted) {
			t.Fatalf("%s: waits although the program accepted", address)
		}
	}
}

func TestSentWaitsForTheReader(t *testing.T) {
	need.Root(t)
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close()
	reader, err := net.Dial("tcp", listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer reader.Close()
	writer, err := listener.Accept()
	if err != nil {
		t.Fatal(err)
	}
	writer.(*net.TCPConn).SetWriteBuffer(8 << 20)
	writer.SetWriteDeadline(time.Now().Add(100 * time.Millisecond)) // more than both buffers hold
	writer.Write(make([]byte, 32<<20))
	writer.Close()
	if passes(t, Sent) {
		t.Fatal("does not wait for what was written and not read")
	}
	go func() {
		buf := make([]byte, 1<<20)
		for {
			if _, err := reader.Read(buf); err != nil {
				return
			}
		}
	}()
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	if err := Sent(ctx, here); err != nil {
		t.Error(err)
	}
}
