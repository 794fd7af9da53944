package keeper

import (
	"context"
	"fmt"
	"iter"
	"os"
	"strings"
	"sync"

	"github.com/slipway-dev/slipway/apiserver/store/kv"
)

// mortal is an engine in memory. What it holds outlives it.
type mortal struct {
	kv.Backend
	died   chan struct{}
	closed chan struct{}
	cause  error
	defrag chan struct{} // closed: a defragmentation ends
	usage  kv.Usage
	calls  *calls
}

type calls struct {
	sync.Mutex
	lines []string
}

func (c *calls) add(line string) {
	c.Lock()
	defer c.Unlock()
	c.lines = append(c.lines, line)
}

func (c *calls) String() string {
	c.Lock()
	defer c.Unlock()
	return strings.Join(c.lines, ", ")
}

func newMortal(data kv.Backend) *mortal {
	return &mortal{Backend: data, died: make(chan struct{}), closed: make(chan struct{}), defrag: make(chan struct{}), calls: &calls{}}
}

func (m *mortal) die(cause error) {
	m.cause = cause
	close(m.died)
}

func (m *mortal) Died() <-chan struct{} { return m.died }
func (m *mortal) Usage() kv.Usage       { return m.usage }

func (m *mortal) Close() error {
	close(m.closed)
	return nil
}

func (m *mortal) Cause() error {
	select {
	case <-m.died:
		return m.cause
	default:
		return nil
	}
}

func (m *mortal) alive() error {
	if m.Cause() != nil {
		return kv.ErrStopped
	}
	return nil
}

func (m *mortal) Txn(ctx context.Context, ops []kv.Op) (uint64, error) {
	if err := m.alive(); err != nil {
		return 0, err
	}
	return m.Backend.Txn(ctx, ops)
}

func (m *mortal) Watch(ctx context.Context, prefix string, after uint64) iter.Seq2[kv.Batch, error] {
	return func(yield func(kv.Batch, error) bool) {
		living, cancel := context.WithCancel(ctx)
		defer cancel()
		go func() {
			select {
			case <-m.died:
				cancel()
			case <-m.closed:
				cancel()
			case <-living.Done():
			}
		}()
		for batch, err := range m.Backend.Watch(living, prefix, after) {
			if err != nil && ctx.Err() == nil {
				if err = kv.ErrClosed; m.Cause() != nil {
					err = kv.ErrStopped
				}
			}
			if !yield(batch, err) {
				return
			}
		}
	}
}

func (m *mortal) Compact(_ context.Context, revision uint64) error {
	m.calls.add(fmt.Sprintf("compact %d", revision))
	return nil
}

func (m *mortal) Defragment(context.Context) error {
	m.calls.add("defragment")
	<-m.defrag
	return nil
}

func (m *mortal) ClearAlarm(context.Context) error {
	m.calls.add("clear alarm")
	return nil
}

func (m *mortal) Reserve(int64) error { return nil }

func (m *mortal) Snapshot(_ context.Context, path string) error {
	return os.WriteFile(path, nil, 0o600)
}
