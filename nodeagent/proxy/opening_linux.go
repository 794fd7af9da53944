package proxy

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"syscall"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"
)

// Names of linux/netfilter/nfnetlink_conntrack.h and nf_conntrack_common.h that no package has.
const (
	ctaFilter           = 25
	ctaFilterReplyFlags = 2
	filterSource        = 1 // CTA_FILTER_F_CTA_IP_SRC
	seenReply           = 2 // IPS_SEEN_REPLY
)

// flow is a tracked connection as the kernel describes it.
type flow []byte

// opening returns the tracked TCP connections that are led to addr and that it has not answered with anything yet.
func opening(addr netip.Addr) ([]flow, error) {
	request := conntrackRequest(nl.IPCTNL_MSG_CT_GET, unix.NLM_F_DUMP)
	// Kernels from 5.8 on send only what answers from addr; older ones everything.
	reply := nl.NewRtAttr(unix.NLA_F_NESTED|nl.CTA_TUPLE_REPLY, nil)
	reply.AddRtAttr(unix.NLA_F_NESTED|nl.CTA_TUPLE_IP, nil).AddRtAttr(nl.CTA_IP_V4_SRC, addr.AsSlice())
	only := nl.NewRtAttr(unix.NLA_F_NESTED|ctaFilter, nil)
	only.AddRtAttr(ctaFilterReplyFlags, nl.Uint32Attr(filterSource))
	request.AddData(reply)
	request.AddData(only)
	messages, err := request.Execute(unix.NETLINK_NETFILTER, 0)
	if err != nil && !errors.Is(err, netlink.ErrDumpInterrupted) {
		return nil, fmt.Errorf("list connections to %s: %w", addr, err)
	}
	var flows []flow
	for _, m := range messages {
		if f := flow(m); f.leadsTo(addr) && f.protocol() == unix.IPPROTO_TCP && !f.answered() {
			flows = append(flows, f)
		}
	}
	return flows, nil
}

// forgetFlows makes the kernel judge the next packet of each flow as that of a new one.
func forgetFlows(flows []flow) error {
	for _, f := range flows {
		request := conntrackRequest(nl.IPCTNL_MSG_CT_DELETE, unix.NLM_F_ACK)
		request.AddRawData(f[nl.SizeofNfgenmsg:])
		if _, err := request.Execute(unix.NETLINK_NETFILTER, 0); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("forget a connection that nobody answers: %w", err)
		}
	}
	return nil
}

func conntrackRequest(operation, flags int) *nl.NetlinkRequest {
	request := nl.NewNetlinkRequest(int(netlink.ConntrackTable)<<8|operation, flags)
	request.AddData(&nl.Nfgenmsg{NfgenFamily: unix.AF_INET, Version: nl.NFNETLINK_V0})
	return request
}

func (f flow) leadsTo(addr netip.Addr) bool {
	from, ok := netip.AddrFromSlice(f.at(nl.CTA_TUPLE_REPLY, nl.CTA_TUPLE_IP, nl.CTA_IP_V4_SRC))
	return ok && from == addr
}

func (f flow) protocol() int {
	if p := f.at(nl.CTA_TUPLE_REPLY, nl.CTA_TUPLE_PROTO, nl.CTA_PROTO_NUM); len(p) == 1 {
		return int(p[0])
	}
	return 0
}

func (f flow) answered() bool {
	status := f.at(nl.CTA_STATUS)
	return len(status) == 4 && binary.BigEndian.Uint32(status)&seenReply != 0
}

// at returns the value of an attribute, by the types that lead to it; nil where there is none.
func (f flow) at(path ...uint16) []byte {
	if len(f) < nl.SizeofNfgenmsg {
		return nil
	}
	value := []byte(f[nl.SizeofNfgenmsg:])
	for _, want := range path {
		attributes, err := nl.ParseRouteAttr(value)
		if err != nil {
			return nil
		}
		if value = find(attributes, want); value == nil {
			return nil
		}
	}
	return value
}

func find(attributes []syscall.NetlinkRouteAttr, want uint16) []byte {
	for _, a := range attributes {
		if a.Attr.Type&nl.NLA_TYPE_MASK == want {
			return a.Value
		}
	}
	return nil
}
