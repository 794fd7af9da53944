package systemservice

import (
	"context"
	"fmt"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"

	"github.com/slipway-dev/slipway/apiserver/api"
	"github.com/slipway-dev/slipway/apiserver/store"
	"github.com/slipway-dev/slipway/reconciler/loop"
)

// New returns the loop that keeps services as they are given: made when missing, put back when changed.
func New(client store.Client, services []Service) loop.Controller {
	wanted := map[loop.Key]Service{}
	for _, s := range services {
		wanted[loop.Key{Namespace: s.Namespace, Name: s.Name}] = s
	}
	ours := func(_, obj api.Object, _ bool) []loop.Key {
		if _, ok := wanted[loop.KeyOf(obj)]; ok {
			return []loop.Key{loop.KeyOf(obj)}
		}
		return nil
	}
	// A Service can be made once its namespace is there.
	inNamespace := func(_, obj api.Object, _ bool) []loop.Key {
		var keys []loop.Key
		for key := range wanted {
			if key.Namespace == obj.GetName() {
				keys = append(keys, key)
			}
		}
		return keys
	}
	return loop.Controller{
		Name: "systemservice",
		Inputs: []loop.Input{
			{Kind: api.Namespaces, Keys: inNamespace},
			{Kind: api.Services, Keys: ours},
			{Kind: api.Endpoints, Keys: ours},
			{Kind: api.EndpointSlices, Keys: ours},
		},
		Reconcile: func(ctx context.Context, key loop.Key) error { return reconcile(ctx, client, wanted[key]) },
	}
}

func reconcile(ctx context.Context, client store.Client, want Service) error {
	namespace, err := optional[*corev1.Namespace](ctx, client, "", want.Namespace)
	if err != nil || namespace == nil || namespace.DeletionTimestamp != nil {
		return err
	}
	o := observed{want: want}
	if o.service, err = optional[*corev1.Service](ctx, client, want.Namespace, want.Name); err != nil {
		return err
	}
	if o.endpoints, err = optional[*corev1.Endpoints](ctx, client, want.Namespace, want.Name); err != nil {
		return err
	}
	if o.slice, err = optional[*discoveryv1.EndpointSlice](ctx, client, want.Namespace, want.Name); err != nil {
		return err
	}
	for _, a := range plan(o) {
		if err := apply(ctx, client, a); err != nil {
			return err
		}
	}
	return nil
}

func apply(ctx context.Context, client store.Client, a action) error {
	var err error
	if a.create {
		_, err = client.Create(ctx, a.object, store.CreateOptions{})
	} else {
		_, err = client.Update(ctx, a.object, store.UpdateOptions{})
	}
	if err != nil {
		return fmt.Errorf("%s: %w", a, err)
	}
	return nil
}

// optional returns the object, or nil when it does not exist.
func optional[T api.Object](ctx context.Context, client store.Reader, namespace, name string) (T, error) {
	obj, err := store.Get[T](ctx, client, namespace, name)
	if apierrors.IsNotFound(err) {
		var none T
		return none, nil
	}
	return obj, err
}
