package serviceaccount

import (
	"context"
	"fmt"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/fields"

	"github.com/slipway-dev/slipway/apiserver/api"
	"github.com/slipway-dev/slipway/apiserver/event"
	"github.com/slipway-dev/slipway/apiserver/store"
	"github.com/slipway-dev/slipway/reconciler/loop"
)

const name = "serviceaccount"

type controller struct {
	client store.Client
	rootCA string
}

// New returns the controller. It acts through client; rootCA is the authority's certificate in PEM. It says nothing
// through events.
func New(client store.Client, _ event.Recorder, rootCA string) loop.Controller {
	c := &controller{client: client, rootCA: rootCA}
	return loop.Controller{Name: name, Workers: 2, Reconcile: c.reconcile, Inputs: []loop.Input{
		{Kind: api.Namespaces, Keys: loop.Own, Stateless: true},
		{Kind: api.ServiceAccounts, Keys: namespaceKey, Stateless: true, Opts: named(accountName)},
		{Kind: api.ConfigMaps, Keys: namespaceKey, Stateless: true, Opts: named(bundleName)},
	}}
}

func named(object string) store.WatchOptions {
	return store.WatchOptions{Fields: fields.OneTermEqualSelector("metadata.name", object)}
}

func namespaceKey(_, obj api.Object, _ bool) []loop.Key {
	return []loop.Key{{Name: obj.GetNamespace()}}
}

func (c *controller) reconcile(ctx context.Context, key loop.Key) error {
	o, err := c.observe(ctx, key)
	if err != nil {
		return err
	}
	for _, action := range plan(o) {
		err := c.apply(ctx, action)
		if err != nil && !apierrors.IsNotFound(err) && !apierrors.HasStatusCause(err, corev1.NamespaceTerminatingCause) {
			return fmt.Errorf("%s in %s: %w", action, key, err)
		}
	}
	return nil
}

func (c *controller) observe(ctx context.Context, key loop.Key) (observed, error) {
	o := observed{RootCA: c.rootCA}
	var err error
	if o.Namespace, err = find[*corev1.Namespace](ctx, c.client, "", key.Name); err != nil || o.Namespace == nil {
		return o, err
	}
	if o.Account, err = find[*corev1.ServiceAccount](ctx, c.client, key.Name, accountName); err != nil {
		return o, err
	}
	o.Bundle, err = find[*corev1.ConfigMap](ctx, c.client, key.Name, bundleName)
	return o, err
}

// find is store.Get with nil for what is not there.
func find[T api.Object](ctx context.Context, r store.Reader, namespace, object string) (T, error) {
	obj, err := store.Get[T](ctx, r, namespace, object)
	if apierrors.IsNotFound(err) {
		var none T
		return none, nil
	}
	if err != nil {
		return obj, fmt.Errorf("get %s %s/%s: %w", api.KindFor[T](), namespace, object, err)
	}
	return obj, nil
}

func (c *controller) apply(ctx context.Context, action Action) error {
	var err error
	switch a := action.(type) {
	case CreateAccount:
		_, err = c.client.Create(ctx, a.Account, store.CreateOptions{FieldManager: name})
	case CreateBundle:
		_, err = c.client.Create(ctx, a.Bundle, store.CreateOptions{FieldManager: name})
	case UpdateBundle:
		_, err = c.client.Update(ctx, a.Bundle, store.UpdateOptions{FieldManager: name})
	}
	return err
}
