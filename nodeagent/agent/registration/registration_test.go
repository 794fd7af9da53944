package registration

import (
	"context"
	"errors"
	"log/slog"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	coordinationv1 "k8s.io/api/coordination/v1"
	corev1 "k8s.io/api/core/v1"

	"github.com/slipway-dev/slipway/apiserver/api"
	"github.com/slipway-dev/slipway/apiserver/store"
	"github.com/slipway-dev/slipway/apiserver/store/kv/memory"
)

func machine() Machine {
	return Machine{Name: "node1", Hostname: "host1", IPs: []string{"192.0.2.1"}, CPUMillis: 2000, Memory: 4 << 30, Disk: 10 << 30, Pods: 110, Reserved: memoryReserve}
}

var errDown = errors.New("container engine does not answer")

// counting counts status writes.
type counting struct {
	store.Client
	status, leases atomic.Int32
}

func (c *counting) Update(ctx context.Context, obj api.Object, opts store.UpdateOptions) (api.Object, error) {
	if _, ok := obj.(*coordinationv1.Lease); ok {
		c.leases.Add(1)
	}
	if opts.Subresource == "status" {
		c.status.Add(1)
	}
	return c.Client.Update(ctx, obj, opts)
}

func TestHeartbeatWritesTheLeaseAndTheStatusOnlyWhenItChanged(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		s, err := store.New(ctx, memory.New(), api.StorageCodec{})
		if err != nil {
			t.Fatal(err)
		}
		client := &counting{Client: s}
		var trouble atomic.Bool
		ended := make(chan struct{})
		go func() {
			defer close(ended)
			_ = Run(ctx, Config{Client: client, Machine: machine(), Log: slog.New(slog.DiscardHandler), Healthy: func(context.Context) error {
				if trouble.Load() {
					return errDown
				}
				return nil
			}})
		}()
		get := func() *corev1.Node {
			t.Helper()
			n, err := store.Get[*corev1.Node](ctx, s, "", "node1")
			if err != nil {
				t.Fatal(err)
			}
			return n
		}
		ready := func() corev1.NodeCondition {
			for _, c := range get().Status.Conditions {
				if c.Type == corev1.NodeReady {
					return c
				}
			}
			return corev1.NodeCondition{}
		}
		time.Sleep(time.Second) // fake time, here and below
		synctest.Wait()
		if ready().Status != corev1.ConditionTrue || get().Status.Allocatable.Memory().Value() != 4<<30-memoryReserve {
			t.Errorf("node %+v", get().Status)
		}
		since := ready().LastTransitionTime
		time.Sleep(2 * time.Minute)
		synctest.Wait()
		if client.leases.Load() < 11 || client.status.Load() > 1 {
			t.Errorf("in two quiet minutes %d leases and %d statuses were written, want 12 and at most 1", client.leases.Load(), client.status.Load())
		}
		trouble.Store(true)
		time.Sleep(leasePeriod)
		synctest.Wait()
		if c := ready(); c.Status != corev1.ConditionFalse || c.Reason != "KubeletNotReady" || c.Message != errDown.Error() || c.LastTransitionTime.Equal(&since) {
			t.Errorf("condition %+v", c)
		}
		cancel()
		<-ended
		_ = s.Close()
		synctest.Wait()
	})
}

func TestLocal(t *testing.T) {
	m, err := Local("node1", t.TempDir(), Versions{Agent: "v1"}, 110)
	if err != nil {
		t.Fatal(err)
	}
	if m.CPUMillis < 1000 || m.Memory < 64<<20 || m.Disk == 0 || m.Hostname == "" || m.Info.BootID == "" || m.Info.KernelVersion == "" || m.Info.OSImage == "" {
		t.Errorf("machine %+v", m)
	}
}
