package registry

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"

	"github.com/slipway-dev/slipway/apiserver/api"
	"github.com/slipway-dev/slipway/apiserver/registry/access"
	"github.com/slipway-dev/slipway/apiserver/store"
)

// request is what admission looks at: a new object, or an old one and what it is to become. Subresources are not
// admitted.
type request struct {
	id   Identity
	kind *api.Kind
	old  api.Object // nil: a new object
	obj  api.Object // may be changed
}

// admission is one step between defaulting and validation. It may change the object or refuse it.
type admission struct {
	name  string
	admit func(ctx context.Context, r *Registry, q request) error
}

// admissions are asked in this order.
var admissions = []admission{
	{"NodeRestriction", admitNode},
	{"NamespaceLifecycle", admitNamespace},
	{"NoEscalation", admitRoles},
	{"DenyServiceExternalIPs", admitExternalIPs},
	{"ServiceAccount", admitServiceAccount},
}

func (c *client) admit(ctx context.Context, kind *api.Kind, old, obj api.Object) error {
	for _, step := range admissions {
		if err := step.admit(ctx, c.r, request{id: c.id, kind: kind, old: old, obj: obj}); err != nil {
			return err
		}
	}
	return nil
}

// admitNode keeps an agent from writing into its objects what would gain it trust.
func admitNode(_ context.Context, _ *Registry, q request) error {
	node := q.id.NodeName()
	if node == "" {
		return nil
	}
	if err := access.CheckNodeWrite(node, q.old, q.obj); err != nil {
		return apierrors.NewForbidden(q.kind.GroupResource(), q.obj.GetName(), err)
	}
	return nil
}

// admitNamespace wants the namespace of a new object to exist and to stay.
func admitNamespace(ctx context.Context, r *Registry, q request) error {
	if q.old != nil || !q.kind.Namespaced {
		return nil
	}
	ns, err := store.Get[*corev1.Namespace](ctx, r.store, "", q.obj.GetNamespace())
	if err != nil {
		return err
	}
	if ns.DeletionTimestamp == nil && ns.Status.Phase != corev1.NamespaceTerminating {
		return nil
	}
	refusal := apierrors.NewForbidden(q.kind.GroupResource(), q.obj.GetName(),
		fmt.Errorf("unable to create new content in namespace %s because it is being terminated", ns.Name))
	refusal.ErrStatus.Details.Causes = append(refusal.ErrStatus.Details.Causes, metav1.StatusCause{
		Type: corev1.NamespaceTerminatingCause, Field: "metadata.namespace",
		Message: fmt.Sprintf("namespace %s is being terminated", ns.Name),
	})
	return refusal
}

// admitRoles lets workloads write roles and bindings only with the verbs RBAC has for handing out more than one
// has oneself. Upstream would also let them hand out what they have.
func admitRoles(ctx context.Context, r *Registry, q request) error {
	if q.id.IsPart() || q.id.In(access.GroupMasters) || q.id.In(GroupPeople) {
		return nil
	}
	var verb string
	switch q.kind {
	case api.Roles, api.ClusterRoles:
		verb = "escalate"
	case api.RoleBindings, api.ClusterRoleBindings:
		verb = "bind"
	default:
		return nil
	}
	return r.Authorize(ctx, q.id, attributes(q.kind, verb, q.obj.GetNamespace(), q.obj.GetName()))
}

// admitExternalIPs keeps Services from taking traffic to addresses that are not theirs (CVE-2020-8554).
func admitExternalIPs(_ context.Context, _ *Registry, q request) error {
	svc, ok := q.obj.(*corev1.Service)
	if !ok {
		return nil
	}
	old, _ := q.old.(*corev1.Service)
	for _, ip := range svc.Spec.ExternalIPs {
		if old == nil || !slices.Contains(old.Spec.ExternalIPs, ip) {
			return apierrors.NewForbidden(q.kind.GroupResource(), svc.Name, errors.New("spec.externalIPs: use of external IPs is denied by admission control"))
		}
	}
	return nil
}

// Names of the ServiceAccount admission, as upstream.
const (
	defaultServiceAccount = "default"
	tokenVolumePrefix     = "kube-api-access-"
	tokenMountPath        = "/var/run/secrets/kubernetes.io/serviceaccount"
	tokenSeconds          = 3607
	rootCAConfigMap       = "kube-root-ca.crt"
)

// admitServiceAccount gives a new Pod its ServiceAccount, that account's pull secrets, and a volume with a token.
func admitServiceAccount(ctx context.Context, r *Registry, q request) error {
	pod, ok := q.obj.(*corev1.Pod)
	if !ok || q.old != nil {
		return nil
	}
	if pod.Spec.ServiceAccountName == "" {
		pod.Spec.ServiceAccountName = defaultServiceAccount
		pod.Spec.DeprecatedServiceAccount = defaultServiceAccount
	}
	account, err := r.serviceAccount(ctx, pod.Namespace, pod.Spec.ServiceAccountName)
	if err != nil {
		return apierrors.NewForbidden(q.kind.GroupResource(), pod.Name,
			fmt.Errorf("error looking up service account %s/%s: %w", pod.Namespace, pod.Spec.ServiceAccountName, err))
	}
	if automounts(account, pod) {
		mountToken(pod)
	}
	if len(pod.Spec.ImagePullSecrets) == 0 && len(account.ImagePullSecrets) > 0 {
		pod.Spec.ImagePullSecrets = append([]corev1.LocalObjectReference(nil), account.ImagePullSecrets...)
	}
	return nil
}

// defaultAccountWait is how long a new Pod waits for its namespace's default ServiceAccount, which a controller
// makes right after the namespace.
const defaultAccountWait = 2 * time.Second

func (r *Registry) serviceAccount(ctx context.Context, namespace, name string) (*corev1.ServiceAccount, error) {
	account, err := store.Get[*corev1.ServiceAccount](ctx, r.store, namespace, name)
	if name != defaultServiceAccount || !apierrors.IsNotFound(err) {
		return account, err
	}
	missing := err
	ctx, cancel := context.WithTimeout(ctx, defaultAccountWait)
	defer cancel()
	watch, err := r.store.Watch(ctx, api.ServiceAccounts, store.WatchOptions{Namespace: namespace, Fields: fields.OneTermEqualSelector("metadata.name", name)})
	if err != nil {
		return nil, err
	}
	defer watch.Close()
	for {
		event, err := watch.Next(ctx)
		if errors.Is(err, context.DeadlineExceeded) {
			return nil, missing
		}
		if err != nil {
			return nil, err
		}
		if found, ok := event.Object.(*corev1.ServiceAccount); ok && event.Type != store.Deleted {
			return found, nil
		}
	}
}

func automounts(account *corev1.ServiceAccount, pod *corev1.Pod) bool {
	switch {
	case pod.Spec.AutomountServiceAccountToken != nil:
		return *pod.Spec.AutomountServiceAccountToken
	case account.AutomountServiceAccountToken != nil:
		return *account.AutomountServiceAccountToken
	}
	return true
}

// mountToken adds the token volume and mounts it in every container that has nothing at its path.
func mountToken(pod *corev1.Pod) {
	volume, present := "", false
	for i := range pod.Spec.Volumes {
		if name := pod.Spec.Volumes[i].Name; len(name) > len(tokenVolumePrefix) && name[:len(tokenVolumePrefix)] == tokenVolumePrefix {
			volume, present = name, true
			break
		}
	}
	if volume == "" {
		volume = generateName(tokenVolumePrefix)
	}
	mounted := mountAt(pod.Spec.InitContainers, volume)
	mounted = mountAt(pod.Spec.Containers, volume) || mounted
	if mounted && !present {
		pod.Spec.Volumes = append(pod.Spec.Volumes, tokenVolume(volume))
	}
}

func mountAt(containers []corev1.Container, volume string) (mounted bool) {
next:
	for i := range containers {
		c := &containers[i]
		for j := range c.VolumeMounts {
			if c.VolumeMounts[j].MountPath == tokenMountPath {
				continue next
			}
		}
		c.VolumeMounts = append(c.VolumeMounts, corev1.VolumeMount{Name: volume, ReadOnly: true, MountPath: tokenMountPath})
		mounted = true
	}
	return mounted
}

func tokenVolume(name string) corev1.Volume {
	mode, seconds := corev1.ProjectedVolumeSourceDefaultMode, int64(tokenSeconds)
	return corev1.Volume{Name: name, VolumeSource: corev1.VolumeSource{Projected: &corev1.ProjectedVolumeSource{
		DefaultMode: &mode,
		Sources: []corev1.VolumeProjection{
			{ServiceAccountToken: &corev1.ServiceAccountTokenProjection{Path: "token", ExpirationSeconds: &seconds}},
			{ConfigMap: &corev1.ConfigMapProjection{
				LocalObjectReference: corev1.LocalObjectReference{Name: rootCAConfigMap},
				Items:                []corev1.KeyToPath{{Key: "ca.crt", Path: "ca.crt"}},
			}},
			{DownwardAPI: &corev1.DownwardAPIProjection{Items: []corev1.DownwardAPIVolumeFile{
				{Path: "namespace", FieldRef: &corev1.ObjectFieldSelector{APIVersion: "v1", FieldPath: "metadata.namespace"}},
			}}},
		},
	}}}
}
