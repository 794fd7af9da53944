// Package access decides who may do what. It owns the identities of Slipway's own parts with what each of their
// jobs needs, the node rules, the rule for people (read everything, write nothing), and RBAC for workloads.
//
// It reads bindings, roles and, for nodes, Pods through a store.Reader; it never writes and keeps no state, so
// that a decision is about the present.
package access

import (
	"context"
	"fmt"
	"slices"
	"strings"

	rbacv1 "k8s.io/api/rbac/v1"

	"github.com/slipway-dev/slipway/apiserver/store"
)

// Well-known groups.
const (
	GroupMasters         = "system:masters"
	GroupAuthenticated   = "system:authenticated"
	GroupNodes           = "system:nodes"
	GroupServiceAccounts = "system:serviceaccounts"
	GroupPeople          = "slipway:people" // read everything, write nothing
	groupParts           = "slipway:parts"  // Slipway's own controllers, scheduler and GitOps engine
)

// Prefixes of well-known user names.
const (
	nodePrefix           = "system:node:"
	controllerPrefix     = "system:controller:"
	serviceAccountPrefix = "system:serviceaccount:"
)

// Identity is who calls.
type Identity struct {
	Name   string
	UID    string
	Groups []string
	Extra  map[string][]string
}

// In says whether the identity is in group.
func (id Identity) In(group string) bool { return slices.Contains(id.Groups, group) }

// NodeName returns the node an agent's identity stands for, or "".
func (id Identity) NodeName() string {
	if !id.In(GroupNodes) {
		return ""
	}
	name, _ := strings.CutPrefix(id.Name, nodePrefix)
	return name
}

// IsPart says whether the identity is one of Slipway's own parts, node agents included: a program that writes the
// same fields each time, and not a person or a workload.
func (id Identity) IsPart() bool { return id.In(groupParts) || id.NodeName() != "" }

// Controller is the identity of a controller: system:controller:NAME.
func Controller(name string) Identity { return part(controllerPrefix + name) }

// Scheduler is the scheduler's identity.
func Scheduler() Identity { return part("system:kube-scheduler") }

// GitOps is the identity of the engine that applies what Git holds.
func GitOps() Identity { return part("system:slipway:gitops") }

// Node is the identity of a node's agent.
func Node(name string) Identity {
	return Identity{Name: nodePrefix + name, Groups: []string{GroupNodes, GroupAuthenticated}}
}

// People is the identity of a person: reads everything, writes nothing.
func People(name string) Identity {
	return Identity{Name: name, Groups: []string{GroupPeople, GroupAuthenticated}}
}

// Admin may do everything. It is for tests and for what the process does to itself.
func Admin() Identity {
	return Identity{Name: "system:admin", Groups: []string{GroupMasters, GroupAuthenticated}}
}

func part(name string) Identity {
	return Identity{Name: name, Groups: []string{groupParts, GroupAuthenticated}}
}

// Attributes say what is asked for. Path is set instead of Resource for what is no resource, such as /metrics.
type Attributes struct {
	Verb        string // get, list, watch, create, update, patch, delete
	Group       string
	Resource    string
	Subresource string
	Namespace   string
	Name        string
	Path        string
	DryRun      bool
	// NodeName and ObjectName are what a list's or watch's field selector pins spec.nodeName and metadata.name to.
	NodeName, ObjectName string
}

// resource returns "pods" or "pods/status", as rules write it.
func (a Attributes) resource() string {
	if a.Subresource == "" {
		return a.Resource
	}
	return a.Resource + "/" + a.Subresource
}

func (a Attributes) reads() bool { return a.Verb == "get" || a.Verb == "list" || a.Verb == "watch" }

// Decision is the answer, with a reason where there is one to tell.
type Decision struct {
	Allowed bool
	Reason  string
}

// Authorizer decides by the objects it reads.
type Authorizer struct {
	Reader store.Reader
}

// Decide says whether id may do what a says. An error means that it could not be found out: do not allow.
func (z Authorizer) Decide(ctx context.Context, id Identity, a Attributes) (Decision, error) {
	switch {
	case id.In(GroupMasters):
		return Decision{Allowed: true}, nil
	case id.In(GroupAuthenticated) && anyAllows(authenticatedRules, a):
		return Decision{Allowed: true}, nil
	case id.In(groupParts):
		return decidePart(id, a), nil
	case id.NodeName() != "":
		return z.decideNode(ctx, id.NodeName(), a)
	case id.In(GroupPeople):
		return decidePeople(a), nil
	}
	allowed := false
	err := z.eachRule(ctx, id, a.Namespace, func(rule *rbacv1.PolicyRule) bool {
		allowed = allows(rule, a)
		return !allowed
	})
	return Decision{Allowed: allowed}, err
}

// decidePart looks a part up in the table of what each job needs.
func decidePart(id Identity, a Attributes) Decision {
	rules, known := partRules[id.Name]
	switch {
	case !known:
		return Decision{Reason: fmt.Sprintf("%s has no row in the table of Slipway's parts", id.Name)}
	case slices.ContainsFunc(rules, func(r rbacv1.PolicyRule) bool { return partAllows(&r, a) }) || anyAllows(everyPart, a):
		return Decision{Allowed: true}
	}
	return Decision{Reason: "its job does not need that"}
}

// decidePeople lets people read everything and try every write.
func decidePeople(a Attributes) Decision {
	switch {
	case a.Path != "":
		return Decision{Allowed: a.Verb == "get"}
	case a.reads():
		return Decision{Allowed: slices.Contains([]string{"", "status", "log"}, a.Subresource)}
	case a.DryRun && (a.Subresource == "" || a.Subresource == "status"):
		return Decision{Allowed: true}
	}
	return Decision{Reason: "people change the cluster in Git"}
}

// Rules returns what id may do in a namespace, for self reviews. Incomplete says that it may do things that rules
// do not express.
func (z Authorizer) Rules(ctx context.Context, id Identity, namespace string) (rules []rbacv1.PolicyRule, incomplete bool, err error) {
	if id.In(GroupAuthenticated) {
		rules = append(rules, authenticatedRules...)
	}
	switch {
	case id.In(GroupMasters):
		return append(rules, may("*", "*")[0], rbacv1.PolicyRule{Verbs: []string{"*"}, NonResourceURLs: []string{"*"}}), false, nil
	case id.In(groupParts):
		return append(append(rules, partRules[id.Name]...), everyPart...), false, nil
	case id.NodeName() != "":
		return append(rules, nodeReads...), true, nil
	case id.In(GroupPeople):
		return append(rules, peopleRules...), false, nil
	}
	err = z.eachRule(ctx, id, namespace, func(rule *rbacv1.PolicyRule) bool {
		rules = append(rules, *rule)
		return true
	})
	return rules, false, err
}
