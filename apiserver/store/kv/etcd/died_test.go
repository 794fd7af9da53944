package etcd

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/slipway-dev/slipway/apiserver/store/kv"
	"github.com/slipway-dev/slipway/testing/smalldisk"
)

// breakWrites makes every write to the open files under dir whose name ends so fail with ENOSPC.
func breakWrites(t *testing.T, dir, suffix string) {
	t.Helper()
	full, err := os.OpenFile("/dev/full", os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer full.Close()
	descriptors, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	found := false
	for _, d := range descriptors {
		target, err := os.Readlink("/proc/self/fd/" + d.Name())
		if err != nil || !strings.HasPrefix(target, dir) || !strings.HasSuffix(target, suffix) {
			continue
		}
		fd, err := strconv.Atoi(d.Name())
		if err != nil {
			t.Fatal(err)
		}
		if err := unix.Dup3(int(full.Fd()), fd, unix.O_CLOEXEC); err != nil {
			t.Fatal(err)
		}
		found = true
	}
	if !found {
		t.Fatalf("no file of %s with a name like *%s is open", dir, suffix)
	}
}

// writers write to b until it fails them. It returns when there is something to lose; acknowledged waits for their
// end and returns what they were told: revision by key.
func writers(b *Backend, n int) (acknowledged func() map[string]uint64) {
	var mu sync.Mutex
	some := make(chan struct{})
	all := map[string]uint64{}
	var group sync.WaitGroup
	for w := range n {
		group.Go(func() {
			for i := 0; ; i++ {
				key := fmt.Sprintf("/%d/%d", w, i)
				revision, err := b.Txn(context.Background(), []kv.Op{{Verb: kv.Put, Key: key, Value: make([]byte, 1000)}})
				if err != nil {
					return
				}
				mu.Lock()
				if all[key] = revision; len(all) == 200 {
					close(some)
				}
				mu.Unlock()
			}
		})
	}
	<-some
	return func() map[string]uint64 {
		group.Wait()
		return all
	}
}

func TestFailedWriteEndsTheServerOnly(t *testing.T) {
	dir := t.TempDir()
	b := open(t, dir)
	acknowledged := writers(b, 16)
	breakWrites(t, dir, ".wal")
	<-b.Died()
	all := acknowledged()
	if _, err := b.Txn(t.Context(), []kv.Op{{Verb: kv.Put, Key: "/late"}}); !errors.Is(err, kv.ErrStopped) || !errors.Is(err, unix.ENOSPC) {
		t.Errorf("a write to the dead server: %v", err)
	}
	if _, err := b.Range(t.Context(), kv.Range{}); !errors.Is(err, kv.ErrStopped) {
		t.Errorf("a read of the dead server: %v", err)
	}
	newest, err := b.Revision(t.Context())
	if err != nil {
		t.Errorf("the newest revision of the dead server: %v", err)
	}
	if err := b.Close(); err != nil {
		t.Error(err)
	}
	check(t, dir, all, newest)
}

func TestWatchHearsWhatADyingServerAcknowledged(t *testing.T) {
	dir := t.TempDir()
	b := open(t, dir)
	heard := make(chan uint64, 1)
	ended := make(chan error, 1)
	go func() {
		var last uint64
		for batch, err := range b.Watch(context.Background(), "", 1) {
			if err != nil {
				heard <- last
				ended <- err
				return
			}
			if last != 0 && batch.Revision != last+1 {
				t.Errorf("revision %d follows %d", batch.Revision, last)
			}
			last = batch.Revision
		}
	}()
	acknowledged := writers(b, 16)
	breakWrites(t, dir, ".wal")
	<-b.Died()
	acknowledged()
	newest, err := b.Revision(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if last := <-heard; last < newest {
		t.Errorf("revision %d was acknowledged, the watch ended at %d", newest, last)
	}
	if err := <-ended; !errors.Is(err, kv.ErrStopped) {
		t.Errorf("the watch ended with %v", err)
	}
}

func TestFullDiskLosesNothing(t *testing.T) {
	disk := smalldisk.Mount(t, 256)
	dir := filepath.Join(disk, "store")
	b := open(t, dir)
	acknowledged := writers(b, 16)
	free := smalldisk.Fill(t, disk)
	<-b.Died()
	all := acknowledged()
	newest, err := b.Revision(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if err := b.Close(); err != nil {
		t.Error(err)
	}
	t.Logf("%d writes were acknowledged; then: %v", len(all), b.Cause())
	free()
	check(t, dir, all, newest)
}

func TestReservedSpaceTakesWhatWasAccepted(t *testing.T) {
	disk := smalldisk.Mount(t, 256)
	dir := filepath.Join(disk, "store")
	b := open(t, dir)
	if err := b.Reserve(32 << 20); err != nil {
		t.Fatal(err)
	}
	free := smalldisk.Fill(t, disk)
	// Less than the log's segments and the slack take: nothing of it needs a new block.
	for i := range 16 {
		if _, err := b.Txn(t.Context(), []kv.Op{{Verb: kv.Put, Key: fmt.Sprintf("/%d", i), Value: make([]byte, 1<<20)}}); err != nil {
			t.Fatal(err)
		}
	}
	b.server.Server.Backend().ForceCommit()
	if err := b.Cause(); err != nil {
		t.Errorf("the server died on a full disk with space reserved: %v", err)
	}
	free()
}
