package node

import (
	"context"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	coordinationv1 "k8s.io/api/coordination/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/slipway-dev/slipway/apiserver/api"
	"github.com/slipway-dev/slipway/apiserver/event"
	"github.com/slipway-dev/slipway/apiserver/registry"
	"github.com/slipway-dev/slipway/apiserver/store"
	"github.com/slipway-dev/slipway/apiserver/store/kv/memory"
	"github.com/slipway-dev/slipway/reconciler/loop"
)

// fleet is nodes whose clocks are set all the time.
type fleet struct {
	t     *testing.T
	ctx   context.Context
	admin store.Client
}

func inFleet(t *testing.T, nodes int, test func(*fleet)) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancel(context.Background())
		s, err := store.New(ctx, memory.New(), api.StorageCodec{})
		if err != nil {
			t.Fatal(err)
		}
		r, err := registry.New(registry.Config{Store: s})
		if err != nil {
			t.Fatal(err)
		}
		f := &fleet{t, ctx, r.As(registry.Admin())}
		f.do(f.admin.Create(ctx, &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: corev1.NamespaceNodeLease}}, store.CreateOptions{}))
		for n := range nodes {
			node := readyNode(corev1.ConditionTrue)
			node.Name = fmt.Sprint("n", n)
			f.do(f.admin.Create(ctx, node, store.CreateOptions{}))
			f.do(f.admin.Update(ctx, node, store.UpdateOptions{Subresource: "status"}))
		}
		client := r.As(registry.Controller("node"))
		ended := make(chan error)
		go func() { ended <- loop.Run(ctx, client, slog.New(slog.DiscardHandler), New(client, event.Discard)) }()
		test(f)
		cancel()
		if err := <-ended; err != nil {
			t.Error(err)
		}
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
}

func (f *fleet) do(_ api.Object, err error) {
	f.t.Helper()
	if err != nil {
		f.t.Fatal(err)
	}
}

// renew writes a node's Lease, at any time its clock may show.
func (f *fleet) renew(name string) {
	const year = 365 * 24 * time.Hour
	at := metav1.NewMicroTime(time.Now().Add(time.Duration(rand.Int64N(int64(2*year))) - year).Truncate(time.Microsecond))
	lease := &coordinationv1.Lease{ObjectMeta: metav1.ObjectMeta{Namespace: corev1.NamespaceNodeLease, Name: name}, Spec: coordinationv1.LeaseSpec{RenewTime: &at}}
	if _, err := store.Get[*coordinationv1.Lease](f.ctx, f.admin, corev1.NamespaceNodeLease, name); err != nil {
		f.do(f.admin.Create(f.ctx, lease, store.CreateOptions{}))
		return
	}
	f.do(f.admin.Update(f.ctx, lease, store.UpdateOptions{}))
}

// silent returns the nodes that are marked.
func (f *fleet) silent() (names []string) {
	f.t.Helper()
	synctest.Wait()
	nodes, err := store.All[*corev1.Node](f.ctx, f.admin, store.ListOptions{})
	if err != nil {
		f.t.Fatal(err)
	}
	for _, n := range nodes {
		if n.Status.Conditions[0].Status == corev1.ConditionUnknown {
			names = append(names, n.Name)
		}
	}
	return names
}

func TestSilenceIsWhatThisProcessHears(t *testing.T) {
	inFleet(t, 3, func(f *fleet) {
		for range 60 { // ten minutes of clocks that are set
			for _, name := range []string{"n0", "n1", "n2"} {
				f.renew(name)
			}
			time.Sleep(10 * time.Second)
			if names := f.silent(); names != nil {
				t.Fatalf("nodes that renew are marked: %v", names)
			}
		}
		for range 4 {
			f.renew("n0")
			f.renew("n2")
			time.Sleep(10 * time.Second)
		}
		time.Sleep(time.Second)
		if diff := cmp.Diff([]string{"n1"}, f.silent()); diff != "" {
			t.Errorf("marked after 51 s of silence (-want +got):\n%s", diff)
		}
	})
}

// TestAWholeFleetThatFallsSilentIsMarkedAndLosesNothing: no Pod is touched, whatever is marked.
func TestAWholeFleetThatFallsSilentIsMarkedAndLosesNothing(t *testing.T) {
	inFleet(t, 3, func(f *fleet) {
		f.do(f.admin.Create(f.ctx, &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: "shop"}}, store.CreateOptions{}))
		f.do(f.admin.Create(f.ctx, &corev1.ServiceAccount{ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: "default"}}, store.CreateOptions{}))
		pod := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: "web"}, Spec: corev1.PodSpec{NodeName: "n1", Containers: []corev1.Container{{Name: "a", Image: "b:1"}}}}
		f.do(f.admin.Create(f.ctx, pod, store.CreateOptions{}))
		before, err := store.Get[*corev1.Pod](f.ctx, f.admin, "shop", "web")
		if err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Hour)
		if diff := cmp.Diff([]string{"n0", "n1", "n2"}, f.silent()); diff != "" {
			t.Errorf("marked (-want +got):\n%s", diff)
		}
		after, err := store.Get[*corev1.Pod](f.ctx, f.admin, "shop", "web")
		if err != nil || after.ResourceVersion != before.ResourceVersion {
			t.Errorf("a Pod of a silent node was touched: %v", err)
		}
	})
}

func TestAProcessThatDidNotRunHeardNobody(t *testing.T) {
	c := &controller{heard: map[string]sign{}, awake: now.Add(-time.Hour)}
	heard := func(name string, ago, due time.Duration) {
		c.heard[name] = sign{at: now.Add(-ago), due: now.Add(-due)}
	}
	heard("a", 10*time.Minute, 9*time.Minute) // was to be looked at nine minutes ago
	heard("b", 10*time.Minute, 9*time.Minute)
	if a, b := c.silence("a", now), c.silence("b", now); a != 0 || b != 0 {
		t.Errorf("after a stop nodes count as silent for %s and %s", a, b)
	}
	c.expect("a", now.Add(Grace))
	if a := c.silence("a", now.Add(Grace)); a != Grace {
		t.Errorf("a node that stays silent afterwards counts as silent for %s, want %s", a, Grace)
	}
}
