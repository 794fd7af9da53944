package plan

import (
	"fmt"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/slipway-dev/slipway/apiserver/api"
)

// made marks obj as made from a source.
func made[T api.Object](obj T, source string) T {
	obj.SetAnnotations(map[string]string{api.AnnotationSource: source, api.AnnotationOrigin: "old.yaml:1@0000000"})
	fields := metav1.NewFieldsV1(`{"f:metadata":{}}`)
	obj.SetManagedFields([]metav1.ManagedFieldsEntry{{Manager: api.ManagerGit, Operation: metav1.ManagedFieldsOperationApply, FieldsType: "FieldsV1", FieldsV1: fields}})
	obj.SetUID("1")
	return obj
}

func namespace(name string) *corev1.Namespace {
	return &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: name}}
}

func configMap(name, value string) *corev1.ConfigMap {
	return &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: name}, Data: map[string]string{"key": value}}
}

func deployment(name, image string) *appsv1.Deployment {
	d := &appsv1.Deployment{ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: name}}
	d.Spec.Template.Spec.Containers = []corev1.Container{{Name: "app", Image: image}}
	return d
}

func withConfig(d *appsv1.Deployment, name string) *appsv1.Deployment {
	d.Spec.Template.Spec.Containers[0].EnvFrom = []corev1.EnvFromSource{{ConfigMapRef: &corev1.ConfigMapEnvSource{LocalObjectReference: corev1.LocalObjectReference{Name: name}}}}
	return d
}

func ref(obj api.Object) Ref {
	kind, err := api.KindOf(obj)
	if err != nil {
		panic(err)
	}
	return RefOf(kind, obj)
}

// world builds an Observed whose previews say that an apply makes live objects what is wanted.
type world struct{ o Observed }

func given() *world {
	return &world{Observed{Source: "default", Prune: true, Tree: map[Ref]bool{}, Live: map[Ref]api.Object{}, Previews: map[Ref]Preview{}, Namespaces: map[string]Namespace{"default": {}}}}
}

// wants puts objects into the tree, each in a file of its own name.
func (w *world) wants(objects ...api.Object) *world {
	for _, obj := range objects {
		r := ref(obj)
		w.o.Wants = append(w.o.Wants, Want{Ref: r, Origin: r.Name + ".yaml:1", Object: obj})
		w.o.Tree[r] = true
		preview := made(obj.DeepCopyObject().(api.Object), "default")
		w.o.Previews[r] = Preview{Object: preview}
	}
	return w
}

func (w *world) has(objects ...api.Object) *world {
	for _, obj := range objects {
		w.o.Live[ref(obj)] = obj
		if ns, ok := obj.(*corev1.Namespace); ok {
			w.o.Namespaces[ns.Name] = Namespace{Terminating: ns.DeletionTimestamp != nil}
		}
	}
	return w
}

func (w *world) with(change func(*Observed)) *world {
	change(&w.o)
	return w
}

func ours[T api.Object](obj T) T { return made(obj, "default") }

func deleted[T api.Object](obj T) T {
	now := metav1.Now()
	obj.SetDeletionTimestamp(&now)
	return obj
}

func controlled[T api.Object](obj T) T {
	yes := true
	obj.SetOwnerReferences([]metav1.OwnerReference{{Kind: "Deployment", Name: "web", Controller: &yes}})
	return obj
}

func many(n int) (objects []api.Object) {
	for i := range n {
		objects = append(objects, ours(configMap(fmt.Sprintf("c%02d", i), "1")))
	}
	return objects
}

func TestPlan(t *testing.T) {
	tests := []struct {
		name string
		in   *world
		want string
	}{
		{"an empty store gets everything, in order", given().wants(deployment("web", "nginx:1"), configMap("config", "1"), namespace("shop")), `
+ Namespace shop (shop.yaml:1)
+ ConfigMap shop/config (config.yaml:1)
+ Deployment shop/web (web.yaml:1)
3 to create
`},
		{"what is as wanted stays", given().wants(namespace("shop"), configMap("config", "1")).has(ours(namespace("shop")), ours(configMap("config", "1"))), `
= Namespace shop (shop.yaml:1)
= ConfigMap shop/config (config.yaml:1)
2 unchanged
`},
		{"a changed field is shown", given().wants(namespace("shop"), deployment("web", "nginx:2")).has(ours(namespace("shop")), ours(deployment("web", "nginx:1"))), `
= Namespace shop (shop.yaml:1)
~ Deployment shop/web: spec.template.spec.containers[0].image: nginx:1 → nginx:2
1 to update, 1 unchanged
`},
		{"a secret's value is not", given().wants(namespace("shop"), &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: "s"}, Data: map[string][]byte{"password": []byte("new")}}).
			has(ours(namespace("shop")), ours(&corev1.Secret{ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: "s"}, Data: map[string][]byte{"password": []byte("old")}})), `
= Namespace shop (shop.yaml:1)
~ Secret shop/s: data.password: changed
1 to update, 1 unchanged
`},
		{"a line that moved is no change", given().wants(namespace("shop"), configMap("config", "1")).has(ours(namespace("shop")), ours(configMap("config", "1"))).with(func(o *Observed) {
			o.Previews[ref(configMap("config", ""))].Object.GetAnnotations()[api.AnnotationOrigin] = "config.yaml:9@1111111"
		}), `
= Namespace shop (shop.yaml:1)
= ConfigMap shop/config (config.yaml:1)
2 unchanged
`},
		{"who owns a field is a change", given().wants(namespace("shop"), configMap("config", "1")).has(ours(namespace("shop")), ours(configMap("config", "1"))).with(func(o *Observed) {
			o.Previews[ref(configMap("config", ""))].Object.GetManagedFields()[0].FieldsV1 = metav1.NewFieldsV1(`{"f:data":{}}`)
		}), `
= Namespace shop (shop.yaml:1)
~ ConfigMap shop/config: takes ownership of its fields
1 to update, 1 unchanged
`},
		{"a status written meanwhile is no change", given().wants(namespace("shop"), deployment("web", "nginx:1")).has(ours(namespace("shop")), ours(deployment("web", "nginx:1"))).with(func(o *Observed) {
			if d, ok := o.Previews[ref(deployment("web", ""))].Object.(*appsv1.Deployment); ok {
				d.Generation, d.Status.Replicas = 2, 1
			}
		}), `
= Namespace shop (shop.yaml:1)
= Deployment shop/web (web.yaml:1)
2 unchanged
`},
		{"without a preview nothing differs", given().wants(namespace("shop"), configMap("config", "2")).has(ours(namespace("shop")), ours(configMap("config", "1"))).
			with(func(o *Observed) { clear(o.Previews) }), `
= Namespace shop (shop.yaml:1)
= ConfigMap shop/config (config.yaml:1)
2 unchanged
`},
		{"what left the tree goes, backwards", given().wants(namespace("shop")).
			has(ours(namespace("shop")), ours(configMap("config", "1")), ours(deployment("web", "nginx:1")), ours(namespace("old"))), `
= Namespace shop (shop.yaml:1)
- Deployment shop/web
- ConfigMap shop/config
- Namespace old
3 to delete, 1 unchanged
`},
		{"what Git did not make stays", given().wants(namespace("shop")).
			has(ours(namespace("shop")), configMap("by-hand", "1"), made(configMap("theirs", "1"), "other"), controlled(ours(configMap("copied", "1"))),
				&corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: "annotated", Annotations: map[string]string{api.AnnotationSource: "default"}}}), `
= Namespace shop (shop.yaml:1)
1 unchanged
`},
		{"an empty tree prunes nothing", given().has(many(3)...), `
the tree holds no objects, and 3 were made from it: nothing is pruned; to remove them, delete their manifests while at least one object stays
nothing to do
`},
		{"an empty tree over an empty store is nothing to do", given(), `
nothing to do
`},
		{"half of ten may go", given().wants(namespace("shop")).wants(many(4)...).has(ours(namespace("shop"))).has(many(9)...), `
= Namespace shop (shop.yaml:1)
= ConfigMap shop/c00 (c00.yaml:1)
= ConfigMap shop/c01 (c01.yaml:1)
= ConfigMap shop/c02 (c02.yaml:1)
= ConfigMap shop/c03 (c03.yaml:1)
- ConfigMap shop/c04
- ConfigMap shop/c05
- ConfigMap shop/c06
- ConfigMap shop/c07
- ConfigMap shop/c08
5 to delete, 5 unchanged
`},
		{"more than half of ten wait", given().wants(namespace("shop")).wants(many(3)...).has(ours(namespace("shop"))).has(many(9)...), `
= Namespace shop (shop.yaml:1)
= ConfigMap shop/c00 (c00.yaml:1)
= ConfigMap shop/c01 (c01.yaml:1)
= ConfigMap shop/c02 (c02.yaml:1)
- ConfigMap shop/c03: waits for confirmation: part of a mass deletion
- ConfigMap shop/c04: waits for confirmation: part of a mass deletion
- ConfigMap shop/c05: waits for confirmation: part of a mass deletion
- ConfigMap shop/c06: waits for confirmation: part of a mass deletion
- ConfigMap shop/c07: waits for confirmation: part of a mass deletion
- ConfigMap shop/c08: waits for confirmation: part of a mass deletion
deleting 6 of 10 objects waits for confirmation
6 to delete, 4 unchanged
`},
		{"what was made since the question does not answer it", given().wants(namespace("shop")).wants(many(7)...).has(ours(namespace("shop"))).has(many(13)...).with(func(o *Observed) { o.Asked = 10 }), `
= Namespace shop (shop.yaml:1)
= ConfigMap shop/c00 (c00.yaml:1)
= ConfigMap shop/c01 (c01.yaml:1)
= ConfigMap shop/c02 (c02.yaml:1)
= ConfigMap shop/c03 (c03.yaml:1)
= ConfigMap shop/c04 (c04.yaml:1)
= ConfigMap shop/c05 (c05.yaml:1)
= ConfigMap shop/c06 (c06.yaml:1)
- ConfigMap shop/c07: waits for confirmation: part of a mass deletion
- ConfigMap shop/c08: waits for confirmation: part of a mass deletion
- ConfigMap shop/c09: waits for confirmation: part of a mass deletion
- ConfigMap shop/c10: waits for confirmation: part of a mass deletion
- ConfigMap shop/c11: waits for confirmation: part of a mass deletion
- ConfigMap shop/c12: waits for confirmation: part of a mass deletion
deleting 6 of 10 objects waits for confirmation
6 to delete, 8 unchanged
`},
		{"more than half of nine may go", given().wants(namespace("shop")).has(ours(namespace("shop"))).has(many(2)...), `
= Namespace shop (shop.yaml:1)
- ConfigMap shop/c00
- ConfigMap shop/c01
2 to delete, 1 unchanged
`},
		{"a confirmed mass deletion goes", given().wants(namespace("shop")).has(ours(namespace("shop"))).has(many(9)...).with(func(o *Observed) { o.Confirmed = true }), `
= Namespace shop (shop.yaml:1)
- ConfigMap shop/c00
- ConfigMap shop/c01
- ConfigMap shop/c02
- ConfigMap shop/c03
- ConfigMap shop/c04
- ConfigMap shop/c05
- ConfigMap shop/c06
- ConfigMap shop/c07
- ConfigMap shop/c08
9 to delete, 1 unchanged
`},
		{"a namespace with objects of others waits", given().wants(namespace("shop")).has(ours(namespace("shop")), ours(namespace("old"))).with(func(o *Observed) {
			o.Namespaces["old"] = Namespace{Others: []Ref{refTo(api.Secrets, "old", "precious")}}
		}), `
= Namespace shop (shop.yaml:1)
- Namespace old: waits for confirmation: it holds 1 object not made by Git: Secret old/precious
deleting Namespace old waits for confirmation: it holds 1 object not made by Git: Secret old/precious
1 to delete, 1 unchanged
`},
		{"a namespace the tree still uses stays", given().wants(configMap("config", "1")).has(ours(namespace("shop")), ours(configMap("config", "1"))), `
= ConfigMap shop/config (config.yaml:1)
! Namespace/shop: is no longer in the tree, but holds 1 object of the tree: it stays
1 refused, 1 unchanged
`},
		{"what the system makes is given back, not deleted", given().wants(namespace("shop")).
			has(ours(namespace("shop")), ours(namespace("default")), ours(&corev1.ServiceAccount{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: "default"}})), `
= Namespace shop (shop.yaml:1)
- ServiceAccount default/default: kept, as it belongs to the system; only what Git set is taken back
- Namespace default: kept, as it belongs to the system; only what Git set is taken back
2 to delete, 1 unchanged
`},
		{"an object made by hand is adopted", given().wants(namespace("shop"), configMap("config", "2")).has(namespace("shop"), configMap("config", "1")), `
~ Namespace shop: adopted as it is
~ ConfigMap shop/config: adopted; data.key: 1 → 2
2 to update
`},
		{"objects of controllers, of the system and of other sources are refused", given().wants(namespace("shop"), configMap("a", "1"), configMap("b", "1"), configMap("kube-root-ca.crt", "1")).
			has(ours(namespace("shop")), controlled(configMap("a", "1")), made(configMap("b", "1"), "other"), configMap("kube-root-ca.crt", "1")), `
= Namespace shop (shop.yaml:1)
! a.yaml:1: ConfigMap/shop/a: is there already and controlled by Deployment web: choose another name
! b.yaml:1: ConfigMap/shop/b: is there already and comes from source "other" (old.yaml:1@0000000): remove it there first
! kube-root-ca.crt.yaml:1: ConfigMap/shop/kube-root-ca.crt: is there already and belongs to the system: choose another name
3 refused, 1 unchanged
`},
		{"what needs a refused object is refused too, the rest goes on", given().wants(namespace("shop"), configMap("config", "1"), withConfig(deployment("web", "nginx:1"), "config"), deployment("other", "nginx:1")).
			has(ours(namespace("shop"))).with(func(o *Observed) { o.Wants[1].Refused = "UnsupportedField: binaryData" }), `
= Namespace shop (shop.yaml:1)
+ Deployment shop/other (other.yaml:1)
! config.yaml:1: ConfigMap/shop/config: UnsupportedField: binaryData
! web.yaml:1: Deployment/shop/web: needs ConfigMap shop/config, which is not applied: UnsupportedField: binaryData
1 to create, 2 refused, 1 unchanged
`},
		{"an apply that would fail is refused", given().wants(namespace("shop"), deployment("web", "nginx:1")).has(ours(namespace("shop")), ours(deployment("web", "nginx:1"))).with(func(o *Observed) {
			o.Previews[ref(deployment("web", ""))] = Preview{Refused: "spec.selector: field is immutable"}
		}), `
= Namespace shop (shop.yaml:1)
! web.yaml:1: Deployment/shop/web: spec.selector: field is immutable
1 refused, 1 unchanged
`},
		{"a namespace nobody made", given().wants(configMap("config", "1")), `
! config.yaml:1: ConfigMap/shop/config: namespace "shop" does not exist: add a Namespace to the tree
1 refused
`},
		{"a namespace on its way out", given().wants(namespace("shop"), configMap("config", "1")).has(deleted(ours(namespace("shop")))), `
… Namespace shop: is being deleted; it is made again when it is gone
… ConfigMap shop/config: needs Namespace shop, which is not applied: is being deleted; it is made again when it is gone
nothing to do
`},
		{"a binding waits for its role's level", given().wants(
			&rbacv1.ClusterRoleBinding{ObjectMeta: metav1.ObjectMeta{Name: "b"}, RoleRef: rbacv1.RoleRef{Kind: "ClusterRole", Name: "r"}},
			&rbacv1.ClusterRole{ObjectMeta: metav1.ObjectMeta{Name: "r"}}), `
+ ClusterRole r (r.yaml:1)
+ ClusterRoleBinding b (b.yaml:1)
2 to create
`},
		{"what is not acted on is said", given().wants(namespace("shop")).has(ours(namespace("shop"))).with(func(o *Observed) {
			o.Wants[0].NotActedOn = []string{"shop.yaml:3: Namespace/shop: not acted on: spec.x"}
			o.NotActedOn = []string{"ingress.yaml:1: Ingress/shop/web: not acted on: kind Ingress"}
		}), `
= Namespace shop (shop.yaml:1)
? shop.yaml:3: Namespace/shop: not acted on: spec.x
? ingress.yaml:1: Ingress/shop/web: not acted on: kind Ingress
1 unchanged
`},
		{"a part of the tree prunes nothing", given().wants(configMap("config", "1")).has(many(12)...).with(func(o *Observed) {
			o.Prune, o.Namespaces["shop"] = false, Namespace{}
		}), `
+ ConfigMap shop/config (config.yaml:1)
1 to create
`},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			if d := cmp.Diff(strings.TrimPrefix(tt.want, "\n"), Of(tt.in.o).String()); d != "" {
				t.Errorf("plan (-want +got):\n%s", d)
			}
		})
	}
}
