// Package store is the contract through which everything in Slipway reads and writes API objects: what the
// Kubernetes wire protocol has, as Go calls. Implementations: this package's Store on a key-value backend (package
// kv: etcd and memory), the registry bound to an identity, and later the HTTP client. All pass package storetest.
//
// Errors are *apierrors.StatusError: NotFound, AlreadyExists, Conflict, Expired (410), Invalid, Forbidden.
package store

import (
	"context"
	"fmt"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/types"

	"github.com/slipway-dev/slipway/apiserver/api"
)

// Client reads and writes as one identity.
type Client interface {
	Reader
	Writer
}

// Reader reads objects. What it returns is shared and immutable.
type Reader interface {
	// Get returns the newest state of one object: every write acknowledged before the call is visible.
	Get(ctx context.Context, kind *api.Kind, namespace, name string) (api.Object, error)
	// List returns one consistent state, not older than any write acknowledged before the call.
	List(ctx context.Context, kind *api.Kind, opts ListOptions) (List, error)
	// Watch delivers every change after opts.Revision exactly once and in order.
	Watch(ctx context.Context, kind *api.Kind, opts WatchOptions) (Watch, error)
}

// Writer writes objects. Arguments stay the caller's and are not changed; results are shared and immutable.
// A write that returned without error is durable.
type Writer interface {
	// Create stores obj. With opts.Subresource it calls that subresource with obj as argument (binding, token);
	// create-only kinds are answered without being stored.
	Create(ctx context.Context, obj api.Object, opts CreateOptions) (api.Object, error)
	// Update replaces the object if obj's resourceVersion is empty or the stored one, else Conflict. A set uid
	// must match. With Subresource "status" only status is taken from obj, without it everything but status.
	Update(ctx context.Context, obj api.Object, opts UpdateOptions) (api.Object, error)
	Patch(ctx context.Context, kind *api.Kind, namespace, name string, patch Patch) (api.Object, error)
	// Delete removes the object, or marks it deleted while a grace period or finalizers hold it. It returns the
	// object's last state.
	Delete(ctx context.Context, kind *api.Kind, namespace, name string, opts DeleteOptions) (api.Object, error)
}

// ListOptions choose what List returns. The zero value means everything.
type ListOptions struct {
	Namespace string          // empty: all
	Labels    labels.Selector // nil: all
	Fields    fields.Selector // nil: all
	Limit     int             // 0: no limit
	Continue  string          // token of a previous List with the same options
	// Revision is the oldest state wanted, or with Exact the very one; zero: the newest. One that is not there yet is
	// waited for a little, then it is a Timeout (504) error; an exact one that is not known any more is Expired (410).
	Revision uint64
	Exact    bool
}

// List is one state of a kind: items sorted by namespace and name.
type List struct {
	Revision  uint64 // watch from here to see every later change
	Items     []api.Object
	Continue  string // not empty: more follow
	Remaining int    // how many, where known
}

// WatchOptions choose what Watch delivers.
type WatchOptions struct {
	Namespace string
	Labels    labels.Selector
	Fields    fields.Selector
	// Revision is the state the caller knows: of a List, an object or a bookmark. Zero: the current objects come
	// first as Added events, then a bookmark with InitialEventsEnd, then changes.
	Revision  uint64
	Bookmarks bool // deliver Bookmark events about once a minute and when nothing matched for long
}

// Watch is a running watch. It belongs to one goroutine.
type Watch interface {
	// Next waits for the next event. It returns an Expired (410) error when the watcher is too far behind, and
	// ctx's error; after an error the watch is over.
	Next(ctx context.Context) (Event, error)
	// Close frees the watch; it may be called at any time, by any goroutine, and makes a waiting Next return.
	Close()
}

// EventType says what happened to an object from the watcher's point of view.
type EventType string

// Event types, named as on the wire.
const (
	Added    EventType = "ADDED"
	Modified EventType = "MODIFIED"
	Deleted  EventType = "DELETED"  // also when the object no longer matches the selectors
	Bookmark EventType = "BOOKMARK" // Object is nil
)

// Event is one change.
type Event struct {
	Type             EventType
	Object           api.Object // last state for Deleted, with the deletion's resourceVersion
	Revision         uint64
	InitialEventsEnd bool // on the Bookmark that ends the initial objects
}

// CreateOptions qualify a Create.
type CreateOptions struct {
	Subresource  string
	FieldManager string
	DryRun       bool // the full pipeline, nothing stored
}

// UpdateOptions qualify an Update.
type UpdateOptions struct {
	Subresource  string
	FieldManager string
	DryRun       bool
}

// Patch is a change to an object as the wire carries it.
type Patch struct {
	Type         types.PatchType // JSONPatch, MergePatch, StrategicMergePatch or ApplyYAML (server-side apply)
	Data         []byte
	Subresource  string
	FieldManager string // required for apply
	Force        bool   // apply: take fields from other managers
	DryRun       bool
}

// DeleteOptions qualify a Delete.
type DeleteOptions struct {
	UID                types.UID // not empty: must match, else Conflict
	Revision           uint64    // not zero: must match, else Conflict
	GracePeriodSeconds *int64    // nil: the object's own
	Propagation        metav1.DeletionPropagation
	DryRun             bool
}

// Get is Reader.Get with the result's type. T decides the kind.
func Get[T api.Object](ctx context.Context, r Reader, namespace, name string) (T, error) {
	obj, err := r.Get(ctx, api.KindFor[T](), namespace, name)
	if err != nil {
		var none T
		return none, err
	}
	return as[T](obj)
}

// All is Reader.List with the items' type. T decides the kind.
func All[T api.Object](ctx context.Context, r Reader, opts ListOptions) ([]T, error) {
	list, err := r.List(ctx, api.KindFor[T](), opts)
	if err != nil {
		return nil, err
	}
	items := make([]T, len(list.Items))
	for i, obj := range list.Items {
		if items[i], err = as[T](obj); err != nil {
			return nil, err
		}
	}
	return items, nil
}

func as[T api.Object](obj api.Object) (T, error) {
	typed, ok := obj.(T)
	if !ok {
		return typed, fmt.Errorf("store returned %T, want %T", obj, typed)
	}
	return typed, nil
}
