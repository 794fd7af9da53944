package etcd

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"

	clientv3 "go.etcd.io/etcd/client/v3"
	"go.uber.org/zap"

	"github.com/slipway-dev/slipway/apiserver/store/kv"
	"github.com/slipway-dev/slipway/apiserver/store/kv/kvtest"
)

func TestBackend(t *testing.T) {
	kvtest.Run(t, func(t *testing.T) kvtest.Backend { return open(t, t.TempDir()) })
}

func open(t testing.TB, dir string) *Backend {
	t.Helper()
	b, err := Open(t.Context(), Config{Dir: dir})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := b.Close(); err != nil {
			t.Error(err)
		}
	})
	return b
}

func TestOpenAgainFindsEverything(t *testing.T) {
	dir := t.TempDir()
	b := open(t, dir)
	revision, err := b.Txn(t.Context(), []kv.Op{{Verb: kv.Put, Key: "/a", Value: []byte("1")}})
	if err != nil {
		t.Fatal(err)
	}
	if err := b.Close(); err != nil {
		t.Fatal(err)
	}
	b = open(t, dir)
	page, err := b.Range(t.Context(), kv.Range{})
	if err != nil {
		t.Fatal(err)
	}
	if page.Revision != revision || len(page.Entries) != 1 || string(page.Entries[0].Value) != "1" {
		t.Errorf("found %+v, want revision %d", page, revision)
	}
}

func TestOpenOfADirectoryInUseSaysWho(t *testing.T) {
	dir := t.TempDir()
	open(t, dir)
	_, err := Open(t.Context(), Config{Dir: dir})
	if want := fmt.Sprintf("the store in %s is in use by process %d", dir, os.Getpid()); err == nil || err.Error() != want {
		t.Errorf("got %v, want %s", err, want)
	}
}

func TestOnlyTheSocketListens(t *testing.T) {
	for _, dir := range []string{t.TempDir(), filepath.Join(t.TempDir(), strings.Repeat("long", 30))} {
		b := open(t, dir)
		info, err := os.Stat(filepath.Join(dir, Socket))
		if err != nil {
			t.Fatal(err)
		}
		if info.Mode().Type() != os.ModeSocket || info.Mode().Perm() != 0o600 {
			t.Errorf("the socket's mode is %s", info.Mode())
		}
		if len(b.server.Peers) != 0 || len(b.server.Clients) != 1 || b.server.Clients[0].Addr().Network() != "unix" {
			t.Errorf("listeners: %d for peers, clients %v", len(b.server.Peers), b.server.Clients)
		}
		if err := b.Close(); err != nil {
			t.Error(err)
		}
		if _, err := os.Stat(filepath.Join(dir, Socket)); !os.IsNotExist(err) {
			t.Errorf("the socket is left behind: %v", err)
		}
	}
}

func TestTransactionTooLarge(t *testing.T) {
	b := open(t, t.TempDir())
	_, err := b.Txn(t.Context(), []kv.Op{{Verb: kv.Put, Key: "/a", Value: make([]byte, 2<<20)}})
	if err == nil || !strings.Contains(err.Error(), kv.ErrTooLarge.Error()) {
		t.Errorf("got %v, want ErrTooLarge", err)
	}
}

func TestUsageFollowsWrites(t *testing.T) {
	b := open(t, t.TempDir())
	if got := b.Usage(); got.Size == 0 || got.InUse == 0 || got.Quota != Quota {
		t.Errorf("an empty database: %+v", got)
	}
	for i := range 20 {
		if _, err := b.Txn(t.Context(), []kv.Op{{Verb: kv.Put, Key: fmt.Sprintf("/%d", i), Value: make([]byte, 1<<20)}}); err != nil {
			t.Fatal(err)
		}
	}
	if err := b.Defragment(t.Context()); err != nil { // commits
		t.Fatal(err)
	}
	if got := b.Usage(); got.InUse < 20<<20 || got.Size < got.InUse {
		t.Errorf("with 20 MB: %+v", got)
	}
}

// BenchmarkOpen measures the start of an empty server until it takes writes.
func BenchmarkOpen(b *testing.B) {
	for b.Loop() {
		backend, err := Open(b.Context(), Config{Dir: b.TempDir()})
		if err != nil {
			b.Fatal(err)
		}
		b.StopTimer()
		if err := backend.Close(); err != nil {
			b.Fatal(err)
		}
		b.StartTimer()
	}
}

// BenchmarkTxn measures writes of 1.5 kB, one at a time and 128 in flight.
func BenchmarkTxn(b *testing.B) {
	for _, flight := range []int{1, 128} {
		b.Run(fmt.Sprintf("flight=%d", flight), func(b *testing.B) {
			backend := open(b, b.TempDir())
			b.ReportAllocs()
			b.ResetTimer()
			work := make(chan int)
			var group sync.WaitGroup
			for range flight {
				group.Go(func() {
					for i := range work {
						op := kv.Op{Verb: kv.Put, Key: fmt.Sprintf("/registry/pods/default/%d", i), Value: make([]byte, 1500)}
						if _, err := backend.Txn(b.Context(), []kv.Op{op}); err != nil {
							b.Error(err)
						}
					}
				})
			}
			for i := range b.N {
				work <- i
			}
			close(work)
			group.Wait()
			b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "writes/s")
		})
	}
}

func TestSocketServesClients(t *testing.T) {
	dir := t.TempDir()
	b := open(t, dir)
	client, err := clientv3.New(clientv3.Config{Endpoints: []string{"unix://" + filepath.Join(dir, Socket)}, Logger: zap.NewNop()})
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	for i := range 20 {
		answer, err := client.Put(t.Context(), "/a", strconv.Itoa(i))
		if err != nil {
			t.Fatal(err)
		}
		// Whoever has the answer may ask this backend next.
		if got, err := b.Revision(t.Context()); err != nil || got < uint64(answer.Header.Revision) {
			t.Fatalf("revision is %d (%v), the client was told of %d", got, err, answer.Header.Revision)
		}
	}
}

func TestOpenExplainsWhatIsInTheWay(t *testing.T) {
	file := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	_, err := Open(t.Context(), Config{Dir: file})
	if want := "create the store's directory: mkdir " + file + ": not a directory"; err == nil || err.Error() != want {
		t.Errorf("got %v, want %s", err, want)
	}
}
