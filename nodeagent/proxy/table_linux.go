package proxy

import (
	"fmt"
	"net/netip"
	"slices"
	"time"

	"github.com/google/nftables"
	"github.com/google/nftables/binaryutil"
	"github.com/google/nftables/expr"
	"golang.org/x/sys/unix"

	"github.com/slipway-dev/slipway/nodeagent/network/nft"
)

const (
	tableName = "slipway"
	// chunk is how many elements go into one message: less than 64 KiB of them.
	chunk = 400
	// buffer is the socket's room for a transaction: tens of thousands of rules at start.
	buffer = 64 << 20
)

// table is the proxy's packet filter table. A new connection to a front takes three look-ups, however many there are:
//
//	services   (address, protocol, port)          -> how its backend is chosen: their number, and stickiness
//	choose     that                               -> the chain that draws a random number below it
//	backends   (address, protocol, port, number)  -> (address, port) of a backend
//
// Node ports have the address 0.0.0.0. A rule of a Service is elements of services and backends, plain data: the
// kernel need not check the table for loops when they change, and no chain belongs to any one Service.
type table struct {
	conn *nftables.Conn
	*nftables.Table
	services, backends, choose, sticky *nftables.Set
	chosen                             map[uint32]bool // values that have a chain
	static                             []chain
	cfg                                Config
}

type chain struct {
	*nftables.Chain
	rules [][]expr.Any
}

func newTable(cfg Config) (*table, error) {
	conn, err := nftables.New(nftables.WithSockOptions(enlarge))
	if err != nil {
		return nil, err
	}
	t := &table{conn: conn, Table: &nftables.Table{Name: tableName, Family: nftables.TableFamilyIPv4}, cfg: cfg}
	front := []nftables.SetDatatype{nftables.TypeIPAddr, nftables.TypeInetProto, nftables.TypeInetService}
	backend := nftables.MustConcatSetType(nftables.TypeIPAddr, nftables.TypeInetService)
	t.services = &nftables.Set{Table: t.Table, Name: "services", IsMap: true, Concatenation: true,
		KeyType: nftables.MustConcatSetType(front...), DataType: nftables.TypeMark}
	t.backends = &nftables.Set{Table: t.Table, Name: "backends", IsMap: true, Concatenation: true,
		KeyType: nftables.MustConcatSetType(append(front, nftables.TypeMark)...), DataType: backend}
	t.choose = &nftables.Set{Table: t.Table, Name: "choose", IsMap: true, KeyType: nftables.TypeMark, DataType: nftables.TypeVerdict}
	t.sticky = &nftables.Set{Table: t.Table, Name: "sticky", IsMap: true, Concatenation: true, Dynamic: true, HasTimeout: true,
		KeyType: nftables.MustConcatSetType(append([]nftables.SetDatatype{nftables.TypeIPAddr}, front...)...), DataType: backend, Size: 1 << 20}
	return t, nil
}

// enlarge gives a netlink socket room for a whole transaction.
func enlarge[socket interface {
	SetWriteBuffer(int) error
	SetReadBuffer(int) error
}](s socket) error {
	if err := s.SetWriteBuffer(buffer); err != nil {
		return err
	}
	return s.SetReadBuffer(buffer)
}

// chains are the static rules. Those who call a node's loopback addresses are served by a relay, not here.
func (t *table) chains() []chain {
	base := func(name string, kind nftables.ChainType, hook *nftables.ChainHook, priority nftables.ChainPriority, rules ...[]expr.Any) chain {
		return chain{&nftables.Chain{Name: name, Table: t.Table, Type: kind, Hooknum: hook, Priority: &priority}, rules}
	}
	loopback := netip.MustParsePrefix("127.0.0.0/8")
	front := nft.Rule(nft.Protocol(nft.R1), nft.DestinationPort(nft.R2), nft.Lookup(t.services, nft.R0, nft.R3), nft.Lookup(t.choose, nft.R3, unix.NFT_REG_VERDICT))
	find := chain{&nftables.Chain{Name: "find", Table: t.Table}, [][]expr.Any{
		nft.Rule(nft.Destination(nft.R0), front),
		nft.Rule(nft.DestinationNotIn(loopback), nft.DestinationLocal(), nft.Value(nft.R0, nodeAddress), front),
	}}
	refuse := [][]expr.Any{
		nft.Rule(nft.DestinationIn(t.cfg.ServiceCIDR), nft.RejectTCP()),
		nft.Rule(nft.DestinationIn(t.cfg.ServiceCIDR), nft.Reject()),
	}
	return []chain{
		find,
		base("in", nftables.ChainTypeNAT, nftables.ChainHookPrerouting, -100, nft.Jump("find")),
		base("out", nftables.ChainTypeNAT, nftables.ChainHookOutput, -100, nft.Jump("find")),
		// What still has an address of a Service here has no backend.
		base("refuse-forward", nftables.ChainTypeFilter, nftables.ChainHookForward, 0, refuse...),
		base("refuse-out", nftables.ChainTypeFilter, nftables.ChainHookOutput, 0, refuse...),
		// A call from outside to a backend elsewhere comes back this way only if it seems to come from here.
		base("leave", nftables.ChainTypeNAT, nftables.ChainHookPostrouting, 90,
			nft.Rule(nft.Translated(), nft.SourceNotIn(t.cfg.PodCIDR), nft.DestinationNotIn(t.cfg.PodCIDR), nft.Masquerade())),
	}
}

var nodeAddress = []byte{0, 0, 0, 0}

// install replaces the table as a whole in one transaction, so that no connection meets a gap.
func (t *table) install(state State) error {
	t.conn.AddTable(t.Table) // so that deleting it cannot fail
	t.conn.DelTable(t.Table)
	t.conn.AddTable(t.Table)
	for _, set := range []*nftables.Set{t.services, t.backends, t.choose, t.sticky} {
		set.ID = 0
		if err := t.conn.AddSet(set, nil); err != nil {
			return fmt.Errorf("add map %s: %w", set.Name, err)
		}
	}
	t.static, t.chosen = t.chains(), map[uint32]bool{}
	for _, c := range t.static {
		t.conn.AddChain(c.Chain)
		for _, rule := range c.rules {
			t.conn.AddRule(&nftables.Rule{Table: t.Table, Chain: c.Chain, Exprs: rule})
		}
	}
	steps := make([]Step, 0, len(state))
	for _, rule := range state {
		steps = append(steps, Step{New: &rule})
	}
	return t.apply(steps)
}

// apply makes the steps in one transaction.
func (t *table) apply(steps []Step) error {
	var gone, come elements
	var added []uint32
	for _, step := range steps {
		if step.Old != nil {
			gone.add(*step.Old)
		}
		if step.New != nil {
			come.add(*step.New)
			if c := choice(*step.New); len(step.New.Backends) > 0 && !t.chosen[c] {
				if err := t.addChoice(*step.New); err != nil {
					return err
				}
				t.chosen[c] = true
				added = append(added, c)
			}
		}
	}
	err := t.send(gone, t.conn.SetDeleteElements)
	if err == nil {
		err = t.send(come, t.conn.SetAddElements)
	}
	if err == nil {
		err = t.conn.Flush()
	}
	if err != nil {
		for _, c := range added {
			delete(t.chosen, c)
		}
		return fmt.Errorf("change the packet filter table %s: %w", tableName, err)
	}
	return nil
}

// elements are what rules are in the maps.
type elements struct {
	services, backends []nftables.SetElement
}

func (e *elements) add(rule Rule) {
	if len(rule.Backends) == 0 {
		return // refused by the static rules
	}
	key := frontKey(rule.Front)
	e.services = append(e.services, nftables.SetElement{Key: key, Val: binaryutil.NativeEndian.PutUint32(choice(rule))})
	for i, backend := range rule.Backends {
		key := append(slices.Clone(key), binaryutil.NativeEndian.PutUint32(uint32(i))...)
		e.backends = append(e.backends, nftables.SetElement{Key: key, Val: backendValue(backend)})
	}
}

func (t *table) send(e elements, change func(*nftables.Set, []nftables.SetElement) error) error {
	for part := range slices.Chunk(e.services, chunk) {
		if err := change(t.services, part); err != nil {
			return err
		}
	}
	for part := range slices.Chunk(e.backends, chunk) {
		if err := change(t.backends, part); err != nil {
			return err
		}
	}
	return nil
}

func frontKey(f Front) []byte {
	addr := nodeAddress
	if f.Addr.IsValid() {
		addr = f.Addr.AsSlice()
	}
	return slices.Concat(addr, nft.ProtocolKey(uint8(f.Proto)), nft.PortKey(f.Port))
}

func backendValue(b netip.AddrPort) []byte {
	return append(b.Addr().AsSlice(), nft.PortKey(b.Port())...)
}

// choice is how a rule's backend is chosen, as one number: how many there are (15 bits), whether the front is a port
// of the node (1 bit), and for how many minutes a client keeps its own, rounded up (16 bits).
func choice(r Rule) uint32 {
	c := uint32(len(r.Backends))
	if !r.Front.Addr.IsValid() {
		c |= 1 << 15
	}
	return c | stickyMinutes(r)<<16
}

func stickyMinutes(r Rule) uint32 { return min(uint32((r.Sticky+time.Minute-1)/time.Minute), 1<<16-1) }

// addChoice adds the chain for a rule's way of choosing.
func (t *table) addChoice(r Rule) error {
	c := t.conn.AddChain(&nftables.Chain{Name: fmt.Sprintf("choose-%08x", choice(r)), Table: t.Table})
	address := nft.Destination(nft.R0)
	if !r.Front.Addr.IsValid() {
		address = nft.Value(nft.R0, nodeAddress)
	}
	pick := nft.Rule(address, nft.Protocol(nft.R1), nft.DestinationPort(nft.R2),
		[]expr.Any{&expr.Numgen{Register: nft.R3, Modulus: uint32(len(r.Backends)), Type: unix.NFT_NG_RANDOM}},
		nft.Lookup(t.backends, nft.R0, nft.R4))
	rules := [][]expr.Any{nft.Rule(pick, nft.ToAddress(nft.R4, nft.R5))}
	if r.Sticky > 0 {
		client := nft.Rule(nft.Source(nft.R0), nft.Destination(nft.R1), nft.Protocol(nft.R2), nft.DestinationPort(nft.R3))
		remember := []expr.Any{&expr.Dynset{SrcRegKey: nft.R0, SrcRegData: nft.R4, SetName: t.sticky.Name, SetID: t.sticky.ID,
			Operation: unix.NFT_DYNSET_OP_UPDATE, Timeout: time.Duration(stickyMinutes(r)) * time.Minute}}
		rules = [][]expr.Any{
			nft.Rule(client, nft.Lookup(t.sticky, nft.R0, nft.R4), remember, nft.ToAddress(nft.R4, nft.R5)),
			nft.Rule(pick, client, remember, nft.ToAddress(nft.R4, nft.R5)),
		}
	}
	for _, rule := range rules {
		t.conn.AddRule(&nftables.Rule{Table: t.Table, Chain: c, Exprs: rule})
	}
	to := &expr.Verdict{Kind: expr.VerdictGoto, Chain: c.Name}
	return t.conn.SetAddElements(t.choose, []nftables.SetElement{{Key: binaryutil.NativeEndian.PutUint32(choice(r)), VerdictData: to}})
}

// unstick forgets clients' backends that are no longer any front's.
func (t *table) unstick(gone map[netip.AddrPort]bool) error {
	stuck, err := t.conn.GetSetElements(t.sticky)
	if err != nil {
		return fmt.Errorf("list sticky clients: %w", err)
	}
	stuck = slices.DeleteFunc(stuck, func(e nftables.SetElement) bool {
		addr, ok := netip.AddrFromSlice(e.Val[:min(4, len(e.Val))])
		return !ok || len(e.Val) < 6 || !gone[netip.AddrPortFrom(addr, uint16(e.Val[4])<<8|uint16(e.Val[5]))]
	})
	for part := range slices.Chunk(stuck, chunk) {
		if err := t.conn.SetDeleteElements(t.sticky, part); err != nil {
			return err
		}
	}
	return t.conn.Flush()
}

// hasRules says whether the table still has its chains with all their rules.
func (t *table) hasRules() bool {
	for _, c := range t.static {
		rules, err := t.conn.GetRules(t.Table, c.Chain)
		if err != nil || len(rules) != len(c.rules) {
			return false
		}
	}
	return true
}

// hasElements says whether the maps still have as many elements as state asks for. It reads all of them.
func (t *table) hasElements(state State) bool {
	var want elements
	for _, rule := range state {
		want.add(rule)
	}
	for set, count := range map[*nftables.Set]int{t.services: len(want.services), t.backends: len(want.backends), t.choose: len(t.chosen)} {
		got, err := t.conn.GetSetElements(set)
		if err != nil || len(got) != count {
			return false
		}
	}
	return true
}

func (t *table) remove() error {
	t.conn.AddTable(t.Table)
	t.conn.DelTable(t.Table)
	if err := t.conn.Flush(); err != nil {
		return fmt.Errorf("remove the packet filter table %s: %w", tableName, err)
	}
	return nil
}
