package registry

import (
	"context"
	"testing"

	"github.com/slipway-dev/slipway/apiserver/api"
	"github.com/slipway-dev/slipway/apiserver/store"
	"github.com/slipway-dev/slipway/apiserver/store/kv"
	"github.com/slipway-dev/slipway/apiserver/store/kv/etcd"
	"github.com/slipway-dev/slipway/apiserver/store/kv/memory"
	"github.com/slipway-dev/slipway/apiserver/store/storetest"
)

func TestClientKeepsTheContract(t *testing.T) {
	backends := map[string]func(*testing.T) kv.Backend{
		"memory": func(*testing.T) kv.Backend { return memory.New() },
		"etcd": func(t *testing.T) kv.Backend {
			b, err := etcd.Open(t.Context(), etcd.Config{Dir: t.TempDir()})
			if err != nil {
				t.Fatal(err)
			}
			return b
		},
	}
	for name, open := range backends {
		t.Run(name, func(t *testing.T) {
			storetest.Run(t, func(t *testing.T) store.Client { return adminOn(t, open(t)) })
		})
	}
}

// adminOn returns a client of a registry on a fresh store that notices when shared objects are changed.
func adminOn(t *testing.T, backend kv.Backend) store.Client {
	t.Helper()
	s, err := store.New(context.Background(), backend, api.StorageCodec{}, store.DetectMutation(func(problem string) { t.Error(problem) }))
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
	r, err := New(Config{Store: s})
	if err != nil {
		t.Fatal(err)
	}
	return r.As(Admin())
}
