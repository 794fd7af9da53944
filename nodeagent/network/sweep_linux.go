package network

import (
	"errors"
	"fmt"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// sweepPeriod is how often the node looks for links that belong to no sandbox.
const sweepPeriod = 30 * time.Second

// sweepLinks removes the links to Pods that had no sandbox at the last look, stray, and have none now. It returns
// those to look at again. The record of a sandbox is there before its link, so that one being made is never among
// them; and going by index, a link made anew under the old name is not taken for the old one.
func (n *node) sweepLinks(stray map[int]string) (map[int]string, error) {
	links, err := n.links.LinkList()
	if err != nil {
		return nil, fmt.Errorf("list links: %w", err)
	}
	ids, err := n.records.ids()
	if err != nil {
		return nil, err
	}
	known := map[string]bool{}
	for _, id := range ids {
		known[vethName(id)] = true
	}
	next := map[int]string{}
	for _, link := range links {
		index, name := link.Attrs().Index, link.Attrs().Name
		if link.Type() != "veth" || !strings.HasPrefix(name, vethPrefix) || known[name] {
			continue
		}
		if stray[index] != name {
			next[index] = name
			continue
		}
		n.cfg.Log.Info("remove a link without a Pod", "link", name)
		if err := n.links.LinkDel(link); err != nil && !errors.Is(err, unix.ENODEV) {
			return nil, fmt.Errorf("remove %s: %w", name, err)
		}
	}
	return next, nil
}
