package network

import (
	"context"
	"errors"
	"fmt"
	"hash/fnv"
	"net"
	"net/netip"
	"os"
	"path/filepath"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

const onHost = "host"

// Setup makes the sandbox, or finds it as it is.
func (n *node) Setup(ctx context.Context, pod Pod) (Sandbox, error) {
	if err := errors.Join(checkID(pod.ID), checkPorts(pod.HostPorts)); err != nil {
		return Sandbox{}, err
	}
	defer n.lock(pod.ID)()
	if err := ctx.Err(); err != nil {
		return Sandbox{}, err
	}
	old, ok := n.records.load(pod.ID)
	if ok && n.whole(old) {
		return n.sandbox(old)
	}
	if ok { // half made, or of before a reboot: made again, with its address
		if err := errors.Join(n.clear(old), n.removeLink(vethName(pod.ID))); err != nil {
			return Sandbox{}, err
		}
	}
	rec := record{Pod: pod, Address: old.Address}
	if err := n.make(&rec); err != nil {
		return Sandbox{}, errors.Join(fmt.Errorf("set up sandbox %s: %w", pod.ID, err), n.remove(rec))
	}
	return n.sandbox(rec)
}

// Find returns the sandbox as it is.
func (n *node) Find(id string) (Sandbox, bool) {
	if checkID(id) != nil {
		return Sandbox{}, false
	}
	defer n.lock(id)()
	rec, ok := n.records.load(id)
	if !ok || !n.whole(rec) {
		return Sandbox{}, false
	}
	box, err := n.sandbox(rec)
	return box, err == nil
}

// Teardown removes the sandbox. What holds its namespaces open keeps them, without a way out.
func (n *node) Teardown(_ context.Context, id string) error {
	if err := checkID(id); err != nil {
		return err
	}
	defer n.lock(id)()
	rec, ok := n.records.load(id)
	if !ok {
		rec = record{Pod: Pod{ID: id}}
	}
	if err := n.remove(rec); err != nil {
		return fmt.Errorf("tear down sandbox %s: %w", id, err)
	}
	return nil
}

// List returns the ids of all sandboxes, sorted.
func (n *node) List(context.Context) ([]string, error) { return n.records.ids() }

// make sets up everything rec asks for. The record comes first, so that nothing made is ever forgotten.
func (n *node) make(rec *record) error {
	pod := rec.Pod
	if !pod.HostNetwork {
		if err := n.reserve(rec); err != nil {
			return err
		}
		n.cfg.did("reserve an address")
	}
	rec.Making = true
	if err := n.records.save(*rec); err != nil {
		return err
	}
	n.cfg.did("record")
	pins := n.pins(pod)
	if pins.net != "" || pins.ipc != "" {
		inside, err := pins.create()
		if inside != nil {
			defer inside.Close()
		}
		if err != nil {
			return err
		}
		if inside != nil {
			if err := n.attach(*rec, pins.net, inside); err != nil {
				return err
			}
		}
	}
	if !pod.HostIPC {
		if err := mountShm(n.records.path(pod.ID, "shm")); err != nil {
			return err
		}
		n.cfg.did("mount shm")
	}
	if err := n.openPorts(*rec); err != nil {
		return err
	}
	n.cfg.did("open ports")
	rec.Making = false
	return n.records.save(*rec)
}

// reserve gives rec an address, its earlier one where it has one.
func (n *node) reserve(rec *record) error {
	n.mu.Lock()
	defer n.mu.Unlock()
	if rec.Address.IsValid() && n.cfg.PodCIDR.Contains(rec.Address) {
		n.pool.take(rec.Address)
		return nil
	}
	addr, err := n.pool.next()
	if err != nil {
		return err
	}
	rec.Address = addr
	return replaceFile(n.lastFile(), []byte(addr.String()))
}

// remove undoes make, whatever part of it was done.
func (n *node) remove(rec record) error {
	if err := n.clear(rec); err != nil {
		return err
	}
	if err := os.RemoveAll(n.records.path(rec.Pod.ID)); err != nil {
		return err
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	if rec.Address.IsValid() {
		n.pool.release(rec.Address)
	}
	return nil
}

// clear takes a sandbox off the host and leaves its record. The link goes with the network namespace, when its last
// process has ended: the kernel removes many at once far faster than one after the other. Until then nothing passes
// it, because no route leads to it.
func (n *node) clear(rec record) error {
	id := rec.Pod.ID
	if rec.Address.IsValid() {
		err := n.links.RouteDel(&netlink.Route{Dst: host(rec.Address), Scope: netlink.SCOPE_LINK})
		if err != nil && !errors.Is(err, unix.ESRCH) {
			return fmt.Errorf("remove the route to %s: %w", rec.Address, err)
		}
		n.cfg.did("remove the route")
		if err := n.closePorts(rec); err != nil {
			return err
		}
		n.cfg.did("close ports")
	}
	for _, name := range []string{"net", "ipc", "uts", "shm"} {
		if err := unmount(n.records.path(id, name)); err != nil {
			return err
		}
		n.cfg.did("unmount " + name)
	}
	return nil
}

// whole says whether everything rec asks for is there.
func (n *node) whole(rec record) bool {
	if rec.Making {
		return false
	}
	pins := n.pins(rec.Pod)
	for _, path := range []string{pins.net, pins.ipc, pins.uts} {
		if path != "" && !pinned(path) {
			return false
		}
	}
	if pins.net != "" {
		if _, err := net.InterfaceByName(vethName(rec.Pod.ID)); err != nil || !rec.Address.IsValid() {
			return false
		}
	}
	return rec.Pod.HostIPC || isTmpfs(n.records.path(rec.Pod.ID, "shm"))
}

func (n *node) pins(pod Pod) namespaces {
	pins := namespaces{hostname: pod.Hostname, did: n.cfg.did}
	if !pod.HostNetwork {
		pins.net, pins.uts = n.records.path(pod.ID, "net"), n.records.path(pod.ID, "uts")
	}
	if !pod.HostIPC {
		pins.ipc = n.records.path(pod.ID, "ipc")
	}
	return pins
}

func (n *node) sandbox(rec record) (Sandbox, error) {
	pins, addr := n.pins(rec.Pod), rec.Address
	if rec.Pod.HostNetwork {
		var err error
		if addr, err = n.nodeAddress(); err != nil {
			return Sandbox{}, err
		}
	}
	box := Sandbox{NetNS: pins.net, IPC: pins.ipc, UTS: pins.uts, IP: addr.String(), Shm: filepath.Join(n.records.path(rec.Pod.ID), "shm")}
	if rec.Pod.HostNetwork {
		box.NetNS, box.UTS = onHost, onHost
	}
	if rec.Pod.HostIPC {
		box.IPC, box.Shm = onHost, "/dev/shm"
	}
	return box, nil
}

func (n *node) nodeAddress() (netip.Addr, error) {
	if n.cfg.NodeIP.IsValid() {
		return n.cfg.NodeIP, nil
	}
	return outwardAddress()
}

// lock makes calls for one sandbox take turns. It returns the unlock function.
func (n *node) lock(id string) func() {
	sum := fnv.New32a()
	sum.Write([]byte(id))
	turn := &n.turns[sum.Sum32()%uint32(len(n.turns))]
	turn.Lock()
	return turn.Unlock
}
