package registry

import (
	"context"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/slipway-dev/slipway/apiserver/api"
	"github.com/slipway-dev/slipway/apiserver/store"
	"github.com/slipway-dev/slipway/apiserver/store/kv/memory"
)

// clock is a time that tests move.
type clock struct{ now time.Time }

func (c *clock) Now() time.Time { return c.now }

func newClock() *clock { return &clock{time.Date(2030, 1, 2, 3, 4, 5, 678, time.UTC)} }

// fixture is a registry on an empty store with the namespaces default (with its account) and kube-node-lease.
type fixture struct {
	*Registry
	admin store.Client
	clock *clock
	ctx   context.Context
}

func newFixture(t testing.TB, change ...func(*Config)) *fixture {
	t.Helper()
	ctx := t.Context()
	s, err := store.New(ctx, memory.New(), api.StorageCodec{}, store.DetectMutation(func(problem string) { t.Error(problem) }))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
	f := &fixture{clock: newClock(), ctx: ctx}
	config := Config{Store: s, Now: f.clock.Now}
	for _, c := range change {
		c(&config)
	}
	if f.Registry, err = New(config); err != nil {
		t.Fatal(err)
	}
	f.admin = f.As(Admin())
	f.namespace(t, "default")
	return f
}

func (f *fixture) namespace(t testing.TB, name string) {
	t.Helper()
	f.create(t, &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: name}})
	f.create(t, &corev1.ServiceAccount{ObjectMeta: metav1.ObjectMeta{Namespace: name, Name: "default"}})
}

func (f *fixture) create(t testing.TB, obj api.Object) api.Object {
	t.Helper()
	created, err := f.admin.Create(f.ctx, obj, store.CreateOptions{})
	if err != nil {
		t.Fatalf("create %T %s: %v", obj, obj.GetName(), err)
	}
	return created
}

func pod(name string) *corev1.Pod {
	return &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: name},
		Spec:       corev1.PodSpec{Containers: []corev1.Container{{Name: "main", Image: "example.com/app:1"}}},
	}
}

func TestCreatePod(t *testing.T) {
	f := newFixture(t)
	got := f.create(t, pod("a")).(*corev1.Pod)
	if got.UID == "" || got.Generation != 1 || got.ResourceVersion == "" || !got.CreationTimestamp.Equal(&metav1.Time{Time: f.clock.now.Truncate(time.Second)}) {
		t.Errorf("metadata: %+v", got.ObjectMeta)
	}
	if got.Status.Phase != corev1.PodPending || got.Status.QOSClass != corev1.PodQOSBestEffort {
		t.Errorf("status: %+v", got.Status)
	}
}
