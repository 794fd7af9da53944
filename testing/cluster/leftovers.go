package cluster

import (
	"bufio"
	"bytes"
	"crypto/sha256"
	"encoding/hex"
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
	cgroups := cgroupName(data)
	for _, pattern := range []string{"/run/slipway*/*", "/var/log/pods/*", "/sys/fs/cgroup/" + cgroups, "/sys/fs/cgroup/*/" + cgroups} {
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

// Cgroup returns the name of the control group that holds all Pods.
func (s *Slipway) Cgroup() string { return cgroupName(s.Data) }

// cgroupName is the control group of the Pods of a data directory, as slipway names it.
func cgroupName(data string) string {
	sum := sha256.Sum256([]byte(data))
	return "slipway-" + hex.EncodeToString(sum[:4])
}

// processes finds what was started with the data directory on the command line, and shims, which have Slipway's run
// directory there, in this network namespace.
func processes(data string) []string {
	home, err := os.Readlink("/proc/self/ns/net")
	if err != nil {
		return []string{err.Error()}
	}
	paths, _ := filepath.Glob("/proc/[0-9]*/cmdline") // the pattern is well-formed
	var found []string
	for _, path := range paths {
		text, err := os.ReadFile(path)
		if err != nil {
			continue
		}
		dir := filepath.Dir(path)
		namespace, _ := os.Readlink(filepath.Join(dir, "ns", "net")) // "" of a process that has ended
		if !bytes.Contains(text, []byte(data)) && !(namespace == home && bytes.Contains(text, []byte("/run/slipway"))) {
			continue
		}
		command := strings.TrimSpace(string(bytes.ReplaceAll(text, []byte{0}, []byte{' '})))
		found = append(found, fmt.Sprintf("process %s: %s", filepath.Base(dir), command))
	}
	return found
}
