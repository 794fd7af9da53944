// Package network gives every Pod of a node its namespaces and an address: network, IPC and UTS namespaces pinned
// under the agent's run directory, a routed link of its own to the node, and masquerading, all programmed in-process.
//
// It must not know API objects or containers.
package network

import "context"

// Network owns the Pods' namespaces and addresses on one node. What it set up is found again after a restart.
type Network interface {
	// Setup makes (or finds) the sandbox of a Pod. It is idempotent: the same id keeps its address.
	Setup(ctx context.Context, pod Pod) (Sandbox, error)
	// Find returns the sandbox of an id as it is; ok is false where there is none, or not a whole one.
	Find(id string) (_ Sandbox, ok bool)
	// Teardown removes a sandbox; removing what does not exist is no error.
	Teardown(ctx context.Context, id string) error
	// List returns the ids of all sandboxes, sorted.
	List(ctx context.Context) ([]string, error)
	// Close removes what List does not show: bridge, rules, forwarding, put back as they were before. Pods must
	// be gone.
	Close(ctx context.Context) error
}

// Pod is what a sandbox is made for.
type Pod struct {
	ID          string // Pod UID
	Hostname    string
	HostNetwork bool // no network namespace and no address of its own
	HostIPC     bool
	HostPorts   []HostPort
}

// HostPort leads a port of the node to a Pod.
type HostPort struct {
	HostIP   string // empty: all addresses
	HostPort uint16
	PodPort  uint16
	Protocol string // "TCP", "UDP"
}

// Sandbox is where a Pod's containers run.
type Sandbox struct {
	NetNS string // path; "host" with HostNetwork
	IPC   string // path; "host" with HostIPC
	UTS   string // path; "host" with HostNetwork
	IP    string // the Pod's IPv4 address; the node's with HostNetwork
	Shm   string // directory with the shared /dev/shm, to bind into every container
}
