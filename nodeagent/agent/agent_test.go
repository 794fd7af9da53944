package agent

import (
	"context"
	"fmt"

	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	authenticationv1 "k8s.io/api/authentication/v1"
	coordinationv1 "k8s.io/api/coordination/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/slipway-dev/slipway/apiserver/api"
	"github.com/slipway-dev/slipway/apiserver/store"
	"github.com/slipway-dev/slipway/nodeagent/engine"
)

// issuer makes tokens for tests.
type issuer struct{}

func (issuer) Issue(account *corev1.ServiceAccount, _ *authenticationv1.BoundObjectReference, _ []string, ttl time.Duration) (string, time.Time, error) {
	return "token-of-" + account.Name, time.Now().Add(ttl), nil
}

// recorder keeps events.
type recorder struct {
	mu     sync.Mutex
	events []string
}

func (r *recorder) Event(obj api.Object, _, reason, message string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.events = append(r.events, reason+": "+message)
}

func (r *recorder) all() []string {
	r.mu.Lock()
	defer r.mu.Unlock()
	return slices.Clone(r.events)
}

func modelRig(t testing.TB) (*rig, *modelEngine, *modelNetwork) {
	e, n := newModelEngine("app:1", "init:1", "other:1"), &modelNetwork{pods: map[string]string{}}
	return newRig(t, e, n), e, n
}

func TestPodRunsAndIsDeleted(t *testing.T) {
	r, e, n := modelRig(t)
	events := &recorder{}
	r.config.Events = events
	r.begin()
	r.create(bound("web", func(s *corev1.PodSpec) {
		s.InitContainers = []corev1.Container{{Name: "prep", Image: "init:1", ImagePullPolicy: corev1.PullIfNotPresent}}
		s.Volumes = []corev1.Volume{{Name: "v", VolumeSource: corev1.VolumeSource{EmptyDir: &corev1.EmptyDirVolumeSource{}}}}
		s.Containers[0].VolumeMounts = []corev1.VolumeMount{{Name: "v", MountPath: "/v"}}
	}))
	r.until("initialising", "web", func(p *corev1.Pod) bool {
		return len(p.Status.InitContainerStatuses) == 1 && p.Status.InitContainerStatuses[0].State.Running != nil
	})
	if err := e.exit(e.only(t, "prep"), 0); err != nil {
		t.Fatal(err)
	}
	p := r.until("ready", "web", isReady)
	if p.Status.PodIP != "10.244.0.1" || p.Status.HostIP != "192.0.2.1" || p.Status.Phase != corev1.PodRunning {
		t.Errorf("status %+v", p.Status)
	}
	r.delete("web")
	r.until("deleted", "web", nil)
	if list, _ := e.List(t.Context()); len(list) != 0 {
		t.Errorf("containers left: %v", list)
	}
	r.waitFor("the worker ended", func() bool { r.agent.mu.Lock(); defer r.agent.mu.Unlock(); return len(r.agent.workers) == 0 })
	if list, _ := n.List(t.Context()); len(list) != 0 || containersFolder(r.config.DataDir) != 0 {
		t.Errorf("sandboxes left: %v, folders %d", list, containersFolder(r.config.DataDir))
	}
	want := []string{
		`Pulled: Container image "init:1" already present on machine`, "Created: Created container: prep", "Started: Started container prep",
		`Pulled: Container image "app:1" already present on machine`, "Created: Created container: main", "Started: Started container main", "Killing: Stopping container main",
	}
	got := events.all()
	slices.Sort(want)
	slices.Sort(got)
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("events (-want +got):\n%s", diff)
	}
}

func TestCrashRestartsAndBackOffIsShown(t *testing.T) {
	r, e, _ := modelRig(t)
	r.begin()
	r.create(bound("web"))
	first := r.until("ready", "web", isReady)
	if err := e.exit(e.only(t, "main"), 3); err != nil {
		t.Fatal(err)
	}
	p := r.until("restarted", "web", func(p *corev1.Pod) bool { return isReady(p) && p.Status.ContainerStatuses[0].RestartCount == 1 })
	s := p.Status.ContainerStatuses[0]
	if s.ContainerID == first.Status.ContainerStatuses[0].ContainerID || s.LastTerminationState.Terminated == nil || s.LastTerminationState.Terminated.ExitCode != 3 {
		t.Errorf("status after a crash: %s", describe(p))
	}
	if err := e.exit(e.only(t, "main"), 4); err != nil {
		t.Fatal(err)
	}
	r.until("in back-off", "web", waits("CrashLoopBackOff"))
	r.delete("web")
	r.until("deleted", "web", nil)
}

func TestRestartedAgentReadopts(t *testing.T) {
	r, e, _ := modelRig(t)
	r.begin()
	r.create(bound("web"))
	r.create(bound("gone"))
	before := r.until("ready", "web", isReady)
	r.until("ready", "gone", isReady)
	r.end()
	if _, err := r.admin.Delete(t.Context(), api.Pods, "shop", "gone", store.DeleteOptions{GracePeriodSeconds: new(int64)}); err != nil {
		t.Fatal(err)
	}
	r.begin()
	r.create(bound("new"))
	r.until("ready", "new", isReady)
	r.waitFor("the containers of the Pod that went meanwhile are removed", func() bool { return len(e.names()) == 2 && slices.Contains(e.names(), "web/main/0") })
	after := r.until("ready", "web", isReady)
	if diff := cmp.Diff(before.Status, after.Status); diff != "" || before.ResourceVersion != after.ResourceVersion {
		t.Errorf("written from revision %s to %s by the agent's restart:\n%s", before.ResourceVersion, after.ResourceVersion, diff)
	}
}

// names returns pod/container/attempt of every container.
func (e *modelEngine) names() []string {
	list, _ := e.List(context.Background())
	var out []string
	for _, s := range list {
		out = append(out, s.Labels["io.kubernetes.pod.name"]+"/"+s.Labels["io.kubernetes.container.name"]+"/"+s.Labels["slipway.dev/attempt"])
	}
	slices.Sort(out)
	return out
}

// waitFor looks until something outside the API is so.
func (r *rig) waitFor(what string, is func() bool) {
	r.t.Helper()
	deadline := time.After(patience)
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for !is() {
		select {
		case <-tick.C:
		case <-deadline:
			r.t.Fatalf("not seen: %s", what)
		}
	}
}

func TestWaitingReasons(t *testing.T) {
	r, e, _ := modelRig(t)
	e.badStart["other:1"] = true
	r.begin()
	image := func(ref string, policy corev1.PullPolicy) func(*corev1.PodSpec) {
		return func(s *corev1.PodSpec) { s.Containers[0].Image, s.Containers[0].ImagePullPolicy = ref, policy }
	}
	r.create(bound("nopull", image("none:1", corev1.PullIfNotPresent)))
	r.create(bound("never", image("none:1", corev1.PullNever)))
	r.create(bound("badstart", image("other:1", corev1.PullIfNotPresent), func(s *corev1.PodSpec) { s.RestartPolicy = corev1.RestartPolicyNever }))
	r.create(bound("noconfig", func(s *corev1.PodSpec) {
		s.Containers[0].EnvFrom = []corev1.EnvFromSource{{ConfigMapRef: &corev1.ConfigMapEnvSource{LocalObjectReference: corev1.LocalObjectReference{Name: "settings"}}}}
	}))
	r.create(bound("big", func(s *corev1.PodSpec) {
		s.Containers[0].Resources.Requests = corev1.ResourceList{corev1.ResourceCPU: resource.MustParse("4000")}
	}))
	r.until("failing to pull", "nopull", waits("ErrImagePull"))
	r.until("without image", "never", waits("ErrImageNeverPull"))
	p := r.until("failed", "badstart", inPhase(corev1.PodFailed))
	if s := p.Status.ContainerStatuses[0].State.Terminated; s == nil || s.Reason != "StartError" || s.ExitCode != 128 || !strings.Contains(s.Message, "no such file") {
		t.Errorf("bad start: %s", describe(p))
	}
	if p := r.until("refused", "big", inPhase(corev1.PodFailed)); p.Status.Reason != "OutOfcpu" {
		t.Errorf("too big: %s", describe(p))
	}
	r.until("waiting for its ConfigMap", "noconfig", waits("CreateContainerConfigError"))
	r.create(&corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Name: "settings", Namespace: "shop"}, Data: map[string]string{"COLOR": "blue"}})
	r.until("ready once it is there", "noconfig", isReady)
	e.mu.Lock()
	defer e.mu.Unlock()
	for _, spec := range e.specs {
		if spec.Labels["io.kubernetes.pod.name"] == "noconfig" && !slices.Contains(spec.Env, "COLOR=blue") {
			t.Errorf("environment %v", spec.Env)
		}
	}
}

func TestTerminationWaitsForProxyThenGrace(t *testing.T) {
	r, e, _ := modelRig(t)
	e.stubborn = true
	proxy := &slowProxy{asked: make(chan string, 1), settle: make(chan struct{})}
	r.config.Proxy = proxy
	r.begin()
	r.create(bound("web", func(s *corev1.PodSpec) { one := int64(1); s.TerminationGracePeriodSeconds = &one }))
	r.until("ready", "web", isReady)
	r.delete("web")
	if ip := <-proxy.asked; ip != "10.244.0.1" {
		t.Errorf("drained %s", ip)
	}
	e.mu.Lock()
	if len(e.signals) > 0 {
		t.Errorf("signals %v before the proxy settled", e.signals)
	}
	e.mu.Unlock()
	close(proxy.settle)
	r.until("deleted", "web", nil)
	if diff := cmp.Diff([]string{"0", "9"}, e.signals); diff != "" {
		t.Errorf("signals (-want +got):\n%s", diff)
	}
}

// TestTerminationDoesNotWaitForEver: a proxy that never settles holds a Pod back no longer than its grace period.
func TestTerminationDoesNotWaitForEver(t *testing.T) {
	r, e, _ := modelRig(t)
	r.config.Proxy = &slowProxy{asked: make(chan string, 1), settle: make(chan struct{})}
	r.begin()
	r.create(bound("web", func(s *corev1.PodSpec) { one := int64(1); s.TerminationGracePeriodSeconds = &one }))
	r.until("ready", "web", isReady)
	r.delete("web")
	r.until("deleted", "web", nil)
	if diff := cmp.Diff([]string{"0"}, e.signals); diff != "" {
		t.Errorf("signals (-want +got):\n%s", diff)
	}
}

// TestContainerEndsOnAFullDisk: what cannot be noted is no reason to ask again and again, and never to kill.
func TestContainerEndsOnAFullDisk(t *testing.T) {
	r, e, _ := modelRig(t)
	e.stubborn = true
	r.begin()
	r.create(bound("web", func(s *corev1.PodSpec) { one := int64(1); s.TerminationGracePeriodSeconds = &one }))
	p := r.until("ready", "web", isReady)
	if err := os.WriteFile(filepath.Join(r.config.DataDir, "pods", string(p.UID), "asked"), nil, 0o600); err != nil { // no folder can be made
		t.Fatal(err)
	}
	r.delete("web")
	r.until("deleted", "web", nil)
	if diff := cmp.Diff([]string{"0", "9"}, e.signals); diff != "" {
		t.Errorf("signals (-want +got):\n%s", diff)
	}
}

// TestAgentThatStartsAgainAsksNobodyTwice: a program may take a second signal as an order to drop what it is finishing.
// The proxy is waited for again, whatever is left in memory of the Pod's address, and the grace goes on from the signal.
func TestAgentThatStartsAgainAsksNobodyTwice(t *testing.T) {
	r, e, _ := modelRig(t)
	e.stubborn = true
	proxy := &slowProxy{asked: make(chan string, 2), settle: make(chan struct{})}
	close(proxy.settle)
	r.config.Proxy = proxy
	r.begin()
	r.create(bound("web", func(s *corev1.PodSpec) { two := int64(2); s.TerminationGracePeriodSeconds = &two }))
	r.until("ready", "web", isReady)
	r.delete("web")
	asked := func() bool { e.mu.Lock(); defer e.mu.Unlock(); return len(e.signals) > 0 }
	r.waitFor("the signal", asked)
	r.end()
	r.begin()
	r.until("deleted", "web", nil)
	if diff := cmp.Diff([]string{"0", "9"}, e.signals); diff != "" {
		t.Errorf("signals (-want +got):\n%s", diff)
	}
	for range 2 {
		if ip := <-proxy.asked; ip != "10.244.0.1" {
			t.Errorf("drained %s", ip)
		}
	}
}

type slowProxy struct {
	asked  chan string
	settle chan struct{}
}

func (p *slowProxy) Settled(ctx context.Context, pod *corev1.Pod) error {
	p.asked <- pod.Status.PodIP
	select {
	case <-p.settle:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

func TestJobEndsWithItsMessage(t *testing.T) {
	r, e, n := modelRig(t)
	r.begin()
	r.create(bound("job", func(s *corev1.PodSpec) { s.RestartPolicy = corev1.RestartPolicyNever }))
	p := r.until("ready", "job", isReady)
	file := filepath.Join(r.config.DataDir, "pods", string(p.UID), "containers", "main", "0")
	if err := os.WriteFile(file, []byte("42 rows"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := e.exit(e.only(t, "main"), 0); err != nil {
		t.Fatal(err)
	}
	p = r.until("done", "job", inPhase(corev1.PodSucceeded))
	if s := p.Status.ContainerStatuses[0].State.Terminated; s == nil || s.Message != "42 rows" || s.Reason != "Completed" {
		t.Errorf("status %s", describe(p))
	}
	r.waitFor("the sandbox is torn down", func() bool { list, _ := n.List(t.Context()); return len(list) == 0 })
	if len(e.names()) != 1 {
		t.Errorf("containers %v, want the ended one kept", e.names())
	}
	if p.Status.PodIP == "" {
		t.Error("the address is gone from the status")
	}
}

func TestNodeAndLease(t *testing.T) {
	r, _, _ := modelRig(t)
	r.begin()
	r.waitFor("the node is ready and its lease renewed", func() bool {
		n, err := store.Get[*corev1.Node](t.Context(), r.admin, "", node)
		if apierrors.IsNotFound(err) {
			return false
		}
		l, errLease := store.Get[*coordinationv1.Lease](t.Context(), r.admin, "kube-node-lease", node)
		ready := err == nil && slices.ContainsFunc(n.Status.Conditions, func(c corev1.NodeCondition) bool {
			return c.Type == corev1.NodeReady && c.Status == corev1.ConditionTrue
		})
		return ready && errLease == nil && *l.Spec.HolderIdentity == node && n.Status.Allocatable.Cpu().MilliValue() >= 1000 && n.Labels[corev1.LabelHostname] == node
	})
}

// BenchmarkPodsUntilReady says what the agent itself takes: engine and network cost nothing here.
func BenchmarkPodsUntilReady(b *testing.B) {
	for _, count := range []int{1, 50} {
		b.Run(fmt.Sprint(count), func(b *testing.B) {
			r, _, _ := modelRig(b)
			r.config.MaxPods = 1000
			r.begin()
			for n := 0; b.Loop(); n++ {
				for i := range count {
					r.create(bound(fmt.Sprintf("p-%d-%d", n, i)))
				}
				for i := range count {
					r.until("ready", fmt.Sprintf("p-%d-%d", n, i), isReady)
				}
				b.StopTimer()
				for i := range count {
					r.delete(fmt.Sprintf("p-%d-%d", n, i))
				}
				for i := range count {
					r.until("deleted", fmt.Sprintf("p-%d-%d", n, i), nil)
				}
				b.StartTimer()
			}
		})
	}
}

var _ engine.Engine = (*modelEngine)(nil)
