// Package loop runs controllers: it turns watches into keys, de-duplicates them in a queue, and calls a
// controller's Reconcile for each key with parallel workers, never two at once for one key. It reads an error's
// class in one place: transient errors back off, Wait comes back after a time, Stalled waits for the next change.
// A Group keeps controllers and other long-running parts of a process going. It must not know what they do.
package loop

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/slipway-dev/slipway/apiserver/api"
	"github.com/slipway-dev/slipway/apiserver/store"
)

// Key names what a controller reconciles, usually an object.
type Key struct {
	Namespace string
	Name      string
}

// String returns "namespace/name", or "name" without a namespace.
func (k Key) String() string {
	if k.Namespace == "" {
		return k.Name
	}
	return k.Namespace + "/" + k.Name
}

// KeyOf returns obj's own key.
func KeyOf(obj api.Object) Key { return Key{Namespace: obj.GetNamespace(), Name: obj.GetName()} }

// Input is one kind a controller looks at.
type Input struct {
	Kind *api.Kind
	Opts store.WatchOptions
	// Keys maps a changed object to the keys to reconcile. Old is the state before, nil when it was not known. It is
	// called by one goroutine for each Input, so what Inputs share needs a lock; it should not wait for anything.
	Keys func(old, new api.Object, deleted bool) []Key
	// Stateless keeps nothing of what was seen: old is always nil, and what is deleted while a watch is broken goes
	// unnoticed. It saves memory for a controller that needs neither.
	Stateless bool
	// Known, where set, is told whether Keys has been called for everything there is: not before the first objects
	// have come, nor while a broken watch starts over.
	Known func(all bool)
}

// Controller is a level-triggered loop: a name, inputs, and what to do for a key.
type Controller struct {
	Name    string
	Inputs  []Input
	Workers int // parallel keys; 0: 1
	// Reconcile looks at the present state of key and acts. It reads with the client it was built with.
	Reconcile func(ctx context.Context, key Key) error
}

// Own is the Keys function of a controller's main kind: the object's own key.
func Own(_, new api.Object, _ bool) []Key { return []Key{KeyOf(new)} }

// waitError asks to be called again after a time, without being an error.
type waitError struct{ after time.Duration }

func (e waitError) Error() string { return fmt.Sprintf("wait %s", e.after) }

// Wait returns the error with which Reconcile asks to be called again after d even if nothing changes. A time that
// has passed already means at once.
func Wait(d time.Duration) error { return waitError{max(d, time.Millisecond)} }

// stalledError cannot be mended by trying again.
type stalledError struct{ err error }

func (e stalledError) Error() string { return e.err.Error() }
func (e stalledError) Unwrap() error { return e.err }

// Stalled marks err as one that only a change of input mends: it is logged once and not tried again.
func Stalled(err error) error { return stalledError{err} }

// class reads an error's class; the third result is the delay of a Wait.
func class(err error) (transient, stalled bool, after time.Duration) {
	var wait waitError
	var stall stalledError
	switch {
	case err == nil:
		return false, false, 0
	case errors.As(err, &wait):
		return false, false, wait.after
	case errors.As(err, &stall):
		return false, true, 0
	default:
		return true, false, 0
	}
}
