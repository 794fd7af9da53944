package seal

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"

	"github.com/google/go-cmp/cmp"

	"github.com/slipway-dev/slipway/apiserver/store/kv"
	"github.com/slipway-dev/slipway/apiserver/store/kv/kvtest"
	"github.com/slipway-dev/slipway/apiserver/store/kv/memory"
)

const prefix = "/registry/secrets/"

// whole is a Backend that can be compacted, as the suite wants it.
type whole struct {
	*Backend
	plain *memory.Backend
}

func (w whole) Compact(ctx context.Context, revision uint64) error {
	return w.plain.Compact(ctx, revision)
}

func TestSuite(t *testing.T) {
	kvtest.Run(t, func(t *testing.T) kvtest.Backend {
		inner := memory.New()
		b, err := Open(t.Context(), Config{Backend: inner, KeyFile: filepath.Join(t.TempDir(), "k"), Prefix: ""}) // everything
		if err != nil {
			t.Fatal(err)
		}
		return whole{b, inner}
	})
}

func reopen(t *testing.T, inner kv.Backend, path string) *Backend {
	t.Helper()
	b, err := Open(t.Context(), Config{Backend: inner, KeyFile: path, Prefix: prefix, Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func put(t *testing.T, b kv.Backend, key, value string) {
	t.Helper()
	if _, err := b.Txn(t.Context(), []kv.Op{{Verb: kv.Put, Key: key, Value: []byte(value), Revision: kv.Any}}); err != nil {
		t.Fatal(err)
	}
}

// stored is what b holds, by key.
func stored(t *testing.T, b kv.Backend) map[string]string {
	t.Helper()
	page, err := b.Range(t.Context(), kv.Range{Prefix: "/registry/"})
	if err != nil {
		t.Fatal(err)
	}
	all := map[string]string{}
	for _, e := range page.Entries {
		all[e.Key] = string(e.Value)
	}
	return all
}

func TestOnlySecretsAreSealed(t *testing.T) {
	inner, path := memory.New(), filepath.Join(t.TempDir(), "secrets.key")
	b := reopen(t, inner, path)
	want := map[string]string{prefix + "shop/db": "hunter2", "/registry/configmaps/shop/a": "open"}
	for k, v := range want {
		put(t, b, k, v)
	}
	if diff := cmp.Diff(want, stored(t, reopen(t, inner, path))); diff != "" {
		t.Errorf("read after a restart (-want +got):\n%s", diff)
	}
	below := stored(t, inner)
	if below["/registry/configmaps/shop/a"] != "open" || strings.Contains(below[prefix+"shop/db"], "hunter2") {
		t.Errorf("stored: %q", below)
	}
	if info, err := os.Stat(path); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("key file: %v %v, want 0600", info, err)
	}
	put(t, b, prefix+"shop/db", "hunter2")
	if again := stored(t, inner)[prefix+"shop/db"]; again == below[prefix+"shop/db"] {
		t.Error("the same value was sealed the same way twice")
	}
}

func TestASealedValueOpensInItsPlaceOnly(t *testing.T) {
	k, err := newKey()
	if err != nil {
		t.Fatal(err)
	}
	sealed, err := k.seal(prefix+"a/x", []byte("hunter2"))
	if err != nil {
		t.Fatal(err)
	}
	other, err := k.seal(prefix+"a/x", []byte("hunter2"))
	if err != nil || bytes.Equal(other[:headSize], sealed[:headSize]) || bytes.Equal(other[headSize:headSize+12], sealed[headSize:headSize+12]) {
		t.Errorf("two values share a salt or a nonce: %x and %x, %v", sealed, other, err)
	}
	if plain, err := k.open(prefix+"a/x", sealed); err != nil || string(plain) != "hunter2" {
		t.Fatalf("opened %q, %v", plain, err)
	}
	if _, err := k.open(prefix+"b/x", sealed); !errors.Is(err, errDamaged) {
		t.Errorf("opened in another place: err %v", err)
	}
	for i := range sealed {
		changed := bytes.Clone(sealed)
		changed[i] ^= 1
		if _, err := k.open(prefix+"a/x", changed); !errors.Is(err, errDamaged) {
			t.Errorf("opened with byte %d changed: err %v", i, err)
		}
	}
	for n := range sealed {
		if _, err := k.open(prefix+"a/x", sealed[:n]); err == nil {
			t.Errorf("opened its first %d bytes", n)
		}
	}
}

func TestWhatDoesNotOpenIsNotServedAsItsValue(t *testing.T) {
	inner := memory.New()
	b := reopen(t, inner, filepath.Join(t.TempDir(), "k"))
	put(t, b, prefix+"a/x", "hunter2")
	put(t, inner, prefix+"b/y", stored(t, inner)[prefix+"a/x"]) // moved
	if got := stored(t, b); got[prefix+"a/x"] != "hunter2" || strings.Contains(got[prefix+"b/y"], "hunter2") {
		t.Errorf("a moved ciphertext reads %q", got[prefix+"b/y"])
	}
}

func TestOpenRefuses(t *testing.T) {
	for name, c := range map[string]struct {
		spoil func(path string) error
		want  string
	}{
		"a file others may read":     {func(p string) error { return os.Chmod(p, 0o640) }, "others may read or change it (mode 0640): run chmod 600 "},
		"a missing file":             {os.Remove, "is missing, and 1 Secrets in the store are encrypted with its keys: put it back from a copy"},
		"a file without a key":       {func(p string) error { return os.WriteFile(p, []byte("# nothing\n"), 0o600) }, "holds no key"},
		"a file that is no key file": {func(p string) error { return os.WriteFile(p, []byte("secret words\n"), 0o600) }, ":1: want the id of a key"},
		"another store's file": {func(p string) error {
			if err := os.Remove(p); err != nil {
				return err
			}
			_, err := firstKey(keyFileAt(p))
			return err
		}, "put back the file that belongs to this store"},
		"a link": {func(p string) error {
			if err := os.Rename(p, p+".real"); err != nil {
				return err
			}
			return os.Symlink(p+".real", p)
		}, "must be a plain file"},
	} {
		inner, path := memory.New(), filepath.Join(t.TempDir(), "k")
		put(t, reopen(t, inner, path), prefix+"a/x", "hunter2")
		if err := c.spoil(path); err != nil {
			t.Fatal(err)
		}
		_, err := Open(t.Context(), Config{Backend: inner, KeyFile: path, Prefix: prefix})
		if err == nil || !strings.Contains(err.Error(), c.want) || !strings.Contains(err.Error(), path) || strings.Contains(err.Error(), "words") {
			t.Errorf("%s: err %v, want %q", name, err, c.want)
		}
	}
}

func TestPlainValuesAreReadAndSealed(t *testing.T) {
	inner, path := memory.New(), filepath.Join(t.TempDir(), "k")
	put(t, inner, prefix+"a/x", "from an older version")
	b := reopen(t, inner, path)
	want := map[string]string{prefix + "a/x": "from an older version"}
	if diff := cmp.Diff(want, stored(t, b)); diff != "" {
		t.Errorf("before (-want +got):\n%s", diff)
	}
	if p, err := b.Settle(t.Context()); err != nil || p.Sealed != 1 {
		t.Fatalf("settle: %+v, %v", p, err)
	}
	if _, sealed := sealedBy([]byte(stored(t, inner)[prefix+"a/x"])); !sealed {
		t.Error("the value is still plain")
	}
	if diff := cmp.Diff(want, stored(t, reopen(t, inner, path))); diff != "" {
		t.Errorf("after (-want +got):\n%s", diff)
	}
}

func TestAWatchReadsWhatAnOlderKeySealed(t *testing.T) {
	inner, path := memory.New(), filepath.Join(t.TempDir(), "k")
	b := reopen(t, inner, path)
	before, err := b.Revision(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	put(t, b, prefix+"a/x", "hunter2")
	if _, _, err := AddKey(path); err != nil {
		t.Fatal(err)
	}
	if _, err := b.reload(); err != nil {
		t.Fatal(err)
	}
	if _, err := b.Settle(t.Context()); err != nil {
		t.Fatal(err)
	}
	for batch, err := range b.Watch(t.Context(), prefix, before) { // far behind
		if err != nil || string(batch.Events[0].Value) != "hunter2" {
			t.Errorf("read %v, %v", batch, err)
		}
		return
	}
}

func TestRunFollowsTheKeyFile(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		inner, path := memory.New(), filepath.Join(t.TempDir(), "k")
		b := reopen(t, inner, path)
		ctx, cancel := context.WithCancel(t.Context())
		ended := make(chan error)
		go func() { ended <- b.Run(ctx) }()
		want := map[string]string{}
		for n := range 600 {
			want[fmt.Sprintf("%sa/%d", prefix, n)] = fmt.Sprint("hunter", n)
			put(t, b, fmt.Sprintf("%sa/%d", prefix, n), fmt.Sprint("hunter", n))
		}
		name, added, err := AddKey(path)
		if err != nil || !added {
			t.Fatalf("add a key: %t, %v", added, err)
		}
		if same, added, err := AddKey(path); err != nil || added || same != name {
			t.Errorf("a second rotation began before the first ended: %s, %t, %v", same, added, err)
		}
		var p Progress
		for p.Keys != 1 {
			synctest.Wait()
			if p, err = ReadProgress(path); err != nil {
				t.Fatal(err)
			}
			if p.Keys != 1 {
				waitALook()
			}
		}
		if diff := cmp.Diff(Progress{Key: name, Keys: 1, Secrets: 600, Sealed: 600}, p); diff != "" {
			t.Errorf("progress (-want +got):\n%s", diff)
		}
		if err := os.Remove(path); err != nil { // by mistake, while it runs
			t.Fatal(err)
		}
		waitALook()
		waitALook()
		cancel()
		if err := <-ended; err != nil {
			t.Error(err)
		}
		if diff := cmp.Diff(want, stored(t, reopen(t, inner, path))); diff != "" {
			t.Errorf("after the rotation (-want +got):\n%s", diff)
		}
	})
}
