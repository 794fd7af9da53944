package scheduler

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	corehelpers "k8s.io/component-helpers/scheduling/corev1"

	"github.com/slipway-dev/slipway/apiserver/api"
	"github.com/slipway-dev/slipway/apiserver/event"
	"github.com/slipway-dev/slipway/apiserver/store"
	"github.com/slipway-dev/slipway/reconciler/loop"
)

// maxBinding is how many bindings are written at once.
const maxBinding = 128

// Scheduler binds Pods to nodes.
type Scheduler struct {
	client store.Client
	events event.Recorder
	now    func() time.Time

	mu      sync.Mutex
	cluster *cluster
	loaded  bool
	pending map[types.UID]*pending
	changes uint64 // counts what may let a refused Pod fit
}

// pending is a Pod without a node.
type pending struct {
	candidate
	version uint64
	tried   uint64 // changes when it was last refused, plus one; 0: not tried
	binding bool
}

// turn is the one key of this loop: a turn looks at all pending Pods.
var turn = []loop.Key{{Name: "pending"}}

// New returns the scheduler's loop.
func New(client store.Client, events event.Recorder, now func() time.Time) loop.Controller {
	s := &Scheduler{client: client, events: events, now: now, cluster: newCluster(), pending: map[types.UID]*pending{}}
	return loop.Controller{
		Name: "scheduler",
		Inputs: []loop.Input{
			{Kind: api.Nodes, Keys: s.sawNode},
			{Kind: api.Pods, Keys: s.sawPod},
		},
		Reconcile: func(ctx context.Context, _ loop.Key) error { return s.schedule(ctx) },
	}
}

func (s *Scheduler) sawNode(_, obj api.Object, deleted bool) []loop.Key {
	s.mu.Lock()
	defer s.mu.Unlock()
	node := obj.(*corev1.Node)
	if deleted {
		s.cluster.removeNode(node.Name)
		return nil
	}
	if !s.cluster.setNode(node) {
		return nil
	}
	s.changes++
	return turn
}

func (s *Scheduler) sawPod(_, obj api.Object, deleted bool) []loop.Key {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.observe(obj.(*corev1.Pod), deleted)
}

// observe takes one state of a Pod into the picture. States may arrive twice, and older ones after newer.
func (s *Scheduler) observe(pod *corev1.Pod, deleted bool) []loop.Key {
	v := version(pod.ResourceVersion)
	if deleted || finished(pod) {
		delete(s.pending, pod.UID)
		if s.cluster.release(pod.UID) {
			s.changes++
			return turn
		}
		return nil
	}
	if known, ok := s.cluster.placed[pod.UID]; ok && known.version > v {
		return nil
	}
	if pod.Spec.NodeName != "" {
		delete(s.pending, pod.UID)
		s.cluster.place(pod.UID, placed{node: pod.Spec.NodeName, demand: demandOf(pod), version: v})
		return nil
	}
	p, ok := s.pending[pod.UID]
	if !ok {
		p = &pending{}
	}
	if p.binding || p.version >= v || !ours(pod) {
		return nil
	}
	// A change of status alone, such as the condition this loop writes, is no reason to look again.
	if !ok || p.pod.Generation != pod.Generation {
		p.tried = 0
	}
	p.candidate, p.version = newCandidate(pod), v
	s.pending[pod.UID] = p
	if p.tried != 0 {
		return nil
	}
	return turn
}

func finished(pod *corev1.Pod) bool {
	return pod.Status.Phase == corev1.PodSucceeded || pod.Status.Phase == corev1.PodFailed
}

func ours(pod *corev1.Pod) bool {
	return pod.DeletionTimestamp == nil && len(pod.Spec.SchedulingGates) == 0 &&
		(pod.Spec.SchedulerName == "" || pod.Spec.SchedulerName == corev1.DefaultSchedulerName)
}

// load reads nodes and Pods as a whole before the first decision: a Pod not known yet would look like free room.
func (s *Scheduler) load(ctx context.Context) error {
	if s.loaded {
		return nil
	}
	nodes, err := store.All[*corev1.Node](ctx, s.client, store.ListOptions{})
	if err != nil {
		return fmt.Errorf("list nodes: %w", err)
	}
	pods, err := store.All[*corev1.Pod](ctx, s.client, store.ListOptions{})
	if err != nil {
		return fmt.Errorf("list pods: %w", err)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, node := range nodes {
		s.cluster.setNode(node)
	}
	for _, pod := range pods {
		s.observe(pod, false)
	}
	s.loaded = true
	return nil
}

// schedule is one turn: decide for every pending Pod whose chances may have changed, and write the decisions side
// by side.
func (s *Scheduler) schedule(ctx context.Context) error {
	if err := s.load(ctx); err != nil {
		return err
	}
	var writes sync.WaitGroup
	var mu sync.Mutex
	var problems []error
	slots := make(chan struct{}, maxBinding)
	for _, p := range s.due() {
		d, ok := s.decide(p)
		if !ok {
			continue
		}
		slots <- struct{}{}
		writes.Go(func() {
			defer func() { <-slots }()
			if err := s.apply(ctx, p.pod, d); err != nil {
				mu.Lock()
				defer mu.Unlock()
				problems = append(problems, err)
			}
		})
	}
	writes.Wait()
	return errors.Join(problems...)
}

// due returns the Pods to look at, most important and then oldest first.
func (s *Scheduler) due() []*pending {
	s.mu.Lock()
	defer s.mu.Unlock()
	var due []*pending
	for _, p := range s.pending {
		if !p.binding && (p.tried == 0 || p.tried <= s.changes) {
			due = append(due, p)
		}
	}
	slices.SortFunc(due, func(a, b *pending) int {
		return cmp.Or(-cmp.Compare(corehelpers.PodPriority(a.pod), corehelpers.PodPriority(b.pod)),
			a.pod.CreationTimestamp.Compare(b.pod.CreationTimestamp.Time), cmp.Compare(a.pod.UID, b.pod.UID))
	})
	return due
}

// decide plans for one Pod and takes the decision into the picture at once, so that the next Pod sees it.
func (s *Scheduler) decide(p *pending) (decision, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.pending[p.pod.UID] != p || p.binding {
		return decision{}, false
	}
	d := place(&p.candidate, s.cluster.order)
	if d.node == "" {
		p.tried = s.changes + 1
		return d, true
	}
	p.binding = true
	s.cluster.place(p.pod.UID, placed{node: d.node, demand: p.demand})
	return d, true
}

// apply writes one decision.
func (s *Scheduler) apply(ctx context.Context, pod *corev1.Pod, d decision) error {
	if d.node == "" {
		return s.refuse(ctx, pod, d.message)
	}
	binding := &corev1.Binding{
		ObjectMeta: metav1.ObjectMeta{Namespace: pod.Namespace, Name: pod.Name, UID: pod.UID, ResourceVersion: pod.ResourceVersion},
		Target:     corev1.ObjectReference{Kind: "Node", Name: d.node},
	}
	_, err := s.client.Create(ctx, binding, store.CreateOptions{Subresource: "binding"})
	if err != nil {
		return s.undo(ctx, pod, d.node, err)
	}
	s.events.Event(pod, corev1.EventTypeNormal, "Scheduled", fmt.Sprintf("Successfully assigned %s/%s to %s", pod.Namespace, pod.Name, d.node))
	return nil
}

// undo takes back an assumed binding that was not written, and looks at the Pod as it is now.
func (s *Scheduler) undo(ctx context.Context, pod *corev1.Pod, node string, cause error) error {
	current, err := store.Get[*corev1.Pod](ctx, s.client, pod.Namespace, pod.Name)
	s.mu.Lock()
	defer s.mu.Unlock()
	if known := s.cluster.placed[pod.UID]; known.version == 0 {
		s.cluster.release(pod.UID)
		delete(s.pending, pod.UID)
	}
	switch {
	case err == nil && current.UID == pod.UID:
		s.observe(current, false)
	case err != nil && !apierrors.IsNotFound(err):
		s.loaded = false // look at everything again: what became of it is not known
	}
	if apierrors.IsNotFound(cause) {
		return nil
	}
	return fmt.Errorf("bind pod %s/%s to %s: %w", pod.Namespace, pod.Name, node, cause)
}

// refuse writes the PodScheduled condition when it says something new.
func (s *Scheduler) refuse(ctx context.Context, pod *corev1.Pod, message string) error {
	condition := corev1.PodCondition{Type: corev1.PodScheduled, Status: corev1.ConditionFalse, Reason: corev1.PodReasonUnschedulable, Message: message,
		ObservedGeneration: pod.Generation, LastTransitionTime: metav1.NewTime(s.now())}
	at := slices.IndexFunc(pod.Status.Conditions, func(c corev1.PodCondition) bool { return c.Type == corev1.PodScheduled })
	updated := pod.DeepCopy()
	if at < 0 {
		updated.Status.Conditions = append(updated.Status.Conditions, condition)
	} else {
		old := pod.Status.Conditions[at]
		if old.Status == condition.Status && old.Reason == condition.Reason && old.Message == message {
			return nil
		}
		if old.Status == condition.Status {
			condition.LastTransitionTime = old.LastTransitionTime
		}
		updated.Status.Conditions[at] = condition
	}
	s.events.Event(pod, corev1.EventTypeWarning, "FailedScheduling", message)
	_, err := s.client.Update(ctx, updated, store.UpdateOptions{Subresource: "status"})
	if err != nil && !apierrors.IsNotFound(err) {
		return fmt.Errorf("say why pod %s/%s is not scheduled: %w", pod.Namespace, pod.Name, err)
	}
	return nil
}
