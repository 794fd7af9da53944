package registry

import (
	"context"
	"errors"
	"fmt"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"github.com/slipway-dev/slipway/apiserver/api"
	"github.com/slipway-dev/slipway/apiserver/registry/service"
	"github.com/slipway-dev/slipway/apiserver/store"
)

// allocate stores a Service with an address and ports of its own: it chooses, and the transaction that writes the
// Service claims what was chosen, or fails when another was faster. old is nil for a new one.
func (r *Registry) allocate(ctx context.Context, old, updated api.Object, dryRun bool) (api.Object, error) {
	before, _ := old.(*corev1.Service)
	wanted := updated.(*corev1.Service)
	if errs := r.pool.Check(wanted); len(errs) > 0 {
		return nil, invalidService(wanted, errs...)
	}
	lost := map[string]bool{}
	for range attempts {
		svc := wanted.DeepCopy()
		all, err := store.All[*corev1.Service](ctx, r.store, store.ListOptions{})
		if err != nil {
			return nil, fmt.Errorf("list Services: %w", err)
		}
		chosen, err := r.pool.Fill(svc, before, all, lost)
		if err != nil {
			return nil, unfilled(svc, err)
		}
		if dryRun {
			return r.tried(ctx, old, svc)
		}
		object := store.Insert(svc)
		if old != nil {
			object = store.Replace(old, svc)
		}
		result, err := r.commit(ctx, append([]store.Op{object}, service.ClaimOps(before, svc)...)...)
		var taken *store.ClaimedError
		if !errors.As(err, &taken) {
			return result, err
		}
		if !chosen[taken.Name] {
			return nil, invalidService(svc, service.TakenError(svc, taken.Name, taken.Owner))
		}
		lost[taken.Name] = true
	}
	return nil, conflict(api.Services, wanted.Name, modified)
}

// releases give back what an object to be removed holds.
func releases(obj api.Object) []store.Op {
	svc, ok := obj.(*corev1.Service)
	if !ok {
		return nil
	}
	return service.ClaimOps(svc, nil)
}

// unfilled turns the reason why a Service got no address or port into what a client sees.
func unfilled(svc *corev1.Service, err error) error {
	var invalid *field.Error
	if errors.As(err, &invalid) {
		return invalidService(svc, invalid)
	}
	return apierrors.NewInternalError(err)
}

func invalidService(svc *corev1.Service, errs ...*field.Error) error {
	return apierrors.NewInvalid(api.Services.GroupVersionKind.GroupKind(), svc.Name, errs)
}
