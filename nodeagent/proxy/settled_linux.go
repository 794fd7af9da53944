package proxy

import (
	"context"
	"fmt"
	"net/netip"
	"slices"
	"time"

	"golang.org/x/sys/unix"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/util/intstr"

	"github.com/slipway-dev/slipway/nodeagent/catalog"
)

// led is a Service as the rules in want have it.
type led struct {
	*catalog.Service
	fronts []Front
}

// Pauses and bounds of Settled.
const (
	glance   = 2 * time.Millisecond   // between looks at what the kernel is about to do
	halfOpen = 200 * time.Millisecond // for a connection that is being opened; its caller repeats after a second
)

// Settled returns when no new connection is led to a Pod that is being deleted, and none is on its way to it. In this
// order: every Service the Pod belongs to lists it as terminating, and its rules were made by that list; packets that
// were judged by older rules have passed; the relay is not calling the Pod; half-open connections through the rules
// are answered, or forgotten, so that their callers' next attempt is led elsewhere. Only the first of these may take
// as long as ctx lasts.
//
// A Pod that is all a Service has left goes on getting its connections: there is no better place for them.
func (p *Proxy) Settled(ctx context.Context, pod *corev1.Pod) error {
	if err := p.untilTold(ctx, pod); err != nil {
		return fmt.Errorf("wait until no Service leads to pod %s/%s: %w", pod.Namespace, pod.Name, err)
	}
	addr, err := netip.ParseAddr(pod.Status.PodIP)
	if err != nil || pod.Spec.HostNetwork { // an address of its own is what the rest is about
		return nil
	}
	passed()
	if p.leadsTo(addr) {
		return nil
	}
	bounded, cancel := context.WithTimeout(ctx, halfOpen)
	defer cancel()
	for p.local.Calling(addr) && rest(bounded) == nil {
	}
	for {
		flows, err := opening(addr)
		if err != nil || len(flows) == 0 {
			return err
		}
		if rest(bounded) != nil {
			return forgetFlows(flows)
		}
	}
}

func (p *Proxy) untilTold(ctx context.Context, pod *corev1.Pod) error {
	for {
		p.mu.Lock()
		settled, moved := p.known && p.told(pod), p.moved
		p.mu.Unlock()
		if settled {
			return nil
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-moved:
		}
	}
}

// told says whether every Service of the Pod's namespace knows that it is leaving, or never knew it.
func (p *Proxy) told(pod *corev1.Pod) bool {
	if len(p.unstuck) > 0 || len(p.stale) > 0 {
		return false
	}
	for _, service := range p.services[pod.Namespace] {
		if !leaves(service.Service, pod) {
			return false
		}
	}
	return true
}

// leaves says whether a Service lists the Pod as terminating. One that does not list it does not lead to it only if it
// never will: a Pod that has just become ready may be about to be listed.
func leaves(s *catalog.Service, pod *corev1.Pod) bool {
	listed := false
	for _, slice := range s.Slices {
		for _, e := range slice.Endpoints {
			if e.TargetRef == nil || e.TargetRef.UID != pod.UID {
				continue
			}
			if listed = true; !or(e.Conditions.Terminating, false) {
				return false
			}
		}
	}
	return listed || !lists(s.Service, pod)
}

// lists says whether a Pod is to be among a Service's endpoints, ready or not, by the rules of reconciler/endpoints.
func lists(s *corev1.Service, pod *corev1.Pod) bool {
	if len(s.Spec.Selector) == 0 || s.Spec.Type == corev1.ServiceTypeExternalName || s.DeletionTimestamp != nil || !hasAddress(pod) ||
		pod.Status.Phase == corev1.PodSucceeded || pod.Status.Phase == corev1.PodFailed {
		return false
	}
	for key, value := range s.Spec.Selector {
		if got, ok := pod.Labels[key]; !ok || got != value {
			return false
		}
	}
	for _, port := range s.Spec.Ports {
		if port.TargetPort.Type == intstr.Int || hasPort(pod, port) {
			return true
		}
	}
	return len(s.Spec.Ports) == 0
}

func hasAddress(pod *corev1.Pod) bool {
	for _, ip := range append([]corev1.PodIP{{IP: pod.Status.PodIP}}, pod.Status.PodIPs...) {
		if addr, err := netip.ParseAddr(ip.IP); err == nil && addr.Is4() {
			return true
		}
	}
	return false
}

// hasPort says whether a container of the Pod, or a sidecar, names the port.
func hasPort(pod *corev1.Pod, port corev1.ServicePort) bool {
	named := func(c corev1.Container) bool {
		return slices.ContainsFunc(c.Ports, func(p corev1.ContainerPort) bool {
			return p.Name == port.TargetPort.StrVal && protocolOf(p.Protocol) == protocolOf(port.Protocol)
		})
	}
	return slices.ContainsFunc(pod.Spec.Containers, named) || slices.ContainsFunc(pod.Spec.InitContainers, func(c corev1.Container) bool {
		return or(c.RestartPolicy, "") == corev1.ContainerRestartPolicyAlways && named(c)
	})
}

// leadsTo says whether a rule still leads to an address.
func (p *Proxy) leadsTo(addr netip.Addr) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, rule := range p.have {
		for _, backend := range rule.Backends {
			if backend.Addr() == addr {
				return true
			}
		}
	}
	return false
}

// passed returns when every packet that the kernel was working on when it was called has left the packet filter: one
// that was judged by the rules of before is tracked by then, or sent. The kernel goes through packets inside of
// read-side sections, and this call waits for all of them to end (synchronize_rcu), some milliseconds. A kernel that
// refuses it (nohz_full) gives no such promise.
func passed() { _, _, _ = unix.Syscall(unix.SYS_MEMBARRIER, membarrierGlobal, 0, 0) }

const membarrierGlobal = 1 // MEMBARRIER_CMD_GLOBAL

// rest waits a moment; it returns an error when ctx ends first.
func rest(ctx context.Context) error {
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-time.After(glance):
		return nil
	}
}
