package store

import (
	"encoding/json"
	"fmt"

	jsonpatch "gopkg.in/evanphx/json-patch.v4"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/strategicpatch"

	"github.com/slipway-dev/slipway/apiserver/api"
)

// jsonPatchLimit is how many operations a JSON patch may have, as upstream.
const jsonPatchLimit = 10000

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
		if after, err = operations.Apply(before); err != nil {
			return nil, apierrors.NewGenericServerResponse(422, "", kind.GroupResource(), "", err.Error(), 0, false)
		}
	case types.MergePatchType:
		after, err = jsonpatch.MergePatch(before, patch.Data)
	case types.StrategicMergePatchType:
		after, err = strategicpatch.StrategicMergePatch(before, patch.Data, kind.New())
	default:
		return nil, apierrors.NewGenericServerResponse(415, "patch", kind.GroupResource(), "", fmt.Sprintf("patch type %q", patch.Type), 0, false)
	}
	if err != nil {
		return nil, apierrors.NewBadRequest(err.Error())
	}
	return after, nil
}
