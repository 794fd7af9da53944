package network

import (
	"errors"
	"net/netip"
	"testing"
)

func TestPoolHandsOutInOrderAndReusesLast(t *testing.T) {
	p := newPool(netip.MustParsePrefix("10.244.3.0/29"), netip.Addr{}) // .0 network, .1 gateway, .7 broadcast
	take := func(want string) {
		t.Helper()
		got, err := p.next()
		if err != nil || got.String() != want {
			t.Errorf("address %s, %v; want %s", got, err, want)
		}
	}
	take("10.244.3.2")
	take("10.244.3.3")
	p.release(netip.MustParseAddr("10.244.3.2"))
	take("10.244.3.4")
	take("10.244.3.5")
	take("10.244.3.6")
	take("10.244.3.2")
	if _, err := p.next(); !errors.Is(err, ErrNoAddress) {
		t.Errorf("a sixth address: %v", err)
	}
	p.release(netip.MustParseAddr("10.244.3.4"))
	take("10.244.3.4")
}

func TestPoolGoesOnAfterRestart(t *testing.T) {
	p := newPool(netip.MustParsePrefix("10.244.3.0/24"), netip.MustParseAddr("10.244.3.9"))
	for _, c := range []struct {
		addr string
		want bool
	}{{"10.244.3.10", true}, {"10.244.3.10", false}, {"10.244.3.1", false}, {"10.244.3.255", false}, {"10.244.4.5", false}} {
		if got := p.take(netip.MustParseAddr(c.addr)); got != c.want {
			t.Errorf("take %s: %t, want %t", c.addr, got, c.want)
		}
	}
	if got, err := p.next(); err != nil || got.String() != "10.244.3.11" {
		t.Errorf("next is %s, %v; want 10.244.3.11", got, err)
	}
}
