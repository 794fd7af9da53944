package main

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/tools/clientcmd"
)

// patience is how long anything may take before it counts as not happening.
const patience = 2 * time.Minute

// life is when things happened to one Pod, as the watch saw them. A zero time: not yet.
type life struct {
	app     string
	version string
	created time.Time
	bound   time.Time
	running time.Time
	ready   time.Time
	deleted time.Time
	phase   corev1.PodPhase
}

// watcher sees all Pods of namespace default and when its Deployments were current, through the API over HTTPS.
type watcher struct {
	mu      sync.Mutex
	pods    map[string]*life     // by UID
	current map[string]time.Time // Deployment → when its status first said so for the newest generation
	err     error
	changed chan struct{} // closed at the next change
}

// watchPods begins to watch; it goes on until ctx ends.
func watchPods(ctx context.Context, kubeconfig string) (*watcher, error) {
	config, err := clientcmd.BuildConfigFromFlags("", kubeconfig)
	if err != nil {
		return nil, fmt.Errorf("read kubeconfig: %w", err)
	}
	client, err := kubernetes.NewForConfig(config)
	if err != nil {
		return nil, fmt.Errorf("make client: %w", err)
	}
	w := &watcher{pods: map[string]*life{}, current: map[string]time.Time{}, changed: make(chan struct{})}
	timeout := int64((time.Hour).Seconds())
	options := metav1.ListOptions{TimeoutSeconds: &timeout}
	pods, err := client.CoreV1().Pods("default").Watch(ctx, options)
	if err != nil {
		return nil, fmt.Errorf("watch Pods: %w", err)
	}
	deployments, err := client.AppsV1().Deployments("default").Watch(ctx, options)
	if err != nil {
		return nil, fmt.Errorf("watch Deployments: %w", err)
	}
	go w.follow(pods, w.seePod)
	go w.follow(deployments, w.seeDeployment)
	return w, nil
}

func (w *watcher) follow(events watch.Interface, see func(watch.Event, time.Time)) {
	defer events.Stop()
	for event := range events.ResultChan() {
		now := time.Now()
		w.mu.Lock()
		see(event, now)
		w.changing()
		w.mu.Unlock()
	}
	w.mu.Lock()
	w.err = fmt.Errorf("the watch of the API ended")
	w.changing()
	w.mu.Unlock()
}

// changing tells those who wait. The caller holds the lock.
func (w *watcher) changing() {
	close(w.changed)
	w.changed = make(chan struct{})
}

func (w *watcher) seePod(event watch.Event, now time.Time) {
	pod, ok := event.Object.(*corev1.Pod)
	if !ok {
		return
	}
	p := w.pods[string(pod.UID)]
	if p == nil {
		p = &life{app: pod.Labels["app"], version: pod.Labels["version"], created: now}
		w.pods[string(pod.UID)] = p
	}
	p.phase = pod.Status.Phase
	if pod.Spec.NodeName != "" {
		first(&p.bound, now)
	}
	if pod.Status.Phase == corev1.PodRunning {
		first(&p.running, now)
	}
	for _, c := range pod.Status.Conditions {
		if c.Type == corev1.PodReady && c.Status == corev1.ConditionTrue {
			first(&p.ready, now)
		}
	}
	if event.Type == watch.Deleted {
		first(&p.deleted, now)
	}
}

func (w *watcher) seeDeployment(event watch.Event, now time.Time) {
	d, ok := event.Object.(*appsv1.Deployment)
	if !ok || d.Spec.Replicas == nil {
		return
	}
	s, want := d.Status, *d.Spec.Replicas
	key := d.Name + " " + d.Spec.Template.Labels["version"]
	done := s.ObservedGeneration >= d.Generation && s.UpdatedReplicas == want && s.AvailableReplicas == want && s.Replicas == want
	if _, seen := w.current[key]; done && !seen {
		w.current[key] = now
	}
}

func first(t *time.Time, now time.Time) {
	if t.IsZero() {
		*t = now
	}
}

// await waits until done, which is called with the lock held, says so.
func (w *watcher) await(ctx context.Context, what string, done func() bool) error {
	deadline := time.NewTimer(patience)
	defer deadline.Stop()
	for {
		w.mu.Lock()
		ok, err, changed := done(), w.err, w.changed
		w.mu.Unlock()
		switch {
		case ok:
			return nil
		case err != nil:
			return fmt.Errorf("wait until %s: %w", what, err)
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return fmt.Errorf("wait until %s: %w", what, ctx.Err())
		case <-deadline.C:
			return fmt.Errorf("wait until %s: not after %s", what, patience)
		}
	}
}

// of returns the Pods of an app; with a version only those. The caller holds the lock.
func (w *watcher) of(app, version string) []*life {
	var found []*life
	for _, p := range w.pods {
		if p.app == app && (version == "" || p.version == version) {
			found = append(found, p)
		}
	}
	return found
}

// reached waits until n Pods of an app have come to a point of their lives, and returns the first creation and when
// the last of them was there.
func (w *watcher) reached(ctx context.Context, app, version string, n int, point func(*life) time.Time) (began, last time.Time, err error) {
	err = w.await(ctx, fmt.Sprintf("%d Pods of %s are there", n, app), func() bool {
		count := 0
		began, last = time.Time{}, time.Time{}
		for _, p := range w.of(app, version) {
			if began.IsZero() || p.created.Before(began) {
				began = p.created
			}
			if at := point(p); !at.IsZero() {
				count++
				if at.After(last) {
					last = at
				}
			}
		}
		return count >= n
	})
	return began, last, err
}

// gone waits until no Pod of an app is left.
func (w *watcher) gone(ctx context.Context, app string) error {
	return w.await(ctx, app+" is gone", func() bool {
		for _, p := range w.of(app, "") {
			if p.deleted.IsZero() {
				return false
			}
		}
		return true
	})
}

// upToDate waits until the Deployment's status says so and returns when.
func (w *watcher) upToDate(ctx context.Context, name, version string) (at time.Time, err error) {
	err = w.await(ctx, name+" is current", func() bool {
		at = w.current[name+" "+version]
		return !at.IsZero()
	})
	return at, err
}

// stage is a point on the way of some Pods, and when the watch saw it.
type stage struct {
	name string
	at   time.Time
}

// stages returns when the first and the last Pod of an app was created, bound, Running and Ready.
func (w *watcher) stages(app, version string) []stage {
	w.mu.Lock()
	defer w.mu.Unlock()
	points := []struct {
		name string
		at   func(*life) time.Time
	}{{"created", func(p *life) time.Time { return p.created }}, {"bound", func(p *life) time.Time { return p.bound }}, {"Running", running}, {"Ready", ready}}
	var found []stage
	for _, point := range points {
		var times []time.Time
		for _, p := range w.of(app, version) {
			if at := point.at(p); !at.IsZero() {
				times = append(times, at)
			}
		}
		if len(times) > 0 {
			slices.SortFunc(times, time.Time.Compare)
			found = append(found, stage{"first " + point.name, times[0]}, stage{"last " + point.name, times[len(times)-1]})
		}
	}
	return found
}

func running(p *life) time.Time { return p.running }
func ready(p *life) time.Time   { return p.ready }
