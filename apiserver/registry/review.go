package registry

import (
	"context"

	authenticationv1 "k8s.io/api/authentication/v1"
	authorizationv1 "k8s.io/api/authorization/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"

	"github.com/slipway-dev/slipway/apiserver/api"
	"github.com/slipway-dev/slipway/apiserver/store"
)

// reviewSelf answers who one is.
func reviewSelf(_ context.Context, c *client, _ api.Object, _ store.CreateOptions) (api.Object, error) {
	review := api.SelfSubjectReviews.New().(*authenticationv1.SelfSubjectReview)
	review.CreationTimestamp = c.r.timestamp()
	review.Status.UserInfo = authenticationv1.UserInfo{Username: c.id.Name, UID: c.id.UID, Groups: append([]string(nil), c.id.Groups...)}
	for key, values := range c.id.Extra {
		if review.Status.UserInfo.Extra == nil {
			review.Status.UserInfo.Extra = map[string]authenticationv1.ExtraValue{}
		}
		review.Status.UserInfo.Extra[key] = append([]string(nil), values...)
	}
	return review, nil
}

// reviewAccess answers whether one may do something.
func reviewAccess(ctx context.Context, c *client, obj api.Object, _ store.CreateOptions) (api.Object, error) {
	review := obj.DeepCopyObject().(*authorizationv1.SelfSubjectAccessReview)
	review.GetObjectKind().SetGroupVersionKind(api.SelfSubjectAccessReviews.GroupVersionKind)
	if errs := api.Validate(review); len(errs) > 0 {
		return nil, apierrors.NewInvalid(api.SelfSubjectAccessReviews.GroupVersionKind.GroupKind(), "", errs)
	}
	var a Attributes
	if want := review.Spec.ResourceAttributes; want != nil {
		a = Attributes{Verb: want.Verb, Group: want.Group, Resource: want.Resource, Subresource: want.Subresource, Namespace: want.Namespace, Name: want.Name}
	} else {
		a = Attributes{Verb: review.Spec.NonResourceAttributes.Verb, Path: review.Spec.NonResourceAttributes.Path}
	}
	decision, err := c.r.access.Decide(ctx, c.id, a)
	review.Status = authorizationv1.SubjectAccessReviewStatus{Allowed: decision.Allowed, Reason: decision.Reason}
	if err != nil {
		review.Status.EvaluationError = err.Error()
	}
	return review, nil
}

// reviewRules answers what one may do in a namespace.
func reviewRules(ctx context.Context, c *client, obj api.Object, _ store.CreateOptions) (api.Object, error) {
	review := obj.DeepCopyObject().(*authorizationv1.SelfSubjectRulesReview)
	review.GetObjectKind().SetGroupVersionKind(api.SelfSubjectRulesReviews.GroupVersionKind)
	if review.Spec.Namespace == "" {
		return nil, apierrors.NewBadRequest("no namespace on request")
	}
	rules, incomplete, err := c.r.access.Rules(ctx, c.id, review.Spec.Namespace)
	review.Status = authorizationv1.SubjectRulesReviewStatus{
		ResourceRules: []authorizationv1.ResourceRule{}, NonResourceRules: []authorizationv1.NonResourceRule{}, Incomplete: incomplete || err != nil,
	}
	if err != nil {
		review.Status.EvaluationError = err.Error()
	}
	for _, rule := range rules {
		if len(rule.NonResourceURLs) > 0 {
			review.Status.NonResourceRules = append(review.Status.NonResourceRules, authorizationv1.NonResourceRule{Verbs: rule.Verbs, NonResourceURLs: rule.NonResourceURLs})
			continue
		}
		review.Status.ResourceRules = append(review.Status.ResourceRules, authorizationv1.ResourceRule{
			Verbs: rule.Verbs, APIGroups: rule.APIGroups, Resources: rule.Resources, ResourceNames: rule.ResourceNames,
		})
	}
	return review, nil
}
