package network

import (
	"fmt"

	"github.com/google/nftables"
	"github.com/google/nftables/expr"

	"github.com/slipway-dev/slipway/nodeagent/network/nft"
)

// Another program's table (Docker, ufw, firewalld) may drop what is not its own, and no rule of ours can overrule
// that: a packet must be accepted by every table. So rules are added at the top of such chains, with a comment by
// which they are found and removed again. They are spelled as iptables-nft spells them, so that `iptables -L` goes
// on working.
const foreignComment = "slipway"

// openForeign makes sure that chains of others let Pods through. It returns the chains it changed.
func (f *filter) openForeign() ([]string, error) {
	var changed []string
	err := f.eachForeign(func(c *nftables.Chain, rules []*nftables.Rule) {
		if !closes(c, rules) {
			return
		}
		for _, rule := range rules {
			if nft.HasComment(rule.UserData, foreignComment) {
				return
			}
		}
		for _, exprs := range f.foreignRules(*c.Hooknum) {
			f.conn.InsertRule(&nftables.Rule{Table: c.Table, Chain: c, Exprs: exprs, UserData: nft.Comment(foreignComment)})
		}
		changed = append(changed, c.Table.Name+" "+c.Name)
	})
	if err != nil {
		return nil, err
	}
	if err := f.conn.Flush(); err != nil {
		return nil, fmt.Errorf("let Pods through other programs' packet filter: %w", err)
	}
	return changed, nil
}

// closeForeign takes away what openForeign added.
func (f *filter) closeForeign() error {
	var failed error
	err := f.eachForeign(func(_ *nftables.Chain, rules []*nftables.Rule) {
		for _, rule := range rules {
			if nft.HasComment(rule.UserData, foreignComment) {
				if err := f.conn.DelRule(rule); err != nil {
					failed = err
				}
			}
		}
	})
	if err == nil {
		err = failed
	}
	if err != nil {
		return err
	}
	if err := f.conn.Flush(); err != nil {
		return fmt.Errorf("remove rules from other programs' packet filter: %w", err)
	}
	return nil
}

// foreignRules accept what goes to and comes from Pods; on input, only what Pods send to the gateway address, where
// the API and DNS listen.
func (f *filter) foreignRules(hook nftables.ChainHook) [][]expr.Any {
	counter := []expr.Any{&expr.Counter{}}
	if hook == *nftables.ChainHookInput {
		to := append(nft.Destination(1), &expr.Cmp{Op: expr.CmpOpEq, Register: 1, Data: f.gateway.AsSlice()})
		return [][]expr.Any{nft.Rule(nft.FromLink(vethPrefix), to, counter, nft.Accept())}
	}
	return [][]expr.Any{
		nft.Rule(nft.FromLink(vethPrefix), counter, nft.Accept()),
		nft.Rule(nft.ToLink(vethPrefix), counter, nft.Accept()),
	}
}

// eachForeign calls visit for every other table's chain that filters what is forwarded or comes in, over IPv4.
func (f *filter) eachForeign(visit func(*nftables.Chain, []*nftables.Rule)) error {
	chains, err := f.conn.ListChains()
	if err != nil {
		return fmt.Errorf("list chains: %w", err)
	}
	for _, c := range chains {
		family := c.Table.Family
		if c.Hooknum == nil || c.Type != nftables.ChainTypeFilter || c.Table.Name == tableName || c.Table.Name == "slipway" ||
			(family != nftables.TableFamilyIPv4 && family != nftables.TableFamilyINet) ||
			(*c.Hooknum != *nftables.ChainHookForward && *c.Hooknum != *nftables.ChainHookInput) {
			continue
		}
		rules, err := f.conn.GetRules(c.Table, c)
		if err != nil {
			return fmt.Errorf("list rules of %s %s: %w", c.Table.Name, c.Name, err)
		}
		for _, rule := range rules {
			rule.Chain, rule.Table = c, c.Table
		}
		visit(c, rules)
	}
	return nil
}

// closes says whether a chain refuses what none of its rules names: by its policy, or by its last rule.
func closes(c *nftables.Chain, rules []*nftables.Rule) bool {
	if c.Policy != nil && *c.Policy == nftables.ChainPolicyDrop {
		return true
	}
	if len(rules) == 0 {
		return false
	}
	for _, e := range rules[len(rules)-1].Exprs {
		switch e := e.(type) {
		case *expr.Counter, *expr.Log:
		case *expr.Reject:
			return true
		case *expr.Verdict:
			return e.Kind == expr.VerdictDrop
		default:
			return false
		}
	}
	return false
}
