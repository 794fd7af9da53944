package registry

import (
	"context"
	"fmt"
	"time"

	authenticationv1 "k8s.io/api/authentication/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/slipway-dev/slipway/apiserver/api"
	"github.com/slipway-dev/slipway/apiserver/store"
)

// target is what a Create is sent to: a create-only kind, or a subresource of a stored one.
type target struct {
	kind        *api.Kind
	subresource string
}

// action answers a Create that stores no object of its own. obj is the caller's and must not be changed.
type action struct {
	on  *api.Kind // the kind that authorisation and messages name
	run func(ctx context.Context, c *client, obj api.Object, opts store.CreateOptions) (api.Object, error)
}

func (r *Registry) newActions() map[target]action {
	return map[target]action{
		{api.Bindings, "binding"}:          {api.Pods, bind},
		{api.TokenRequests, "token"}:       {api.ServiceAccounts, issueToken},
		{api.SelfSubjectReviews, ""}:       {api.SelfSubjectReviews, reviewSelf},
		{api.SelfSubjectAccessReviews, ""}: {api.SelfSubjectAccessReviews, reviewAccess},
		{api.SelfSubjectRulesReviews, ""}:  {api.SelfSubjectRulesReviews, reviewRules},
	}
}

func (c *client) act(ctx context.Context, kind *api.Kind, obj api.Object, opts store.CreateOptions) (api.Object, error) {
	act, ok := c.r.actions[target{kind, opts.Subresource}]
	if !ok {
		if opts.Subresource == "" {
			return nil, apierrors.NewMethodNotSupported(kind.GroupResource(), "create")
		}
		return nil, noSubresource(kind, obj.GetName(), opts.Subresource)
	}
	a := attributes(act.on, "create", obj.GetNamespace(), obj.GetName())
	a.Subresource, a.DryRun = opts.Subresource, opts.DryRun
	if err := c.r.Authorize(ctx, c.id, a); err != nil {
		return nil, err
	}
	if errs := api.Validate(defaulted(obj)); opts.Subresource != "" && len(errs) > 0 {
		return nil, apierrors.NewInvalid(kind.GroupVersionKind.GroupKind(), obj.GetName(), errs)
	}
	return act.run(ctx, c, obj, opts)
}

func defaulted(obj api.Object) api.Object {
	obj = obj.DeepCopyObject().(api.Object)
	api.Default(obj)
	return obj
}

// bind gives a Pod its node: spec.nodeName and the condition PodScheduled. It is fenced by the Binding's uid and,
// when set, resourceVersion; a Pod that has a node, is being deleted or has changed is a Conflict. It returns the
// Pod, where upstream's wire has a Status.
func bind(ctx context.Context, c *client, obj api.Object, opts store.CreateOptions) (api.Object, error) {
	binding := obj.(*corev1.Binding)
	refuse := func(format string, args ...any) error {
		return conflict(api.Pods, binding.Name, fmt.Sprintf(format, args...))
	}
	for range attempts {
		old, err := store.Get[*corev1.Pod](ctx, c.r.store, binding.Namespace, binding.Name)
		if err != nil {
			return nil, err
		}
		switch {
		case binding.UID != "" && binding.UID != old.UID:
			return nil, refuse("Precondition failed: UID in precondition: %v, UID in object meta: %v", binding.UID, old.UID)
		case binding.ResourceVersion != "" && binding.ResourceVersion != old.ResourceVersion:
			return nil, refuse(modified)
		case old.DeletionTimestamp != nil:
			return nil, refuse("pod %s is being deleted, cannot be assigned to a host", old.Name)
		case old.Spec.NodeName != "":
			return nil, refuse("pod %s is already assigned to node %q", old.Name, old.Spec.NodeName)
		case len(old.Spec.SchedulingGates) > 0:
			return nil, refuse("pod %s has non-empty .spec.schedulingGates", old.Name)
		}
		next := bound(old, binding, c.r.timestamp())
		if opts.DryRun {
			return next, nil
		}
		result, err := c.r.commit(ctx, store.Replace(old, next))
		if err == nil {
			return result, nil
		}
		if binding.ResourceVersion != "" || !apierrors.IsConflict(err) {
			return nil, err
		}
	}
	return nil, refuse(modified)
}

// bound returns old on its node. It shares with old what does not change.
func bound(old *corev1.Pod, binding *corev1.Binding, now metav1.Time) *corev1.Pod {
	pod := *old
	pod.Spec.NodeName = binding.Target.Name
	pod.Status.NominatedNodeName = ""
	pod.Annotations = merged(old.Annotations, binding.Annotations)
	pod.Labels = merged(old.Labels, binding.Labels)
	scheduled := corev1.PodCondition{Type: corev1.PodScheduled, Status: corev1.ConditionTrue, LastTransitionTime: now}
	conditions := make([]corev1.PodCondition, 0, len(old.Status.Conditions)+1)
	for _, condition := range old.Status.Conditions {
		if condition.Type == corev1.PodScheduled {
			if condition.Status == corev1.ConditionTrue {
				scheduled.LastTransitionTime = condition.LastTransitionTime
			}
			continue
		}
		conditions = append(conditions, condition)
	}
	pod.Status.Conditions = append(conditions, scheduled)
	return &pod
}

func merged(base, over map[string]string) map[string]string {
	if len(over) == 0 {
		return base
	}
	all := make(map[string]string, len(base)+len(over))
	for k, v := range base {
		all[k] = v
	}
	for k, v := range over {
		all[k] = v
	}
	return all
}

// issueToken answers a TokenRequest of a ServiceAccount. A token may be bound to a Pod that uses the account, or to
// a Secret.
func issueToken(ctx context.Context, c *client, obj api.Object, opts store.CreateOptions) (api.Object, error) {
	request := defaulted(obj).(*authenticationv1.TokenRequest)
	if c.r.tokens == nil {
		return nil, apierrors.NewServiceUnavailable("no token issuer is configured")
	}
	account, err := store.Get[*corev1.ServiceAccount](ctx, c.r.store, request.Namespace, request.Name)
	if err != nil {
		return nil, err
	}
	if account.DeletionTimestamp != nil {
		return nil, conflict(api.ServiceAccounts, account.Name, "the service account is being deleted")
	}
	bound, err := c.boundObject(ctx, account, request.Spec.BoundObjectRef)
	if err != nil {
		return nil, err
	}
	if opts.DryRun {
		return request, nil
	}
	var ttl time.Duration
	if request.Spec.ExpirationSeconds != nil {
		ttl = time.Duration(*request.Spec.ExpirationSeconds) * time.Second
	}
	token, expires, err := c.r.tokens.Issue(account, bound, request.Spec.Audiences, ttl)
	if err != nil {
		return nil, apierrors.NewInternalError(fmt.Errorf("issue token for %s/%s: %w", account.Namespace, account.Name, err))
	}
	request.CreationTimestamp = c.r.timestamp()
	request.Status = authenticationv1.TokenRequestStatus{Token: token, ExpirationTimestamp: metav1.NewTime(expires)}
	return request, nil
}

// boundObject completes the reference with the object's uid. A node may ask only for tokens bound to a Pod of its own.
func (c *client) boundObject(ctx context.Context, account *corev1.ServiceAccount, ref *authenticationv1.BoundObjectReference) (*authenticationv1.BoundObjectReference, error) {
	node := c.id.NodeName()
	refuse := func(why string) error {
		return apierrors.NewForbidden(api.ServiceAccounts.GroupResource(), account.Name, fmt.Errorf("%s", why))
	}
	if ref == nil {
		if node != "" {
			return nil, refuse("a node requests tokens bound to a Pod of its own only")
		}
		return nil, nil
	}
	var bound api.Object
	var err error
	switch {
	case ref.Kind == "Pod" && ref.APIVersion == "v1":
		pod, podErr := store.Get[*corev1.Pod](ctx, c.r.store, account.Namespace, ref.Name)
		if podErr == nil && pod.Spec.ServiceAccountName != account.Name {
			return nil, refuse(fmt.Sprintf("Pod %q uses service account %q", ref.Name, pod.Spec.ServiceAccountName))
		}
		if podErr == nil && node != "" && pod.Spec.NodeName != node {
			return nil, refuse("a node requests tokens bound to a Pod of its own only")
		}
		bound, err = pod, podErr
	case ref.Kind == "Secret" && ref.APIVersion == "v1" && node == "":
		bound, err = c.r.store.Get(ctx, api.Secrets, account.Namespace, ref.Name)
	default:
		return nil, apierrors.NewBadRequest(fmt.Sprintf("cannot bind a token to %s %s", ref.APIVersion, ref.Kind))
	}
	if err != nil {
		return nil, err
	}
	if ref.UID != "" && ref.UID != bound.GetUID() {
		return nil, conflict(api.ServiceAccounts, account.Name, fmt.Sprintf("the UID in the bound object reference (%s) does not match the UID in record", ref.UID))
	}
	return &authenticationv1.BoundObjectReference{Kind: ref.Kind, APIVersion: ref.APIVersion, Name: ref.Name, UID: bound.GetUID()}, nil
}
