package gitops

import (
	"context"
	"errors"
	"strings"
	"sync/atomic"
	"testing"

	corev1 "k8s.io/api/core/v1"

	"github.com/slipway-dev/slipway/apiserver/api"
	slipwayv1 "github.com/slipway-dev/slipway/apiserver/api/v1alpha1"
	"github.com/slipway-dev/slipway/apiserver/store"
	"github.com/slipway-dev/slipway/apiserver/store/kv/memory"
)

// hindered lets a test stand in the way of applies.
type hindered struct {
	store.Client
	before func(ctx context.Context, kind *api.Kind, name string, p store.Patch) error
}

func (c *hindered) Patch(ctx context.Context, kind *api.Kind, namespace, name string, p store.Patch) (api.Object, error) {
	if err := c.before(ctx, kind, name, p); err != nil {
		return nil, err
	}
	return c.Client.Patch(ctx, kind, namespace, name, p)
}

func TestFailedWriteIsTriedAgain(t *testing.T) {
	r := newRig(t, memory.New())
	var failures atomic.Int64
	r.gitops = &hindered{r.gitops, func(_ context.Context, _ *api.Kind, name string, _ store.Patch) error {
		if name == "a" && failures.Add(1) <= 2 {
			return errors.New("disk is full")
		}
		return nil
	}}
	r.start(Config{})
	f := shop()
	f["web.yaml"] = deploymentFile("web", "nginx:1") + "        envFrom: [{configMapRef: {name: a}}]\n"
	rev := r.push(f)
	if p := r.awaitStep(StepNotDone, rev); p.Text != "a.yaml:1: ConfigMap/shop/a: disk is full" {
		t.Errorf("told %q", p.Text)
	}
	if p := r.awaitStep(StepNotDone, rev); p.Text != "web.yaml:1: Deployment/shop/web: needs ConfigMap shop/a, which could not be written" {
		t.Errorf("told %q", p.Text)
	}
	r.await("web waits", func(p Progress) bool { return p.Step == StepWorkload && p.Ref.Name == "web" })
	r.available("shop", "web")
	if p := r.awaitStep(StepSettled, rev); p.Status.Phase != slipwayv1.RolloutSucceeded || p.Status.Created != 4 || len(p.Status.Errors) != 0 {
		t.Errorf("status %+v", p.Status)
	}
}

// A commit that hangs in the middle of its writes is left by the next one.
func TestNewestCommitWinsBetweenWrites(t *testing.T) {
	r := newRig(t, memory.New())
	hangs := make(chan struct{}, 1)
	r.gitops = &hindered{r.gitops, func(ctx context.Context, kind *api.Kind, _ string, p store.Patch) error {
		if kind != api.ConfigMaps || !strings.Contains(string(p.Data), "hang") {
			return nil
		}
		select {
		case hangs <- struct{}{}:
		default:
		}
		<-ctx.Done()
		return ctx.Err()
	}}
	r.start(Config{})
	f := shop()
	f["a.yaml"] = configFile("a", "hang")
	f["web.yaml"] = deploymentFile("web", "nginx:1")
	first := r.push(f)
	<-hangs
	second := r.push(shop())
	r.awaitStep(StepSuperseded, first)
	r.awaitStep(StepSettled, second)
	if get[*corev1.ConfigMap](r, "shop", "a").Data["key"] != "1" {
		t.Error("the second commit was not applied")
	}
}

// An engine that ended in the middle of a commit goes on with it, in the same record.
func TestRestartInTheMiddleGoesOn(t *testing.T) {
	r := newRig(t, memory.New())
	hangs := make(chan struct{}, 1)
	free := r.gitops
	r.gitops = &hindered{free, func(ctx context.Context, kind *api.Kind, name string, _ store.Patch) error {
		if kind != api.ConfigMaps || name != "b" {
			return nil
		}
		hangs <- struct{}{}
		<-ctx.Done()
		return ctx.Err()
	}}
	stop := r.start(Config{})
	rev := r.push(shop())
	<-hangs
	stop()
	if ro := r.record(); ro.Status.Phase != slipwayv1.RolloutApplying {
		t.Errorf("phase %s after the end, want Applying", ro.Status.Phase)
	}
	r.gitops = free
	r.start(Config{})
	r.push(shop())
	p := r.awaitStep(StepSettled, rev)
	if ro := r.record(); ro.Name != "default-000001" || p.Status.Phase != slipwayv1.RolloutSucceeded || !has[*corev1.ConfigMap](r, "shop", "b") {
		t.Errorf("record %s: %+v", ro.Name, p.Status)
	}
}

// A store that cannot be read is no reason to prune, refuse or give up.
func TestStoreThatCannotBeReadIsAskedAgain(t *testing.T) {
	r := newRig(t, memory.New())
	client := &blind{Client: r.gitops}
	r.gitops = client
	r.start(Config{})
	r.settle(shop())
	client.failures.Store(3)
	f := shop()
	delete(f, "b.yaml")
	r.settle(f)
	if has[*corev1.ConfigMap](r, "shop", "b") {
		t.Error("b is still there")
	}
}

// blind fails some lists.
type blind struct {
	store.Client
	failures atomic.Int64
}

func (c *blind) List(ctx context.Context, kind *api.Kind, opts store.ListOptions) (store.List, error) {
	if kind == api.ConfigMaps && c.failures.Add(-1) >= 0 {
		return store.List{}, errors.New("no leader")
	}
	return c.Client.List(ctx, kind, opts)
}

// A record stays small, whatever the commit.
func TestRecordIsBounded(t *testing.T) {
	r := newRig(t, memory.New())
	r.start(Config{})
	rev := r.settle(manyFiles(recordedPlan + 50))
	ro := r.record()
	if n := len(ro.Status.Plan); ro.Spec.Revision != rev || n != recordedPlan || ro.Status.Plan[n-1] != "… and 52 more" {
		t.Errorf("%d lines, the last %q", n, ro.Status.Plan[n-1])
	}
}
