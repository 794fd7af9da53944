package registry

import (
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/slipway-dev/slipway/apiserver/api"
	"github.com/slipway-dev/slipway/apiserver/store"
)

func (f *fixture) update(t testing.TB, obj api.Object, subresource string) api.Object {
	t.Helper()
	updated, err := f.admin.Update(f.ctx, obj, store.UpdateOptions{Subresource: subresource})
	if err != nil {
		t.Fatalf("update %T %s: %v", obj, obj.GetName(), err)
	}
	return updated
}

func (f *fixture) gone(t testing.TB, kind *api.Kind, namespace, name string) {
	t.Helper()
	if _, err := f.admin.Get(f.ctx, kind, namespace, name); !apierrors.IsNotFound(err) {
		t.Errorf("get %s %s: got %v, want NotFound", kind, name, err)
	}
}

func deployment(name string) *appsv1.Deployment {
	labels := map[string]string{"app": name}
	return &appsv1.Deployment{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: name}, Spec: appsv1.DeploymentSpec{
		Selector: &metav1.LabelSelector{MatchLabels: labels},
		Template: corev1.PodTemplateSpec{ObjectMeta: metav1.ObjectMeta{Labels: labels}, Spec: pod("").Spec},
	}}
}

func TestCreateRefuses(t *testing.T) {
	f := newFixture(t)
	tests := map[string]struct {
		obj  api.Object
		is   func(error) bool
		want string
	}{
		"a resourceVersion":               {&corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: "a", ResourceVersion: "1"}}, apierrors.IsBadRequest, "resourceVersion"},
		"no name":                         {&corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Namespace: "default"}}, apierrors.IsBadRequest, "name or generateName is required"},
		"no namespace":                    {&corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Name: "a"}}, apierrors.IsBadRequest, "namespace is required"},
		"a namespace that is not there":   {&corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Namespace: "none", Name: "a"}}, apierrors.IsNotFound, `namespaces "none" not found`},
		"what Kubernetes would refuse":    {&corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: "a"}}, apierrors.IsInvalid, "spec.containers: Required value"},
		"a ServiceAccount not there":      {&corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: "a"}, Spec: corev1.PodSpec{ServiceAccountName: "none", Containers: pod("").Spec.Containers}}, apierrors.IsForbidden, `error looking up service account default/none: serviceaccounts "none" not found`},
		"a Binding as an object":          {&corev1.Binding{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: "a"}}, apierrors.IsMethodNotSupported, ""},
		"external addresses of a Service": {&corev1.Service{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: "a"}, Spec: corev1.ServiceSpec{Ports: []corev1.ServicePort{{Port: 80}}, ExternalIPs: []string{"192.0.2.1"}}}, apierrors.IsForbidden, "externalIPs"},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			_, err := f.admin.Create(f.ctx, test.obj, store.CreateOptions{})
			if err == nil || !test.is(err) || !strings.Contains(err.Error(), test.want) {
				t.Errorf("got %v, want %q", err, test.want)
			}
		})
	}
}

func TestCreateCompletes(t *testing.T) {
	f := newFixture(t)
	d := deployment("web")
	d.Status.Replicas, d.Generation, d.UID = 7, 9, "mine"
	got := f.create(t, d).(*appsv1.Deployment)
	if got.Status.Replicas != 0 || got.Generation != 1 || got.UID == "mine" || *got.Spec.Replicas != 1 {
		t.Errorf("Deployment: %+v %+v", got.ObjectMeta, got.Status)
	}
	cm := f.create(t, &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: "a"}})
	if cm.GetGeneration() != 0 {
		t.Errorf("a ConfigMap has generation %d", cm.GetGeneration())
	}
	node := f.create(t, &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: "n"}, Status: corev1.NodeStatus{Phase: corev1.NodeRunning}}).(*corev1.Node)
	if node.Status.Phase != corev1.NodeRunning {
		t.Error("a Node lost the status it was made with")
	}
	secret := f.create(t, &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: "s"},
		Data: map[string][]byte{"a": []byte("1")}, StringData: map[string]string{"a": "2", "b": "3"}}).(*corev1.Secret)
	if diff := cmp.Diff(map[string][]byte{"a": []byte("2"), "b": []byte("3")}, secret.Data); diff != "" || secret.StringData != nil || secret.Type != corev1.SecretTypeOpaque {
		t.Errorf("Secret %+v:\n%s", secret, diff)
	}
	ns := f.create(t, &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: "shop"}}).(*corev1.Namespace)
	if ns.Status.Phase != corev1.NamespaceActive || ns.Labels[corev1.LabelMetadataName] != "shop" || !cmp.Equal(ns.Spec.Finalizers, []corev1.FinalizerName{"kubernetes"}) {
		t.Errorf("Namespace: %+v", ns)
	}
}

func TestGenerateName(t *testing.T) {
	f := newFixture(t)
	seen := map[string]bool{}
	for range 20 {
		p := pod("")
		p.GenerateName = "web-"
		name := f.create(t, p).GetName()
		if len(name) != len("web-")+5 || !strings.HasPrefix(name, "web-") || seen[name] {
			t.Errorf("name %q, seen before: %t", name, seen[name])
		}
		seen[name] = true
	}
	if got := generateName(strings.Repeat("x", 80)); len(got) != 63 {
		t.Errorf("a generated name has %d characters", len(got))
	}
}

func TestPodGetsItsToken(t *testing.T) {
	no := false
	tests := map[string]struct {
		change func(*corev1.Pod, *corev1.ServiceAccount)
		mounts []string // paths, per container
		volume bool
	}{
		"by default":              {func(*corev1.Pod, *corev1.ServiceAccount) {}, []string{tokenMountPath, tokenMountPath}, true},
		"not if the Pod says so":  {func(p *corev1.Pod, _ *corev1.ServiceAccount) { p.Spec.AutomountServiceAccountToken = &no }, []string{"", ""}, false},
		"not if the account does": {func(_ *corev1.Pod, a *corev1.ServiceAccount) { a.AutomountServiceAccountToken = &no }, []string{"", ""}, false},
		"not over another volume": {func(p *corev1.Pod, _ *corev1.ServiceAccount) {
			p.Spec.Volumes = []corev1.Volume{{Name: "mine"}}
			p.Spec.Containers[0].VolumeMounts = []corev1.VolumeMount{{Name: "mine", MountPath: tokenMountPath}}
		}, []string{tokenMountPath, tokenMountPath}, true},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			f := newFixture(t)
			account := &corev1.ServiceAccount{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: "web"}, ImagePullSecrets: []corev1.LocalObjectReference{{Name: "pull"}}}
			p := pod("a")
			p.Spec.ServiceAccountName = "web"
			p.Spec.InitContainers = []corev1.Container{{Name: "init", Image: "b:1"}}
			test.change(p, account)
			f.create(t, account)
			got := f.create(t, p).(*corev1.Pod)
			var mounts []string
			for _, c := range append(got.Spec.Containers, got.Spec.InitContainers...) {
				path := ""
				for _, m := range c.VolumeMounts {
					path = m.MountPath
				}
				mounts = append(mounts, path)
			}
			if diff := cmp.Diff(test.mounts, mounts); diff != "" {
				t.Errorf("mounts (-want +got):\n%s", diff)
			}
			volume := false
			for _, v := range got.Spec.Volumes {
				volume = volume || strings.HasPrefix(v.Name, tokenVolumePrefix) && len(v.Projected.Sources) == 3
			}
			if volume != test.volume {
				t.Errorf("token volume: got %t, want %t", volume, test.volume)
			}
			if !cmp.Equal(got.Spec.ImagePullSecrets, account.ImagePullSecrets) {
				t.Errorf("pull secrets: %v", got.Spec.ImagePullSecrets)
			}
		})
	}
}

func TestPodWaitsForTheDefaultAccount(t *testing.T) {
	f := newFixture(t)
	f.create(t, &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: "shop"}})
	created := make(chan error)
	go func() {
		p := pod("a")
		p.Namespace = "shop"
		_, err := f.admin.Create(f.ctx, p, store.CreateOptions{})
		created <- err
	}()
	f.create(t, &corev1.ServiceAccount{ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: "default"}})
	if err := <-created; err != nil {
		t.Error(err)
	}
}

func TestUpdateCountsGenerations(t *testing.T) {
	f := newFixture(t)
	d := f.create(t, deployment("web")).(*appsv1.Deployment)
	steps := []struct {
		name        string
		subresource string
		change      func(*appsv1.Deployment)
		want        int64
	}{
		{"labels do not count", "", func(d *appsv1.Deployment) { d.Labels = map[string]string{"a": "b"} }, 1},
		{"spec counts", "", func(d *appsv1.Deployment) { *d.Spec.Replicas = 3 }, 2},
		{"a Deployment's annotations count", "", func(d *appsv1.Deployment) { d.Annotations = map[string]string{"a": "b"} }, 3},
		{"status does not count", "status", func(d *appsv1.Deployment) { d.Status.Replicas = 3; *d.Spec.Replicas = 9 }, 3},
		{"annotations beside status do not count", "status", func(d *appsv1.Deployment) { d.Annotations = map[string]string{"a": "c"} }, 3},
		{"status without the subresource is not written", "", func(d *appsv1.Deployment) { d.Status.Replicas = 9; d.Generation = 17 }, 3},
	}
	for _, step := range steps {
		d = d.DeepCopy()
		step.change(d)
		d = f.update(t, d, step.subresource).(*appsv1.Deployment)
		if d.Generation != step.want {
			t.Errorf("%s: generation %d, want %d", step.name, d.Generation, step.want)
		}
	}
	if *d.Spec.Replicas != 3 || d.Status.Replicas != 3 || d.Annotations["a"] != "c" {
		t.Errorf("spec %d, status %d, annotations %v", *d.Spec.Replicas, d.Status.Replicas, d.Annotations)
	}
	slice := f.create(t, &discoveryv1.EndpointSlice{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: "a"}, AddressType: discoveryv1.AddressTypeIPv4}).(*discoveryv1.EndpointSlice).DeepCopy()
	slice.Endpoints = []discoveryv1.Endpoint{{Addresses: []string{"10.0.0.1"}}}
	if got := f.update(t, slice, "").GetGeneration(); got != 2 {
		t.Errorf("EndpointSlice: generation %d, want 2", got)
	}
}

func TestUpdateKeepsWhatItCannotChange(t *testing.T) {
	f := newFixture(t)
	old := f.create(t, deployment("web")).(*appsv1.Deployment)
	f.clock.now = f.clock.now.Add(time.Hour)
	d := deployment("web") // as a client would send it that knows nothing of the stored one
	d.CreationTimestamp = metav1.NewTime(f.clock.now)
	d.DeletionTimestamp = &d.CreationTimestamp
	d.Spec.MinReadySeconds = 1
	got := f.update(t, d, "").(*appsv1.Deployment)
	if got.UID != old.UID || !got.CreationTimestamp.Equal(&old.CreationTimestamp) || got.DeletionTimestamp != nil || got.Generation != 2 {
		t.Errorf("%+v", got.ObjectMeta)
	}
}

func TestUpdateOfNothingNewWritesNothing(t *testing.T) {
	f := newFixture(t)
	objects := []api.Object{
		deployment("web"), pod("a"), svc("s", corev1.ServiceTypeNodePort),
		&corev1.Secret{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: "s"}, StringData: map[string]string{"a": "b"}},
	}
	for _, obj := range objects {
		first := f.create(t, obj)
		if got := f.update(t, first.DeepCopyObject().(api.Object), ""); got.GetResourceVersion() != first.GetResourceVersion() {
			t.Errorf("%T: an equal update was written", obj)
		}
		if _, isPod := obj.(*corev1.Pod); isPod {
			continue // its manifest lacks the token volume, which cannot be taken away
		}
		obj.SetResourceVersion("")
		if got := f.update(t, obj, ""); got.GetResourceVersion() != first.GetResourceVersion() {
			t.Errorf("%T: the manifest it was made from was written again:\n%s", obj, cmp.Diff(first, got))
		}
	}
	p, err := store.Get[*corev1.Pod](f.ctx, f.admin, "default", "a")
	if err != nil {
		t.Fatal(err)
	}
	if got := f.update(t, p.DeepCopy(), "status"); got.GetResourceVersion() != p.ResourceVersion {
		t.Error("an equal status was written")
	}
}

func TestUpdateConflicts(t *testing.T) {
	f := newFixture(t)
	old := f.create(t, deployment("web")).(*appsv1.Deployment)
	other := old.DeepCopy()
	other.UID = "another"
	if _, err := f.admin.Update(f.ctx, other, store.UpdateOptions{}); !apierrors.IsConflict(err) {
		t.Errorf("another uid: got %v, want Conflict", err)
	}
	newer := old.DeepCopy()
	newer.Spec.MinReadySeconds = 1
	f.update(t, newer, "")
	if _, err := f.admin.Update(f.ctx, newer, store.UpdateOptions{}); !apierrors.IsConflict(err) {
		t.Errorf("an old resourceVersion: got %v, want Conflict", err)
	}
	bad := old.DeepCopy()
	bad.ResourceVersion = "x"
	if _, err := f.admin.Update(f.ctx, bad, store.UpdateOptions{}); !apierrors.IsInvalid(err) {
		t.Errorf("resourceVersion x: got %v, want Invalid", err)
	}
	selector := deployment("web")
	selector.Spec.Selector.MatchLabels["b"], selector.Spec.Template.Labels["b"] = "c", "c"
	_, err := f.admin.Update(f.ctx, selector, store.UpdateOptions{})
	if status, ok := err.(apierrors.APIStatus); !ok || !apierrors.IsInvalid(err) || status.Status().Details.Causes[0].Field != "spec.selector" {
		t.Errorf("another selector: got %v, want Invalid with cause spec.selector", err)
	}
	if _, err := f.admin.Update(f.ctx, old, store.UpdateOptions{Subresource: "scale"}); !apierrors.IsNotFound(err) {
		t.Errorf("subresource scale: got %v, want NotFound", err)
	}
}

func TestPatchTypes(t *testing.T) {
	f := newFixture(t)
	f.create(t, deployment("web"))
	patches := map[types.PatchType]string{
		types.JSONPatchType:           `[{"op":"add","path":"/spec/minReadySeconds","value":1}]`,
		types.MergePatchType:          `{"spec":{"minReadySeconds":2}}`,
		types.StrategicMergePatchType: `{"spec":{"minReadySeconds":3,"template":{"spec":{"containers":[{"name":"main","image":"x:2"}]}}}}`,
	}
	for kind, data := range patches {
		got, err := f.admin.Patch(f.ctx, api.Deployments, "default", "web", store.Patch{Type: kind, Data: []byte(data)})
		if err != nil {
			t.Errorf("%s: %v", kind, err)
		} else if got.(*appsv1.Deployment).Spec.MinReadySeconds == 0 {
			t.Errorf("%s changed nothing", kind)
		}
	}
	status, err := f.admin.Patch(f.ctx, api.Deployments, "default", "web", store.Patch{Type: types.MergePatchType, Subresource: "status",
		Data: []byte(`{"status":{"replicas":5},"spec":{"minReadySeconds":99},"metadata":{"labels":{"x":"y"}}}`)})
	if err != nil {
		t.Fatal(err)
	}
	if d := status.(*appsv1.Deployment); d.Status.Replicas != 5 || d.Spec.MinReadySeconds == 99 || d.Labels["x"] != "" {
		t.Errorf("a status patch wrote %+v", d)
	}
}

// TestTimesReadBackAsTheyWereWritten: the fixture's store reports an object that differs from its stored form.
func TestTimesReadBackAsTheyWereWritten(t *testing.T) {
	f := newFixture(t)
	p := f.create(t, pod("a")).(*corev1.Pod).DeepCopy()
	exact := metav1.NewTime(f.clock.now)
	p.Status.StartTime = &exact
	p.Status.Conditions = []corev1.PodCondition{{Type: corev1.PodReady, Status: corev1.ConditionFalse, LastTransitionTime: exact}}
	p.Status.ContainerStatuses = []corev1.ContainerStatus{{Name: "main", State: corev1.ContainerState{Running: &corev1.ContainerStateRunning{StartedAt: exact}}}}
	got := f.update(t, p, "status").(*corev1.Pod)
	if got.Status.StartTime.Nanosecond() != 0 || p.Status.StartTime.Nanosecond() == 0 {
		t.Errorf("stored %v, argument %v", got.Status.StartTime, p.Status.StartTime)
	}
	p.ResourceVersion = ""
	if again := f.update(t, p, "status"); again.GetResourceVersion() != got.ResourceVersion {
		t.Error("the same status was written again")
	}
}

func TestClusterKindsLoseTheirNamespace(t *testing.T) {
	f := newFixture(t)
	named := metav1.ObjectMeta{Namespace: "default", Name: "a"}
	if got := f.create(t, &corev1.Node{ObjectMeta: named}); got.GetNamespace() != "" {
		t.Errorf("created in %q", got.GetNamespace())
	}
	if got := f.update(t, &corev1.Node{ObjectMeta: named, Spec: corev1.NodeSpec{Unschedulable: true}}, ""); got.GetNamespace() != "" {
		t.Errorf("updated in %q", got.GetNamespace())
	}
	const manifest = "apiVersion: rbac.authorization.k8s.io/v1\nkind: ClusterRole\nmetadata: {name: r, namespace: x}\nrules: []\n"
	for range 2 {
		if got := f.apply(t, api.ClusterRoles, "r", apply(manifest, api.ManagerGit)); got.GetNamespace() != "" {
			t.Errorf("applied in %q", got.GetNamespace())
		}
	}
}
