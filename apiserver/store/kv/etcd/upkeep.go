package etcd

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"golang.org/x/sys/unix"

	"github.com/slipway-dev/slipway/apiserver/store/kv"
)

// Dir returns the directory.
func (b *Backend) Dir() string { return b.dir }

// Usage returns the present sizes of the database.
func (b *Backend) Usage() kv.Usage {
	database := b.server.Server.Backend()
	return kv.Usage{Size: database.Size(), InUse: database.SizeInUse(), Quota: b.quota}
}

// Compact forgets the states before revision. It returns when they cannot be read any more; their space is freed
// for new writes in the background.
func (b *Backend) Compact(ctx context.Context, revision uint64) error {
	_, err := guarded(ctx, b, func() (*pb.CompactionResponse, error) {
		return b.calls.Compact(ctx, &pb.CompactionRequest{Revision: int64(revision)})
	})
	return err
}

// Defragment rewrites the database without its free pages. Writes and reads of the backend wait meanwhile; watches
// hear of nothing new. The disk must have room for what is in use.
func (b *Backend) Defragment(ctx context.Context) error {
	_, err := guarded(ctx, b, func() (struct{}, error) { return struct{}{}, b.server.Server.Backend().Defrag() })
	b.allocated.Store(0)
	return err
}

// ClearAlarm lets etcd take writes again after its quota was used up.
func (b *Backend) ClearAlarm(ctx context.Context) error {
	request := &pb.AlarmRequest{Action: pb.AlarmRequest_DEACTIVATE, MemberID: uint64(b.server.Server.MemberID()), Alarm: pb.AlarmType_NOSPACE}
	_, err := guarded(ctx, b, func() (*pb.AlarmResponse, error) { return b.server.Server.Alarm(ctx, request) })
	return err
}

// Reserve gives the database file a place on the disk for its present size and slack bytes more, so that what is
// accepted can be written when somebody else takes the last of the disk. Where the filesystem cannot, nothing happens.
func (b *Backend) Reserve(slack int64) error {
	want := b.Usage().Size + slack
	if b.alive.Err() != nil || want <= b.allocated.Load() {
		return nil
	}
	file, err := os.OpenFile(filepath.Join(b.fence.path(), "member", "snap", "db"), os.O_RDWR, 0)
	if err != nil {
		return fmt.Errorf("reserve space for the database: %w", b.tell(err))
	}
	defer file.Close()
	err = unix.Fallocate(int(file.Fd()), unix.FALLOC_FL_KEEP_SIZE, 0, want)
	if err != nil && !errors.Is(err, unix.EOPNOTSUPP) {
		return fmt.Errorf("reserve %d bytes for the database in %s: %w", want, b.dir, err)
	}
	b.allocated.Store(want)
	return nil
}

// guarded runs etcd's code in a goroutine of its own: an error that etcd does not survive ends the goroutine it
// happens in.
func guarded[T any](ctx context.Context, b *Backend, work func() (T, error)) (T, error) {
	type outcome struct {
		value T
		err   error
	}
	if err := b.usable(ctx); err != nil {
		return *new(T), err
	}
	done := make(chan outcome, 1)
	go func() {
		value, err := work()
		done <- outcome{value, err}
	}()
	select {
	case o := <-done:
		return o.value, b.translated(ctx, o.err)
	case <-ctx.Done():
		return *new(T), ctx.Err()
	case <-b.alive.Done():
		return *new(T), b.usable(ctx)
	}
}
