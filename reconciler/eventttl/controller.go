package eventttl

import (
	"context"
	"fmt"
	"strconv"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"

	"github.com/slipway-dev/slipway/apiserver/api"
	"github.com/slipway-dev/slipway/apiserver/event"
	"github.com/slipway-dev/slipway/apiserver/store"
	"github.com/slipway-dev/slipway/reconciler/loop"
)

type controller struct {
	client store.Client
	ages   *loop.Ages
}

// New returns the controller. It acts through client; it says nothing through events.
func New(client store.Client, _ event.Recorder) loop.Controller {
	c := &controller{client: client, ages: loop.NewAges()}
	return loop.Controller{Name: "eventttl", Reconcile: c.reconcile, Inputs: []loop.Input{{Kind: api.Events, Keys: keys, Stateless: true}}}
}

// keys leaves out Events that are gone already.
func keys(_, obj api.Object, deleted bool) []loop.Key {
	if deleted {
		return nil
	}
	return []loop.Key{loop.KeyOf(obj)}
}

func (c *controller) reconcile(ctx context.Context, key loop.Key) error {
	ev, err := store.Get[*corev1.Event](ctx, c.client, key.Namespace, key.Name)
	if apierrors.IsNotFound(err) {
		c.ages.Of(key, nil)
		return nil
	}
	if err != nil {
		return fmt.Errorf("get event %s: %w", key, err)
	}
	if age := c.ages.Of(key, map[string]time.Time{"last": last(ev)})["last"]; age < Keep {
		return loop.Wait(Keep - age)
	}
	revision, err := strconv.ParseUint(ev.ResourceVersion, 10, 64)
	if err != nil {
		return loop.Stalled(fmt.Errorf("read version of event %s: %w", key, err))
	}
	c.ages.Of(key, nil)
	if _, err = c.client.Delete(ctx, api.Events, key.Namespace, key.Name, store.DeleteOptions{UID: ev.UID, Revision: revision}); err != nil && !apierrors.IsNotFound(err) {
		return fmt.Errorf("delete event %s: %w", key, err)
	}
	return nil
}
