package cluster

import (
	"bufio"
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/google/nftables"
	"github.com/vishvananda/netlink"
)

// Leftovers lists what a Slipway on this data directory should have removed from the host: mounts, processes, links,
// packet filter tables, run directories, Pods' logs and control groups.
func Leftovers(data string) []string {
	var found []string
	found = append(found, mounts(data)...)
	found = append(found, processes(data)...)
	if links, err := netlink.LinkList(); err == nil {
		for _, link := range links {
			if name := link.Attrs().Name; strings.HasPrefix(name, "slipway") || strings.HasPrefix(name, "slw") {
				found = append(found, "link "+name)
			}
		}
	}
	if conn, err := nftables.New(); err == nil {
		tables, err := conn.ListTables()
		if err == nil {
			for _, table := range tables {
				found = append(found, "packet filter table "+table.Name)
			}
		}
	}
	for _, pattern := range []string{"/run/slipway*/*", "/var/log/pods/*"} {
		paths, _ := filepath.Glob(pattern) // the pattern is well-formed
		found = append(found, paths...)
	}
	if text, err := os.ReadFile("/proc/sys/net/ipv4/ip_forward"); err == nil && strings.TrimSpace(string(text)) != "0" {
		found = append(found, "net.ipv4.ip_forward is "+strings.TrimSpace(string(text)))
	}
	return found
}

func mounts(data string) []string {
	text, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		return []string{err.Error()}
	}
	var found []string
	lines := bufio.NewScanner(bytes.NewReader(text))
	for lines.Scan() {
		fields := strings.Fields(lines.Text())
		if len(fields) > 4 && (strings.HasPrefix(fields[4], data) || strings.HasPrefix(fields[4], "/run/slipway")) {
			found = append(found, "mount "+fields[4])
		}
	}
	return found
}

// processes finds what was started with the data directory or its hash on the command line.
func processes(data string) []string {
	paths, _ := filepath.Glob("/proc/[0-9]*/cmdline") // the pattern is well-formed
	var found []string
	for _, path := range paths {
		text, err := os.ReadFile(path)
		if err != nil || !bytes.Contains(text, []byte(data)) {
			continue
		}
		command := strings.TrimSpace(string(bytes.ReplaceAll(text, []byte{0}, []byte{' '})))
		found = append(found, fmt.Sprintf("process %s: %s", filepath.Base(filepath.Dir(path)), command))
	}
	return found
}
