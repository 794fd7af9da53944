//go:build linux

// Package nft spells packet filter rules: small words for the expressions of github.com/google/nftables, and the
// generation number by which a change made by somebody else is noticed.
//
// It holds no state and decides nothing.
package nft

import (
	"encoding/binary"
	"fmt"
	"net/netip"

	"github.com/google/nftables"
	"github.com/google/nftables/binaryutil"
	"github.com/google/nftables/expr"
	"github.com/google/nftables/userdata"
	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"
)

// Registers. R0 to R3 are 32-bit registers in a row: a concatenated key fills them from the left.
const (
	R0 = unix.NFT_REG32_00 + iota
	R1
	R2
	R3
	R4
	R5
)

// Rule joins words to a rule's expressions.
func Rule(words ...[]expr.Any) []expr.Any {
	var exprs []expr.Any
	for _, word := range words {
		exprs = append(exprs, word...)
	}
	return exprs
}

// Source loads the packet's source address.
func Source(reg uint32) []expr.Any { return network(reg, 12, 4) }

// Destination loads the packet's destination address.
func Destination(reg uint32) []expr.Any { return network(reg, 16, 4) }

// Protocol loads the transport protocol's number.
func Protocol(reg uint32) []expr.Any {
	return []expr.Any{&expr.Meta{Key: expr.MetaKeyL4PROTO, Register: reg}}
}

// DestinationPort loads the transport header's destination port.
func DestinationPort(reg uint32) []expr.Any {
	return []expr.Any{&expr.Payload{DestRegister: reg, Base: expr.PayloadBaseTransportHeader, Offset: 2, Len: 2}}
}

func network(reg, offset, length uint32) []expr.Any {
	return []expr.Any{&expr.Payload{DestRegister: reg, Base: expr.PayloadBaseNetworkHeader, Offset: offset, Len: length}}
}

// SourceIn matches packets from a range.
func SourceIn(p netip.Prefix) []expr.Any { return inPrefix(Source(R0), expr.CmpOpEq, p) }

// DestinationIn matches packets to a range.
func DestinationIn(p netip.Prefix) []expr.Any { return inPrefix(Destination(R0), expr.CmpOpEq, p) }

// SourceNotIn matches packets from outside a range.
func SourceNotIn(p netip.Prefix) []expr.Any { return inPrefix(Source(R0), expr.CmpOpNeq, p) }

// DestinationNotIn matches packets to outside a range.
func DestinationNotIn(p netip.Prefix) []expr.Any { return inPrefix(Destination(R0), expr.CmpOpNeq, p) }

func inPrefix(load []expr.Any, op expr.CmpOp, p netip.Prefix) []expr.Any {
	mask := binary.BigEndian.AppendUint32(nil, ^uint32(0)<<(32-p.Bits()))
	return append(load,
		&expr.Bitwise{SourceRegister: R0, DestRegister: R0, Len: 4, Mask: mask, Xor: make([]byte, 4)},
		&expr.Cmp{Op: op, Register: R0, Data: p.Masked().Addr().AsSlice()})
}

// FromLink matches packets that came in by a link whose name begins with prefix.
func FromLink(prefix string) []expr.Any {
	return link(expr.MetaKeyIIFNAME, expr.CmpOpEq, []byte(prefix))
}

// ToLink matches packets that leave by a link whose name begins with prefix.
func ToLink(prefix string) []expr.Any { return link(expr.MetaKeyOIFNAME, expr.CmpOpEq, []byte(prefix)) }

// NotFromLoopback matches packets that came in by any link but lo.
func NotFromLoopback() []expr.Any {
	return link(expr.MetaKeyIIFNAME, expr.CmpOpNeq, append([]byte("lo"), make([]byte, 14)...))
}

func link(key expr.MetaKey, op expr.CmpOp, name []byte) []expr.Any {
	return []expr.Any{&expr.Meta{Key: key, Register: 1}, &expr.Cmp{Op: op, Register: 1, Data: name}}
}

// SourceNotRoutedBack matches packets whose source address the host would not reach by the link they came in on.
func SourceNotRoutedBack() []expr.Any {
	return []expr.Any{
		&expr.Fib{Register: R0, FlagSADDR: true, FlagIIF: true, ResultOIF: true},
		&expr.Cmp{Op: expr.CmpOpEq, Register: R0, Data: make([]byte, 4)},
	}
}

// DestinationLocal matches packets to an address of this host.
func DestinationLocal() []expr.Any {
	return []expr.Any{
		&expr.Fib{Register: R0, FlagDADDR: true, ResultADDRTYPE: true},
		&expr.Cmp{Op: expr.CmpOpEq, Register: R0, Data: binaryutil.NativeEndian.PutUint32(unix.RTN_LOCAL)},
	}
}

// Translated matches packets of a connection whose destination was changed.
func Translated() []expr.Any {
	const destinationNAT = 1 << 5 // IPS_DST_NAT of the kernel's connection status
	return []expr.Any{
		&expr.Ct{Key: expr.CtKeySTATUS, Register: R0},
		&expr.Bitwise{SourceRegister: R0, DestRegister: R0, Len: 4, Mask: binaryutil.NativeEndian.PutUint32(destinationNAT), Xor: make([]byte, 4)},
		&expr.Cmp{Op: expr.CmpOpNeq, Register: R0, Data: make([]byte, 4)},
	}
}

// Invalid matches packets that belong to no connection the kernel can make out.
func Invalid() []expr.Any {
	return []expr.Any{
		&expr.Ct{Key: expr.CtKeySTATE, Register: R0},
		&expr.Bitwise{SourceRegister: R0, DestRegister: R0, Len: 4, Mask: binaryutil.NativeEndian.PutUint32(expr.CtStateBitINVALID), Xor: make([]byte, 4)},
		&expr.Cmp{Op: expr.CmpOpNeq, Register: R0, Data: make([]byte, 4)},
	}
}

// IPv6 matches packets of that family, in a table for both.
func IPv6() []expr.Any {
	return []expr.Any{
		&expr.Meta{Key: expr.MetaKeyNFPROTO, Register: R0},
		&expr.Cmp{Op: expr.CmpOpEq, Register: R0, Data: []byte{unix.NFPROTO_IPV6}},
	}
}

// In matches when the key that begins in register reg is an element of set.
func In(set *nftables.Set, reg uint32) []expr.Any {
	return []expr.Any{&expr.Lookup{SourceRegister: reg, SetName: set.Name, SetID: set.ID}}
}

// Lookup loads the value that map set has for the key beginning in reg; without one the rule does not match.
func Lookup(set *nftables.Set, reg, to uint32) []expr.Any {
	return []expr.Any{&expr.Lookup{SourceRegister: reg, DestRegister: to, IsDestRegSet: true, SetName: set.Name, SetID: set.ID}}
}

// Value loads a constant.
func Value(reg uint32, data []byte) []expr.Any {
	return []expr.Any{&expr.Immediate{Register: reg, Data: data}}
}

// ToAddress ends a rule: the destination becomes the address in addr and the port in port.
func ToAddress(addr, port uint32) []expr.Any {
	return []expr.Any{&expr.NAT{Type: expr.NATTypeDestNAT, Family: unix.NFPROTO_IPV4, RegAddrMin: addr, RegProtoMin: port, Specified: true}}
}

// FromAddress ends a rule: the source becomes addr.
func FromAddress(addr netip.Addr) []expr.Any {
	return []expr.Any{
		&expr.Immediate{Register: R0, Data: addr.AsSlice()},
		&expr.NAT{Type: expr.NATTypeSourceNAT, Family: unix.NFPROTO_IPV4, RegAddrMin: R0},
	}
}

// Masquerade ends a rule: the source becomes an address of the outgoing link, on any free port.
func Masquerade() []expr.Any { return []expr.Any{&expr.Masq{FullyRandom: true}} }

// Accept ends a rule.
func Accept() []expr.Any { return verdict(expr.VerdictAccept, "") }

// Drop ends a rule.
func Drop() []expr.Any { return verdict(expr.VerdictDrop, "") }

// Return ends a rule.
func Return() []expr.Any { return verdict(expr.VerdictReturn, "") }

// Jump goes to a chain and comes back.
func Jump(chain string) []expr.Any { return verdict(expr.VerdictJump, chain) }

func verdict(kind expr.VerdictKind, chain string) []expr.Any {
	return []expr.Any{&expr.Verdict{Kind: kind, Chain: chain}}
}

// RejectTCP ends a rule: the caller's connection is reset.
func RejectTCP() []expr.Any {
	return []expr.Any{
		&expr.Meta{Key: expr.MetaKeyL4PROTO, Register: R0},
		&expr.Cmp{Op: expr.CmpOpEq, Register: R0, Data: []byte{unix.IPPROTO_TCP}},
		&expr.Reject{Type: unix.NFT_REJECT_TCP_RST},
	}
}

// Reject ends a rule: the caller is told that the port is unreachable.
func Reject() []expr.Any {
	const portUnreachable = 3
	return []expr.Any{&expr.Reject{Type: unix.NFT_REJECT_ICMP_UNREACH, Code: portUnreachable}}
}

// ProtocolKey is a transport protocol as part of a concatenated key.
func ProtocolKey(proto uint8) []byte { return []byte{proto, 0, 0, 0} }

// PortKey is a port as part of a concatenated key, or the value of a map.
func PortKey(port uint16) []byte { return append(binary.BigEndian.AppendUint16(nil, port), 0, 0) }

// Comment is the user data by which nft shows a rule's comment.
func Comment(text string) []byte { return userdata.AppendString(nil, userdata.TypeComment, text) }

// HasComment says whether user data carries the comment.
func HasComment(data []byte, text string) bool {
	got, ok := userdata.GetString(data, userdata.TypeComment)
	return ok && got == text
}

// Generation returns the number of changes made to the packet filter of this network namespace, by anybody.
func Generation() (uint32, error) {
	req := nl.NewNetlinkRequest(unix.NFNL_SUBSYS_NFTABLES<<8|unix.NFT_MSG_GETGEN, 0)
	req.AddData(&nl.Nfgenmsg{NfgenFamily: unix.AF_UNSPEC, Version: nl.NFNETLINK_V0})
	messages, err := req.Execute(unix.NETLINK_NETFILTER, 0)
	if err != nil {
		return 0, fmt.Errorf("read the packet filter's generation: %w", err)
	}
	for _, message := range messages {
		attrs, err := nl.ParseRouteAttr(message[nl.SizeofNfgenmsg:])
		if err != nil {
			return 0, fmt.Errorf("read the packet filter's generation: %w", err)
		}
		for _, attr := range attrs {
			if attr.Attr.Type == unix.NFTA_GEN_ID {
				return binary.BigEndian.Uint32(attr.Value), nil
			}
		}
	}
	return 0, fmt.Errorf("the packet filter told no generation")
}
