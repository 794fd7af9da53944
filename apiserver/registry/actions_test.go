package registry

import (
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	authenticationv1 "k8s.io/api/authentication/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/slipway-dev/slipway/apiserver/api"
	"github.com/slipway-dev/slipway/apiserver/store"
)

func binding(p *corev1.Pod, node string) *corev1.Binding {
	return &corev1.Binding{ObjectMeta: metav1.ObjectMeta{Namespace: p.Namespace, Name: p.Name, UID: p.UID, ResourceVersion: p.ResourceVersion},
		Target: corev1.ObjectReference{Kind: "Node", Name: node}}
}

func TestBind(t *testing.T) {
	f := newFixture(t)
	scheduler := f.As(Scheduler())
	p := f.create(t, pod("a")).(*corev1.Pod)
	bind := func(b *corev1.Binding) (api.Object, error) {
		return scheduler.Create(f.ctx, b, store.CreateOptions{Subresource: "binding"})
	}
	other := binding(p, "n")
	other.UID = "x"
	if _, err := bind(other); !apierrors.IsConflict(err) {
		t.Errorf("another uid: got %v, want Conflict", err)
	}
	if _, err := bind(binding(p, "")); !apierrors.IsInvalid(err) {
		t.Errorf("no node: got %v, want Invalid", err)
	}
	moved := p.DeepCopy()
	moved.Labels = map[string]string{"a": "b"}
	f.update(t, moved, "")
	if _, err := bind(binding(p, "n")); !apierrors.IsConflict(err) {
		t.Errorf("an old resourceVersion: got %v, want Conflict", err)
	}
	loose := binding(p, "n")
	loose.ResourceVersion = ""
	obj, err := bind(loose)
	if err != nil {
		t.Fatal(err)
	}
	got := obj.(*corev1.Pod)
	if got.Spec.NodeName != "n" || got.Labels["a"] != "b" || len(got.Status.Conditions) != 1 || got.Status.Conditions[0].Type != corev1.PodScheduled || got.Status.Conditions[0].Status != corev1.ConditionTrue {
		t.Errorf("%+v", got)
	}
	if _, err := bind(loose); !apierrors.IsConflict(err) || !strings.Contains(err.Error(), `already assigned to node "n"`) {
		t.Errorf("a second time: got %v, want Conflict", err)
	}
	if _, err := bind(&corev1.Binding{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: "none"}, Target: corev1.ObjectReference{Name: "n"}}); !apierrors.IsNotFound(err) {
		t.Errorf("no Pod: got %v, want NotFound", err)
	}
}

func TestOneOfManyBindingsWins(t *testing.T) {
	f := newFixture(t)
	p := f.create(t, pod("a")).(*corev1.Pod)
	var group sync.WaitGroup
	won := make(chan string, 20)
	for i := range 20 {
		group.Go(func() {
			node := fmt.Sprintf("n%d", i)
			if _, err := f.As(Scheduler()).Create(f.ctx, binding(p, node), store.CreateOptions{Subresource: "binding"}); err == nil {
				won <- node
			} else if !apierrors.IsConflict(err) {
				t.Error(err)
			}
		})
	}
	group.Wait()
	close(won)
	node := <-won
	if _, more := <-won; more {
		t.Error("two bindings were told that they won")
	}
	if got, err := store.Get[*corev1.Pod](f.ctx, f.admin, "default", "a"); err != nil || got.Spec.NodeName != node {
		t.Errorf("%v, %v; want node %s", got.Spec.NodeName, err, node)
	}
}

// issuer writes down what it is asked for.
type issuer struct {
	asked string
	err   error
}

func (i *issuer) Issue(account *corev1.ServiceAccount, bound *authenticationv1.BoundObjectReference, audiences []string, ttl time.Duration) (string, time.Time, error) {
	i.asked = fmt.Sprintf("%s/%s %v %s", account.Namespace, account.Name, audiences, ttl)
	if bound != nil {
		i.asked += fmt.Sprintf(" %s/%s %t", bound.Kind, bound.Name, bound.UID != "")
	}
	return "token", time.Unix(1e9, 0), i.err
}

func TestTokens(t *testing.T) {
	tokens := &issuer{}
	f := newFixture(t, func(c *Config) { c.Tokens = tokens })
	mine, theirs := pod("mine"), pod("theirs")
	mine.Spec.NodeName, theirs.Spec.NodeName = "node-1", "node-2"
	made := f.create(t, mine)
	f.create(t, theirs)
	f.create(t, &corev1.ServiceAccount{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: "other"}})
	ref := func(name string) *authenticationv1.BoundObjectReference {
		return &authenticationv1.BoundObjectReference{Kind: "Pod", APIVersion: "v1", Name: name}
	}
	stale := ref("mine")
	stale.UID = "x"
	tests := []struct {
		name    string
		id      Identity
		account string
		bound   *authenticationv1.BoundObjectReference
		want    string // what was asked of the issuer
		refused func(error) bool
	}{
		{"an admin's", Admin(), "default", nil, "default/default [] 1h0m0s", nil},
		{"a node's for its Pod", Node("node-1"), "default", ref("mine"), "default/default [] 1h0m0s Pod/mine true", nil},
		{"a node's unbound", Node("node-1"), "default", nil, "", apierrors.IsForbidden},
		{"a node's for another's Pod", Node("node-1"), "default", ref("theirs"), "", apierrors.IsForbidden},
		{"a node's for another account", Node("node-1"), "other", ref("mine"), "", apierrors.IsForbidden},
		{"for a Pod of another account", Admin(), "other", ref("mine"), "", apierrors.IsForbidden},
		{"for a Pod that was another", Admin(), "default", stale, "", apierrors.IsConflict},
		{"for no Pod", Admin(), "default", ref("none"), "", apierrors.IsNotFound},
		{"for no account", Admin(), "none", nil, "", apierrors.IsNotFound},
		{"a person's", People("eve"), "default", nil, "", apierrors.IsForbidden},
		{"GitOps'", GitOps(), "default", nil, "", apierrors.IsForbidden},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			tokens.asked = ""
			request := &authenticationv1.TokenRequest{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: test.account}, Spec: authenticationv1.TokenRequestSpec{BoundObjectRef: test.bound}}
			got, err := f.As(test.id).Create(f.ctx, request, store.CreateOptions{Subresource: "token"})
			if tokens.asked != test.want || test.refused != nil && !test.refused(err) || test.refused == nil && err != nil {
				t.Errorf("asked %q, %v; want %q", tokens.asked, err, test.want)
			}
			if err == nil && got.(*authenticationv1.TokenRequest).Status.Token != "token" {
				t.Errorf("got %+v", got)
			}
		})
	}
	tokens.err = errors.New("no key")
	request := &authenticationv1.TokenRequest{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: "default"}}
	if _, err := f.admin.Create(f.ctx, request, store.CreateOptions{Subresource: "token"}); !apierrors.IsInternalError(err) {
		t.Errorf("a failing issuer: %v", err)
	}
	_ = made
}

func TestNodesWriteTheirOwn(t *testing.T) {
	f := newFixture(t)
	f.namespace(t, "kube-node-lease")
	node := f.As(Node("node-1"))
	made, err := node.Create(f.ctx, &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: "node-1", Labels: map[string]string{"kubernetes.io/hostname": "node-1"}}}, store.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	labelled := made.DeepCopyObject().(*corev1.Node)
	labelled.Labels["node-restriction.kubernetes.io/tier"] = "gold"
	if _, err := node.Update(f.ctx, labelled, store.UpdateOptions{}); !apierrors.IsForbidden(err) {
		t.Errorf("a restricted label: got %v, want Forbidden", err)
	}
	p := f.running(t, "a").DeepCopy()
	p.Status.Message = "x"
	if _, err := node.Update(f.ctx, p, store.UpdateOptions{Subresource: "status"}); err != nil {
		t.Errorf("its Pod's status: %v", err)
	}
	if _, err := f.As(Node("node-2")).Update(f.ctx, p, store.UpdateOptions{Subresource: "status"}); !apierrors.IsForbidden(err) {
		t.Errorf("another node: got %v, want Forbidden", err)
	}
}
