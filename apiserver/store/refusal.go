package store

import (
	"context"
	"errors"
	"fmt"
	"net/http"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/slipway-dev/slipway/apiserver/api"
	"github.com/slipway-dev/slipway/apiserver/store/kv"
)

// ErrWatchClosed is what Next returns after Close.
var ErrWatchClosed = errors.New("watch is closed")

// ReasonNoSpace is the reason of a Status with code 507: the disk is full, nothing was written.
const ReasonNoSpace metav1.StatusReason = "InsufficientStorage"

func notFound(kind *api.Kind, name string) error {
	return apierrors.NewNotFound(kind.GroupResource(), name)
}

func notStored(kind *api.Kind) error {
	return &apierrors.StatusError{ErrStatus: metav1.Status{
		Status: metav1.StatusFailure, Code: http.StatusMethodNotAllowed, Reason: metav1.StatusReasonMethodNotAllowed,
		Message: fmt.Sprintf("%s is not stored", kind),
		Details: &metav1.StatusDetails{Group: kind.Group, Kind: kind.Resource},
	}}
}

func changedMeanwhile(kind *api.Kind, name string) error {
	return conflict(kind, name, "the object has been modified; please apply your changes to the latest version and try again")
}

func conflict(kind *api.Kind, name, why string) error {
	return apierrors.NewConflict(kind.GroupResource(), name, errors.New(why))
}

func tooOld(revision, oldest uint64) error {
	return apierrors.NewResourceExpired(fmt.Sprintf("too old resource version: %d (%d)", revision, oldest))
}

// unavailable turns a backend's error into the Status a client sees; ctx's errors stay what they are.
func unavailable(err error) error {
	switch {
	case errors.Is(err, context.Canceled), errors.Is(err, context.DeadlineExceeded):
		return err
	case errors.Is(err, kv.ErrTooLarge):
		return apierrors.NewRequestEntityTooLargeError(err.Error())
	case errors.Is(err, kv.ErrNoSpace):
		return &apierrors.StatusError{ErrStatus: metav1.Status{
			Status: metav1.StatusFailure, Code: http.StatusInsufficientStorage, Reason: ReasonNoSpace, Message: err.Error(),
		}}
	}
	return apierrors.NewServiceUnavailable(err.Error())
}
