package agent

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"

	"github.com/slipway-dev/slipway/apiserver/api"
	"github.com/slipway-dev/slipway/apiserver/store"
	"github.com/slipway-dev/slipway/nodeagent/cgroup"
	"github.com/slipway-dev/slipway/nodeagent/collect"
	"github.com/slipway-dev/slipway/nodeagent/engine"
	"github.com/slipway-dev/slipway/nodeagent/engine/containerd"
	"github.com/slipway-dev/slipway/nodeagent/pressure"
	"github.com/slipway-dev/slipway/nodeagent/stats"
	"github.com/slipway-dev/slipway/testing/images"
	"github.com/slipway-dev/slipway/testing/need"
)

const mib = 1 << 20

// onDisk is a test whose folders are on a small file system of its own.
type onDisk struct {
	*testing.T
	dir string
}

func (d onDisk) TempDir() string { return d.dir }

func smallDisk(t *testing.T, options string) onDisk {
	t.Helper()
	dir := t.TempDir()
	if err := unix.Mount("tmpfs", dir, "tmpfs", 0, options); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := unix.Unmount(dir, unix.MNT_DETACH); err != nil {
			t.Error(err)
		}
	})
	return onDisk{t, dir}
}

// guardRig adds a guard that looks often to a rig on containerd.
func guardRig(r *rig, thresholds ...pressure.Threshold) {
	e := r.engine.(*containerd.Engine)
	r.config.Guard = &Guard{ImagesDir: e.LayersDir(), Layer: e.LayerUsage, Thresholds: thresholds, Period: 200 * time.Millisecond, Hold: time.Hour,
		Collect: func(ctx context.Context, enough func() (bool, error)) error {
			return collect.New(collect.Config{Images: e, InUse: r.agent.ImagesInUse, Dir: e.LayersDir(), MinAge: time.Nanosecond}).Free(ctx, enough)
		}}
}

func (r *rig) condition(want corev1.NodeConditionType) (corev1.NodeCondition, bool) {
	r.t.Helper()
	n, err := store.Get[*corev1.Node](context.Background(), r.admin, "", node)
	if err != nil {
		r.t.Fatal(err)
	}
	for _, c := range n.Status.Conditions {
		if c.Type == want {
			return c, c.Status == corev1.ConditionTrue
		}
	}
	return corev1.NodeCondition{}, false
}

// evicted wants a Pod to have been ended, and its message to say why.
func (r *rig) evicted(name string, words ...string) {
	r.t.Helper()
	p := r.until("evicted", name, inPhase(corev1.PodFailed))
	for _, word := range words {
		if p.Status.Reason != "Evicted" || !strings.Contains(p.Status.Message, word) {
			r.t.Errorf("%s: %s; want Evicted and %q", name, describe(p), word)
		}
	}
	if len(p.Status.ContainerStatuses) != 1 || p.Status.ContainerStatuses[0].State.Terminated == nil {
		r.t.Errorf("%s: the status of its container is lost: %s", name, describe(p))
	}
}

// runs wants a Pod to run.
func (r *rig) runs(name string) {
	r.t.Helper()
	obj, err := r.admin.Get(context.Background(), api.Pods, "shop", name)
	if err != nil {
		r.t.Fatal(err)
	}
	if p := obj.(*corev1.Pod); !isReady(p) {
		r.t.Errorf("%s does not run: %s", name, describe(p))
	}
}

// limitGroup bounds the memory of all Pods of the test.
func limitGroup(t *testing.T, limit int64) {
	t.Helper()
	file := filepath.Join(cgroup.Mount, "memory", testCgroup, "memory.limit_in_bytes")
	if _, err := os.Stat(filepath.Join(cgroup.Mount, "cgroup.controllers")); err == nil {
		file = filepath.Join(cgroup.Mount, testCgroup, "memory.max")
	}
	if err := os.Mkdir(filepath.Dir(file), 0o755); err != nil && !errors.Is(err, fs.ErrExist) {
		t.Fatal(err)
	}
	if err := os.WriteFile(file, fmt.Append(nil, limit), 0o644); err != nil {
		t.Fatal(err)
	}
}

func TestMemoryHogIsEvictedAndTheAgentSurvives(t *testing.T) {
	r := realRig(t)
	guardRig(r, pressure.Defaults(0)[0]) // memory.available below 100Mi
	limitGroup(t, 400*mib)
	r.begin()
	asking := func(memory string) func(*corev1.PodSpec) {
		return func(s *corev1.PodSpec) {
			s.Containers[0].Resources.Requests = corev1.ResourceList{corev1.ResourceMemory: resource.MustParse(memory)}
		}
	}
	r.create(bound("quiet", only(testpod("main", "sleep"))))
	r.create(bound("asked", only(testpod("main", "memory", "180")), asking("250Mi"))) // uses most, but what it asked for
	r.until("ready", "quiet", isReady)
	r.until("ready", "asked", isReady)
	r.create(bound("hog", only(testpod("main", "memory", "130"))))
	r.evicted("hog", "low on resource: memory", "memory.available is below 100Mi", "Container main was using 1", "request is 0")
	r.runs("quiet")
	r.runs("asked")
	if c, holds := r.condition(corev1.NodeMemoryPressure); !holds || c.Reason != "KubeletHasInsufficientMemory" || c.Message != "the node is short of memory: memory.available is below 100Mi" {
		t.Errorf("condition %+v", c)
	}
	r.create(bound("late", only(testpod("main", "sleep"))))
	if p := r.until("refused", "late", inPhase(corev1.PodFailed)); p.Status.Reason != "Evicted" || !strings.Contains(p.Status.Message, "MemoryPressure") {
		t.Errorf("a Pod that asks for nothing: %s", describe(p))
	}
	r.create(bound("late-asked", only(testpod("main", "sleep")), asking("10Mi")))
	r.until("ready", "late-asked", isReady)
}

func TestFullDiskIsFreedBeforePodsAreEnded(t *testing.T) {
	need.Runtime(t)
	disk := smallDisk(t, "size=320m,nr_inodes=20000")
	r := realRig(disk)
	registry, err := images.ServeRegistry("127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer registry.Close()
	unused := pullUnused(t, r.engine, registry)
	free := func() stats.FileSystem {
		t.Helper()
		fs, err := stats.ReadFileSystem(disk.dir)
		if err != nil {
			t.Fatal(err)
		}
		return fs
	}
	began := free()
	guardRig(r, pressure.Threshold{Signal: pressure.NodeDisk, Bytes: began.Bytes.Available - 60*mib},
		pressure.Threshold{Signal: pressure.NodeInodes, Bytes: began.Inodes.Available - 5000})
	r.begin()
	withVolume := func(s *corev1.PodSpec) {
		s.Volumes = []corev1.Volume{{Name: "data", VolumeSource: corev1.VolumeSource{EmptyDir: &corev1.EmptyDirVolumeSource{}}}}
	}
	r.create(bound("calm", only(testpod("main", "sleep"))))
	r.create(bound("job", only(testpod("main", "lines", "100")), func(s *corev1.PodSpec) { s.RestartPolicy = corev1.RestartPolicyNever }))
	r.until("done", "job", inPhase(corev1.PodSucceeded))
	fill := map[string]string{}
	for name, asks := range map[string]string{"asked": "80Mi", "big": "0", "files": "0"} {
		r.create(bound(name, only(testpod("main", "sleep")), withVolume, func(s *corev1.PodSpec) {
			s.Containers[0].Resources.Requests = corev1.ResourceList{corev1.ResourceEphemeralStorage: resource.MustParse(asks)}
		}))
		p := r.until("ready", name, isReady)
		fill[name] = filepath.Join(r.config.DataDir, "pods", string(p.UID), "volumes", "data")
	}
	r.until("ready", "calm", isReady)

	write(t, filepath.Join(fill["asked"], "blob"), 70)
	r.waitFor("the unused image is collected", func() bool {
		_, err := r.engine.Image(t.Context(), unused)
		return errors.Is(err, engine.ErrImageNotFound)
	})
	r.waitFor("what ended is removed", func() bool {
		list, err := r.engine.List(t.Context())
		return err == nil && len(list) == 4
	})
	r.until("still done", "job", inPhase(corev1.PodSucceeded))
	for _, name := range []string{"calm", "asked", "big", "files"} {
		r.runs(name)
	}
	if c, holds := r.condition(corev1.NodeDiskPressure); !holds || c.Reason != "KubeletHasDiskPressure" {
		t.Errorf("condition %+v", c)
	}

	write(t, filepath.Join(fill["big"], "blob"), 90)
	r.evicted("big", "low on resource: ephemeral-storage", "nodefs.available is below", "The Pod was using ", "request is 0")
	r.waitFor("the evicted Pod's volume is gone", func() bool { _, err := os.Stat(fill["big"]); return errors.Is(err, fs.ErrNotExist) })

	for i := range 6000 {
		if err := os.WriteFile(filepath.Join(fill["files"], fmt.Sprint(i)), nil, 0o644); err != nil {
			break // evicted meanwhile
		}
	}
	r.evicted("files", "low on resource: inodes", "nodefs.inodesFree is below")
	r.runs("asked")
	r.runs("calm")

	r.create(bound("over", only(testpod("main", "sleep"))))
	if p := r.until("refused", "over", inPhase(corev1.PodFailed)); p.Status.Reason != "Evicted" || !strings.Contains(p.Status.Message, "DiskPressure") {
		t.Errorf("a Pod that comes while the disk is short: %s", describe(p))
	}
	r.waitFor("nothing of the evicted Pods is left on the disk", func() bool { return free().Bytes.Available > began.Bytes.Available-60*mib })
}

// write makes a file of so many megabytes in a volume, at once: a file that is open still takes its room when its Pod
// has gone, and no container has this one open.
func write(t *testing.T, path string, megabytes int) {
	t.Helper()
	file, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(unix.Fallocate(int(file.Fd()), 0, 0, int64(megabytes*mib)), file.Close()); err != nil {
		t.Fatal(err)
	}
}

// pullUnused brings an image onto the node that no Pod names.
func pullUnused(t *testing.T, e engine.Engine, registry *images.Registry) string {
	t.Helper()
	data := make([]byte, 20*mib)
	source := rand.NewChaCha8([32]byte{7})
	_, _ = source.Read(data)
	image, err := images.FromFiles("docker.io/library/unused:1", map[string]images.File{"/data": {Data: data}})
	if err != nil {
		t.Fatal(err)
	}
	refs, err := registry.Push(t.Context(), image)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := e.Pull(t.Context(), refs[0], engine.PullOptions{}); err != nil {
		t.Fatal(err)
	}
	return refs[0]
}

func TestVolumeAboveItsLimitEndsItsPodAlone(t *testing.T) {
	r := realRig(t)
	guardRig(r)
	r.begin()
	limit := resource.MustParse("1Mi")
	withVolume := func(s *corev1.PodSpec) {
		s.Volumes = []corev1.Volume{{Name: "data", VolumeSource: corev1.VolumeSource{EmptyDir: &corev1.EmptyDirVolumeSource{SizeLimit: &limit}}}}
	}
	writes := func(s *corev1.PodSpec) {
		s.Containers[0].Resources.Limits = corev1.ResourceList{corev1.ResourceEphemeralStorage: resource.MustParse("200Ki")}
	}
	r.create(bound("within", only(testpod("main", "sleep")), withVolume, writes))
	r.create(bound("over", only(testpod("main", "sleep")), withVolume))
	r.create(bound("talker", only(testpod("main", "lines", "1000000", "50us")), writes))
	r.until("ready", "within", isReady)
	p := r.until("ready", "over", isReady)
	write(t, filepath.Join(r.config.DataDir, "pods", string(p.UID), "volumes", "data", "blob"), 3)
	r.evicted("over", `Usage of EmptyDir volume "data" exceeds the limit "1Mi"`)
	r.evicted("talker", `Container main exceeded its local ephemeral storage limit "200Ki"`)
	r.runs("within")
	if c, holds := r.condition(corev1.NodeDiskPressure); holds {
		t.Errorf("a Pod above its own limit is no pressure: %+v", c)
	}
}
