package network

import (
	"errors"
	"fmt"
	"net/netip"

	"github.com/google/nftables"
	"github.com/google/nftables/expr"
	"golang.org/x/sys/unix"

	"github.com/slipway-dev/slipway/nodeagent/network/nft"
)

// tableName names this package's own table. Nothing else may be kept in it.
const tableName = "slipway-pods"

// filter is the tables of rules Pods live under. All of them are static but the host ports: a Pod without any costs
// no change of the packet filter.
type filter struct {
	conn               *nftables.Conn
	table              *nftables.Table
	both               *nftables.Table // for rules about IPv6
	everywhere, pinned *nftables.Set   // host ports on all addresses; on one
	self               *nftables.Set   // each Pod address twice: a Pod that calls itself through the node
	static             []chain
	podCIDR            netip.Prefix
	gateway            netip.Addr
	clusterCIDRs       []netip.Prefix
}

type chain struct {
	*nftables.Chain
	rules [][]expr.Any
}

func newFilter(cfg Config) (*filter, error) {
	conn, err := nftables.New()
	if err != nil {
		return nil, err
	}
	f := &filter{conn: conn, podCIDR: cfg.PodCIDR, gateway: Gateway(cfg.PodCIDR), clusterCIDRs: cfg.ClusterCIDRs}
	f.table = &nftables.Table{Name: tableName, Family: nftables.TableFamilyIPv4}
	f.both = &nftables.Table{Name: tableName, Family: nftables.TableFamilyINet}
	endpoint := nftables.MustConcatSetType(nftables.TypeIPAddr, nftables.TypeInetService)
	f.everywhere = &nftables.Set{Table: f.table, Name: "host-ports", IsMap: true, DataType: endpoint, Concatenation: true,
		KeyType: nftables.MustConcatSetType(nftables.TypeInetProto, nftables.TypeInetService)}
	f.pinned = &nftables.Set{Table: f.table, Name: "host-address-ports", IsMap: true, DataType: endpoint, Concatenation: true,
		KeyType: nftables.MustConcatSetType(nftables.TypeIPAddr, nftables.TypeInetProto, nftables.TypeInetService)}
	f.self = &nftables.Set{Table: f.table, Name: "self", Concatenation: true,
		KeyType: nftables.MustConcatSetType(nftables.TypeIPAddr, nftables.TypeIPAddr)}
	f.static = f.chains()
	return f, nil
}

// chains are the static rules.
func (f *filter) chains() []chain {
	base := func(name string, kind nftables.ChainType, hook *nftables.ChainHook, priority nftables.ChainPriority, rules ...[]expr.Any) chain {
		return chain{&nftables.Chain{Name: name, Table: f.table, Type: kind, Hooknum: hook, Priority: &priority}, rules}
	}
	loopback := netip.MustParsePrefix("127.0.0.0/8")
	hostPorts := [][]expr.Any{
		nft.Rule(nft.DestinationNotIn(loopback), nft.Destination(nft.R0), nft.Protocol(nft.R1), nft.DestinationPort(nft.R2),
			nft.Lookup(f.pinned, nft.R0, nft.R0), nft.ToAddress(nft.R0, nft.R1)),
		nft.Rule(nft.DestinationNotIn(loopback), nft.DestinationLocal(), nft.Protocol(nft.R0), nft.DestinationPort(nft.R1),
			nft.Lookup(f.everywhere, nft.R0, nft.R0), nft.ToAddress(nft.R0, nft.R1)),
	}
	out := [][]expr.Any{nft.Rule(nft.Source(nft.R0), nft.Destination(nft.R1), nft.In(f.self, nft.R0), nft.FromAddress(f.gateway))}
	for _, cidr := range f.clusterCIDRs {
		out = append(out, nft.Rule(nft.SourceIn(f.podCIDR), nft.DestinationIn(cidr), nft.Return()))
	}
	out = append(out, nft.Rule(nft.SourceIn(f.podCIDR), nft.DestinationNotIn(f.podCIDR), nft.Masquerade()))
	noIPv6 := base("guard", nftables.ChainTypeFilter, nftables.ChainHookPrerouting, -300,
		nft.Rule(nft.FromLink(vethPrefix), nft.IPv6(), nft.Drop())) // Pods have no such address to send from
	noIPv6.Table = f.both
	return []chain{
		noIPv6,
		// A Pod sends from its own address only, and nobody reaches the node's loopback addresses from outside.
		base("guard", nftables.ChainTypeFilter, nftables.ChainHookPrerouting, -300,
			nft.Rule(nft.FromLink(vethPrefix), nft.SourceNotRoutedBack(), nft.Drop()),
			nft.Rule(nft.NotFromLoopback(), nft.DestinationIn(loopback), nft.Drop()),
			nft.Rule(nft.NotFromLoopback(), nft.SourceIn(loopback), nft.Drop())),
		// The kernel does not translate such packets back: a client would see another sender and reset its connection.
		base("forward", nftables.ChainTypeFilter, nftables.ChainHookForward, 0, nft.Rule(nft.FromLink(vethPrefix), nft.Invalid(), nft.Drop())),
		base("host-ports-in", nftables.ChainTypeNAT, nftables.ChainHookPrerouting, -105, hostPorts...),
		base("host-ports-out", nftables.ChainTypeNAT, nftables.ChainHookOutput, -105, hostPorts...),
		base("leave", nftables.ChainTypeNAT, nftables.ChainHookPostrouting, 100, out...),
	}
}

// install replaces the table as a whole, in one transaction, with host ports.
func (f *filter) install(leads []lead) error {
	f.drop()
	f.conn.AddTable(f.table)
	f.conn.AddTable(f.both)
	for _, set := range []*nftables.Set{f.everywhere, f.pinned, f.self} {
		set.ID = 0
		if err := f.conn.AddSet(set, nil); err != nil {
			return fmt.Errorf("add set %s: %w", set.Name, err)
		}
	}
	if err := f.conn.SetAddElements(f.self, f.selves()); err != nil {
		return fmt.Errorf("fill set %s: %w", f.self.Name, err)
	}
	f.static = f.chains() // with the sets' new ids
	for _, c := range f.static {
		f.conn.AddChain(c.Chain)
		for _, rule := range c.rules {
			f.conn.AddRule(&nftables.Rule{Table: c.Table, Chain: c.Chain, Exprs: rule})
		}
	}
	if err := f.hostPorts(leads, f.conn.SetAddElements); err != nil {
		return err
	}
	if err := f.conn.Flush(); err != nil {
		return fmt.Errorf("install the packet filter table %s: %w", tableName, err)
	}
	return nil
}

// intact says whether the table still has all its rules.
func (f *filter) intact() bool {
	for _, c := range f.static {
		rules, err := f.conn.GetRules(c.Table, c.Chain)
		if err != nil || len(rules) != len(c.rules) {
			return false
		}
	}
	return true
}

// drop deletes the tables within the transaction; they may not exist.
func (f *filter) drop() {
	for _, table := range []*nftables.Table{f.table, f.both} {
		f.conn.AddTable(table) // so that deleting it cannot fail
		f.conn.DelTable(table)
	}
}

func (f *filter) remove() error {
	f.drop()
	if err := f.conn.Flush(); err != nil {
		return fmt.Errorf("remove the packet filter table %s: %w", tableName, err)
	}
	return nil
}

func (f *filter) openPorts(leads []lead) error { return f.change(leads, f.conn.SetAddElements) }

// closePorts takes host ports away that may not be there.
func (f *filter) closePorts(leads []lead) error {
	err := f.change(leads, f.conn.SetDeleteElements)
	if errors.Is(err, unix.ENOENT) {
		return nil
	}
	return err
}

type elementChange func(*nftables.Set, []nftables.SetElement) error

func (f *filter) change(leads []lead, change elementChange) error {
	if len(leads) == 0 {
		return nil
	}
	if err := f.hostPorts(leads, change); err != nil {
		return err
	}
	if err := f.conn.Flush(); err != nil {
		return fmt.Errorf("change host ports: %w", err)
	}
	return nil
}

func (f *filter) hostPorts(leads []lead, change elementChange) error {
	for _, l := range leads {
		key, set := append(nft.ProtocolKey(l.key.proto), nft.PortKey(l.key.port)...), f.everywhere
		if l.key.addr.IsValid() {
			key, set = append(l.key.addr.AsSlice(), key...), f.pinned
		}
		to := append(l.addr.AsSlice(), nft.PortKey(l.port)...)
		if err := change(set, []nftables.SetElement{{Key: key, Val: to}}); err != nil {
			return fmt.Errorf("host port %d: %w", l.key.port, err)
		}
	}
	return nil
}

func (f *filter) selves() []nftables.SetElement {
	var elements []nftables.SetElement
	for addr := f.gateway; f.podCIDR.Contains(addr); addr = addr.Next() {
		elements = append(elements, nftables.SetElement{Key: append(addr.AsSlice(), addr.AsSlice()...)})
	}
	return elements
}

func protocol(name string) (uint8, error) {
	switch name {
	case "", "TCP":
		return unix.IPPROTO_TCP, nil
	case "UDP":
		return unix.IPPROTO_UDP, nil
	case "SCTP":
		return unix.IPPROTO_SCTP, nil
	}
	return 0, fmt.Errorf("protocol %q is not TCP, UDP or SCTP", name)
}
