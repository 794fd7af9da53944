package store_test

import (
	"fmt"
	"strings"
	"testing"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/slipway-dev/slipway/apiserver/store"
)

// TestJSONPatchCopiesAreBounded: a few hundred bytes that double the object with each operation are refused before
// they fill the memory. 20 operations would be 100 MB here: enough to see it, not enough to hurt.
func TestJSONPatchCopiesAreBounded(t *testing.T) {
	current := &corev1.ConfigMap{TypeMeta: metav1.TypeMeta{APIVersion: "v1", Kind: "ConfigMap"}, ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: "shop"},
		Data: map[string]string{"a": strings.Repeat("x", 100)}}
	patch := func(copies int) error {
		var ops []string
		for i := range copies {
			ops = append(ops, fmt.Sprintf(`{"op":"copy","from":"/metadata","path":"/metadata/k%d"}`, i))
		}
		_, err := store.Patched(current, store.Patch{Type: types.JSONPatchType, Data: []byte("[" + strings.Join(ops, ",") + "]")})
		return err
	}
	if err := patch(3); err != nil {
		t.Errorf("a few copies: %v", err)
	}
	if err := patch(20); apierrors.ReasonForError(err) == "" || !strings.Contains(err.Error(), "copy") {
		t.Errorf("copies of copies: got %v, want a refusal", err)
	}
}

// TestStrategicPatchesAreBounded: merging lists takes the square of their length, so that 3 MB of items would keep a
// core busy for a quarter of an hour.
func TestStrategicPatchesAreBounded(t *testing.T) {
	current := &appsv1.Deployment{TypeMeta: metav1.TypeMeta{APIVersion: "apps/v1", Kind: "Deployment"}, ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: "web"}}
	patch := func(containers int) error {
		items := make([]string, containers)
		for i := range items {
			items[i] = fmt.Sprintf(`{"name":"c%d"}`, i)
		}
		_, err := store.Patched(current, store.Patch{Type: types.StrategicMergePatchType,
			Data: []byte(`{"spec":{"template":{"spec":{"containers":[` + strings.Join(items, ",") + `]}}}}`)})
		return err
	}
	if err := patch(50); err != nil {
		t.Errorf("50 containers: %v", err)
	}
	if err := patch(4001); !apierrors.IsRequestEntityTooLargeError(err) {
		t.Errorf("4001 containers: got %v, want 413", err)
	}
}
