// Package recipe turns one container of a Pod into what an engine takes: command, environment, resources, security,
// mounts, and the files every container finds in /etc.
//
// It is pure: objects and host paths come in, values go out. It must not read files, fetch objects or run anything.
package recipe

import (
	"cmp"
	"path"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"

	"github.com/slipway-dev/slipway/nodeagent/engine"
	"github.com/slipway-dev/slipway/nodeagent/network"
	"github.com/slipway-dev/slipway/nodeagent/volume/downward"
)

// Input is all a container depends on.
type Input struct {
	Self      downward.Self
	Container corev1.Container
	ID        string
	Labels    map[string]string
	Image     string // reference of the present image
	LogPath   string
	Cgroup    string // the cgroup that holds all Pods: "/slipway"
	Sandbox   network.Sandbox
	Objects   Objects
	Mounts    []engine.Mount // volumes of the container, by host path
	Files     []engine.Mount // hosts, resolv.conf, termination log, /dev/shm: a volume on the same path wins
	Services  []*corev1.Service
	Hostname  string
	Cluster   Cluster
	// NodeMemory is the node's capacity in bytes, for the score by which the kernel picks whom to kill.
	NodeMemory int64
}

// Cluster is what every Pod is told of the cluster.
type Cluster struct {
	Domain  string // "cluster.local"
	DNS     string // address of the cluster's name server; empty: none
	APIHost string // used while Service default/kubernetes is not known
	APIPort int32
}

// Container returns the container to create. An error is one of configuration: a missing object or key.
func Container(in Input) (engine.Container, error) {
	env, err := Env(in)
	if err != nil {
		return engine.Container{}, err
	}
	pod, c := in.Self.Pod, in.Container
	values := lookup(env)
	out := engine.Container{
		ID: in.ID, Labels: in.Labels, Group: string(pod.UID), Image: in.Image, LogPath: in.LogPath,
		Command: expandAll(c.Command, values), Args: expandAll(c.Args, values), Env: env, WorkDir: c.WorkingDir,
		Stdin: c.Stdin, TTY: c.TTY,
		Namespaces: engine.Namespaces{Network: in.Sandbox.NetNS, IPC: in.Sandbox.IPC, UTS: in.Sandbox.UTS},
		Mounts:     mounts(in.Mounts, in.Files),
		Cgroup:     path.Join(in.Cgroup, CgroupOf(pod)),
		Resources:  resources(pod, c, in.NodeMemory),
		Security:   security(pod, c),
	}
	if pod.Spec.HostPID {
		out.Namespaces.PID = "host"
	}
	if c.Lifecycle != nil && c.Lifecycle.StopSignal != nil {
		out.StopSignal = string(*c.Lifecycle.StopSignal)
	}
	return out, nil
}

// mounts puts volumes and files together, outer paths before those inside them.
func mounts(volumes, files []engine.Mount) []engine.Mount {
	out := slices.Clone(volumes)
	for _, f := range files {
		if !slices.ContainsFunc(volumes, func(m engine.Mount) bool { return path.Clean(m.Target) == f.Target }) {
			out = append(out, f)
		}
	}
	slices.SortStableFunc(out, func(a, b engine.Mount) int {
		return cmp.Or(strings.Count(path.Clean(a.Target), "/")-strings.Count(path.Clean(b.Target), "/"), cmp.Compare(a.Target, b.Target))
	})
	return out
}

// Propagation returns the engine's word for how mounts travel between a container and the node.
func Propagation(mode *corev1.MountPropagationMode) string {
	if mode == nil {
		return ""
	}
	switch *mode {
	case corev1.MountPropagationHostToContainer:
		return "rslave"
	case corev1.MountPropagationBidirectional:
		return "rshared"
	}
	return ""
}

// Hostname returns the host name of a Pod and its fully qualified one, empty without a subdomain.
func Hostname(pod *corev1.Pod, domain string) (name, full string) {
	name = pod.Spec.Hostname
	if name == "" {
		name = pod.Name
		if len(name) > 63 {
			name = strings.TrimRight(name[:63], "-.")
		}
	}
	if pod.Spec.Subdomain != "" {
		full = name + "." + pod.Spec.Subdomain + "." + pod.Namespace + ".svc." + domain
		if pod.Spec.SetHostnameAsFQDN != nil && *pod.Spec.SetHostnameAsFQDN {
			return full, full
		}
	}
	return name, full
}
