package registration

import (
	"bufio"
	"bytes"
	"fmt"
	"maps"
	"os"
	"runtime"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/slipway-dev/slipway/apiserver/api"
)

// Machine is what a node is.
type Machine struct {
	Name      string
	Hostname  string
	IPs       []string
	Labels    map[string]string // beside the well-known ones
	Info      corev1.NodeSystemInfo
	CPUMillis int64
	Memory    int64 // bytes
	Disk      int64 // bytes of the file system that holds the Pods' files
	Pods      int64
	Reserved  int64 // bytes of memory Pods cannot have
}

// Versions are what a Node says it runs.
type Versions struct {
	Agent   string // "v1.37.1+slipway.0.1"
	Runtime string // "containerd://2.4.2"
}

// memoryReserve is what the kubelet keeps free of memory before it evicts.
const memoryReserve = 100 << 20

// Local reads what this machine is. DataDir is on the file system that holds the Pods' files; versions are those of
// the agent and the container runtime, as the Node shows them.
func Local(name, dataDir string, versions Versions, maxPods int64) (Machine, error) {
	m := Machine{Name: name, CPUMillis: int64(runtime.NumCPU()) * 1000, Pods: maxPods, Reserved: memoryReserve}
	var uts unix.Utsname
	if err := unix.Uname(&uts); err != nil {
		return m, fmt.Errorf("read the machine's name: %w", err)
	}
	m.Hostname = unix.ByteSliceToString(uts.Nodename[:])
	var fs unix.Statfs_t
	if err := unix.Statfs(dataDir, &fs); err != nil {
		return m, fmt.Errorf("look at the file system of %s: %w", dataDir, err)
	}
	m.Disk = int64(fs.Blocks) * fs.Bsize
	memory, err := totalMemory()
	if err != nil {
		return m, err
	}
	m.Memory = memory
	bootID := firstLine("/proc/sys/kernel/random/boot_id")
	m.Info = corev1.NodeSystemInfo{
		MachineID: firstLine("/etc/machine-id"), SystemUUID: firstLine("/sys/class/dmi/id/product_uuid"), BootID: bootID,
		KernelVersion: unix.ByteSliceToString(uts.Release[:]), OSImage: osImage(), OperatingSystem: runtime.GOOS, Architecture: runtime.GOARCH,
		KubeletVersion: versions.Agent, ContainerRuntimeVersion: versions.Runtime,
	}
	return m, nil
}

func totalMemory() (int64, error) {
	text, err := os.ReadFile("/proc/meminfo")
	if err != nil {
		return 0, fmt.Errorf("read memory size: %w", err)
	}
	for s := bufio.NewScanner(bytes.NewReader(text)); s.Scan(); {
		if f := strings.Fields(s.Text()); len(f) >= 2 && f[0] == "MemTotal:" {
			kib, err := strconv.ParseInt(f[1], 10, 64)
			return kib << 10, err
		}
	}
	return 0, fmt.Errorf("read memory size: no MemTotal in /proc/meminfo")
}

func firstLine(path string) string {
	text, _ := os.ReadFile(path) // not every machine has it
	line, _, _ := strings.Cut(string(text), "\n")
	return strings.TrimSpace(line)
}

func osImage() string {
	text, _ := os.ReadFile("/etc/os-release")
	for s := bufio.NewScanner(bytes.NewReader(text)); s.Scan(); {
		if value, ok := strings.CutPrefix(s.Text(), "PRETTY_NAME="); ok {
			return strings.Trim(value, `"`)
		}
	}
	return "Linux"
}

// Capacity returns all the node has.
func (m Machine) Capacity() corev1.ResourceList {
	return corev1.ResourceList{
		corev1.ResourceCPU:              *resource.NewMilliQuantity(m.CPUMillis, resource.DecimalSI),
		corev1.ResourceMemory:           *resource.NewQuantity(m.Memory, resource.BinarySI),
		corev1.ResourceEphemeralStorage: *resource.NewQuantity(m.Disk, resource.BinarySI),
		corev1.ResourcePods:             *resource.NewQuantity(m.Pods, resource.DecimalSI),
	}
}

// Allocatable returns what Pods may ask for together.
func (m Machine) Allocatable() corev1.ResourceList {
	list := m.Capacity()
	list[corev1.ResourceMemory] = *resource.NewQuantity(max(m.Memory-m.Reserved, 0), resource.BinarySI)
	list[corev1.ResourceEphemeralStorage] = *resource.NewQuantity(m.Disk*9/10, resource.BinarySI)
	return list
}

func (m Machine) labels() map[string]string {
	out := map[string]string{corev1.LabelHostname: m.Name, corev1.LabelOSStable: runtime.GOOS, corev1.LabelArchStable: runtime.GOARCH}
	maps.Copy(out, m.Labels)
	return out
}

func (m Machine) object() *corev1.Node {
	node := api.Nodes.New().(*corev1.Node)
	node.Name, node.Labels = m.Name, m.labels()
	return node
}

// labelled returns old with the node's own labels, nil when it has them.
func (m Machine) labelled(old *corev1.Node) *corev1.Node {
	var next *corev1.Node
	for k, v := range m.labels() {
		if old.Labels[k] == v {
			continue
		}
		if next == nil {
			next = old.DeepCopy()
			if next.Labels == nil {
				next.Labels = map[string]string{}
			}
		}
		next.Labels[k] = v
	}
	return next
}

// health is how the node is at the moment.
type health struct {
	err      error
	pressure Pressure
	images   []corev1.ContainerImage
}

// status returns the node's status. Conditions of others and the times of conditions that did not change are kept.
func (m Machine) status(old *corev1.Node, h health, now time.Time) corev1.NodeStatus {
	out := *old.Status.DeepCopy()
	out.Capacity, out.Allocatable, out.NodeInfo, out.Images = m.Capacity(), m.Allocatable(), m.Info, h.images
	out.Addresses = nil
	for _, ip := range m.IPs {
		out.Addresses = append(out.Addresses, corev1.NodeAddress{Type: corev1.NodeInternalIP, Address: ip})
	}
	out.Addresses = append(out.Addresses, corev1.NodeAddress{Type: corev1.NodeHostName, Address: m.Hostname})
	ready := corev1.NodeCondition{Type: corev1.NodeReady, Status: corev1.ConditionTrue, Reason: "KubeletReady", Message: "node agent runs Pods"}
	if h.err != nil {
		ready.Status, ready.Reason, ready.Message = corev1.ConditionFalse, "KubeletNotReady", h.err.Error()
	}
	set := []corev1.NodeCondition{
		pressureCondition(corev1.NodeMemoryPressure, h.pressure, "KubeletHasInsufficientMemory", "KubeletHasSufficientMemory", "memory"),
		pressureCondition(corev1.NodeDiskPressure, h.pressure, "KubeletHasDiskPressure", "KubeletHasNoDiskPressure", "disk space"),
		pressureCondition(corev1.NodePIDPressure, h.pressure, "KubeletHasInsufficientPID", "KubeletHasSufficientPID", "process ids"),
		ready,
	}
	for _, c := range set {
		out.Conditions = put(out.Conditions, c, metav1.Time{Time: now.Truncate(time.Second)})
	}
	return out
}

func pressureCondition(t corev1.NodeConditionType, pressure Pressure, bad, good, what string) corev1.NodeCondition {
	if why, short := pressure[t]; short {
		return corev1.NodeCondition{Type: t, Status: corev1.ConditionTrue, Reason: bad, Message: "the node is short of " + what + ": " + why}
	}
	return corev1.NodeCondition{Type: t, Status: corev1.ConditionFalse, Reason: good, Message: "the node has enough " + what}
}

func put(list []corev1.NodeCondition, c corev1.NodeCondition, now metav1.Time) []corev1.NodeCondition {
	c.LastHeartbeatTime, c.LastTransitionTime = now, now
	for i, old := range list {
		if old.Type != c.Type {
			continue
		}
		if old.Status == c.Status {
			c.LastTransitionTime = old.LastTransitionTime
		}
		list[i] = c
		return list
	}
	return append(list, c)
}
