// Package kv is the contract between the store and what keeps its bytes: an ordered map from keys to values in
// which every transaction makes one new revision, with the history of the recent ones. Package etcd keeps it on
// disk, package memory in this process; both pass package kvtest.
//
// It knows nothing of objects: keys and values are bytes, and what they mean is the store's.
package kv

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"math"
)

// Any as Op.Revision writes whatever is there.
const Any = math.MaxUint64

var (
	// ErrCondition: an operation's Revision is not the key's, nothing was written.
	ErrCondition = errors.New("condition does not hold")
	// ErrCompacted: the history asked for is gone; read the present state instead.
	ErrCompacted = errors.New("revision has been compacted")
	// ErrClosed: the backend has been closed.
	ErrClosed = errors.New("backend is closed")
	// ErrTooLarge: the transaction holds more bytes than the backend takes at once. Nothing was written.
	ErrTooLarge = errors.New("transaction is too large")
	// ErrNoSpace: the disk or the backend's quota is used up. Nothing was written.
	ErrNoSpace = errors.New("backend has no space left")
	// ErrStopped: the backend has stopped by itself, and may be opened again. Whether a write that was running
	// happened is open.
	ErrStopped = errors.New("backend has stopped")
)

// Backend keeps keys and values. All methods may be called by any goroutine.
type Backend interface {
	// Range returns keys in order. It returns ErrCompacted if r.Revision is no longer known.
	Range(ctx context.Context, r Range) (Page, error)
	// Txn does all ops or, when one of their conditions does not hold, none (ErrCondition), and returns the
	// revision it made. A key occurs once. When it returns without error the change is durable. ErrStopped and
	// errors that are not of this package leave open whether the change happened. A transaction without writes
	// (checks, deletions of absent keys) makes no revision and returns the present one.
	Txn(ctx context.Context, ops []Op) (uint64, error)
	// Watch yields every transaction after revision that changed keys under prefix, in order, each once and
	// whole, and then waits for the next. It ends by yielding one error: ErrCompacted, ErrStopped, ErrClosed or
	// ctx's.
	Watch(ctx context.Context, prefix string, after uint64) iter.Seq2[Batch, error]
	// Revision returns the newest revision: not older than any transaction that has been acknowledged. A backend
	// that has stopped still knows it.
	Revision(ctx context.Context) (uint64, error)
	Close() error
}

// Range asks for keys.
type Range struct {
	Prefix   string // empty: every key
	From     string // first key wanted, empty or under Prefix
	Limit    int    // 0: no limit
	Revision uint64 // the state to read, 0: the newest
}

// Page is what a Range found.
type Page struct {
	Revision uint64 // the state that was read
	Entries  []Entry
	More     bool // keys under the prefix follow after the last entry
}

// Entry is a key with its value, and the revision of the transaction that wrote it. The bytes are shared: nobody
// changes them.
type Entry struct {
	Key      string
	Value    []byte
	Revision uint64
}

// Op is one key's part of a transaction.
type Op struct {
	Verb  Verb
	Key   string
	Value []byte // for Put; belongs to the backend from the call on
	// Revision is the condition: the key's last write. 0: the key is absent. Any: no condition.
	Revision uint64
}

// Verb says what an Op does.
type Verb uint8

// The verbs. Check writes nothing: it is a condition only.
const (
	Put Verb = iota
	Delete
	Check
)

// String returns the verb's name.
func (v Verb) String() string {
	switch v {
	case Put:
		return "put"
	case Delete:
		return "delete"
	case Check:
		return "check"
	}
	return fmt.Sprintf("verb %d", uint8(v))
}

// Batch is what one transaction changed.
type Batch struct {
	Revision uint64
	Events   []Event
}

// Event is one key's change. Of a deletion Value is nil.
type Event struct {
	Key     string
	Value   []byte
	Deleted bool
}

// Usage is how much of its room a backend's database takes, in bytes.
type Usage struct {
	Size  int64 // of the file
	InUse int64 // of those, not free for new data
	Quota int64 // Size at which writes are refused; 0: none
}
