package dns

import (
	"net/netip"
	"os"
	"slices"
	"strings"
)

const (
	// systemdStub is the resolver of systemd on the loopback address, which Pods cannot reach. The resolvers behind it
	// are in systemdResolvConf.
	systemdStub       = "127.0.0.53"
	systemdResolvConf = "/run/systemd/resolve/resolv.conf"
)

// HostResolvConf returns the text of the host's resolv.conf at path (/etc/resolv.conf). Where that names only the
// resolver of systemd on the loopback address, it is the file systemd keeps of the resolvers behind it.
func HostResolvConf(path string) ([]byte, error) {
	text, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	servers := nameservers(text)
	if len(servers) == 0 || slices.ContainsFunc(servers, func(s netip.Addr) bool { return s.String() != systemdStub }) {
		return text, nil
	}
	if behind, err := os.ReadFile(systemdResolvConf); err == nil && len(nameservers(behind)) > 0 {
		return behind, nil
	}
	return text, nil
}

// nameservers returns the resolvers a resolv.conf names.
func nameservers(text []byte) []netip.Addr {
	var servers []netip.Addr
	for line := range strings.Lines(string(text)) {
		words := strings.Fields(line)
		if len(words) < 2 || words[0] != "nameserver" {
			continue
		}
		if addr, err := netip.ParseAddr(words[1]); err == nil && !slices.Contains(servers, addr) {
			servers = append(servers, addr)
		}
	}
	return servers
}
