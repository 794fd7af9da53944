package agent

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/intstr"

	"github.com/slipway-dev/slipway/apiserver/store"
	"github.com/slipway-dev/slipway/nodeagent/cgroup"
	"github.com/slipway-dev/slipway/nodeagent/engine/containerd"
	"github.com/slipway-dev/slipway/nodeagent/network"
	"github.com/slipway-dev/slipway/nodeagent/network/networktest"
	"github.com/slipway-dev/slipway/nodeagent/runtime"
	"github.com/slipway-dev/slipway/testing/images"
	"github.com/slipway-dev/slipway/testing/need"
)

func TestMain(m *testing.M) { networktest.Main(m) }

const (
	testImage  = "docker.io/library/testpod:1"
	testCgroup = "/slipway-agent-test"
)

// realRig is a rig on containerd and the network of this (test's own) host. All of it is gone when the test ends.
func realRig(t testing.TB) *rig {
	t.Helper()
	bundle, dir := need.Runtime(t), t.TempDir()
	rt, err := runtime.Start(t.Context(), runtime.Config{BundleDir: bundle, StateDir: filepath.Join(dir, "containerd"), Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	background := context.Background()
	t.Cleanup(func() {
		if err := rt.Stop(background); err != nil {
			t.Errorf("stop containerd: %v", err)
		}
	})
	log := slog.New(slog.NewTextHandler(t.Output(), nil))
	e, err := containerd.New(background, containerd.Config{Address: rt.Address(), Shim: rt.Shim(), Runc: rt.Runc(),
		StateDir: filepath.Join(dir, "engine"), RunDir: filepath.Join(dir, "run"), Log: log})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = e.Close() })
	cidr := netip.MustParsePrefix("10.244.0.0/24")
	n, err := network.Open(background, network.Config{RunDir: filepath.Join(dir, "net"), PodCIDR: cidr, ClusterCIDRs: []netip.Prefix{cidr}, NodeIP: netip.MustParseAddr("10.244.0.1")})
	if err != nil {
		t.Fatal(err)
	}
	load(t, e)
	r := newRig(t, e, n)
	r.config.Log, r.runtime = log, rt
	r.config.MaxPods = 1000
	r.config.Cgroup = testCgroup
	t.Cleanup(func() { r.clear() })
	t.Cleanup(func() {
		if log, err := os.ReadFile(filepath.Join(dir, "containerd", "containerd.log")); err == nil && t.Failed() {
			t.Logf("containerd's log ends:\n%s", log[max(0, len(log)-8<<10):])
		}
	})
	return r
}

func load(t testing.TB, e *containerd.Engine) {
	t.Helper()
	image, err := images.Testpod(t.Context(), testImage)
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(t.TempDir(), "testpod.tar")
	if err := images.WriteArchive(path, image); err != nil {
		t.Fatal(err)
	}
	archive, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer archive.Close()
	if _, err := e.Load(t.Context(), archive); err != nil {
		t.Fatal(err)
	}
}

// clear removes every Pod as fast as can be, and the network.
func (r *rig) clear() {
	ctx := context.Background()
	r.end()
	list, err := r.engine.List(ctx)
	if err != nil {
		r.t.Error(err)
	}
	for _, c := range list {
		if err := r.engine.Remove(ctx, c.ID); err != nil {
			r.t.Error(err)
		}
	}
	ids, err := r.network.List(ctx)
	if err != nil {
		r.t.Error(err)
	}
	for _, id := range ids {
		if err := r.network.Teardown(ctx, id); err != nil {
			r.t.Error(err)
		}
	}
	if r.agent != nil {
		uids, err := r.agent.volumes.List()
		if err != nil {
			r.t.Error(err)
		}
		for _, uid := range uids {
			if err := r.agent.volumes.Teardown(ctx, uid); err != nil {
				r.t.Error(err)
			}
		}
	}
	patient, cancel := context.WithTimeout(ctx, time.Minute) // not every host's first process waits for its children at once
	defer cancel()
	if err := errors.Join(r.network.Close(ctx), cgroup.At(cgroup.Mount, testCgroup).Remove(patient, "")); err != nil {
		r.t.Error(err)
	}
}

func testpod(name string, args ...string) corev1.Container {
	return corev1.Container{Name: name, Image: "testpod:1", ImagePullPolicy: corev1.PullIfNotPresent, Args: args}
}

func only(c ...corev1.Container) func(*corev1.PodSpec) {
	return func(s *corev1.PodSpec) { s.Containers = c }
}

func httpProbe(path string, port int) *corev1.Probe {
	return &corev1.Probe{PeriodSeconds: 1, TimeoutSeconds: 1, SuccessThreshold: 1, FailureThreshold: 1,
		ProbeHandler: corev1.ProbeHandler{HTTPGet: &corev1.HTTPGetAction{Path: path, Port: intstr.FromInt(port)}}}
}

// get asks a Pod over HTTP.
func get(t *testing.T, url string) string {
	t.Helper()
	resp, err := http.Get(url)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return strings.TrimSpace(string(text))
}

func (r *rig) log(t *testing.T, pod *corev1.Pod, opts corev1.PodLogOptions) string {
	t.Helper()
	log, err := r.agent.Logs(t.Context(), pod, &opts)
	if err != nil {
		t.Fatal(err)
	}
	defer log.Close()
	text, err := io.ReadAll(log)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

func TestRealPods(t *testing.T) {
	r := realRig(t)
	r.begin()
	t.Run("init, two containers, volumes, environment", func(t *testing.T) { realShared(t, r) })
	t.Run("files of ConfigMaps follow", func(t *testing.T) { realUpdate(t, r) })
	t.Run("crash, logs of before", func(t *testing.T) { realCrash(t, r) })
	t.Run("liveness restarts", func(t *testing.T) { realLiveness(t, r) })
	t.Run("grace", func(t *testing.T) { realGrace(t, r) })
	t.Run("a restarted agent readopts", func(t *testing.T) { realReadopt(t, r) })
	t.Run("message from the log, start error", func(t *testing.T) { realMessages(t, r) })
	t.Run("security", func(t *testing.T) { realSecurity(t, r) })
	t.Run("pull with a secret", func(t *testing.T) { realPull(t, r) })
	t.Run("hooks", func(t *testing.T) { realHooks(t, r) })
	t.Run("part of a volume", func(t *testing.T) { realSubPath(t, r) })
	t.Run("the node's network and paths", func(t *testing.T) { realHost(t, r) })
	t.Run("containerd is killed", func(t *testing.T) { realKilledContainerd(t, r) })
	t.Run("a shim is killed", func(t *testing.T) { realKilledShim(t, r) })
	t.Run("what belongs to nobody", func(t *testing.T) { realOrphans(t, r) })
	t.Run("sidecar", func(t *testing.T) { realSidecar(t, r) })
	t.Run("nothing is left", func(t *testing.T) { realNothingLeft(t, r) })
}

func realShared(t *testing.T, r *rig) {
	r.create(&corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Name: "kube-root-ca.crt", Namespace: "shop"}, Data: map[string]string{"ca.crt": "CA"}})
	r.create(&corev1.Secret{ObjectMeta: metav1.ObjectMeta{Name: "s", Namespace: "shop"}, Data: map[string][]byte{"word": []byte("hush")}})
	p := bound("web", func(s *corev1.PodSpec) {
		s.AutomountServiceAccountToken = nil
		s.Volumes = []corev1.Volume{{Name: "data", VolumeSource: corev1.VolumeSource{EmptyDir: &corev1.EmptyDirVolumeSource{}}}}
		mount := []corev1.VolumeMount{{Name: "data", MountPath: "/data"}}
		prep, a, b := testpod("prep", "write", "/data/made", "by init"), testpod("a", "serve"), testpod("b", "serve", ":8081")
		prep.VolumeMounts, a.VolumeMounts = mount, mount
		a.Env = []corev1.EnvVar{{Name: "WORD", ValueFrom: &corev1.EnvVarSource{SecretKeyRef: &corev1.SecretKeySelector{LocalObjectReference: corev1.LocalObjectReference{Name: "s"}, Key: "word"}}},
			{Name: "WHERE", ValueFrom: &corev1.EnvVarSource{FieldRef: &corev1.ObjectFieldSelector{FieldPath: "status.podIP"}}}, {Name: "BOTH", Value: "$(WORD) at $(WHERE)"}}
		a.ReadinessProbe, b.ReadinessProbe = httpProbe("/healthz", 8080), httpProbe("/healthz", 8081)
		s.InitContainers, s.Containers = []corev1.Container{prep}, []corev1.Container{a, b}
	})
	r.create(p)
	p = r.until("ready", "web", isReady)
	base := "http://" + p.Status.PodIP + ":8080"
	if got := get(t, base+"/file?path=/data/made"); got != "by init" {
		t.Errorf("file of the init container: %q", got)
	}
	env := get(t, base+"/env")
	for _, want := range []string{"BOTH=hush at " + p.Status.PodIP, "KUBERNETES_SERVICE_HOST=10.96.0.1", "HOSTNAME=web"} {
		if !slices.Contains(strings.Split(env, "\n"), want) {
			t.Errorf("no %s in\n%s", want, env)
		}
	}
	if got := get(t, base+"/fetch?url=http://localhost:8081/"); got != "web" {
		t.Errorf("the other container over localhost says %q", got)
	}
	account := base + "/file?path=/var/run/secrets/kubernetes.io/serviceaccount/"
	if got := get(t, account+"token") + get(t, account+"ca.crt") + get(t, account+"namespace"); got != "token-of-defaultCAshop" {
		t.Errorf("token, CA and namespace: %q", got)
	}
	if got := get(t, base+"/file?path=/etc/hosts"); !strings.Contains(got, p.Status.PodIP+"\tweb") {
		t.Errorf("hosts file:\n%s", got)
	}
	if got := r.log(t, p, corev1.PodLogOptions{Container: "b"}); got != "serving on :8081\n" {
		t.Errorf("log %q", got)
	}
	get(t, base+"/fail")
	r.until("not ready any more", "web", func(p *corev1.Pod) bool { return !isReady(p) })
	get(t, base+"/fail")
	r.until("ready again", "web", isReady)
	r.delete("web")
	r.until("deleted", "web", nil)
}

func realUpdate(t *testing.T, r *rig) {
	r.create(&corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Name: "settings", Namespace: "shop"}, Data: map[string]string{"color": "red"}})
	r.create(bound("files", func(s *corev1.PodSpec) {
		s.Volumes = []corev1.Volume{{Name: "c", VolumeSource: corev1.VolumeSource{ConfigMap: &corev1.ConfigMapVolumeSource{LocalObjectReference: corev1.LocalObjectReference{Name: "settings"}}}}}
		c := testpod("main", "serve")
		c.VolumeMounts = []corev1.VolumeMount{{Name: "c", MountPath: "/c"}}
		c.ReadinessProbe = httpProbe("/healthz", 8080)
		s.Containers = []corev1.Container{c}
	}))
	p := r.until("ready", "files", isReady)
	url := "http://" + p.Status.PodIP + ":8080/file?path=/c/color"
	if got := get(t, url); got != "red" {
		t.Errorf("file says %q", got)
	}
	if _, err := r.admin.Update(t.Context(), &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Name: "settings", Namespace: "shop"}, Data: map[string]string{"color": "blue"}}, store.UpdateOptions{}); err != nil {
		t.Fatal(err)
	}
	r.waitFor("the running container sees blue", func() bool { return get(t, url) == "blue" })
	r.delete("files")
}

func realCrash(t *testing.T, r *rig) {
	r.create(bound("crash", only(testpod("main", "exit", "7"))))
	p := r.until("in back-off", "crash", waits("CrashLoopBackOff"))
	if s := p.Status.ContainerStatuses[0]; s.RestartCount != 1 || s.LastTerminationState.Terminated.ExitCode != 7 {
		t.Errorf("status %s", describe(p))
	}
	r.delete("crash")
	r.until("deleted", "crash", nil)
	r.waitFor("the logs are gone", func() bool {
		_, err := os.Stat(filepath.Join(r.config.LogDir, "shop_crash_"+string(p.UID)))
		return os.IsNotExist(err)
	})
}

func realLiveness(t *testing.T, r *rig) {
	c := testpod("main", "serve")
	c.LivenessProbe = httpProbe("/healthz", 8080)
	c.LivenessProbe.InitialDelaySeconds = 1
	r.create(bound("alive", only(c)))
	p := r.until("ready", "alive", isReady)
	address := "http://" + p.Status.PodIP + ":8080"
	r.waitFor("the server answers", func() bool { _, err := http.Get(address + "/healthz"); return err == nil })
	get(t, address+"/fail")
	p = r.until("restarted", "alive", func(p *corev1.Pod) bool { return isReady(p) && p.Status.ContainerStatuses[0].RestartCount == 1 })
	if got := r.log(t, p, corev1.PodLogOptions{Previous: true}); got != "serving on :8080\ngot terminated\n" {
		t.Errorf("previous log %q", got)
	}
	r.delete("alive")
}

func realGrace(t *testing.T, r *rig) {
	r.create(bound("stubborn", only(testpod("main", "stubborn")), func(s *corev1.PodSpec) { one := int64(1); s.TerminationGracePeriodSeconds = &one }))
	p := r.until("ready", "stubborn", isReady)
	r.waitFor("the program ignores SIGTERM", func() bool { return r.log(t, p, corev1.PodLogOptions{}) != "" })
	follow, err := r.agent.Logs(t.Context(), p, &corev1.PodLogOptions{Follow: true})
	if err != nil {
		t.Fatal(err)
	}
	defer follow.Close()
	r.delete("stubborn")
	killed := r.until("killed", "stubborn", func(p *corev1.Pod) bool { return p.Status.ContainerStatuses[0].State.Terminated != nil })
	if got := killed.Status.ContainerStatuses[0].State.Terminated.ExitCode; got != 137 {
		t.Errorf("exit code %d, want 137", got)
	}
	if _, err := io.ReadAll(follow); err != nil {
		t.Errorf("follow: %v", err)
	}
	r.until("deleted", "stubborn", nil)
}

func realReadopt(t *testing.T, r *rig) {
	c := testpod("main", "serve")
	c.ReadinessProbe = httpProbe("/healthz", 8080)
	r.create(bound("kept", only(c)))
	before := r.until("ready", "kept", isReady)
	r.end()
	r.begin()
	r.create(bound("later", only(testpod("main", "sleep"))))
	r.until("ready", "later", isReady)
	after := r.until("ready", "kept", isReady)
	if diff := cmp.Diff(before.Status, after.Status); diff != "" || before.ResourceVersion != after.ResourceVersion {
		t.Errorf("written from revision %s to %s by the agent's restart:\n%s", before.ResourceVersion, after.ResourceVersion, diff)
	}
	get(t, "http://"+after.Status.PodIP+":8080/fail")
	r.until("not ready: it is probed again", "kept", func(p *corev1.Pod) bool { return !isReady(p) })
	r.delete("kept")
	r.delete("later")
}

func realMessages(t *testing.T, r *rig) {
	never := func(s *corev1.PodSpec) { s.RestartPolicy = corev1.RestartPolicyNever }
	c := testpod("main", "cat", "/no/such/file")
	c.TerminationMessagePolicy = corev1.TerminationMessageFallbackToLogsOnError
	r.create(bound("words", only(c), never))
	bad := testpod("main")
	bad.Command = []string{"/no/such/program"}
	r.create(bound("nocommand", only(bad), never))
	p := r.until("failed", "words", inPhase(corev1.PodFailed))
	if got := p.Status.ContainerStatuses[0].State.Terminated; got.Message != "open /no/such/file: no such file or directory\n" || got.Reason != "Error" || got.ExitCode != 1 {
		t.Errorf("terminated %+v", got)
	}
	p = r.until("failed", "nocommand", inPhase(corev1.PodFailed))
	if got := p.Status.ContainerStatuses[0].State.Terminated; got.Reason != "StartError" || got.ExitCode != 128 || !strings.Contains(got.Message, "no such file") {
		t.Errorf("terminated %+v", got)
	}
	r.delete("words")
	r.delete("nocommand")
}

func realSecurity(t *testing.T, r *rig) {
	user, group, yes, no := int64(1000), int64(2000), true, false
	c := testpod("main", "id")
	c.SecurityContext = &corev1.SecurityContext{RunAsNonRoot: &yes, AllowPrivilegeEscalation: &no, Capabilities: &corev1.Capabilities{Drop: []corev1.Capability{"ALL"}}}
	restrict := func(s *corev1.PodSpec) {
		s.RestartPolicy = corev1.RestartPolicyNever
		s.SecurityContext = &corev1.PodSecurityContext{RunAsUser: &user, FSGroup: &group, SeccompProfile: &corev1.SeccompProfile{Type: corev1.SeccompProfileTypeRuntimeDefault}}
	}
	r.create(bound("strict", only(c), restrict))
	p := r.until("done", "strict", inPhase(corev1.PodSucceeded))
	text := r.log(t, p, corev1.PodLogOptions{})
	for _, want := range []string{"uid=1000", "CapEff=0000000000000000", "NoNewPrivs=1", "Seccomp=2", "2000"} {
		if !strings.Contains(text, want) {
			t.Errorf("no %s in\n%s", want, text)
		}
	}
	r.create(bound("root", only(c), func(s *corev1.PodSpec) { s.RestartPolicy = corev1.RestartPolicyNever }))
	r.until("refused to run as root", "root", waits("CreateContainerConfigError"))
	r.delete("strict")
	r.delete("root")
}

func realPull(t *testing.T, r *rig) {
	private, open, err := images.ServeRegistryWithPassword("me", "s3cret")
	if err != nil {
		t.Fatal(err)
	}
	defer private.Close()
	defer open.Close()
	image, err := images.Testpod(t.Context(), "docker.io/team/private:1")
	if err != nil {
		t.Fatal(err)
	}
	refs, err := open.Push(t.Context(), image)
	if err != nil {
		t.Fatal(err)
	}
	c := testpod("main", "sleep")
	c.Image, c.ImagePullPolicy = strings.Replace(refs[0], open.Host, private.Host, 1), corev1.PullAlways
	r.create(bound("denied", only(c)))
	p := r.until("without image", "denied", waits("ErrImagePull"))
	if message := p.Status.ContainerStatuses[0].State.Waiting.Message; !strings.Contains(message, c.Image) {
		t.Errorf("message %q does not name the image", message)
	}
	r.delete("denied")
	r.create(&corev1.Secret{ObjectMeta: metav1.ObjectMeta{Name: "pull", Namespace: "shop"}, Type: corev1.SecretTypeDockerConfigJson,
		Data: map[string][]byte{corev1.DockerConfigJsonKey: fmt.Appendf(nil, `{"auths":{%q:{"username":"me","password":"s3cret"}}}`, private.Host)}})
	r.create(bound("allowed", only(c), func(s *corev1.PodSpec) { s.ImagePullSecrets = []corev1.LocalObjectReference{{Name: "pull"}} }))
	r.until("ready", "allowed", isReady)
	r.delete("allowed")
}

func realHooks(t *testing.T, r *rig) {
	events := &recorder{}
	r.end()
	r.config.Events = events
	r.begin()
	dir := t.TempDir()
	volumes := func(s *corev1.PodSpec) {
		s.Volumes = []corev1.Volume{{Name: "host", VolumeSource: corev1.VolumeSource{HostPath: &corev1.HostPathVolumeSource{Path: dir}}}}
	}
	exec := func(args ...string) *corev1.LifecycleHandler {
		return &corev1.LifecycleHandler{Exec: &corev1.ExecAction{Command: append([]string{"/app"}, args...)}}
	}
	c := testpod("main", "serve")
	c.VolumeMounts = []corev1.VolumeMount{{Name: "host", MountPath: "/host"}}
	c.Lifecycle = &corev1.Lifecycle{PostStart: exec("write", "/host/began", "yes"), PreStop: exec("write", "/host/ended", "yes")}
	r.create(bound("hooked", only(c), volumes))
	r.until("ready", "hooked", isReady)
	if text, err := os.ReadFile(filepath.Join(dir, "began")); err != nil || string(text) != "yes" {
		t.Errorf("postStart left %q, %v", text, err)
	}
	r.delete("hooked")
	r.until("deleted", "hooked", nil)
	if text, err := os.ReadFile(filepath.Join(dir, "ended")); err != nil || string(text) != "yes" {
		t.Errorf("preStop left %q, %v", text, err)
	}
	bad := testpod("main", "serve")
	bad.Lifecycle = &corev1.Lifecycle{PostStart: exec("exit", "3")}
	r.create(bound("unhooked", only(bad)))
	r.until("in back-off", "unhooked", waits("CrashLoopBackOff"))
	if !slices.ContainsFunc(events.all(), func(e string) bool { return strings.HasPrefix(e, "FailedPostStartHook: ") }) {
		t.Errorf("events %q", events.all())
	}
	r.delete("unhooked")
}

func realKilledContainerd(t *testing.T, r *rig) {
	c := testpod("main", "serve")
	c.ReadinessProbe = httpProbe("/healthz", 8080)
	r.create(bound("survivor", only(c)))
	before := r.until("ready", "survivor", isReady)
	old := r.runtime.PID()
	if err := unix.Kill(old, unix.SIGKILL); err != nil {
		t.Fatal(err)
	}
	for i := range 3 {
		r.create(bound(fmt.Sprintf("meanwhile-%d", i), only(testpod("main", "sleep"))))
	}
	for i := range 3 {
		r.delete(r.until("ready", fmt.Sprintf("meanwhile-%d", i), isReady).Name)
	}
	if pid := r.runtime.PID(); pid == old {
		t.Fatal("containerd was not killed")
	}
	after := r.until("ready", "survivor", isReady)
	if diff := cmp.Diff(before.Status, after.Status); diff != "" {
		t.Errorf("status changed by containerd's end:\n%s", diff)
	}
	if got := get(t, "http://"+after.Status.PodIP+":8080/"); got != "survivor" {
		t.Errorf("the Pod says %q", got)
	}
	r.delete("survivor")
}

func realSubPath(t *testing.T, r *rig) {
	prep, c := testpod("prep", "write", "/all/deep", "not a folder"), testpod("main", "serve")
	prep.VolumeMounts = []corev1.VolumeMount{{Name: "v", MountPath: "/all"}, {Name: "v", MountPath: "/mine", SubPathExpr: "of/$(NAME)"}}
	prep.Env = []corev1.EnvVar{{Name: "NAME", Value: "main"}}
	prep.Args = []string{"write", "/mine/file", "from init"}
	c.VolumeMounts = []corev1.VolumeMount{{Name: "v", MountPath: "/data", SubPath: "of/main"}}
	c.ReadinessProbe = httpProbe("/file?path=/data/file", 8080)
	r.create(bound("sub", only(c), func(s *corev1.PodSpec) {
		s.InitContainers = []corev1.Container{prep}
		s.Volumes = []corev1.Volume{{Name: "v", VolumeSource: corev1.VolumeSource{EmptyDir: &corev1.EmptyDirVolumeSource{}}}}
	}))
	p := r.until("ready", "sub", isReady)
	if got := get(t, "http://"+p.Status.PodIP+":8080/file?path=/data/file"); got != "from init" {
		t.Errorf("file says %q", got)
	}
	r.delete("sub")
}

func realHost(t *testing.T, r *rig) {
	c := testpod("main", "serve", ":18080")
	c.ReadinessProbe = httpProbe("/", 18080)
	r.create(bound("host", only(c), func(s *corev1.PodSpec) { s.HostNetwork = true }))
	p := r.until("ready", "host", isReady)
	host, _ := os.Hostname()
	if got := get(t, "http://127.0.0.1:18080/"); got != host {
		t.Errorf("the Pod is called %q, want the node's %q", got, host)
	}
	if p.Status.PodIP == "" {
		t.Error("no address in the status")
	}
	ported := testpod("main", "serve")
	ported.Ports = []corev1.ContainerPort{{ContainerPort: 8080, HostPort: 18081}}
	ported.ReadinessProbe = httpProbe("/", 8080)
	r.create(bound("port", only(ported)))
	r.until("ready", "port", isReady)
	if got := get(t, "http://10.244.0.1:18081/"); got != "port" {
		t.Errorf("the host port leads to %q", got)
	}
	r.delete("host")
	r.delete("port")
}

func realSidecar(t *testing.T, r *rig) {
	always := corev1.ContainerRestartPolicyAlways
	side := testpod("side", "serve")
	side.RestartPolicy = &always
	side.StartupProbe = httpProbe("/healthz", 8080)
	side.StartupProbe.FailureThreshold = 30
	r.create(bound("task", only(testpod("main", "sleep", "50ms")), func(s *corev1.PodSpec) {
		s.InitContainers, s.RestartPolicy = []corev1.Container{side}, corev1.RestartPolicyNever
	}))
	p := r.until("done", "task", inPhase(corev1.PodSucceeded))
	if got := p.Status.InitContainerStatuses[0].State.Terminated; got == nil || got.ExitCode != 0 {
		t.Errorf("the sidecar did not end with the task: %s", describe(p))
	}
	r.delete("task")
}

func realNothingLeft(t *testing.T, r *rig) {
	pods, err := store.All[*corev1.Pod](t.Context(), r.admin, store.ListOptions{Namespace: "shop"})
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range pods {
		r.until("deleted", p.Name, nil)
	}
	r.waitFor("no containers are left", func() bool { list, err := r.engine.List(t.Context()); return err == nil && len(list) == 0 })
	r.waitFor("every worker ended", func() bool { r.agent.mu.Lock(); defer r.agent.mu.Unlock(); return len(r.agent.workers) == 0 })
	r.waitFor("no sandboxes, folders and mounts are left", func() bool { // a Pod may have been told as gone just before
		boxes, err := r.network.List(t.Context())
		mounts, readErr := os.ReadFile("/proc/self/mountinfo")
		return errors.Join(err, readErr) == nil && len(boxes)+containersFolder(r.config.DataDir) == 0 && !bytes.Contains(mounts, []byte(r.config.DataDir))
	})
	r.waitFor("no cgroups are left", func() bool { pods, _ := cgroup.At(cgroup.Mount, testCgroup).List("pod"); return len(pods) == 0 })
	r.waitFor("no logs are left", func() bool { logs, _ := os.ReadDir(r.config.LogDir); return len(logs) == 0 })
}

// BenchmarkRealPodsUntilReady says how long real containers take from the Pod being bound to Ready being written.
func BenchmarkRealPodsUntilReady(b *testing.B) {
	r := realRig(b)
	r.begin()
	for _, count := range []int{1, 50} {
		b.Run(fmt.Sprint(count), func(b *testing.B) {
			for n := 0; b.Loop(); n++ {
				for i := range count {
					r.create(bound(fmt.Sprintf("p-%d-%d", n, i), only(testpod("main", "sleep"))))
				}
				for i := range count {
					r.until("ready", fmt.Sprintf("p-%d-%d", n, i), isReady)
				}
				b.StopTimer()
				began := time.Now()
				for i := range count {
					r.delete(fmt.Sprintf("p-%d-%d", n, i))
				}
				for i := range count {
					r.until("deleted", fmt.Sprintf("p-%d-%d", n, i), nil)
				}
				b.ReportMetric(float64(time.Since(began).Milliseconds()), "ms-to-delete")
				b.StartTimer()
			}
		})
	}
}
