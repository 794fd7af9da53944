// Package sockets waits for TCP connections of a network namespace that belong to the kernel alone, before and after a
// program has them: those no program has accepted yet, which are reset when it stops listening, and those whose program
// has ended while its last words are on their way, which are lost with the namespace.
//
// It must not change them.
package sockets

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"
)

const (
	glance = 2 * time.Millisecond // between looks
	// deaf is how often a peer was repeated to, at 200 ms and twice as long each time, before it counts as gone.
	deaf = 4
)

// TCP states of include/net/tcp_states.h.
const (
	synReceived = 3
	finWait1    = 4
	lastAck     = 9
	listening   = 10
	closing     = 11
)

// Accepted returns when every connection that has reached the namespace at path was accepted by a program in it.
func Accepted(ctx context.Context, path string) error {
	return until(ctx, path, func(s *netlink.Socket) bool {
		return s.State == synReceived || s.State == listening && s.RQueue > 0
	})
}

// Sent returns when everything that programs wrote before they closed their connections has reached the other end,
// or that end does not answer.
func Sent(ctx context.Context, path string) error {
	return until(ctx, path, func(s *netlink.Socket) bool {
		return (s.State == finWait1 || s.State == lastAck || s.State == closing) && s.Retrans < deaf
	})
}

// until looks again and again until no socket is unfinished.
func until(ctx context.Context, path string, unfinished func(*netlink.Socket) bool) error {
	ns, err := netns.GetFromPath(path)
	if err != nil {
		return fmt.Errorf("open network namespace %s: %w", path, err)
	}
	defer ns.Close()
	handle, err := netlink.NewHandleAt(ns, unix.NETLINK_INET_DIAG)
	if err != nil {
		return fmt.Errorf("ask network namespace %s: %w", path, err)
	}
	defer handle.Close()
	for {
		left, err := count(handle, unfinished)
		if err != nil {
			return fmt.Errorf("list sockets of %s: %w", path, err)
		}
		if left == 0 {
			return nil
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("%d connections: %w", left, ctx.Err())
		case <-time.After(glance):
		}
	}
}

func count(handle *netlink.Handle, unfinished func(*netlink.Socket) bool) (left int, err error) {
	for _, family := range []uint8{unix.AF_INET, unix.AF_INET6} {
		all, err := handle.SocketDiagTCP(family)
		if err != nil && !errors.Is(err, netlink.ErrDumpInterrupted) {
			return 0, err
		}
		for _, s := range all {
			if unfinished(s) {
				left++
			}
		}
	}
	return left, nil
}
