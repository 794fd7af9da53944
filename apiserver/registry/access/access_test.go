package access_test

import (
	"context"
	"testing"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/slipway-dev/slipway/apiserver/api"
	"github.com/slipway-dev/slipway/apiserver/registry/access"
	"github.com/slipway-dev/slipway/apiserver/store"
	"github.com/slipway-dev/slipway/apiserver/store/kv/memory"
)

func authorizer(t *testing.T, objects ...api.Object) access.Authorizer {
	t.Helper()
	s, err := store.New(t.Context(), memory.New(), api.StorageCodec{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	for _, obj := range objects {
		if _, err := s.Create(t.Context(), obj, store.CreateOptions{}); err != nil {
			t.Fatal(err)
		}
	}
	return access.Authorizer{Reader: s}
}

func meta(namespace, name string) metav1.ObjectMeta {
	return metav1.ObjectMeta{Namespace: namespace, Name: name}
}

// cluster has a Pod on node-1 and one on node-2, with what they need, and RBAC for two ServiceAccounts.
func cluster(t *testing.T) access.Authorizer {
	mine := &corev1.Pod{ObjectMeta: meta("shop", "mine"), Spec: corev1.PodSpec{
		NodeName: "node-1", ServiceAccountName: "web", ImagePullSecrets: []corev1.LocalObjectReference{{Name: "pull"}},
		InitContainers: []corev1.Container{{Name: "i", EnvFrom: []corev1.EnvFromSource{{SecretRef: &corev1.SecretEnvSource{LocalObjectReference: corev1.LocalObjectReference{Name: "env"}}}}}},
		Containers: []corev1.Container{{Name: "c", Env: []corev1.EnvVar{{Name: "A", ValueFrom: &corev1.EnvVarSource{
			SecretKeyRef: &corev1.SecretKeySelector{LocalObjectReference: corev1.LocalObjectReference{Name: "key"}}}}}}},
		Volumes: []corev1.Volume{{Name: "v", VolumeSource: corev1.VolumeSource{Projected: &corev1.ProjectedVolumeSource{Sources: []corev1.VolumeProjection{
			{ConfigMap: &corev1.ConfigMapProjection{LocalObjectReference: corev1.LocalObjectReference{Name: "kube-root-ca.crt"}}}}}}}},
	}}
	theirs := &corev1.Pod{ObjectMeta: meta("shop", "theirs"), Spec: corev1.PodSpec{NodeName: "node-2", ServiceAccountName: "db",
		Volumes: []corev1.Volume{{Name: "v", VolumeSource: corev1.VolumeSource{Secret: &corev1.SecretVolumeSource{SecretName: "other"}}}}}}
	return authorizer(t, mine, theirs,
		&rbacv1.ClusterRole{ObjectMeta: meta("", "reader"), Rules: []rbacv1.PolicyRule{
			{Verbs: []string{"get", "list"}, APIGroups: []string{""}, Resources: []string{"pods", "pods/log"}},
			{Verbs: []string{"get"}, NonResourceURLs: []string{"/metrics", "/logs/*"}}}},
		&rbacv1.ClusterRoleBinding{ObjectMeta: meta("", "monitoring"), RoleRef: rbacv1.RoleRef{Kind: "ClusterRole", Name: "reader"},
			Subjects: []rbacv1.Subject{{Kind: "ServiceAccount", Namespace: "mon", Name: "prometheus"}}},
		&rbacv1.RoleBinding{ObjectMeta: meta("shop", "view"), RoleRef: rbacv1.RoleRef{Kind: "ClusterRole", Name: "reader"},
			Subjects: []rbacv1.Subject{{Kind: "ServiceAccount", Namespace: "shop", Name: "web"}}},
		&rbacv1.Role{ObjectMeta: meta("shop", "one"), Rules: []rbacv1.PolicyRule{
			{Verbs: []string{"update"}, APIGroups: []string{""}, Resources: []string{"configmaps"}, ResourceNames: []string{"lock"}}}},
		&rbacv1.RoleBinding{ObjectMeta: meta("shop", "one"), RoleRef: rbacv1.RoleRef{Kind: "Role", Name: "one"},
			Subjects: []rbacv1.Subject{{Kind: "Group", Name: "system:serviceaccounts:shop"}}},
		&rbacv1.RoleBinding{ObjectMeta: meta("shop", "dangling"), RoleRef: rbacv1.RoleRef{Kind: "Role", Name: "none"},
			Subjects: []rbacv1.Subject{{Kind: "ServiceAccount", Name: "web"}}},
	)
}

func account(namespace, name string) access.Identity {
	return access.Identity{Name: "system:serviceaccount:" + namespace + ":" + name,
		Groups: []string{"system:serviceaccounts", "system:serviceaccounts:" + namespace, access.GroupAuthenticated}}
}

func TestDecide(t *testing.T) {
	type ask = access.Attributes
	node, people, web, prometheus := access.Node("node-1"), access.People("eve"), account("shop", "web"), account("mon", "prometheus")
	tests := []struct {
		name string
		id   access.Identity
		ask  ask
		want bool
	}{
		{"an admin does all", access.Admin(), ask{Verb: "delete", Resource: "nodes", Name: "x"}, true},
		{"nobody does nothing", access.Identity{Name: "x"}, ask{Verb: "get", Resource: "pods", Namespace: "shop"}, false},
		{"a stranger sees the version", access.Identity{Name: "x", Groups: []string{access.GroupAuthenticated}}, ask{Verb: "get", Path: "/version"}, true},
		{"a stranger sees no metrics", access.Identity{Name: "x", Groups: []string{access.GroupAuthenticated}}, ask{Verb: "get", Path: "/metrics"}, false},
		{"a part's name alone is nothing", access.Identity{Name: "system:controller:garbage", Groups: []string{access.GroupAuthenticated}}, ask{Verb: "delete", Resource: "pods"}, false},
		{"a node's name alone is nothing", access.Identity{Name: "system:node:node-1", Groups: []string{access.GroupAuthenticated}}, ask{Verb: "get", Resource: "nodes", Name: "node-1"}, false},

		{"people list everything", people, ask{Verb: "list", Resource: "secrets"}, true},
		{"people read logs", people, ask{Verb: "get", Resource: "pods", Subresource: "log", Namespace: "shop", Name: "mine"}, true},
		{"people read metrics", people, ask{Verb: "get", Path: "/metrics"}, true},
		{"people ask about themselves", people, ask{Verb: "create", Group: "authorization.k8s.io", Resource: "selfsubjectaccessreviews"}, true},
		{"people create nothing", people, ask{Verb: "create", Resource: "pods", Namespace: "shop"}, false},
		{"people update nothing", people, ask{Verb: "update", Group: "apps", Resource: "deployments", Namespace: "shop"}, false},
		{"people patch no status", people, ask{Verb: "patch", Resource: "pods", Subresource: "status", Namespace: "shop"}, false},
		{"people delete nothing", people, ask{Verb: "delete", Resource: "pods", Namespace: "shop"}, false},
		{"people delete no collection", people, ask{Verb: "deletecollection", Resource: "pods", Namespace: "shop"}, false},
		{"people try everything", people, ask{Verb: "delete", Resource: "pods", Namespace: "shop", DryRun: true}, true},
		{"people get no token", people, ask{Verb: "create", Resource: "serviceaccounts", Subresource: "token", Namespace: "shop"}, false},
		{"people try no token", people, ask{Verb: "create", Resource: "serviceaccounts", Subresource: "token", Namespace: "shop", DryRun: true}, false},
		{"people do not exec by GET", people, ask{Verb: "get", Resource: "pods", Subresource: "exec", Namespace: "shop", Name: "mine"}, false},
		{"people do not exec", people, ask{Verb: "create", Resource: "pods", Subresource: "exec", Namespace: "shop", Name: "mine"}, false},
		{"people do not forward ports", people, ask{Verb: "get", Resource: "pods", Subresource: "portforward", Namespace: "shop", Name: "mine"}, false},
		{"people do not proxy", people, ask{Verb: "get", Resource: "services", Subresource: "proxy", Namespace: "shop", Name: "mine"}, false},
		{"people evict nothing", people, ask{Verb: "create", Resource: "pods", Subresource: "eviction", Namespace: "shop", Name: "mine"}, false},
		{"people impersonate nobody", people, ask{Verb: "impersonate", Resource: "users", Name: "x"}, false},

		{"the replicaset controller makes Pods", access.Controller("replicaset"), ask{Verb: "create", Resource: "pods", Namespace: "shop"}, true},
		{"the replicaset controller reads no Secrets", access.Controller("replicaset"), ask{Verb: "list", Resource: "secrets"}, false},
		{"the deployment controller makes no Pods", access.Controller("deployment"), ask{Verb: "create", Resource: "pods", Namespace: "shop"}, false},
		{"an unknown controller does nothing", access.Controller("x"), ask{Verb: "get", Resource: "pods", Namespace: "shop"}, false},
		{"the scheduler binds", access.Scheduler(), ask{Verb: "create", Resource: "pods", Subresource: "binding", Namespace: "shop"}, true},
		{"the scheduler makes no Pods", access.Scheduler(), ask{Verb: "create", Resource: "pods", Namespace: "shop"}, false},
		{"GitOps writes every kind", access.GitOps(), ask{Verb: "patch", Resource: "secrets", Namespace: "shop"}, true},
		{"GitOps binds nothing", access.GitOps(), ask{Verb: "create", Resource: "pods", Subresource: "binding", Namespace: "shop"}, false},
		{"GitOps gets no token", access.GitOps(), ask{Verb: "create", Resource: "serviceaccounts", Subresource: "token", Namespace: "shop"}, false},
		{"GitOps writes no status of others", access.GitOps(), ask{Verb: "update", Resource: "pods", Subresource: "status", Namespace: "shop"}, false},
		{"the garbage collector deletes", access.Controller("garbage"), ask{Verb: "delete", Resource: "secrets", Namespace: "shop"}, true},

		{"a node writes its own Node", node, ask{Verb: "update", Resource: "nodes", Name: "node-1"}, true},
		{"a node writes its own status", node, ask{Verb: "patch", Resource: "nodes", Subresource: "status", Name: "node-1"}, true},
		{"a node writes no other Node", node, ask{Verb: "update", Resource: "nodes", Name: "node-2"}, false},
		{"a node does not delete itself", node, ask{Verb: "delete", Resource: "nodes", Name: "node-1"}, false},
		{"a node lists its Pods", node, ask{Verb: "list", Resource: "pods", NodeName: "node-1"}, true},
		{"a node does not list all Pods", node, ask{Verb: "list", Resource: "pods"}, false},
		{"a node does not list another's Pods", node, ask{Verb: "watch", Resource: "pods", NodeName: "node-2"}, false},
		{"a node reads its Pod", node, ask{Verb: "get", Resource: "pods", Namespace: "shop", Name: "mine"}, true},
		{"a node reads no other Pod", node, ask{Verb: "get", Resource: "pods", Namespace: "shop", Name: "theirs"}, false},
		{"a node writes its Pod's status", node, ask{Verb: "update", Resource: "pods", Subresource: "status", Namespace: "shop", Name: "mine"}, true},
		{"a node writes no other Pod's status", node, ask{Verb: "update", Resource: "pods", Subresource: "status", Namespace: "shop", Name: "theirs"}, false},
		{"a node does not update its Pod", node, ask{Verb: "update", Resource: "pods", Namespace: "shop", Name: "mine"}, false},
		{"a node makes no Pods", node, ask{Verb: "create", Resource: "pods", Namespace: "shop", Name: "new"}, false},
		{"a node deletes its Pod", node, ask{Verb: "delete", Resource: "pods", Namespace: "shop", Name: "mine"}, true},
		{"a node deletes no other Pod", node, ask{Verb: "delete", Resource: "pods", Namespace: "shop", Name: "theirs"}, false},
		{"a node binds nothing", node, ask{Verb: "create", Resource: "pods", Subresource: "binding", Namespace: "shop", Name: "mine"}, false},
		{"a node reads a Secret of an init container", node, ask{Verb: "get", Resource: "secrets", Namespace: "shop", Name: "env"}, true},
		{"a node reads a Secret of a variable", node, ask{Verb: "get", Resource: "secrets", Namespace: "shop", Name: "key"}, true},
		{"a node reads a pull Secret", node, ask{Verb: "get", Resource: "secrets", Namespace: "shop", Name: "pull"}, true},
		{"a node watches a Secret by name", node, ask{Verb: "watch", Resource: "secrets", Namespace: "shop", ObjectName: "key"}, true},
		{"a node reads no other Secret", node, ask{Verb: "get", Resource: "secrets", Namespace: "shop", Name: "other"}, false},
		{"a node reads no Secret of a namesake", node, ask{Verb: "get", Resource: "secrets", Namespace: "bank", Name: "key"}, false},
		{"a node lists no Secrets", node, ask{Verb: "list", Resource: "secrets", Namespace: "shop"}, false},
		{"a node writes no Secret", node, ask{Verb: "update", Resource: "secrets", Namespace: "shop", Name: "key"}, false},
		{"a node reads a projected ConfigMap", node, ask{Verb: "get", Resource: "configmaps", Namespace: "shop", Name: "kube-root-ca.crt"}, true},
		{"a node gets its Pod's token", node, ask{Verb: "create", Resource: "serviceaccounts", Subresource: "token", Namespace: "shop", Name: "web"}, true},
		{"a node gets no other token", node, ask{Verb: "create", Resource: "serviceaccounts", Subresource: "token", Namespace: "shop", Name: "db"}, false},
		{"a node makes no ServiceAccount", node, ask{Verb: "create", Resource: "serviceaccounts", Namespace: "shop", Name: "web"}, false},
		{"a node renews its Lease", node, ask{Verb: "update", Group: "coordination.k8s.io", Resource: "leases", Namespace: "kube-node-lease", Name: "node-1"}, true},
		{"a node renews no other Lease", node, ask{Verb: "update", Group: "coordination.k8s.io", Resource: "leases", Namespace: "kube-node-lease", Name: "node-2"}, false},
		{"a node reads Services", node, ask{Verb: "watch", Resource: "services"}, true},
		{"a node writes no Services", node, ask{Verb: "update", Resource: "services", Namespace: "shop", Name: "x"}, false},
		{"a node writes no roles", node, ask{Verb: "create", Group: "rbac.authorization.k8s.io", Resource: "clusterrolebindings"}, false},

		{"a cluster binding holds everywhere", prometheus, ask{Verb: "list", Resource: "pods"}, true},
		{"and in a namespace", prometheus, ask{Verb: "get", Resource: "pods", Subresource: "log", Namespace: "shop", Name: "mine"}, true},
		{"a path by prefix", prometheus, ask{Verb: "get", Path: "/logs/x"}, true},
		{"a verb that is not bound", prometheus, ask{Verb: "watch", Resource: "pods"}, false},
		{"a subresource that is not bound", prometheus, ask{Verb: "get", Resource: "pods", Subresource: "exec", Namespace: "shop", Name: "mine"}, false},
		{"another group's namesake", prometheus, ask{Verb: "list", Group: "metrics.k8s.io", Resource: "pods"}, false},
		{"a namesake in another namespace", account("shop", "prometheus"), ask{Verb: "list", Resource: "pods"}, false},
		{"a role binding holds in its namespace", web, ask{Verb: "list", Resource: "pods", Namespace: "shop"}, true},
		{"and nowhere else", web, ask{Verb: "list", Resource: "pods", Namespace: "bank"}, false},
		{"nor across namespaces", web, ask{Verb: "list", Resource: "pods"}, false},
		{"a named resource", web, ask{Verb: "update", Resource: "configmaps", Namespace: "shop", Name: "lock"}, true},
		{"another name", web, ask{Verb: "update", Resource: "configmaps", Namespace: "shop", Name: "x"}, false},
		{"no name", web, ask{Verb: "update", Resource: "configmaps", Namespace: "shop"}, false},
	}
	z := cluster(t)
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			got, err := z.Decide(context.Background(), test.id, test.ask)
			if err != nil {
				t.Fatal(err)
			}
			if got.Allowed != test.want {
				t.Errorf("%s: %+v: got %+v, want %t", test.id.Name, test.ask, got, test.want)
			}
		})
	}
}

func TestRules(t *testing.T) {
	z := cluster(t)
	rules, incomplete, err := z.Rules(context.Background(), account("shop", "web"), "shop")
	if err != nil || incomplete {
		t.Fatal(err, incomplete)
	}
	var got []string
	for _, r := range rules {
		got = append(got, r.Resources...)
	}
	want := []string{"selfsubjectaccessreviews", "selfsubjectrulesreviews", "selfsubjectreviews", "configmaps", "pods", "pods/log"}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

func TestCheckNodeWrite(t *testing.T) {
	labelled := func(labels ...string) *corev1.Node {
		n := &corev1.Node{}
		for _, l := range labels {
			metav1.SetMetaDataLabel(&n.ObjectMeta, l, "x")
		}
		return n
	}
	tainted := &corev1.Node{Spec: corev1.NodeSpec{Taints: []corev1.Taint{{Key: "a", Effect: corev1.TaintEffectNoSchedule}}}}
	owned := &corev1.Node{ObjectMeta: metav1.ObjectMeta{OwnerReferences: []metav1.OwnerReference{{Name: "x"}}}}
	tests := []struct {
		name         string
		old, updated api.Object
		allowed      bool
	}{
		{"labels of its own", nil, labelled("kubernetes.io/hostname", "kubernetes.io/os", "topology.kubernetes.io/zone", "example.com/x", "disk", "node.kubernetes.io/x"), true},
		{"a restricted label", nil, labelled("node-restriction.kubernetes.io/tier"), false},
		{"a restricted label of a team", nil, labelled("team.node-restriction.kubernetes.io/tier"), false},
		{"a label of Kubernetes", nil, labelled("node-role.kubernetes.io/control-plane"), false},
		{"a restricted label taken away", labelled("node-restriction.kubernetes.io/tier"), labelled(), false},
		{"a restricted label kept", labelled("node-restriction.kubernetes.io/tier"), labelled("node-restriction.kubernetes.io/tier", "x"), true},
		{"a taint of a new node", nil, tainted, true},
		{"a taint taken away", tainted, labelled(), false},
		{"an owner, by which the garbage collector would delete it", nil, owned, false},
		{"an Event of its own", nil, &corev1.Event{Source: corev1.EventSource{Host: "node-1"}}, true},
		{"an Event of another", nil, &corev1.Event{Source: corev1.EventSource{Host: "node-2"}}, false},
		{"an Event of another made its own", &corev1.Event{Source: corev1.EventSource{Host: "node-2"}}, &corev1.Event{Source: corev1.EventSource{Host: "node-1"}}, false},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			if err := access.CheckNodeWrite("node-1", test.old, test.updated); (err == nil) != test.allowed {
				t.Errorf("got %v, want allowed: %t", err, test.allowed)
			}
		})
	}
}
