package store

import (
	"encoding/json"
	"fmt"
	"net/http"
	"sync"

	jsonpatch "gopkg.in/evanphx/json-patch.v4"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/strategicpatch"

	"github.com/slipway-dev/slipway/apiserver/api"
)

// Bounds on a JSON patch, as upstream: how many operations it may have, and how many bytes it may copy inside the
// object. Without the second, each operation that copies an object into itself doubles it.
const (
	jsonPatchLimit     = 10000
	jsonPatchCopyLimit = 3 << 20
)

// strategicLimit is how many list items a strategic merge patch may have: merging takes the square of their number.
const strategicLimit = 4000

// boundCopies tells the library, which has one limit for the whole process, and none of its own.
var boundCopies = sync.OnceFunc(func() { jsonpatch.AccumulatedCopySizeLimit = jsonPatchCopyLimit })

// Patched returns what a JSON, merge or strategic merge patch makes of current, as a new object. Server-side apply
// needs field ownership and is not done here.
func Patched(current api.Object, patch Patch) (api.Object, error) {
	kind, err := api.KindOf(current)
	if err != nil {
		return nil, apierrors.NewBadRequest(err.Error())
	}
	before, err := json.Marshal(current)
	if err != nil {
		return nil, apierrors.NewInternalError(err)
	}
	after, err := patchBytes(kind, before, patch)
	if err != nil {
		return nil, err
	}
	next := kind.New()
	if err := json.Unmarshal(after, next); err != nil {
		return nil, apierrors.NewBadRequest(fmt.Sprintf("patch of %s %q: %v", kind, current.GetName(), err))
	}
	if gvk := next.GetObjectKind().GroupVersionKind(); gvk != kind.GroupVersionKind {
		return nil, apierrors.NewBadRequest(fmt.Sprintf("patch of %s %q: apiVersion and kind cannot change", kind, current.GetName()))
	}
	return next, nil
}

func patchBytes(kind *api.Kind, before []byte, patch Patch) (after []byte, err error) {
	switch patch.Type {
	case types.JSONPatchType:
		operations, decodeErr := jsonpatch.DecodePatch(patch.Data)
		if decodeErr != nil {
			return nil, apierrors.NewBadRequest(decodeErr.Error())
		}
		if len(operations) > jsonPatchLimit {
			return nil, apierrors.NewRequestEntityTooLargeError(fmt.Sprintf("a JSON patch may have %d operations, not %d", jsonPatchLimit, len(operations)))
		}
		boundCopies()
		if after, err = operations.Apply(before); err != nil {
			refusal := apierrors.NewGenericServerResponse(http.StatusUnprocessableEntity, "", kind.GroupResource(), "", "", 0, false)
			refusal.ErrStatus.Message = "JSON patch: " + err.Error()
			return nil, refusal
		}
	case types.MergePatchType:
		after, err = jsonpatch.MergePatch(before, patch.Data)
	case types.StrategicMergePatchType:
		var wanted any
		if err := json.Unmarshal(patch.Data, &wanted); err != nil {
			return nil, apierrors.NewBadRequest(err.Error())
		}
		if n := items(wanted); n > strategicLimit {
			return nil, apierrors.NewRequestEntityTooLargeError(fmt.Sprintf("a strategic merge patch may have %d list items, not %d", strategicLimit, n))
		}
		after, err = strategicpatch.StrategicMergePatch(before, patch.Data, kind.New())
	default:
		return nil, apierrors.NewGenericServerResponse(415, "patch", kind.GroupResource(), "", fmt.Sprintf("patch type %q", patch.Type), 0, false)
	}
	if err != nil {
		return nil, apierrors.NewBadRequest(err.Error())
	}
	return after, nil
}

// items counts the items of all lists in a JSON value.
func items(value any) int {
	n := 0
	switch value := value.(type) {
	case []any:
		n = len(value)
		for _, below := range value {
			n += items(below)
		}
	case map[string]any:
		for _, below := range value {
			n += items(below)
		}
	}
	return n
}
