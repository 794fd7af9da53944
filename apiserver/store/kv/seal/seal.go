// Package seal keeps the values of chosen keys encrypted in a kv.Backend: AES-256-GCM with a key per value, derived
// from one in a file and bound to the value's place. Who uses the Backend reads and writes plain values.
//
// It owns the key file and the rotation of keys. It must not know what the values mean, and no error or log line of
// it quotes a value or a key.
package seal

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"iter"
	"log/slog"
	"maps"
	"slices"
	"strings"
	"sync"

	"github.com/slipway-dev/slipway/apiserver/store/kv"
)

// Config says what is sealed, and with what.
type Config struct {
	Backend kv.Backend // stays the caller's to close
	KeyFile string     // made at the first start, 0600
	Prefix  string     // values of keys below it are sealed
	Log     *slog.Logger
}

// Backend is a kv.Backend whose values below a prefix are sealed in the one it is made of.
type Backend struct {
	kv.Backend
	prefix string
	file   keyFile
	log    *slog.Logger

	// mu is held shared from the choice of the key until the value is stored, so that whoever changes the key knows
	// that no write with the old one is on its way.
	mu    sync.RWMutex
	keys  keys
	known map[id]key // every key seen: what still comes out of the history was sealed with an older one

	said map[string]string // last problem told, by what it is about; Run's own
}

// Open reads the key file, or makes it when nothing is sealed yet, and makes sure that every value's key is there.
func Open(ctx context.Context, cfg Config) (*Backend, error) {
	return open(ctx, cfg, keyFileAt(cfg.KeyFile))
}

func open(ctx context.Context, cfg Config, file keyFile) (*Backend, error) {
	b := &Backend{Backend: cfg.Backend, prefix: cfg.Prefix, file: file, log: cfg.Log, known: map[id]key{}, said: map[string]string{}}
	if b.log == nil {
		b.log = slog.Default()
	}
	found, err := b.census(ctx)
	if err != nil {
		return nil, err
	}
	ks, err := file.read()
	switch {
	case errors.Is(err, fs.ErrNotExist) && found.sealed() > 0:
		return nil, fmt.Errorf("%s is missing, and %d Secrets in the store are encrypted with its keys: put it back from a copy; if there is none, slipway recover --from-git makes them anew", file.path, found.sealed())
	case errors.Is(err, fs.ErrNotExist):
		if ks, err = firstKey(file); err != nil {
			return nil, err
		}
	case err != nil:
		return nil, err
	}
	for by, n := range found.by {
		if !ks.has(by) {
			return nil, fmt.Errorf("%s does not hold key %s, and %d Secrets in the store are encrypted with it: put back the file that belongs to this store; if it is lost, slipway recover --from-git makes them anew", file.path, by, n)
		}
	}
	b.adopt(ks)
	return b, nil
}

func firstKey(file keyFile) (ks keys, err error) {
	err = file.change(func(present keys) (keys, error) {
		if ks = present; ks != nil {
			return nil, nil
		}
		k, err := newKey()
		ks = keys{k}
		return ks, err
	})
	return ks, err
}

// adopt makes ks the keys in use. It waits for writes that are on their way.
func (b *Backend) adopt(ks keys) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.keys = ks
	for _, k := range ks {
		b.known[k.id()] = k
	}
}

// present returns the keys in use.
func (b *Backend) present() keys {
	b.mu.RLock()
	defer b.mu.RUnlock()
	return b.keys
}

// Txn implements kv.Backend.
func (b *Backend) Txn(ctx context.Context, ops []kv.Op) (uint64, error) {
	private := func(op kv.Op) bool { return op.Verb == kv.Put && strings.HasPrefix(op.Key, b.prefix) }
	if !slices.ContainsFunc(ops, private) {
		return b.Backend.Txn(ctx, ops)
	}
	b.mu.RLock()
	defer b.mu.RUnlock()
	ops = slices.Clone(ops)
	for i, op := range ops {
		if !private(op) {
			continue
		}
		sealed, err := b.keys[0].seal(op.Key, op.Value)
		if err != nil {
			return 0, fmt.Errorf("encrypt %s: %w", op.Key, err)
		}
		ops[i].Value = sealed
	}
	return b.Backend.Txn(ctx, ops)
}

// Range implements kv.Backend.
func (b *Backend) Range(ctx context.Context, r kv.Range) (kv.Page, error) {
	page, err := b.Backend.Range(ctx, r)
	if err != nil {
		return page, err
	}
	private := func(e kv.Entry) bool { return strings.HasPrefix(e.Key, b.prefix) }
	if !slices.ContainsFunc(page.Entries, private) {
		return page, nil
	}
	page.Entries = slices.Clone(page.Entries)
	for i, e := range page.Entries {
		if private(e) {
			page.Entries[i].Value = b.plain(e.Key, e.Value)
		}
	}
	return page, nil
}

// Watch implements kv.Backend.
func (b *Backend) Watch(ctx context.Context, prefix string, after uint64) iter.Seq2[kv.Batch, error] {
	private := func(e kv.Event) bool { return !e.Deleted && strings.HasPrefix(e.Key, b.prefix) }
	return func(yield func(kv.Batch, error) bool) {
		for batch, err := range b.Backend.Watch(ctx, prefix, after) {
			if slices.ContainsFunc(batch.Events, private) {
				batch.Events = slices.Clone(batch.Events)
				for i, e := range batch.Events {
					if private(e) {
						batch.Events[i].Value = b.plain(e.Key, e.Value)
					}
				}
			}
			if !yield(batch, err) {
				return
			}
		}
	}
}

// plain returns what a stored value says. One that was never sealed is what it says; one that does not open stays as
// it is, which nobody can take for an object.
func (b *Backend) plain(place string, value []byte) []byte {
	plain, err := b.unseal(place, value)
	if err != nil {
		b.log.Error("a Secret in the store cannot be read; to give it up: etcdctl del, and what Git says of it is made anew", "key", place, "err", err)
		return value
	}
	return plain
}

func (b *Backend) unseal(place string, value []byte) ([]byte, error) {
	by, sealed := sealedBy(value)
	if !sealed {
		return value, nil
	}
	b.mu.RLock()
	k, ok := b.known[by]
	b.mu.RUnlock()
	if !ok {
		return nil, fmt.Errorf("%s does not hold key %s", b.file.path, by)
	}
	return k.open(place, value)
}

// census counts what is stored, by the key it is sealed with.
type census struct {
	plain int
	by    map[id]int
}

func (c census) sealed() (n int) {
	for n1 := range maps.Values(c.by) {
		n += n1
	}
	return n
}

func (b *Backend) census(ctx context.Context) (census, error) {
	c := census{by: map[id]int{}}
	err := b.each(ctx, func(e kv.Entry) error {
		if by, sealed := sealedBy(e.Value); sealed {
			c.by[by]++
		} else {
			c.plain++
		}
		return nil
	})
	return c, err
}

// pageSize is how many values one read returns.
const pageSize = 500

// each calls visit for every value below the prefix, as it is stored.
func (b *Backend) each(ctx context.Context, visit func(kv.Entry) error) error {
	request := kv.Range{Prefix: b.prefix, Limit: pageSize}
	for {
		page, err := b.Backend.Range(ctx, request)
		if err != nil {
			return fmt.Errorf("read the Secrets in the store: %w", err)
		}
		for _, e := range page.Entries {
			if err := visit(e); err != nil {
				return err
			}
		}
		if !page.More {
			return nil
		}
		request.From = page.Entries[len(page.Entries)-1].Key + "\x00"
	}
}
