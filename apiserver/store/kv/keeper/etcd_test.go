package keeper

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"testing"
	"time"

	"github.com/slipway-dev/slipway/apiserver/store/kv"
	"github.com/slipway-dev/slipway/apiserver/store/kv/etcd"
)

// TestUsedUpQuotaEndsByItself overwrites one key until etcd raises its alarm: compacted and defragmented, the database
// is small again, and writes work.
func TestUsedUpQuotaEndsByItself(t *testing.T) {
	dir := t.TempDir()
	quiet := slog.New(slog.DiscardHandler)
	k, err := Open(t.Context(), Config{Dir: dir, Log: quiet, Turns: 20 * time.Millisecond, Open: func(ctx context.Context) (Engine, error) {
		return etcd.Open(ctx, etcd.Config{Dir: dir, Log: quiet, Quota: 24 * mb})
	}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := k.Close(); err != nil {
			t.Error(err)
		}
	})
	// One key a megabyte large: its past is what fills the database.
	value := make([]byte, mb)
	refused := false
	for i := 0; !refused; i++ {
		_, err := k.Txn(t.Context(), []kv.Op{{Verb: kv.Put, Key: "/a", Value: value, Revision: kv.Any}})
		if refused = errors.Is(err, kv.ErrNoSpace); err != nil && !refused {
			t.Fatal(err)
		}
		if i > 200 {
			t.Fatal("the quota was never used up")
		}
	}
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for {
		_, err := k.Txn(t.Context(), []kv.Op{{Verb: kv.Put, Key: "/b", Value: value, Revision: kv.Any}})
		if err == nil {
			break
		}
		if !errors.Is(err, kv.ErrNoSpace) {
			t.Fatal(err)
		}
		<-tick.C
	}
	if usage := k.now.Load().engine.Usage(); usage.Size > 16*mb {
		t.Errorf("the database has %d MB", usage.Size/mb)
	}
}

// BenchmarkDefragment measures for how long writes wait: a database of 100 MB in objects of 1.5 kB.
func BenchmarkDefragment(b *testing.B) {
	backend, err := etcd.Open(b.Context(), etcd.Config{Dir: b.TempDir(), Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		b.Fatal(err)
	}
	defer backend.Close()
	work := make(chan int)
	done := make(chan error, 64)
	for range 64 {
		go func() {
			var failed error
			for i := range work {
				if _, err := backend.Txn(b.Context(), []kv.Op{{Verb: kv.Put, Key: fmt.Sprintf("/registry/pods/ns/%d", i), Value: make([]byte, 1500)}}); err != nil {
					failed = err
				}
			}
			done <- failed
		}()
	}
	for i := range 66_000 {
		work <- i
	}
	close(work)
	for range 64 {
		if err := <-done; err != nil {
			b.Fatal(err)
		}
	}
	for b.Loop() {
		if err := backend.Defragment(b.Context()); err != nil {
			b.Fatal(err)
		}
	}
	b.ReportMetric(float64(backend.Usage().InUse)/mb, "MB")
}
