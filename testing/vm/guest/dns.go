package main

import (
	"context"
	"fmt"
	"net"
	"time"
)

// watchDNS asks server for name every 20 ms for so long, and prints the longest time without an answer.
func watchDNS(server, name, duration string) error {
	d, err := time.ParseDuration(duration)
	if err != nil {
		return err
	}
	resolver := &net.Resolver{PreferGo: true, Dial: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return (&net.Dialer{}).DialContext(ctx, "udp", server)
	}}
	begin := time.Now()
	last, longest, answers := begin, time.Duration(0), 0
	for time.Since(begin) < d {
		ctx, cancel := context.WithTimeout(context.Background(), 100*time.Millisecond)
		_, err := resolver.LookupNetIP(ctx, "ip4", name)
		cancel()
		if err == nil {
			answers++
			longest = max(longest, time.Since(last))
			last = time.Now()
		}
		time.Sleep(20 * time.Millisecond)
	}
	longest = max(longest, time.Since(last))
	if answers == 0 {
		return fmt.Errorf("%s never answered", server)
	}
	fmt.Println(longest.Round(time.Millisecond))
	return nil
}
