package seal

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"time"

	"github.com/slipway-dev/slipway/apiserver/store/kv"
)

// marker is a key nobody reads. It is written after a key has been changed and before the values are read: a write
// with the old key whose caller gave up waiting is stored before it or never.
const marker = "/slipway/sealed-with"

// lookEvery is how often Run looks at the key file; while something cannot be sealed the pause grows to longest.
const (
	lookEvery = 2 * time.Second
	longest   = 30 * time.Second
)

// Progress is how far the values are sealed with the newest key.
type Progress struct {
	Key     string `json:"key"`     // the newest key's id
	Keys    int    `json:"keys"`    // how many the file holds: one when all is done
	Secrets int    `json:"secrets"` // values there are
	Sealed  int    `json:"sealed"`  // of those, sealed with Key
	Problem string `json:"problem,omitempty"`
}

// AddKey begins a rotation: it puts a new key before those in the file. When more than one is there already a
// rotation is under way, which is to be finished first: then it changes nothing. It needs no store, and whoever has
// it open finds the key.
func AddKey(path string) (name string, added bool, err error) { return addKey(keyFileAt(path)) }

func addKey(file keyFile) (name string, added bool, err error) {
	err = file.change(func(present keys) (keys, error) {
		if present == nil {
			return nil, fmt.Errorf("%s is missing: slipway up makes it", file.path)
		}
		if name = present[0].id().String(); len(present) > 1 {
			return nil, nil
		}
		k, err := newKey()
		name, added = k.id().String(), true
		return append(keys{k}, present...), err
	})
	return name, added, err
}

// ReadProgress returns how far the process that has the store open is, as it last wrote it down, and how many keys
// the file holds now.
func ReadProgress(path string) (Progress, error) {
	ks, err := keyFileAt(path).read()
	if err != nil {
		return Progress{}, err
	}
	var p Progress
	data, err := os.ReadFile(path + ".progress")
	if err == nil {
		err = json.Unmarshal(data, &p)
	}
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return Progress{}, fmt.Errorf("read progress: %w", err)
	}
	if first := ks[0].id().String(); p.Key != first {
		p = Progress{Key: first}
	}
	p.Keys = len(ks)
	return p, nil
}

// Run follows the key file until ctx ends: a new first key takes over writing, every value is sealed with it, and
// then the other keys leave the file. Values that were never sealed are.
func (b *Backend) Run(ctx context.Context) error {
	pause := lookEvery
	for settled := false; ; {
		changed, err := b.reload()
		b.say("keys of Secrets", err)
		if changed || !settled {
			_, err := b.Settle(ctx)
			b.say("encrypt Secrets with the newest key", err)
			settled = err == nil
		}
		if pause = min(2*pause, longest); settled {
			pause = lookEvery
		}
		select {
		case <-time.After(pause):
		case <-ctx.Done():
			return nil
		}
	}
}

// say logs a problem once for as long as it is the same.
func (b *Backend) say(what string, err error) {
	text := ""
	if err != nil && !errors.Is(err, context.Canceled) {
		text = err.Error()
	}
	if text != "" && text != b.said[what] {
		b.log.Error(what, "err", text)
	}
	b.said[what] = text
}

// reload takes over what the key file says now. A file that is gone is written back: a start without it would
// refuse. One that lost the key that writes is not this store's, and nothing of it is taken.
func (b *Backend) reload() (changed bool, err error) {
	used := b.present()
	found, err := b.file.read()
	if errors.Is(err, fs.ErrNotExist) {
		err = b.file.change(func(present keys) (keys, error) {
			if present != nil {
				return nil, nil
			}
			return used, nil
		})
		if err != nil {
			return false, err
		}
		return false, fmt.Errorf("%s was missing and was written again", b.file.path)
	}
	if err != nil {
		return false, err
	}
	if !found.has(used[0].id()) {
		return false, fmt.Errorf("%s does not hold key %s any more, which Secrets are encrypted with: put the file back from a copy", b.file.path, used[0].id())
	}
	if len(found) == len(used) && found[0] == used[0] {
		return false, nil
	}
	b.adopt(found)
	return true, nil
}

// Settle seals every value with the first key and, when none needs the others, drops them from the file. It may be
// ended at any moment: whatever is stored then opens with a key in the file, and the next call goes on.
func (b *Backend) Settle(ctx context.Context) (Progress, error) {
	ks := b.present()
	p := Progress{Key: ks[0].id().String(), Keys: len(ks)}
	found, err := b.census(ctx)
	if err != nil {
		return p, err
	}
	p.Secrets, p.Sealed = found.plain+found.sealed(), found.by[ks[0].id()]
	if len(ks) == 1 && p.Sealed == p.Secrets {
		return p, nil
	}
	if len(ks) > 1 {
		if _, err := b.Backend.Txn(ctx, []kv.Op{{Verb: kv.Put, Key: marker, Value: []byte(p.Key), Revision: kv.Any}}); err != nil {
			return p, fmt.Errorf("begin with key %s: %w", p.Key, err)
		}
	}
	err = b.rewrite(ctx, ks[0].id(), &p)
	if err == nil && len(ks) > 1 {
		err = b.drop(ks[0])
		p.Keys = 1
	}
	if err != nil {
		p.Problem = err.Error()
	}
	b.tell(p)
	return p, err
}

// rewrite writes values that are not sealed with the newest key until a look at all of them finds none.
func (b *Backend) rewrite(ctx context.Context, newest id, p *Progress) error {
	for {
		left, written := 0, 0
		var broken error
		p.Secrets, p.Sealed = 0, 0
		err := b.each(ctx, func(e kv.Entry) error {
			p.Secrets++
			if by, sealed := sealedBy(e.Value); sealed && by == newest {
				p.Sealed++
				return nil
			}
			left++
			plain, err := b.unseal(e.Key, e.Value)
			if err != nil {
				broken = fmt.Errorf("%s: %w", e.Key, err)
				return nil
			}
			_, err = b.Txn(ctx, []kv.Op{{Verb: kv.Put, Key: e.Key, Value: plain, Revision: e.Revision}})
			if errors.Is(err, kv.ErrCondition) {
				return nil // somebody wrote it: the next look says with which key
			}
			if err != nil {
				return fmt.Errorf("encrypt %s anew: %w", e.Key, err)
			}
			p.Sealed++
			if written++; written%256 == 0 {
				b.tell(*p)
			}
			return nil
		})
		if err != nil || left == 0 {
			return err
		}
		if broken != nil && written == 0 {
			return fmt.Errorf("the older keys must stay for what cannot be read: %w", broken)
		}
	}
}

// drop leaves the file with one key.
func (b *Backend) drop(newest key) error {
	err := b.file.change(func(present keys) (keys, error) {
		if len(present) == 0 || present[0] != newest {
			return nil, errors.New("the keys of Secrets were changed meanwhile")
		}
		return present[:1], nil
	})
	if err != nil {
		return err
	}
	b.adopt(keys{newest})
	b.log.Info("Secrets are encrypted with a new key, the old ones are gone", "key", newest.id().String())
	return nil
}

// tell writes progress down for whoever waits. It is a courtesy: a full disk must not end a rotation.
func (b *Backend) tell(p Progress) {
	data, err := json.Marshal(p)
	if err != nil {
		return
	}
	fresh := b.file.path + ".progress.new"
	if os.WriteFile(fresh, append(data, '\n'), 0o600) == nil {
		_ = os.Rename(fresh, b.file.path+".progress")
	}
}
