package api

import (
	"context"
	"fmt"

	"k8s.io/apimachinery/pkg/api/validate"
	"k8s.io/apimachinery/pkg/api/validate/content"
	"k8s.io/apimachinery/pkg/api/validation"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/util/validation/field"
	podoptions "k8s.io/kubernetes/pkg/api/pod"
	"k8s.io/kubernetes/pkg/apis/apps"
	appsvalidation "k8s.io/kubernetes/pkg/apis/apps/validation"
	"k8s.io/kubernetes/pkg/apis/authentication"
	authenticationvalidation "k8s.io/kubernetes/pkg/apis/authentication/validation"
	"k8s.io/kubernetes/pkg/apis/authorization"
	authorizationvalidation "k8s.io/kubernetes/pkg/apis/authorization/validation"
	"k8s.io/kubernetes/pkg/apis/coordination"
	coordinationvalidation "k8s.io/kubernetes/pkg/apis/coordination/validation"
	"k8s.io/kubernetes/pkg/apis/core"
	corevalidation "k8s.io/kubernetes/pkg/apis/core/validation"
	"k8s.io/kubernetes/pkg/apis/discovery"
	discoveryvalidation "k8s.io/kubernetes/pkg/apis/discovery/validation"
	"k8s.io/kubernetes/pkg/apis/rbac"
	rbacvalidation "k8s.io/kubernetes/pkg/apis/rbac/validation"
	"k8s.io/kubernetes/pkg/features"

	slipwayv1 "github.com/slipway-dev/slipway/apiserver/api/v1alpha1"
)

// Validate says what is wrong with a new object, as upstream would. The object must be defaulted. The errors'
// fields are paths from the object's root, such as spec.template.spec.containers[0].image.
func Validate(obj Object) field.ErrorList {
	kind, internal, errs := convert(obj)
	if errs != nil {
		return errs
	}
	if !kind.CreateOnly { // what is never stored needs no name
		errs = validation.ValidateObjectMetaAccessor(obj, kind.Namespaced, segmentName, field.NewPath("metadata"))
	}
	rules := rulesOf[kind]
	if rules.create == nil {
		return errs
	}
	errs = append(errs, rules.create(internal)...)
	return withDeclared(errs, Scheme.Validate(context.Background(), declaredOptions, obj))
}

// ValidateUpdate says why updated may not replace old: its own errors and changes of immutable fields.
func ValidateUpdate(updated, old Object) field.ErrorList {
	kind, newInternal, oldInternal, errs := convertBoth(updated, old)
	if errs != nil {
		return errs
	}
	errs = validateMetaUpdate(kind, updated, old)
	rules := rulesOf[kind]
	if rules.update == nil {
		return errs
	}
	errs = append(errs, rules.update(newInternal, oldInternal)...)
	return withDeclared(errs, Scheme.ValidateUpdate(context.Background(), declaredOptions, updated, old))
}

// ValidateStatusUpdate says why updated's status may not replace old's. Everything but status must be equal.
func ValidateStatusUpdate(updated, old Object) field.ErrorList {
	kind, newInternal, oldInternal, errs := convertBoth(updated, old)
	if errs != nil {
		return errs
	}
	errs = validateMetaUpdate(kind, updated, old)
	rules := rulesOf[kind]
	if rules.status == nil {
		return errs
	}
	errs = append(errs, rules.status(newInternal, oldInternal)...)
	return withDeclared(errs, Scheme.ValidateUpdate(context.Background(), declaredOptions, updated, old, "status"))
}

// ValidateFinalize says why updated's finalizers may not replace those of old, a Namespace.
func ValidateFinalize(updated, old Object) field.ErrorList {
	_, newInternal, oldInternal, errs := convertBoth(updated, old)
	if errs != nil {
		return errs
	}
	ns, ok := newInternal.(*core.Namespace)
	before, okBefore := oldInternal.(*core.Namespace)
	if !ok || !okBefore {
		return field.ErrorList{field.InternalError(nil, fmt.Errorf("finalize %T", updated))}
	}
	return corevalidation.ValidateNamespaceFinalizeUpdate(ns, before)
}

// rules validate one kind, in upstream's internal types. A nil function finds nothing wrong.
type rules struct {
	create func(runtime.Object) field.ErrorList
	update func(updated, old runtime.Object) field.ErrorList
	status func(updated, old runtime.Object) field.ErrorList
}

// rulesFor adapts validators of one type T.
func rulesFor[T runtime.Object](create func(T) field.ErrorList, update, status func(updated, old T) field.ErrorList) rules {
	var r rules
	if create != nil {
		r.create = func(obj runtime.Object) field.ErrorList { return create(obj.(T)) }
	}
	if update != nil {
		r.update = func(updated, old runtime.Object) field.ErrorList { return update(updated.(T), old.(T)) }
	}
	if status != nil {
		r.status = func(updated, old runtime.Object) field.ErrorList { return status(updated.(T), old.(T)) }
	}
	return r
}

// rulesOf has a row for each kind of the table. The combinations are those of upstream's strategies
// (k8s.io/kubernetes/pkg/registry).
var rulesOf = map[*Kind]rules{
	Namespaces: rulesFor(corevalidation.ValidateNamespace, both(corevalidation.ValidateNamespace, corevalidation.ValidateNamespaceUpdate), corevalidation.ValidateNamespaceStatusUpdate),
	Nodes:      rulesFor(corevalidation.ValidateNode, both(corevalidation.ValidateNode, corevalidation.ValidateNodeUpdate), corevalidation.ValidateNodeUpdate),
	Pods:       rulesFor(validatePod, validatePodUpdate, validatePodStatus),
	Services:   rulesFor(validateService, validateServiceUpdate, corevalidation.ValidateServiceStatusUpdate),
	Endpoints:  rulesFor(corevalidation.ValidateEndpointsCreate, corevalidation.ValidateEndpointsUpdate, nil),
	ConfigMaps: rulesFor(corevalidation.ValidateConfigMap, corevalidation.ValidateConfigMapUpdate, nil),
	Secrets:    rulesFor(corevalidation.ValidateSecret, corevalidation.ValidateSecretUpdate, nil),
	ServiceAccounts: rulesFor(corevalidation.ValidateServiceAccount,
		corevalidation.ValidateServiceAccountUpdate, nil),
	Events: rulesFor(
		func(e *core.Event) field.ErrorList {
			return corevalidation.ValidateEventCreate(e, Events.GroupVersion())
		},
		func(e, old *core.Event) field.ErrorList {
			return corevalidation.ValidateEventUpdate(e, old, Events.GroupVersion())
		}, nil),
	Deployments:    rulesFor(validateDeployment, validateDeploymentUpdate, appsvalidation.ValidateDeploymentStatusUpdate),
	ReplicaSets:    rulesFor(validateReplicaSet, validateReplicaSetUpdate, appsvalidation.ValidateReplicaSetStatusUpdate),
	EndpointSlices: rulesFor(discoveryvalidation.ValidateEndpointSliceCreate, discoveryvalidation.ValidateEndpointSliceUpdate, (func(_, _ *discovery.EndpointSlice) field.ErrorList)(nil)),
	Leases:         rulesFor(coordinationvalidation.ValidateLease, coordinationvalidation.ValidateLeaseUpdate, (func(_, _ *coordination.Lease) field.ErrorList)(nil)),
	Roles:          rulesFor(rbacvalidation.ValidateRole, rbacvalidation.ValidateRoleUpdate, nil),
	RoleBindings:   rulesFor(rbacvalidation.ValidateRoleBinding, rbacvalidation.ValidateRoleBindingUpdate, nil),
	ClusterRoles:   rulesFor(validateClusterRole, validateClusterRoleUpdate, nil),
	ClusterRoleBindings: rulesFor(rbacvalidation.ValidateClusterRoleBinding,
		rbacvalidation.ValidateClusterRoleBindingUpdate, nil),
	Sources:  rulesFor(validateSource, func(s, _ *slipwayv1.Source) field.ErrorList { return validateSource(s) }, nil),
	Rollouts: rulesFor(validateRollout, validateRolloutUpdate, nil),

	Bindings: rulesFor(corevalidation.ValidatePodBinding, nil, nil),
	TokenRequests: rulesFor(func(t *authentication.TokenRequest) field.ErrorList {
		return authenticationvalidation.ValidateTokenRequest(t)
	}, nil, nil),
	SelfSubjectAccessReviews: rulesFor(validateAccessReview, nil, nil),
	SelfSubjectReviews:       {},
	SelfSubjectRulesReviews:  {},
}

// both joins what is wrong with an object and with its change.
func both[T any](create func(T) field.ErrorList, update func(updated, old T) field.ErrorList) func(updated, old T) field.ErrorList {
	return func(updated, old T) field.ErrorList { return append(create(updated), update(updated, old)...) }
}

func validatePod(pod *core.Pod) field.ErrorList {
	return corevalidation.ValidatePodCreate(pod, podOptions(pod, nil))
}

func validatePodUpdate(pod, old *core.Pod) field.ErrorList {
	return corevalidation.ValidatePodUpdate(pod, old, podOptions(pod, old))
}

func validatePodStatus(pod, old *core.Pod) field.ErrorList {
	return corevalidation.ValidatePodStatusUpdate(pod, old, podOptions(pod, old))
}

func podOptions(pod, old *core.Pod) corevalidation.PodValidationOptions {
	var options corevalidation.PodValidationOptions
	if old == nil {
		options = podoptions.GetValidationOptionsFromPodSpecAndMeta(&pod.Spec, nil, &pod.ObjectMeta, nil)
	} else {
		options = podoptions.GetValidationOptionsFromPodSpecAndMeta(&pod.Spec, &old.Spec, &pod.ObjectMeta, &old.ObjectMeta)
	}
	options.ResourceIsPod = true
	return options
}

func validateService(s *core.Service) field.ErrorList {
	return corevalidation.ValidateServiceCreate(withHealthPort(s))
}

func validateServiceUpdate(s, old *core.Service) field.ErrorList {
	return corevalidation.ValidateServiceUpdate(withHealthPort(s), old)
}

// withHealthPort stands in for the port that a Service is given after it was found valid, where upstream chooses it
// before. Which port it is makes no difference here.
func withHealthPort(s *core.Service) *core.Service {
	if s.Spec.Type != core.ServiceTypeLoadBalancer || s.Spec.ExternalTrafficPolicy != core.ServiceExternalTrafficPolicyLocal || s.Spec.HealthCheckNodePort != 0 {
		return s
	}
	complete := *s
	complete.Spec.HealthCheckNodePort = 1
	return &complete
}

func validateDeployment(d *apps.Deployment) field.ErrorList {
	return appsvalidation.ValidateDeployment(d, podoptions.GetValidationOptionsFromPodTemplate(&d.Spec.Template, nil))
}

func validateDeploymentUpdate(d, old *apps.Deployment) field.ErrorList {
	options := podoptions.GetValidationOptionsFromPodTemplate(&d.Spec.Template, &old.Spec.Template)
	errs := appsvalidation.ValidateDeploymentUpdate(d, old, options)
	return append(errs, validation.ValidateImmutableField(d.Spec.Selector, old.Spec.Selector, field.NewPath("spec", "selector"))...)
}

func validateReplicaSet(rs *apps.ReplicaSet) field.ErrorList {
	return appsvalidation.ValidateReplicaSet(rs, podoptions.GetValidationOptionsFromPodTemplate(&rs.Spec.Template, nil))
}

func validateReplicaSetUpdate(rs, old *apps.ReplicaSet) field.ErrorList {
	options := podoptions.GetValidationOptionsFromPodTemplate(&rs.Spec.Template, &old.Spec.Template)
	errs := appsvalidation.ValidateReplicaSetUpdate(rs, old, options)
	return append(errs, validation.ValidateImmutableField(rs.Spec.Selector, old.Spec.Selector, field.NewPath("spec", "selector"))...)
}

func validateClusterRole(r *rbac.ClusterRole) field.ErrorList {
	return rbacvalidation.ValidateClusterRole(r, rbacvalidation.ClusterRoleValidationOptions{})
}

func validateClusterRoleUpdate(r, old *rbac.ClusterRole) field.ErrorList {
	return rbacvalidation.ValidateClusterRoleUpdate(r, old, rbacvalidation.ClusterRoleValidationOptions{})
}

func validateAccessReview(r *authorization.SelfSubjectAccessReview) field.ErrorList {
	return authorizationvalidation.ValidateSelfSubjectAccessReview(r)
}

// validateSource wants exactly one place to read from.
func validateSource(s *slipwayv1.Source) field.ErrorList {
	spec := field.NewPath("spec")
	switch {
	case s.Spec.URL == "" && s.Spec.Dir == "":
		return field.ErrorList{field.Required(spec.Child("url"), "url or dir must be set")}
	case s.Spec.URL != "" && s.Spec.Dir != "":
		return field.ErrorList{field.Forbidden(spec.Child("dir"), "must not be set beside url")}
	case s.Spec.Dir != "" && s.Spec.Branch != "":
		return field.ErrorList{field.Forbidden(spec.Child("branch"), "must not be set beside dir")}
	}
	return nil
}

func validateRollout(r *slipwayv1.Rollout) field.ErrorList {
	var errs field.ErrorList
	if r.Spec.Source == "" {
		errs = append(errs, field.Required(field.NewPath("spec", "source"), ""))
	}
	if r.Spec.Revision == "" {
		errs = append(errs, field.Required(field.NewPath("spec", "revision"), ""))
	}
	return errs
}

// validateRolloutUpdate keeps a record about the commit it was made for.
func validateRolloutUpdate(r, old *slipwayv1.Rollout) field.ErrorList {
	errs := validation.ValidateImmutableField(r.Spec.Source, old.Spec.Source, field.NewPath("spec", "source"))
	errs = append(errs, validation.ValidateImmutableField(r.Spec.Revision, old.Spec.Revision, field.NewPath("spec", "revision"))...)
	return append(errs, validateRollout(r)...)
}

// segmentName says why name cannot be a part of a path, which is what all names have to be at least.
func segmentName(name string, prefix bool) []string {
	if prefix {
		return content.IsPathSegmentPrefix(name)
	}
	return content.IsPathSegmentName(name)
}

func validateMetaUpdate(kind *Kind, updated, old Object) field.ErrorList {
	meta := field.NewPath("metadata")
	errs := validation.ValidateObjectMetaAccessor(updated, kind.Namespaced, segmentName, meta)
	return append(errs, validation.ValidateObjectMetaAccessorUpdate(updated, old, meta)...)
}

// declaredOptions are the feature gates that declared rules (+k8s:… tags) of the table's kinds refer to, at the
// defaults of the pinned version.
var declaredOptions = map[string]bool{string(features.InPlacePodVerticalScalingSchedulerPreemption): false}

// withDeclared joins written and declared rules as upstream does since 1.36: a declared error takes the place of
// the written one for the same field.
func withDeclared(written, declared field.ErrorList) field.ErrorList {
	if len(written) == 0 && len(declared) == 0 {
		return nil
	}
	const beta = true // the default of DeclarativeValidationBeta
	written = written.MarkFromImperative()
	enforced := validate.FilterEnforcedDeclarativeErrors(context.Background(), declared, beta)
	return append(validate.FilterCoveredHandwrittenErrors(context.Background(), written, enforced, beta), enforced...)
}

// convert returns obj in upstream's internal type, which validators take; own kinds are their own. The result
// shares memory with obj and must not be changed.
func convert(obj Object) (*Kind, runtime.Object, field.ErrorList) {
	kind, err := KindOf(obj)
	if err != nil {
		return nil, nil, field.ErrorList{field.InternalError(nil, err)}
	}
	if kind.Group == slipwayv1.SchemeGroupVersion.Group {
		return kind, obj, nil
	}
	internal, err := Scheme.UnsafeConvertToVersion(obj, runtime.InternalGroupVersioner)
	if err != nil {
		return nil, nil, field.ErrorList{field.InternalError(nil, fmt.Errorf("convert %s: %w", kind, err))}
	}
	return kind, internal, nil
}

func convertBoth(updated, old Object) (kind *Kind, newInternal, oldInternal runtime.Object, errs field.ErrorList) {
	kind, newInternal, errs = convert(updated)
	if errs != nil {
		return nil, nil, nil, errs
	}
	oldKind, oldInternal, errs := convert(old)
	if errs == nil && oldKind != kind {
		errs = field.ErrorList{field.InternalError(nil, fmt.Errorf("replace %s by %s", oldKind, kind))}
	}
	return kind, newInternal, oldInternal, errs
}
