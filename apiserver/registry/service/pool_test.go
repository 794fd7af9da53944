package service

import (
	"net/netip"
	"strings"
	"testing"
)

func TestPoolPrefersTheUpperBand(t *testing.T) {
	p, err := NewPool(netip.MustParsePrefix("10.96.0.0/24"), [2]int32{30000, 30099})
	if err != nil {
		t.Fatal(err)
	}
	taken := map[string]bool{}
	for i := range 238 { // 16…254 less the network's lower band
		ip, ok := p.newIP(taken)
		if !ok || strings.HasPrefix(ip, "10.96.0.1") && len(ip) < len("10.96.0.16") {
			t.Fatalf("address %d: %s %t, want one of the upper band", i, ip, ok)
		}
		taken[claimIP+ip] = true
	}
	for i := range 15 { // then what is left
		if ip, ok := p.newIP(taken); !ok {
			t.Fatalf("address %d of the lower band: none", i)
		} else {
			taken[claimIP+ip] = true
		}
	}
	if ip, ok := p.newIP(taken); ok {
		t.Errorf("a full range gave %s", ip)
	}
	for _, bad := range []string{"10.0.0.0/30", "fd00::/112", "0.0.0.0/0"} {
		if _, err := NewPool(netip.MustParsePrefix(bad), [2]int32{1, 2}); err == nil {
			t.Errorf("%s was accepted", bad)
		}
	}
}
