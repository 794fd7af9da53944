package access

import (
	"context"
	"fmt"
	"strings"

	rbacv1 "k8s.io/api/rbac/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"

	"github.com/slipway-dev/slipway/apiserver/store"
)

// eachRule calls yield with every RBAC rule that applies to id in namespace, until it returns false: those of
// ClusterRoleBindings, and with a namespace those of its RoleBindings. A binding to a role that does not exist
// grants nothing.
func (z Authorizer) eachRule(ctx context.Context, id Identity, namespace string, yield func(*rbacv1.PolicyRule) bool) error {
	cluster, err := store.All[*rbacv1.ClusterRoleBinding](ctx, z.Reader, store.ListOptions{})
	if err != nil {
		return fmt.Errorf("list cluster role bindings: %w", err)
	}
	for _, binding := range cluster {
		if !binds(binding.Subjects, id, "") {
			continue
		}
		if more, err := z.roleRules(ctx, binding.RoleRef, "", yield); err != nil || !more {
			return err
		}
	}
	if namespace == "" {
		return nil
	}
	local, err := store.All[*rbacv1.RoleBinding](ctx, z.Reader, store.ListOptions{Namespace: namespace})
	if err != nil {
		return fmt.Errorf("list role bindings in %s: %w", namespace, err)
	}
	for _, binding := range local {
		if !binds(binding.Subjects, id, namespace) {
			continue
		}
		if more, err := z.roleRules(ctx, binding.RoleRef, namespace, yield); err != nil || !more {
			return err
		}
	}
	return nil
}

// roleRules yields a role's rules and says whether to go on.
func (z Authorizer) roleRules(ctx context.Context, ref rbacv1.RoleRef, namespace string, yield func(*rbacv1.PolicyRule) bool) (more bool, err error) {
	var rules []rbacv1.PolicyRule
	switch ref.Kind {
	case "ClusterRole":
		role, err := store.Get[*rbacv1.ClusterRole](ctx, z.Reader, "", ref.Name)
		if err != nil {
			return true, ignoreNotFound(err)
		}
		rules = role.Rules
	case "Role":
		role, err := store.Get[*rbacv1.Role](ctx, z.Reader, namespace, ref.Name)
		if err != nil {
			return true, ignoreNotFound(err)
		}
		rules = role.Rules
	}
	for i := range rules {
		if !yield(&rules[i]) {
			return false, nil
		}
	}
	return true, nil
}

func ignoreNotFound(err error) error {
	if apierrors.IsNotFound(err) {
		return nil
	}
	return fmt.Errorf("read role: %w", err)
}

// binds says whether one of the subjects is id. A ServiceAccount subject without a namespace means the binding's.
func binds(subjects []rbacv1.Subject, id Identity, namespace string) bool {
	for _, s := range subjects {
		switch s.Kind {
		case rbacv1.UserKind:
			if s.Name == id.Name {
				return true
			}
		case rbacv1.GroupKind:
			if id.In(s.Name) {
				return true
			}
		case rbacv1.ServiceAccountKind:
			in := s.Namespace
			if in == "" {
				in = namespace
			}
			if in != "" && strings.HasPrefix(id.Name, serviceAccountPrefix) && id.Name == serviceAccountPrefix+in+":"+s.Name {
				return true
			}
		}
	}
	return false
}
