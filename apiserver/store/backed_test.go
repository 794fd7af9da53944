package store_test

import (
	"log/slog"
	"testing"

	"github.com/slipway-dev/slipway/apiserver/api"
	"github.com/slipway-dev/slipway/apiserver/store"
	"github.com/slipway-dev/slipway/apiserver/store/kv"
	"github.com/slipway-dev/slipway/apiserver/store/kv/etcd"
	"github.com/slipway-dev/slipway/apiserver/store/kv/memory"
	"github.com/slipway-dev/slipway/apiserver/store/storetest"
)

func TestStoreInMemory(t *testing.T) {
	storetest.Run(t, func(t *testing.T) store.Client { return open(t, memory.New(), store.WithHistory(4096)) })
}

func TestStoreOnEtcd(t *testing.T) {
	storetest.Run(t, func(t *testing.T) store.Client {
		backend, err := etcd.Open(t.Context(), etcd.Config{Dir: t.TempDir()})
		if err != nil {
			t.Fatal(err)
		}
		return open(t, backend, store.WithHistory(4096))
	})
}

// open returns a store that reports every mutation of a shared object.
func open(t *testing.T, backend kv.Backend, options ...store.Option) *store.Store {
	t.Helper()
	options = append(options, store.DetectMutation(func(problem string) { t.Error(problem) }))
	s, err := store.New(t.Context(), backend, api.StorageCodec{}, options...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
		if err := backend.Close(); err != nil {
			t.Error(err)
		}
	})
	return s
}

func quiet() *slog.Logger { return slog.New(slog.DiscardHandler) }
