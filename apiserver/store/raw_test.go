package store_test

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"

	"github.com/slipway-dev/slipway/apiserver/api"
	"github.com/slipway-dev/slipway/apiserver/store"
	"github.com/slipway-dev/slipway/apiserver/store/kv"
	"github.com/slipway-dev/slipway/apiserver/store/kv/etcd"
	"github.com/slipway-dev/slipway/apiserver/store/kv/memory"
)

func configMap(name, value string) *corev1.ConfigMap {
	return &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Namespace: "ns", Name: name}, Data: map[string]string{"value": value}}
}

func secret(name string) *corev1.Secret {
	return &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Namespace: "ns", Name: name}, Type: corev1.SecretTypeOpaque}
}

func txn(t *testing.T, s *store.Store, ops ...store.Op) []api.Object {
	t.Helper()
	objects, err := s.Txn(t.Context(), ops...)
	if err != nil {
		t.Fatal(err)
	}
	return objects
}

func TestTxnWritesKindsTogether(t *testing.T) {
	s := open(t, memory.New())
	made := txn(t, s, store.Insert(configMap("a", "1")), store.Insert(secret("a")))
	if a, b := made[0].GetResourceVersion(), made[1].GetResourceVersion(); a != b || a == "" {
		t.Errorf("resourceVersions are %q and %q", a, b)
	}
	changed := txn(t, s, store.Replace(made[0], configMap("a", "2")), store.Remove(made[1]))
	if got := changed[1].GetResourceVersion(); got != changed[0].GetResourceVersion() {
		t.Errorf("the deletion's resourceVersion is %q", got)
	}
	if _, err := s.Get(t.Context(), api.Secrets, "ns", "a"); !apierrors.IsNotFound(err) {
		t.Errorf("the Secret is still there: %v", err)
	}
}

func TestTxnDoesAllOrNothing(t *testing.T) {
	s := open(t, memory.New())
	old := txn(t, s, store.Insert(configMap("a", "1")))[0]
	current := txn(t, s, store.Replace(old, configMap("a", "2")))[0]
	gone := txn(t, s, store.Insert(secret("gone")))[0]
	txn(t, s, store.Remove(gone))
	rows := []struct {
		name string
		op   store.Op
		want func(error) bool
	}{
		{"replace an old one", store.Replace(old, configMap("a", "3")), apierrors.IsConflict},
		{"remove an old one", store.Remove(old), apierrors.IsConflict},
		{"require an old one", store.Require(old), apierrors.IsConflict},
		{"insert what exists", store.Insert(configMap("a", "3")), apierrors.IsAlreadyExists},
		{"require what is gone", store.Require(gone), apierrors.IsNotFound},
	}
	for _, row := range rows {
		t.Run(row.name, func(t *testing.T) {
			account := &corev1.ServiceAccount{ObjectMeta: metav1.ObjectMeta{Namespace: "ns", Name: "a"}}
			if _, err := s.Txn(t.Context(), store.Insert(account), row.op); !row.want(err) {
				t.Errorf("Txn: %v", err)
			}
			if _, err := s.Get(t.Context(), api.ServiceAccounts, "ns", "a"); !apierrors.IsNotFound(err) {
				t.Errorf("half of the transaction was done: %v", err)
			}
		})
	}
	txn(t, s, store.Require(current), store.Insert(secret("b")))
}

func TestTxnRefusesTwoOfAKind(t *testing.T) {
	s := open(t, memory.New())
	if _, err := s.Txn(t.Context(), store.Insert(configMap("a", "1")), store.Insert(configMap("b", "1"))); err == nil {
		t.Error("two ConfigMaps share a revision")
	}
}

func TestTxnClaimsANameOnce(t *testing.T) {
	s := open(t, memory.New())
	txn(t, s, store.Insert(configMap("a", "1")), store.Claim("serviceips/10.96.0.1", "ns/a"))
	_, err := s.Txn(t.Context(), store.Insert(configMap("b", "1")), store.Claim("serviceips/10.96.0.1", "ns/b"))
	var claimed *store.ClaimedError
	if !errors.As(err, &claimed) || claimed.Owner != "ns/a" {
		t.Errorf("second claim: %v, want ClaimedError of ns/a", err)
	}
	if _, err := s.Get(t.Context(), api.ConfigMaps, "ns", "b"); !apierrors.IsNotFound(err) {
		t.Errorf("half of the transaction was done: %v", err)
	}
	txn(t, s, store.Release("serviceips/10.96.0.1"), store.Release("serviceips/10.96.0.2"))
	txn(t, s, store.Insert(configMap("b", "1")), store.Claim("serviceips/10.96.0.1", "ns/b"))
}

func TestContinueOfAForgottenStateOffersTheNewest(t *testing.T) {
	s := open(t, memory.New())
	for i := range 20 {
		txn(t, s, store.Insert(configMap(fmt.Sprintf("map-%02d", i), "1")))
	}
	first, err := s.List(t.Context(), api.ConfigMaps, store.ListOptions{Limit: 5})
	if err != nil {
		t.Fatal(err)
	}
	for i := range 20 { // more lists in progress than are remembered
		txn(t, s, store.Insert(secret(fmt.Sprint(i))))
		if _, err := s.List(t.Context(), api.ConfigMaps, store.ListOptions{Limit: 1}); err != nil {
			t.Fatal(err)
		}
	}
	_, err = s.List(t.Context(), api.ConfigMaps, store.ListOptions{Limit: 5, Continue: first.Continue})
	var status *apierrors.StatusError
	if !apierrors.IsResourceExpired(err) || !errors.As(err, &status) || status.ErrStatus.Continue == "" {
		t.Fatalf("List: %v, want Expired with another token", err)
	}
	rest, err := s.List(t.Context(), api.ConfigMaps, store.ListOptions{Continue: status.ErrStatus.Continue})
	if err != nil {
		t.Fatal(err)
	}
	if len(rest.Items) != 15 || rest.Items[0].GetName() != "map-05" {
		t.Errorf("%d objects follow, want 15", len(rest.Items))
	}
}

func TestBookmarksOnceAMinute(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := open(t, memory.New())
		made := txn(t, s, store.Insert(configMap("a", "1")))[0]
		w, err := s.Watch(t.Context(), api.ConfigMaps, store.WatchOptions{Bookmarks: true})
		if err != nil {
			t.Fatal(err)
		}
		defer w.Close()
		var got []string
		start := time.Now()
		for range 4 {
			event, err := w.Next(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			got = append(got, fmt.Sprintf("%s %s %v", time.Since(start), event.Type, fmt.Sprint(event.Revision) == made.GetResourceVersion()))
		}
		want := []string{"0s ADDED true", "0s BOOKMARK true", "1m0s BOOKMARK true", "2m0s BOOKMARK true"}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("events (-want +got):\n%s", diff)
		}
	})
}

func TestFutureRevisionIsWaitedFor(t *testing.T) {
	s := open(t, memory.New())
	made := txn(t, s, store.Insert(configMap("a", "1")))[0]
	type result struct {
		event store.Event
		err   error
	}
	done := make(chan result, 1)
	var revision uint64
	fmt.Sscan(made.GetResourceVersion(), &revision)
	go func() {
		w, err := s.Watch(t.Context(), api.ConfigMaps, store.WatchOptions{Revision: revision + 1})
		if err != nil {
			done <- result{err: err}
			return
		}
		defer w.Close()
		event, err := w.Next(t.Context())
		done <- result{event, err}
	}()
	made = txn(t, s, store.Replace(made, configMap("a", "2")))[0]
	txn(t, s, store.Replace(made, configMap("a", "3")))
	if got := <-done; got.err != nil || got.event.Revision != revision+2 {
		t.Errorf("got %+v, want the event at %d", got, revision+2)
	}
}

// breaking is a backend whose watches can be broken, and whose history is then gone.
type breaking struct {
	*memory.Backend
	mu  sync.Mutex
	cut context.CancelFunc
}

func (b *breaking) Watch(ctx context.Context, prefix string, after uint64) iter.Seq2[kv.Batch, error] {
	cuttable, cut := context.WithCancel(ctx)
	b.mu.Lock()
	b.cut = cut
	b.mu.Unlock()
	return func(yield func(kv.Batch, error) bool) {
		for batch, err := range b.Backend.Watch(cuttable, prefix, after) {
			if err != nil && ctx.Err() == nil {
				err = kv.ErrCompacted
			}
			if !yield(batch, err) {
				return
			}
		}
	}
}

func TestBrokenWatchOfTheBackendLoadsAnew(t *testing.T) {
	backend := &breaking{Backend: memory.New()}
	s := open(t, backend)
	made := txn(t, s, store.Insert(configMap("a", "1")))[0]
	txn(t, s, store.Insert(secret("a")))
	all, err := s.Watch(t.Context(), api.ConfigMaps, store.WatchOptions{})
	if err != nil {
		t.Fatal(err)
	}
	named, err := s.Watch(t.Context(), api.ConfigMaps, store.WatchOptions{Fields: fields.OneTermEqualSelector("metadata.name", "a")})
	if err != nil {
		t.Fatal(err)
	}
	backend.mu.Lock()
	backend.cut()
	backend.mu.Unlock()
	for name, w := range map[string]store.Watch{"all": all, "named": named} {
		var err error
		for err == nil {
			_, err = w.Next(t.Context())
		}
		if !apierrors.IsResourceExpired(err) {
			t.Errorf("watch of %s: %v, want Expired", name, err)
		}
		w.Close()
	}
	txn(t, s, store.Replace(made, configMap("a", "2")))
	got, err := store.Get[*corev1.ConfigMap](t.Context(), s, "ns", "a")
	if err != nil || got.Data["value"] != "2" {
		t.Errorf("Get: %v %v", got, err)
	}
	if secrets, err := store.All[*corev1.Secret](t.Context(), s, store.ListOptions{}); err != nil || len(secrets) != 1 {
		t.Errorf("List: %v %v", secrets, err)
	}
}

func TestDetectMutationReports(t *testing.T) {
	var reports atomic.Int32
	s, err := store.New(t.Context(), memory.New(), api.StorageCodec{}, store.DetectMutation(func(string) { reports.Add(1) }))
	if err != nil {
		t.Fatal(err)
	}
	made := txn(t, s, store.Insert(configMap("a", "1")))[0]
	if _, err := s.Get(t.Context(), api.ConfigMaps, "ns", "a"); err != nil || reports.Load() != 0 {
		t.Fatalf("%d reports of nothing (%v)", reports.Load(), err)
	}
	made.(*corev1.ConfigMap).Data["value"] = "changed"
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	if reports.Load() != 1 {
		t.Errorf("%d reports, want 1", reports.Load())
	}
}

// counting is a codec that counts.
type counting struct {
	api.StorageCodec
	decoded atomic.Int32
}

func (c *counting) Decode(kind *api.Kind, data []byte) (api.Object, error) {
	c.decoded.Add(1)
	return c.StorageCodec.Decode(kind, data)
}

func TestWritersObjectIsNotDecoded(t *testing.T) {
	codec := &counting{}
	backend := memory.New()
	s, err := store.New(t.Context(), backend, codec)
	if err != nil {
		t.Fatal(err)
	}
	for i := range 200 {
		made := txn(t, s, store.Insert(configMap(fmt.Sprint(i), "1")))[0]
		made = txn(t, s, store.Replace(made, configMap(fmt.Sprint(i), "2")))[0]
		if got, err := s.Get(t.Context(), api.ConfigMaps, "ns", fmt.Sprint(i)); err != nil || got != made {
			t.Errorf("Get returned another object than the writer has (%v)", err)
		}
	}
	if n := codec.decoded.Load(); n != 0 {
		t.Errorf("%d objects were decoded", n)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
}

func TestForeignKeysDoNotDisturb(t *testing.T) {
	backend := memory.New()
	s := open(t, backend, store.WithLog(quiet()))
	txn(t, s, store.Insert(configMap("a", "1")))
	for _, key := range []string{"/other", "/registry/unknown/a", "/registry/configmaps/ns/broken"} {
		if _, err := backend.Txn(t.Context(), []kv.Op{{Verb: kv.Put, Key: key, Value: []byte("x")}}); err != nil {
			t.Fatal(err)
		}
		list, err := s.List(t.Context(), api.ConfigMaps, store.ListOptions{})
		if err != nil || len(list.Items) != 1 {
			t.Errorf("after %s: %d objects (%v)", key, len(list.Items), err)
		}
	}
}

func TestReopenedStoreHasEverything(t *testing.T) {
	dir := t.TempDir()
	var want []api.Object
	for round := range 3 {
		backend, err := etcd.Open(t.Context(), etcd.Config{Dir: dir})
		if err != nil {
			t.Fatal(err)
		}
		s, err := store.New(t.Context(), backend, api.StorageCodec{})
		if err != nil {
			t.Fatal(err)
		}
		list, err := s.List(t.Context(), api.ConfigMaps, store.ListOptions{})
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(want, list.Items); round > 0 && diff != "" {
			t.Errorf("round %d (-want +got):\n%s", round, diff)
		}
		if round > 0 {
			txn(t, s, store.Remove(list.Items[0]))
		}
		for i := range 50 {
			txn(t, s, store.Insert(configMap(fmt.Sprintf("map-%d-%d", round, i), "1")))
		}
		if list, err = s.List(t.Context(), api.ConfigMaps, store.ListOptions{}); err != nil {
			t.Fatal(err)
		}
		want = list.Items
		if err := errors.Join(s.Close(), backend.Close()); err != nil {
			t.Fatal(err)
		}
	}
}
