package proxy_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/google/nftables"
	"github.com/google/nftables/expr"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
	corev1 "k8s.io/api/core/v1"

	"github.com/slipway-dev/slipway/nodeagent/network"
	"github.com/slipway-dev/slipway/nodeagent/network/networktest"
)

// settles says whether Settled returns; it is given long enough to be wrong.
func (w *world) settles(pod *corev1.Pod) bool {
	w.t.Helper()
	ctx, cancel := context.WithTimeout(w.t.Context(), 50*time.Millisecond)
	defer cancel()
	err := w.proxy.Settled(ctx, pod)
	if err != nil && !errors.Is(err, context.DeadlineExceeded) {
		w.t.Fatal(err)
	}
	return err == nil
}

// TestSettledWaitsForEveryServiceToKnow: a Pod deleted at the moment it became ready is in no rule, but about to be.
func TestSettledWaitsForEveryServiceToKnow(t *testing.T) {
	w := newWorld(t)
	b := w.pod("b")
	w.put(service("web", "10.96.0.20", 0))
	w.put(endpoints("web"))
	w.until("10.96.0.20:80/TCP shop/web:tcp -> refused")
	if w.settles(object(b)) {
		t.Error("settled although the Service has not heard of the Pod")
	}
	w.put(leaving(endpoints("web"), b))
	w.until("10.96.0.20:80/TCP shop/web:tcp -> 10.244.0.2:8080 (draining)")
	check(t, w.proxy.Settled(t.Context(), object(b)))
	second := service("second", "10.96.0.21", 0)
	w.put(second)
	w.until("10.96.0.21:80/TCP shop/second:tcp -> refused")
	if w.settles(object(b)) {
		t.Error("settled although the second Service has not heard of the Pod")
	}
	other := object(b)
	other.Labels = nil
	check(t, w.proxy.Settled(t.Context(), other)) // the second Service does not select it
	waiting := object(b)
	waiting.Status.PodIP = ""
	check(t, w.proxy.Settled(t.Context(), waiting)) // it never had an address
}

// TestSettledForgetsConnectionsThatNobodyAnswers: the packet that opens a connection was lost on its way to the Pod.
// When its caller repeats it, a second later, the Pod does not listen any more: it must go to another one.
func TestSettledForgetsConnectionsThatNobodyAnswers(t *testing.T) {
	w := newWorld(t)
	a, b, c := w.pod("a"), w.pod("b"), w.pod("c")
	w.put(service("web", "10.96.0.20", 0))
	w.put(endpoints("web", b))
	w.until("10.96.0.20:80/TCP shop/web:tcp -> 10.244.0.3:8080")
	lift := dropOnce(t, b.NetNS)
	answer := make(chan string, 1)
	go func() { answer <- w.call(a.NetNS, "tcp4", "10.96.0.20:80") }()
	if got := eventually(func() string { return fmt.Sprint(halfOpen(t, b.IP)) }, "1"); got != "1" {
		t.Fatalf("%s half-open connections, want one", got)
	}
	w.put(leaving(endpoints("web", c), b))
	if err := w.proxy.Settled(t.Context(), object(b)); err != nil {
		t.Fatal(err)
	}
	lift()
	if got := <-answer; got != a.IP+" to c" {
		t.Errorf("the repeated call got %q, want the Pod that stays", got)
	}
}

// dropOnce throws away what comes into a namespace until lift is called.
func dropOnce(t *testing.T, ns string) (lift func()) {
	t.Helper()
	var conn *nftables.Conn
	networktest.In(t, ns, func() {
		var err error
		conn, err = nftables.New(nftables.AsLasting())
		check(t, err)
	})
	table := conn.AddTable(&nftables.Table{Name: "deaf", Family: nftables.TableFamilyIPv4})
	chain := conn.AddChain(&nftables.Chain{Name: "in", Table: table, Type: nftables.ChainTypeFilter, Hooknum: nftables.ChainHookInput, Priority: nftables.ChainPriorityFilter})
	conn.AddRule(&nftables.Rule{Table: table, Chain: chain, Exprs: []expr.Any{&expr.Verdict{Kind: expr.VerdictDrop}}})
	check(t, conn.Flush())
	return func() {
		conn.DelTable(table)
		check(t, conn.Flush())
		check(t, conn.CloseLasting())
	}
}

// halfOpen counts the connections to an address whose first packet nobody has answered.
func halfOpen(t *testing.T, address string) (n int) {
	t.Helper()
	flows, err := netlink.ConntrackTableList(netlink.ConntrackTable, unix.AF_INET)
	check(t, err)
	for _, f := range flows {
		const sent = 1 // SYN_SENT
		if state, ok := f.ProtoInfo.(*netlink.ProtoInfoTCP); ok && state.State == sent && f.Reverse.SrcIP.String() == address {
			n++
		}
	}
	return n
}

// TestStickyClientsLeaveBeforeTheirPod: what a client is remembered by goes before Settled says so, and does not come
// back with a packet that still saw the old rules.
func TestStickyClientsLeaveBeforeTheirPod(t *testing.T) {
	w := newWorld(t)
	a, b, c := w.pod("a"), w.pod("b"), w.pod("c")
	s := service("web", "10.96.0.20", 0)
	s.Spec.SessionAffinity = corev1.ServiceAffinityClientIP
	w.put(s)
	for range 5 { // a client that sticks to b, then to c
		for _, pair := range [][2]network.Sandbox{{b, c}, {c, b}} {
			goes, stays := pair[0], pair[1]
			w.put(endpoints("web", goes))
			w.until(fmt.Sprintf("10.96.0.20:80/TCP shop/web:tcp -> %s:8080 (sticky 3h0m0s)", goes.IP))
			ctx, cancel := context.WithCancel(t.Context())
			ended := make(chan struct{})
			go func() { // it calls without a pause, so that it is remembered again and again
				defer close(ended)
				for ctx.Err() == nil {
					w.call(a.NetNS, "tcp4", "10.96.0.20:80")
				}
			}()
			w.put(leaving(endpoints("web", stays), goes))
			check(t, w.proxy.Settled(t.Context(), object(goes)))
			cancel()
			<-ended
			if got := w.call(a.NetNS, "tcp4", "10.96.0.20:80"); !strings.HasPrefix(got, a.IP+" to ") || strings.HasSuffix(got, " to "+name(goes, b)) {
				t.Fatalf("after Settled a sticky client got %q", got)
			}
		}
	}
}

func name(box, b network.Sandbox) string {
	if box.IP == b.IP {
		return "b"
	}
	return "c"
}
