package chaos

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/google/nftables"
	"github.com/vishvananda/netlink"
)

// census is what Slipway has on this host, by kind.
type census map[string][]string

// compare returns what there is more of than before, nil if nothing. A containerd that was killed has forgotten what
// ended, so there may be less.
func (c census) compare(now census) error {
	var errs []error
	for kind := range now {
		if len(c[kind]) < len(now[kind]) {
			errs = append(errs, fmt.Errorf("%s: %d before, now %d\n\t%s", kind, len(c[kind]), len(now[kind]), strings.Join(now[kind], "\n\t")))
		}
	}
	return errors.Join(errs...)
}

func (c census) add(kind, name string) { c[kind] = append(c[kind], name) }

func (s *storm) census() census {
	s.Helper()
	count := census{}
	links, err := netlink.LinkList()
	if err != nil {
		s.Fatal(err)
	}
	for _, link := range links {
		count.add("links of type "+link.Type(), link.Attrs().Name)
	}
	routes, err := netlink.RouteList(nil, netlink.FAMILY_V4)
	if err != nil {
		s.Fatal(err)
	}
	for _, route := range routes {
		count.add("routes", route.String())
	}
	s.countMounts(count)
	s.countFilter(count)
	for _, p := range processes(s.T) {
		if strings.Contains(p.command, s.slipway.Data) || strings.Contains(p.command, "/run/slipway") {
			count.add("processes "+filepath.Base(p.program), p.command)
		}
	}
	for kind, pattern := range map[string]string{
		"Pods' logs":        "/var/log/pods/*/*",
		"Pods' folders":     s.slipway.Data + "/pods/*",
		"engine records":    s.slipway.Data + "/engine/*/*",
		"tasks":             "/run/slipway*/*/state/io.containerd.runtime.v2.task/*/*",
		"snapshots":         s.slipway.Data + "/containerd/*/io.containerd.snapshotter.v1.overlayfs/snapshots/*",
		"run files":         "/run/slipway*/*/*",
		"control groups":    "/sys/fs/cgroup/*/" + s.slipway.Cgroup() + "/*/pod*",
		"control groups v2": "/sys/fs/cgroup/" + s.slipway.Cgroup() + "/*/pod*",
	} {
		paths, err := filepath.Glob(pattern)
		if err != nil {
			s.Fatal(err)
		}
		count[kind] = paths
	}
	return count
}

func (s *storm) countMounts(count census) {
	text, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		s.Fatal(err)
	}
	for lines := bufio.NewScanner(bytes.NewReader(text)); lines.Scan(); {
		front, back, _ := strings.Cut(lines.Text(), " - ")
		if point := strings.Fields(front)[4]; strings.HasPrefix(point, s.slipway.Data) || strings.HasPrefix(point, "/run/slipway") {
			count.add("mounts of type "+strings.Fields(back)[0], point)
		}
	}
}

func (s *storm) countFilter(count census) {
	conn, err := nftables.New()
	if err != nil {
		s.Fatal(err)
	}
	tables, err := conn.ListTables()
	if err != nil {
		s.Fatal(err)
	}
	chains, err := conn.ListChains()
	if err != nil {
		s.Fatal(err)
	}
	for _, chain := range chains {
		if strings.HasPrefix(chain.Name, "choose-") {
			continue // one for each number of backends there ever was
		}
		rules, err := conn.GetRules(chain.Table, chain)
		if err != nil {
			s.Fatal(err)
		}
		count.add("packet filter chains", chain.Name)
		for _, rule := range rules {
			count.add("packet filter rules", fmt.Sprint(chain.Name, rule.Handle))
		}
	}
	for _, table := range tables {
		sets, err := conn.GetSets(table)
		if err != nil {
			s.Fatal(err)
		}
		for _, set := range sets {
			if set.Dynamic || set.Anonymous || set.Name == "choose" { // it remembers flows, is part of a rule, leads to the chains above
				continue
			}
			elements, err := conn.GetSetElements(set)
			if err != nil {
				s.Fatal(err)
			}
			for _, element := range elements {
				count.add("packet filter set "+set.Name, fmt.Sprintf("%x", element.Key))
			}
		}
	}
}

type process struct {
	pid              int
	program, command string
}

// processes returns the processes in this network namespace.
func processes(t *testing.T) []process {
	home, err := os.Readlink("/proc/self/ns/net")
	if err != nil {
		t.Fatal(err)
	}
	paths, err := filepath.Glob("/proc/[0-9]*")
	if err != nil {
		t.Fatal(err)
	}
	var found []process
	for _, path := range paths {
		pid, err := strconv.Atoi(filepath.Base(path))
		if err != nil {
			t.Fatal(err)
		}
		namespace, _ := os.Readlink(filepath.Join(path, "ns", "net")) // "" of a process that has ended
		text, err := os.ReadFile(filepath.Join(path, "cmdline"))
		if err != nil || namespace != home || len(text) == 0 {
			continue
		}
		program, _, _ := bytes.Cut(text, []byte{0})
		found = append(found, process{pid, string(program), string(bytes.ReplaceAll(text, []byte{0}, []byte{' '}))})
	}
	return found
}
