package agent

import (
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/slipway-dev/slipway/nodeagent/engine"
	"github.com/slipway-dev/slipway/nodeagent/lifecycle"
	"github.com/slipway-dev/slipway/nodeagent/logs"
	"github.com/slipway-dev/slipway/nodeagent/network"
	"github.com/slipway-dev/slipway/nodeagent/volume/downward"
)

// realOrphans leaves on the node something of every kind that the agent makes for a Pod, each of a Pod that is not in
// the API, beside a Pod that runs and things of others.
func realOrphans(t *testing.T, r *rig) {
	c := testpod("main", "serve")
	c.ReadinessProbe = httpProbe("/healthz", 8080)
	r.create(bound("stays", only(c)))
	before := r.until("ready", "stays", isReady)
	ctx := t.Context()
	pod := func(uid string) *corev1.Pod {
		return &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Name: uid, Namespace: "shop", UID: types.UID(uid)}, Spec: corev1.PodSpec{Volumes: []corev1.Volume{
			{Name: "memory", VolumeSource: corev1.VolumeSource{EmptyDir: &corev1.EmptyDirVolumeSource{Medium: corev1.StorageMediumMemory}}},
			{Name: "info", VolumeSource: corev1.VolumeSource{DownwardAPI: &corev1.DownwardAPIVolumeSource{}}},
		}}}
	}
	group := "/sys/fs/cgroup/pids" + testCgroup + "/besteffort/podorphan-group"
	if _, err := os.Stat("/sys/fs/cgroup/pids"); err != nil {
		group = "/sys/fs/cgroup" + testCgroup + "/besteffort/podorphan-group"
	}
	foreign := filepath.Join(r.config.LogDir, "shop_foreign_orphan-none")
	_, err := r.network.Setup(ctx, network.Pod{ID: "orphan-net", Hostname: "x"})
	_, errVolumes := r.agent.volumes.Sync(ctx, downward.Self{Pod: pod("orphan-volumes")})
	check(t, err, errVolumes,
		logs.Claim(filepath.Join(r.config.LogDir, "shop_x_orphan-logs"), r.config.DataDir),
		os.MkdirAll(foreign, 0o755), os.MkdirAll(group, 0o755),
		r.engine.Create(ctx, engine.Container{ID: "orphan-container", Group: "orphan", Image: testImage, Args: []string{"stubborn"},
			LogPath: filepath.Join(t.TempDir(), "log"), Cgroup: testCgroup + "/besteffort/podorphan-container",
			Labels: lifecycle.Labels(pod("orphan-container"), lifecycle.Action{Container: "main"}, "")}))
	_ = r.engine.Start(ctx, "orphan-container") // the agent may have seen it already
	left := func() (found []string) {
		list, err := r.engine.List(ctx)
		sandboxes, errNet := r.network.List(ctx)
		folders, errVolumes := r.agent.volumes.List()
		check(t, err, errNet, errVolumes)
		for _, c := range list {
			found = append(found, "container "+c.ID)
		}
		for _, id := range sandboxes {
			found = append(found, "sandbox "+id)
		}
		for _, uid := range folders {
			found = append(found, "folder "+string(uid))
		}
		for _, path := range []string{group, filepath.Join(r.config.LogDir, "shop_x_orphan-logs")} {
			if _, err := os.Stat(path); err == nil {
				found = append(found, path)
			}
		}
		mounts, err := os.ReadFile("/proc/self/mountinfo")
		check(t, err)
		for line := range strings.Lines(string(mounts)) {
			if strings.Contains(line, "orphan-") {
				found = append(found, "mount "+line)
			}
		}
		return slices.DeleteFunc(found, func(s string) bool { return !strings.Contains(s, "orphan-") })
	}
	if got := left(); len(got) < 7 {
		t.Fatalf("only %v was left for the agent to find", got)
	}
	r.agent.adoptOrphans(ctx) // as it does of itself now and then
	r.waitFor("what belongs to nobody is removed", func() bool { return len(left()) == 0 })
	if _, err := os.Stat(foreign); err != nil {
		t.Errorf("a log folder of somebody else's is gone: %v", err)
	}
	after := r.until("ready", "stays", isReady)
	if after.Status.ContainerStatuses[0].ContainerID != before.Status.ContainerStatuses[0].ContainerID || get(t, "http://"+after.Status.PodIP+":8080/") != "stays" {
		t.Errorf("the Pod that runs: %s", describe(after))
	}
	check(t, os.RemoveAll(foreign))
	r.delete("stays")
	r.until("deleted", "stays", nil)
}

func check(t testing.TB, errs ...error) {
	t.Helper()
	if err := errors.Join(errs...); err != nil {
		t.Fatal(err)
	}
}

// realKilledShim kills the shim of a Pod: its container restarts, once, and the status says what happened.
func realKilledShim(t *testing.T, r *rig) {
	c := testpod("main", "serve")
	c.ReadinessProbe = httpProbe("/healthz", 8080)
	r.create(bound("held", only(c)))
	before := r.until("ready", "held", isReady)
	list, err := r.engine.List(t.Context())
	check(t, err)
	pid := 0
	for _, s := range list {
		if lifecycle.ContainerIDPrefix+s.ID == before.Status.ContainerStatuses[0].ContainerID {
			pid = s.PID
		}
	}
	stat, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/stat")
	check(t, err)
	shim, err := strconv.Atoi(strings.Fields(string(stat[strings.LastIndexByte(string(stat), ')')+1:]))[1])
	check(t, err, unix.Kill(shim, unix.SIGKILL))
	after := r.until("restarted", "held", func(p *corev1.Pod) bool { return isReady(p) && p.Status.ContainerStatuses[0].RestartCount == 1 })
	last := after.Status.ContainerStatuses[0].LastTerminationState.Terminated
	if last == nil || last.ExitCode != 137 || last.Reason != lifecycle.ReasonStatusUnknown || !strings.Contains(last.Message, "shim") || last.StartedAt.IsZero() {
		t.Errorf("status %s", describe(after))
	}
	if after.Status.PodIP != before.Status.PodIP {
		t.Errorf("address %s, before %s", after.Status.PodIP, before.Status.PodIP)
	}
	r.delete("held")
	r.until("deleted", "held", nil)
}
