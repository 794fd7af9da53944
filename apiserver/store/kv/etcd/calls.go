package etcd

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"sync"
	"time"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/mvccpb"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"
	"go.etcd.io/etcd/server/v3/storage/mvcc"
	"google.golang.org/grpc"

	"github.com/slipway-dev/slipway/apiserver/store/kv"
)

// Range implements kv.Backend.
func (b *Backend) Range(ctx context.Context, r kv.Range) (kv.Page, error) {
	key, end := bounds(r.Prefix)
	if r.From > string(key) {
		key = []byte(r.From)
	}
	answer, err := guarded(ctx, b, func() (*pb.RangeResponse, error) {
		return b.calls.Range(ctx, &pb.RangeRequest{Key: key, RangeEnd: end, Limit: int64(r.Limit), Revision: int64(r.Revision)})
	})
	if err != nil {
		return kv.Page{}, fmt.Errorf("read %s: %w", r.Prefix, err)
	}
	page := kv.Page{Revision: r.Revision, More: answer.More, Entries: make([]kv.Entry, len(answer.Kvs))}
	if page.Revision == 0 {
		page.Revision = uint64(answer.Header.Revision)
	}
	for i, e := range answer.Kvs {
		page.Entries[i] = kv.Entry{Key: string(e.Key), Value: e.Value, Revision: uint64(e.ModRevision)}
	}
	return page, nil
}

// bounds returns the range of keys under a prefix: "\x00" as its end means no end.
func bounds(prefix string) (key, end []byte) {
	if prefix == "" {
		return []byte{0}, []byte{0}
	}
	return []byte(prefix), []byte(clientv3.GetPrefixRangeEnd(prefix))
}

// Txn implements kv.Backend.
func (b *Backend) Txn(ctx context.Context, ops []kv.Op) (uint64, error) {
	if err := b.usable(ctx); err != nil {
		return 0, err
	}
	request := &pb.TxnRequest{}
	for _, op := range ops {
		key := []byte(op.Key)
		if op.Revision != kv.Any {
			request.Compare = append(request.Compare, &pb.Compare{
				Target: pb.Compare_MOD, Result: pb.Compare_EQUAL, Key: key,
				TargetUnion: &pb.Compare_ModRevision{ModRevision: int64(op.Revision)},
			})
		}
		switch op.Verb {
		case kv.Put:
			put := &pb.PutRequest{Key: key, Value: op.Value}
			request.Success = append(request.Success, &pb.RequestOp{Request: &pb.RequestOp_RequestPut{RequestPut: put}})
		case kv.Delete:
			del := &pb.DeleteRangeRequest{Key: key}
			request.Success = append(request.Success, &pb.RequestOp{Request: &pb.RequestOp_RequestDeleteRange{RequestDeleteRange: del}})
		}
	}
	answer, err := b.send(ctx, request)
	if err != nil {
		return 0, fmt.Errorf("write %s: %w", ops[0].Key, err)
	}
	b.acknowledge(uint64(answer.Header.Revision))
	if !answer.Succeeded {
		return 0, fmt.Errorf("write %s: %w", ops[0].Key, kv.ErrCondition)
	}
	return uint64(answer.Header.Revision), nil
}

// send does a transaction. One that writes only waits, and stops waiting when the server dies; one that reads runs
// through the database at once.
func (b *Backend) send(ctx context.Context, request *pb.TxnRequest) (*pb.TxnResponse, error) {
	if len(request.Success) == 0 {
		return guarded(ctx, b, func() (*pb.TxnResponse, error) { return b.calls.Txn(ctx, request) })
	}
	waiting, cancel := context.WithCancel(ctx)
	defer cancel()
	defer context.AfterFunc(b.alive, cancel)()
	answer, err := b.calls.Txn(waiting, request)
	return answer, b.translated(ctx, err)
}

// Revision implements kv.Backend. The only member knows what it has acknowledged; asking etcd would wait for its
// database whenever that syncs.
func (b *Backend) Revision(ctx context.Context) (uint64, error) {
	select {
	case <-b.closed:
		return 0, kv.ErrClosed
	default:
		return b.acknowledged.Load(), ctx.Err()
	}
}

// acknowledge takes note of the revision in an answer, before whoever asked has it.
func (b *Backend) acknowledge(revision uint64) {
	for {
		known := b.acknowledged.Load()
		if revision <= known || b.acknowledged.CompareAndSwap(known, revision) {
			return
		}
	}
}

// acknowledgeCall does so for the calls that come through the socket.
func (b *Backend) acknowledgeCall(ctx context.Context, request any, _ *grpc.UnaryServerInfo, handler grpc.UnaryHandler) (any, error) {
	answer, err := handler(ctx, request)
	if a, ok := answer.(interface{ GetHeader() *pb.ResponseHeader }); ok && err == nil {
		b.acknowledge(uint64(a.GetHeader().GetRevision()))
	}
	return answer, err
}

// Watch implements kv.Backend.
func (b *Backend) Watch(ctx context.Context, prefix string, after uint64) iter.Seq2[kv.Batch, error] {
	return func(yield func(kv.Batch, error) bool) {
		stream, err := guarded(ctx, b, func() (mvcc.WatchStream, error) { return b.server.Server.KV().NewWatchStream(), nil })
		if err != nil {
			yield(kv.Batch{}, err)
			return
		}
		key, end := bounds(prefix)
		if len(end) == 1 && end[0] == 0 {
			end = []byte{} // the watch's own word for no end
		}
		incoming := queue{signal: make(chan struct{}, 1)}
		go incoming.fill(stream.Chan())
		defer func() { go stream.Close() }() // ends fill; a dead server may keep it waiting
		_, err = guarded(ctx, b, func() (mvcc.WatchID, error) {
			return stream.Watch(ctx, clientv3.AutoWatchID, key, end, int64(after)+1)
		})
		if err != nil {
			yield(kv.Batch{}, fmt.Errorf("watch %s: %w", prefix, err))
			return
		}
		for {
			responses, err := incoming.take(ctx, b)
			if err != nil {
				yield(kv.Batch{}, err)
				return
			}
			for _, response := range responses {
				if response.CompactRevision != 0 {
					yield(kv.Batch{}, fmt.Errorf("watch %s after revision %d: %w", prefix, after, kv.ErrCompacted))
					return
				}
				for batch := range batches(response.Events) {
					if after = batch.Revision; !yield(batch, nil) {
						return
					}
				}
			}
		}
	}
}

// batches splits events at the bounds of transactions.
func batches(events []*mvccpb.Event) iter.Seq[kv.Batch] {
	return func(yield func(kv.Batch) bool) {
		for len(events) > 0 {
			revision, n := events[0].Kv.ModRevision, 1
			for n < len(events) && events[n].Kv.ModRevision == revision {
				n++
			}
			batch := kv.Batch{Revision: uint64(revision), Events: make([]kv.Event, n)}
			for i, e := range events[:n] {
				batch.Events[i] = kv.Event{Key: string(e.Kv.Key)}
				if e.Type == mvccpb.Event_DELETE {
					batch.Events[i].Deleted = true
				} else {
					batch.Events[i].Value = e.Kv.Value
				}
			}
			if events = events[n:]; !yield(batch) {
				return
			}
		}
	}
}

// queue takes what a watch stream delivers, always at once: etcd sends a watcher whose channel is full to a slow
// path that looks ten times a second.
type queue struct {
	mu        sync.Mutex
	responses []mvcc.WatchResponse
	signal    chan struct{}
}

func (q *queue) fill(from <-chan mvcc.WatchResponse) {
	for response := range from {
		mvcc.ReportEventReceived(len(response.Events))
		q.mu.Lock()
		q.responses = append(q.responses, response)
		q.mu.Unlock()
		select {
		case q.signal <- struct{}{}:
		default:
		}
	}
}

// lastWords is how long a watch listens to a server that has died: what it acknowledged was on its way.
const lastWords = 100 * time.Millisecond

// take waits for responses.
func (q *queue) take(ctx context.Context, b *Backend) ([]mvcc.WatchResponse, error) {
	closed, died, silence := b.closed, b.alive.Done(), (<-chan time.Time)(nil)
	for {
		q.mu.Lock()
		responses := q.responses
		q.responses = nil
		q.mu.Unlock()
		if len(responses) > 0 {
			return responses, nil
		}
		select {
		case <-q.signal:
		case <-closed:
			if b.Cause() == nil {
				return nil, kv.ErrClosed
			}
			closed = nil // it had died before
		case <-died:
			died, silence = nil, time.After(lastWords)
		case <-silence:
			return nil, b.gone()
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
}

// translated returns an error of the contract for one of etcd's.
func (b *Backend) translated(ctx context.Context, err error) error {
	if err == nil {
		return nil
	}
	if gone := b.gone(); gone != nil {
		return gone
	}
	switch {
	case ctx.Err() != nil:
		return ctx.Err() // etcd has words of its own for it
	case errors.Is(err, rpctypes.ErrGRPCCompacted):
		return kv.ErrCompacted
	case errors.Is(err, rpctypes.ErrGRPCRequestTooLarge):
		return kv.ErrTooLarge
	case errors.Is(err, rpctypes.ErrGRPCNoSpace):
		return kv.ErrNoSpace
	case errors.Is(err, rpctypes.ErrGRPCStopped):
		return kv.ErrClosed
	}
	return err
}
