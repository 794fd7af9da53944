// Package registry is the one way to write objects. A call is bound to an identity and goes through the same steps
// whether it came over HTTP or from inside the process:
//
//	authorise → default → strategy → admission → validate → field ownership → allocate → store → audit
//
// It owns what a stored object looks like: uid, generation, the split of spec and status, graceful deletion and
// finalizers, addresses and ports of Services, managedFields. It must not run loops, keep state of its own beside
// the store, or know about HTTP.
package registry

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"time"

	authenticationv1 "k8s.io/api/authentication/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"

	"github.com/slipway-dev/slipway/apiserver/api"
	"github.com/slipway-dev/slipway/apiserver/registry/access"
	"github.com/slipway-dev/slipway/apiserver/registry/ownership"
	"github.com/slipway-dev/slipway/apiserver/registry/service"
	"github.com/slipway-dev/slipway/apiserver/store"
)

// TokenIssuer makes tokens for ServiceAccounts.
type TokenIssuer interface {
	// Issue returns a token and when it expires. bound may name a Pod or Secret with which the token ends, with its
	// uid. No audiences: the API server's own. A ttl of zero: the issuer's default.
	Issue(account *corev1.ServiceAccount, bound *authenticationv1.BoundObjectReference, audiences []string, ttl time.Duration) (token string, expires time.Time, err error)
}

// Entry is one write as an audit log wants it.
type Entry struct {
	Identity    Identity
	Verb        string
	Kind        *api.Kind
	Subresource string
	Namespace   string
	Name        string
	DryRun      bool
	Err         error // why it was refused; nil: it was done
}

// Config is what a Registry is built from.
type Config struct {
	Store       *store.Store
	ServiceCIDR netip.Prefix     // IPv4; zero: 10.96.0.0/16
	NodePorts   [2]int32         // first and last; zero: 30000–32767
	Tokens      TokenIssuer      // nil: token requests are refused
	Audit       func(Entry)      // nil: not wanted. Called after each write, also refused ones; must not block
	Now         func() time.Time // nil: time.Now
}

// Registry is the write path over one store.
type Registry struct {
	store   *store.Store
	access  access.Authorizer
	owners  *ownership.Tracker
	memo    *ownership.Memo
	pool    service.Pool
	tokens  TokenIssuer
	audit   func(Entry)
	now     func() time.Time
	actions map[target]action
}

// New returns a Registry. It writes nothing.
func New(c Config) (*Registry, error) {
	if c.Store == nil {
		return nil, errors.New("registry: no store")
	}
	if !c.ServiceCIDR.IsValid() {
		c.ServiceCIDR = netip.MustParsePrefix("10.96.0.0/16")
	}
	if c.NodePorts == [2]int32{} {
		c.NodePorts = [2]int32{30000, 32767}
	}
	p, err := service.NewPool(c.ServiceCIDR, c.NodePorts)
	if err != nil {
		return nil, fmt.Errorf("registry: %w", err)
	}
	r := &Registry{store: c.Store, access: access.Authorizer{Reader: c.Store}, owners: ownership.New(), memo: ownership.NewMemo(), pool: p, tokens: c.Tokens, audit: c.Audit, now: c.Now}
	if r.now == nil {
		r.now = time.Now
	}
	r.actions = r.newActions()
	return r, nil
}

// As returns the store as id sees it and may write it.
func (r *Registry) As(id Identity) store.Client { return &client{r: r, id: id} }

// Authorize returns nil if id may do what a says, else a Forbidden error in upstream's words.
func (r *Registry) Authorize(ctx context.Context, id Identity, a Attributes) error {
	decision, err := r.access.Decide(ctx, id, a)
	if err != nil {
		return apierrors.NewInternalError(fmt.Errorf("authorize %s: %w", id.Name, err))
	}
	if decision.Allowed {
		return nil
	}
	return forbidden(id, a, decision.Reason)
}

// Identity is who calls. See package access for what each may do.
type (
	Identity   = access.Identity
	Attributes = access.Attributes
)

// GroupPeople is the group of those who read everything and write nothing.
const GroupPeople = access.GroupPeople

// Controller is the identity of a controller: system:controller:NAME.
func Controller(name string) Identity { return access.Controller(name) }

// Scheduler is the scheduler's identity.
func Scheduler() Identity { return access.Scheduler() }

// GitOps is the identity of the engine that applies what Git holds.
func GitOps() Identity { return access.GitOps() }

// Node is the identity of a node's agent.
func Node(name string) Identity { return access.Node(name) }

// People is the identity of a person.
func People(name string) Identity { return access.People(name) }

// Admin may do everything: for tests, and for what the process does to itself.
func Admin() Identity { return access.Admin() }

// Mask returns obj as id may see it: people see no Secret data. obj is not changed.
func Mask(id Identity, obj api.Object) api.Object {
	if id.In(GroupPeople) {
		return api.MaskSecret(obj)
	}
	return obj
}

// client is the registry bound to an identity.
type client struct {
	r  *Registry
	id Identity
}

// Get implements store.Reader.
func (c *client) Get(ctx context.Context, kind *api.Kind, namespace, name string) (api.Object, error) {
	if err := readable(kind, "get"); err != nil {
		return nil, err
	}
	if err := c.r.Authorize(ctx, c.id, attributes(kind, "get", namespace, name)); err != nil {
		return nil, err
	}
	obj, err := c.r.store.Get(ctx, kind, namespace, name)
	if err != nil {
		return nil, err
	}
	return Mask(c.id, obj), nil
}

// List implements store.Reader.
func (c *client) List(ctx context.Context, kind *api.Kind, opts store.ListOptions) (store.List, error) {
	if err := readable(kind, "list"); err != nil {
		return store.List{}, err
	}
	a := selection(attributes(kind, "list", opts.Namespace, ""), opts.Fields)
	if err := c.r.Authorize(ctx, c.id, a); err != nil {
		return store.List{}, err
	}
	list, err := c.r.store.List(ctx, kind, opts)
	if err != nil || kind != api.Secrets || !c.id.In(GroupPeople) {
		return list, err
	}
	masked := make([]api.Object, len(list.Items))
	for i, obj := range list.Items {
		masked[i] = api.MaskSecret(obj)
	}
	list.Items = masked
	return list, nil
}

// Watch implements store.Reader.
func (c *client) Watch(ctx context.Context, kind *api.Kind, opts store.WatchOptions) (store.Watch, error) {
	if err := readable(kind, "watch"); err != nil {
		return nil, err
	}
	a := selection(attributes(kind, "watch", opts.Namespace, ""), opts.Fields)
	if err := c.r.Authorize(ctx, c.id, a); err != nil {
		return nil, err
	}
	watch, err := c.r.store.Watch(ctx, kind, opts)
	if err != nil || kind != api.Secrets || !c.id.In(GroupPeople) {
		return watch, err
	}
	return maskedWatch{watch}, nil
}

// maskedWatch hides the data of Secrets.
type maskedWatch struct{ store.Watch }

func (w maskedWatch) Next(ctx context.Context) (store.Event, error) {
	event, err := w.Watch.Next(ctx)
	if event.Object != nil {
		event.Object = api.MaskSecret(event.Object)
	}
	return event, err
}

func readable(kind *api.Kind, verb string) error {
	if kind.CreateOnly {
		return apierrors.NewMethodNotSupported(kind.GroupResource(), verb)
	}
	return nil
}

func attributes(kind *api.Kind, verb, namespace, name string) Attributes {
	if !kind.Namespaced {
		namespace = ""
	}
	return Attributes{Verb: verb, Group: kind.Group, Resource: kind.Resource, Namespace: namespace, Name: name}
}

// selection adds what a field selector pins down, by which an agent shows that it asks for its own.
func selection(a Attributes, selector fields.Selector) Attributes {
	if selector == nil {
		return a
	}
	if node, ok := selector.RequiresExactMatch("spec.nodeName"); ok {
		a.NodeName = node
	}
	if name, ok := selector.RequiresExactMatch("metadata.name"); ok {
		a.ObjectName = name
		a.Name = name
	}
	return a
}

// timestamp is the present in the precision that is stored.
func (r *Registry) timestamp() metav1.Time {
	return metav1.NewTime(r.now().UTC().Truncate(time.Second))
}
