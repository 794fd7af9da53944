package reference

import (
	"context"
	"log/slog"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/slipway-dev/slipway/apiserver/api"
	"github.com/slipway-dev/slipway/apiserver/store"
	"github.com/slipway-dev/slipway/apiserver/store/kv/memory"
)

func open(t *testing.T) *store.Store {
	t.Helper()
	s, err := store.New(context.Background(), memory.New(), api.StorageCodec{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.Close() })
	return s
}

func pod(uid string) *corev1.Pod {
	return &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: uid, UID: types.UID(uid)}}
}

func configMap(value string) *corev1.ConfigMap {
	return &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: "c"}, Data: map[string]string{"k": value}}
}

func TestObjectsAreFollowedAsLongAsAPodNamesThem(t *testing.T) {
	s := open(t)
	changed := make(chan types.UID, 16)
	o := New(s, slog.New(slog.DiscardHandler), func(uid types.UID) { changed <- uid })
	expect := func(want ...types.UID) {
		t.Helper()
		got := map[types.UID]bool{}
		for range want {
			select {
			case uid := <-changed:
				got[uid] = true
			case <-time.After(10 * time.Second):
				t.Fatalf("told of %v, want %v", got, want)
			}
		}
		for _, uid := range want {
			if !got[uid] {
				t.Fatalf("told of %v, want %v", got, want)
			}
		}
	}
	for _, uid := range []string{"a", "b"} {
		if _, err := o.ConfigMap(t.Context(), pod(uid), "c"); !apierrors.IsNotFound(err) {
			t.Fatalf("a ConfigMap that is not there: %v", err)
		}
	}
	if _, err := s.Create(t.Context(), configMap("1"), store.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	expect("a", "b")
	if cm, err := o.ConfigMap(t.Context(), pod("a"), "c"); err != nil || cm.Data["k"] != "1" {
		t.Fatalf("got %v, %v", cm, err)
	}
	o.Forget("a")
	if _, err := s.Update(t.Context(), configMap("2"), store.UpdateOptions{}); err != nil {
		t.Fatal(err)
	}
	expect("b")
	if _, err := s.Delete(t.Context(), api.ConfigMaps, "shop", "c", store.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	expect("b")
	if _, err := o.ConfigMap(t.Context(), pod("b"), "c"); !apierrors.IsNotFound(err) {
		t.Errorf("after its deletion: %v", err)
	}
	o.Forget("b")
	if len(o.entries) != 0 || len(changed) != 0 {
		t.Errorf("%d objects followed for nobody, %d changes told to nobody", len(o.entries), len(changed))
	}
}

// denied is a reader that may not watch.
type denied struct{ store.Reader }

func (denied) Watch(context.Context, *api.Kind, store.WatchOptions) (store.Watch, error) {
	return nil, apierrors.NewForbidden(api.ConfigMaps.GroupResource(), "c", nil)
}

func TestARefusalIsAnError(t *testing.T) {
	o := New(denied{}, slog.New(slog.DiscardHandler), func(types.UID) {})
	defer o.Forget("a")
	if _, err := o.ConfigMap(t.Context(), pod("a"), "c"); !apierrors.IsForbidden(err) {
		t.Errorf("error %v, want Forbidden", err)
	}
}
