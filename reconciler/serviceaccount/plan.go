// Package serviceaccount gives every namespace what Pods in it rely on: the ServiceAccount "default" and the
// ConfigMap "kube-root-ca.crt" with the certificate of the API server's authority. Both are put back when they are
// removed, and the ConfigMap's content also when it is changed.
//
// It must not touch other ServiceAccounts and ConfigMaps.
package serviceaccount

import (
	"fmt"
	"maps"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// Names, as in Kubernetes.
const (
	accountName = "default"
	bundleName  = "kube-root-ca.crt"
	bundleKey   = "ca.crt"
)

// observed is what one turn looks at.
type observed struct {
	Namespace *corev1.Namespace // nil: gone
	Account   *corev1.ServiceAccount
	Bundle    *corev1.ConfigMap
	RootCA    string // PEM
}

// Action is one effect.
type Action interface {
	fmt.Stringer
}

type (
	// CreateAccount makes the ServiceAccount.
	CreateAccount struct{ Account *corev1.ServiceAccount }
	// CreateBundle makes the ConfigMap.
	CreateBundle struct{ Bundle *corev1.ConfigMap }
	// UpdateBundle puts its content back.
	UpdateBundle struct{ Bundle *corev1.ConfigMap }
)

func (a CreateAccount) String() string { return "create serviceaccount " + a.Account.Name }
func (a CreateBundle) String() string  { return "create configmap " + a.Bundle.Name }
func (a UpdateBundle) String() string  { return "update configmap " + a.Bundle.Name }

// plan returns what an active namespace lacks.
func plan(o observed) []Action {
	ns := o.Namespace
	if ns == nil || ns.DeletionTimestamp != nil || ns.Status.Phase == corev1.NamespaceTerminating {
		return nil
	}
	var actions []Action
	if o.Account == nil {
		actions = append(actions, CreateAccount{&corev1.ServiceAccount{
			TypeMeta:   metav1.TypeMeta{APIVersion: "v1", Kind: "ServiceAccount"},
			ObjectMeta: metav1.ObjectMeta{Namespace: ns.Name, Name: accountName},
		}})
	}
	data := map[string]string{bundleKey: o.RootCA}
	switch {
	case o.Bundle == nil:
		actions = append(actions, CreateBundle{&corev1.ConfigMap{
			TypeMeta:   metav1.TypeMeta{APIVersion: "v1", Kind: "ConfigMap"},
			ObjectMeta: metav1.ObjectMeta{Namespace: ns.Name, Name: bundleName}, Data: data,
		}})
	case !maps.Equal(o.Bundle.Data, data) || len(o.Bundle.BinaryData) > 0:
		bundle := o.Bundle.DeepCopy()
		bundle.Data, bundle.BinaryData = data, nil
		actions = append(actions, UpdateBundle{bundle})
	}
	return actions
}
