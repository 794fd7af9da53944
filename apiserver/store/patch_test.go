package store_test

import (
	"fmt"
	"strings"
	"testing"

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
