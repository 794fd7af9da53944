package store

import (
	"context"
	"errors"
	"fmt"
	"strings"

	apierrors "k8s.io/apimachinery/pkg/api/errors"

	"github.com/slipway-dev/slipway/apiserver/api"
	"github.com/slipway-dev/slipway/apiserver/store/kv"
)

// Op is one object's part of a transaction. Insert, Replace, Remove and Require make one.
type Op struct {
	verb     kv.Verb
	object   api.Object
	revision uint64 // condition: the object's present revision, 0: absent

	claim string // instead of object: a key below claims
	value []byte
}

// Insert stores obj, which must not exist. obj belongs to the store from then on, whatever Txn returns.
func Insert(obj api.Object) Op { return Op{verb: kv.Put, object: obj} }

// Replace stores obj in place of current, an object read from the store, which must still be the newest state. obj
// belongs to the store from then on, whatever Txn returns.
func Replace(current, obj api.Object) Op {
	return Op{verb: kv.Put, object: obj, revision: revisionOf(current)}
}

// Remove deletes current, an object read from the store, which must still be the newest state.
func Remove(current api.Object) Op {
	return Op{verb: kv.Delete, object: current, revision: revisionOf(current)}
}

// Require writes nothing, but current, an object read from the store, must still be the newest state.
func Require(current api.Object) Op {
	return Op{verb: kv.Check, object: current, revision: revisionOf(current)}
}

// claims is where keys live that are no objects: names of which each belongs to one object at most.
const claims = root + "ranges/"

// Claim takes a name, such as "serviceips/10.96.0.10", for owner. It must not be taken: *ClaimedError.
func Claim(name, owner string) Op {
	return Op{verb: kv.Put, claim: claims + name, value: []byte(owner)}
}

// Release gives a name back; one that nobody took is no error.
func Release(name string) Op { return Op{verb: kv.Delete, claim: claims + name, revision: kv.Any} }

// ClaimedError says that a Txn wrote nothing because a name is taken.
type ClaimedError struct {
	Name  string
	Owner string
}

// Error names the owner.
func (e *ClaimedError) Error() string { return e.Name + " is taken by " + e.Owner }

// Txn does all ops or none and returns, in their order, what is stored now: for Remove the last state with the
// deletion's resourceVersion, for Require its argument, for Claim and Release nil. Objects are stored as they are:
// nothing is defaulted, validated or compared; times finer than a second and other things the codec does not keep
// must not be in them.
//
// Two objects of one kind cannot be written together: they would share a revision, and a watch that resumes
// between them would lose one.
//
// When an object is not as an op says, the error is its AlreadyExists, NotFound or Conflict.
func (s *Store) Txn(ctx context.Context, ops ...Op) ([]api.Object, error) {
	writes := make([]*write, len(ops))
	request := make([]kv.Op, len(ops))
	written := map[*kindCache]bool{}
	for i, op := range ops {
		if op.claim != "" {
			request[i] = kv.Op{Verb: op.verb, Key: op.claim, Value: op.value, Revision: op.revision}
			continue
		}
		k, err := s.kindOf(op.object)
		if err != nil {
			return nil, err
		}
		if op.verb != kv.Check {
			if written[k] {
				return nil, fmt.Errorf("transaction writes two objects of %s", k.kind)
			}
			written[k] = true
		}
		if writes[i], err = s.prepare(k, op); err != nil {
			return nil, err
		}
		request[i] = kv.Op{Verb: op.verb, Key: writes[i].key, Value: writes[i].value, Revision: op.revision}
	}
	for i, w := range writes {
		if w != nil && ops[i].verb != kv.Check {
			s.flight.enter(w)
		}
	}
	revision, err := s.backend.Txn(ctx, request)
	if err != nil {
		for _, w := range writes {
			if w != nil {
				s.flight.abandon(w)
			}
		}
		return nil, s.explain(ctx, ops, err)
	}
	objects := make([]api.Object, len(ops))
	for i, w := range writes {
		if w == nil {
			continue
		}
		if objects[i] = w.obj; ops[i].verb != kv.Check {
			objects[i] = s.flight.leave(w, revision, s.applied.Load)
		}
	}
	return objects, nil
}

func (s *Store) kindOf(obj api.Object) (*kindCache, error) {
	kind, err := api.KindOf(obj)
	if err != nil {
		return nil, apierrors.NewBadRequest(err.Error())
	}
	return s.cache(kind)
}

// prepare encodes an op's object.
func (s *Store) prepare(k *kindCache, op Op) (*write, error) {
	namespace, name := op.object.GetNamespace(), op.object.GetName()
	if name == "" {
		return nil, apierrors.NewBadRequest(fmt.Sprintf("%s: name is required", k.kind))
	}
	if k.kind.Namespaced != (namespace != "") {
		return nil, apierrors.NewBadRequest(fmt.Sprintf("%s %q: namespace is %q", k.kind, name, namespace))
	}
	w := &write{key: keyOf(k.prefix, namespace, name), obj: op.object}
	switch op.verb {
	case kv.Delete:
		w.obj, w.old = shallow(op.object), op.revision
	case kv.Put:
		if op.object.GetObjectKind().GroupVersionKind() != k.kind.GroupVersionKind {
			op.object.GetObjectKind().SetGroupVersionKind(k.kind.GroupVersionKind)
		}
		op.object.SetResourceVersion("")
		value, err := s.codec.Encode(op.object)
		if err != nil {
			return nil, apierrors.NewInternalError(err)
		}
		w.value = value
	}
	return w, nil
}

// explain finds the object that failed a transaction's conditions.
func (s *Store) explain(ctx context.Context, ops []Op, cause error) error {
	if !errors.Is(cause, kv.ErrCondition) {
		return unavailable(cause)
	}
	for _, op := range ops {
		if op.claim != "" {
			if err := s.claimed(ctx, op); err != nil {
				return err
			}
			continue
		}
		k, err := s.kindOf(op.object)
		if err != nil {
			return err
		}
		kind, name := k.kind, op.object.GetName()
		it, err := s.get(ctx, kind, op.object.GetNamespace(), name)
		switch {
		case err != nil:
			return err
		case it == nil && op.revision != 0:
			return notFound(kind, name)
		case it != nil && op.revision == 0:
			return apierrors.NewAlreadyExists(kind.GroupResource(), name)
		case it != nil && it.revision != op.revision:
			return changedMeanwhile(kind, name)
		}
	}
	// It changed and changed back: absent, present, absent.
	for _, op := range ops {
		if op.claim == "" {
			k, err := s.kindOf(op.object)
			if err != nil {
				return err
			}
			return changedMeanwhile(k.kind, op.object.GetName())
		}
	}
	return unavailable(cause)
}

// claimed returns a *ClaimedError if op cannot take its name.
func (s *Store) claimed(ctx context.Context, op Op) error {
	if op.verb != kv.Put {
		return nil
	}
	page, err := s.backend.Range(ctx, kv.Range{Prefix: op.claim, Limit: 1})
	if err != nil {
		return unavailable(err)
	}
	if len(page.Entries) == 0 || page.Entries[0].Key != op.claim {
		return nil
	}
	return &ClaimedError{Name: strings.TrimPrefix(op.claim, claims), Owner: string(page.Entries[0].Value)}
}
