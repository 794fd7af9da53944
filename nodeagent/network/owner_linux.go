package network

import (
	"errors"
	"fmt"

	"github.com/vishvananda/netlink"
)

// defaultDevice holds the gateway address. There is one on a host, and so is there one Pod network.
const defaultDevice = "slipway0"

// maxAlias is how long the kernel lets a link's alias be.
const maxAlias = 255

// CheckOwner returns ErrOwned, naming whose it is, when the network of this host is not owner's. Two that shared
// device, addresses and rules would take each other's Pods off the network. An empty device is the default one, an
// empty owner does not ask. A network that nobody has written a name on is free.
func CheckOwner(device, owner string) error {
	if device == "" {
		device = defaultDevice
	}
	link, err := netlink.LinkByName(device)
	if errors.As(err, new(netlink.LinkNotFoundError)) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("find %s: %w", device, err)
	}
	return ownedBy(link, owner)
}

func ownedBy(link netlink.Link, owner string) error {
	if has := link.Attrs().Alias; owner != "" && has != "" && has != alias(owner) {
		return fmt.Errorf("%w %s (see `ip link show %s`)", ErrOwned, has, link.Attrs().Name)
	}
	return nil
}

// own writes the owner's name on the device.
func (n *node) own(device netlink.Link) error {
	if err := ownedBy(device, n.cfg.Owner); err != nil || n.cfg.Owner == "" {
		return err
	}
	if err := n.links.LinkSetAlias(device, alias(n.cfg.Owner)); err != nil {
		return fmt.Errorf("write the owner on %s: %w", n.cfg.Device, err)
	}
	return nil
}

func alias(owner string) string { return owner[:min(len(owner), maxAlias)] }
