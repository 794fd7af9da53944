package recipe

import (
	"bufio"
	"bytes"
	"fmt"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
)

// Hosts returns the content of a Pod's /etc/hosts. Node is the node's own file, used with hostNetwork.
func Hosts(pod *corev1.Pod, ip, domain string, node []byte) []byte {
	var b bytes.Buffer
	if pod.Spec.HostNetwork {
		b.Write(node)
		if len(node) > 0 && node[len(node)-1] != '\n' {
			b.WriteByte('\n')
		}
	} else {
		b.WriteString("# Managed by Slipway.\n127.0.0.1\tlocalhost\n::1\tlocalhost ip6-localhost ip6-loopback\n")
		b.WriteString("fe00::0\tip6-localnet\nfe00::0\tip6-mcastprefix\nfe00::1\tip6-allnodes\nfe00::2\tip6-allrouters\n")
		name, full := Hostname(pod, domain)
		if full != "" && full != name {
			name = full + "\t" + name
		}
		fmt.Fprintf(&b, "%s\t%s\n", ip, name)
	}
	for _, alias := range pod.Spec.HostAliases {
		fmt.Fprintf(&b, "%s\t%s\n", alias.IP, strings.Join(alias.Hostnames, "\t"))
	}
	return b.Bytes()
}

// maxServers is how many name servers a resolver reads.
const maxServers = 3

// resolver is the content of a resolv.conf.
type resolver struct {
	servers, search, options []string
}

// ResolvConf returns the content of a Pod's /etc/resolv.conf. Node is the node's own file.
func ResolvConf(pod *corev1.Pod, cluster Cluster, node []byte) []byte {
	r := parseResolv(node)
	policy := pod.Spec.DNSPolicy
	switch {
	case policy == corev1.DNSNone:
		r = resolver{}
	case cluster.DNS == "", policy == corev1.DNSDefault, pod.Spec.HostNetwork && policy != corev1.DNSClusterFirstWithHostNet:
	default:
		domain := cluster.Domain
		r.servers = []string{cluster.DNS}
		r.search = append([]string{pod.Namespace + ".svc." + domain, "svc." + domain, domain}, r.search...)
		r.options = []string{"ndots:5"}
	}
	if c := pod.Spec.DNSConfig; c != nil {
		r.servers = append(r.servers, c.Nameservers...)
		r.search = append(r.search, c.Searches...)
		r.addOptions(c.Options)
	}
	return r.bytes()
}

func parseResolv(text []byte) resolver {
	var r resolver
	for s := bufio.NewScanner(bytes.NewReader(text)); s.Scan(); {
		f := strings.Fields(s.Text())
		if len(f) < 2 {
			continue
		}
		switch f[0] {
		case "nameserver":
			r.servers = append(r.servers, f[1])
		case "search", "domain":
			r.search = f[1:]
		case "options":
			r.options = append(r.options, f[1:]...)
		}
	}
	r.search = slices.DeleteFunc(slices.Clone(r.search), func(s string) bool { return s == "." })
	return r
}

// addOptions adds options; one of the same name replaces the one before.
func (r *resolver) addOptions(options []corev1.PodDNSConfigOption) {
	for _, o := range options {
		text := o.Name
		if o.Value != nil && *o.Value != "" {
			text += ":" + *o.Value
		}
		r.options = slices.DeleteFunc(slices.Clone(r.options), func(old string) bool {
			name, _, _ := strings.Cut(old, ":")
			return name == o.Name
		})
		r.options = append(r.options, text)
	}
}

func (r resolver) bytes() []byte {
	var b bytes.Buffer
	if search := unique(r.search); len(search) > 0 {
		fmt.Fprintf(&b, "search %s\n", strings.Join(search, " "))
	}
	servers := unique(r.servers)
	for _, s := range servers[:min(len(servers), maxServers)] {
		fmt.Fprintf(&b, "nameserver %s\n", s)
	}
	if options := unique(r.options); len(options) > 0 {
		fmt.Fprintf(&b, "options %s\n", strings.Join(options, " "))
	}
	return b.Bytes()
}

func unique(list []string) []string {
	var out []string
	for _, s := range list {
		if !slices.Contains(out, s) {
			out = append(out, s)
		}
	}
	return out
}
