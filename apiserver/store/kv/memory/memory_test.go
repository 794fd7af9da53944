package memory

import (
	"errors"
	"testing"

	"github.com/slipway-dev/slipway/apiserver/store/kv"
	"github.com/slipway-dev/slipway/apiserver/store/kv/kvtest"
)

func TestBackend(t *testing.T) {
	kvtest.Run(t, func(*testing.T) kvtest.Backend { return New() })
}

func TestHistoryIsBounded(t *testing.T) {
	b := WithHistory(3)
	for range 10 {
		if _, err := b.Txn(t.Context(), []kv.Op{{Verb: kv.Put, Key: "/a", Revision: kv.Any}}); err != nil {
			t.Fatal(err)
		}
	}
	if len(b.log) != 3 || len(b.versions["/a"]) != 4 {
		t.Errorf("%d transactions and %d versions are kept, want 3 and 4", len(b.log), len(b.versions["/a"]))
	}
	for _, err := range b.Watch(t.Context(), "", b.revision-4) {
		if !errors.Is(err, kv.ErrCompacted) {
			t.Errorf("watch of the forgotten: %v", err)
		}
	}
}
