package volume

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"github.com/slipway-dev/slipway/nodeagent/volume/downward"
	"github.com/slipway-dev/slipway/testing/need"
)

// objects is a Source of fixed objects.
type objects struct {
	configMaps map[string]*corev1.ConfigMap
	secrets    map[string]*corev1.Secret
	tokens     int
	life       time.Duration
}

func (o *objects) ConfigMap(_ context.Context, _ *corev1.Pod, name string) (*corev1.ConfigMap, error) {
	if cm, ok := o.configMaps[name]; ok {
		return cm, nil
	}
	return nil, apierrors.NewNotFound(schema.GroupResource{Resource: "configmaps"}, name)
}

func (o *objects) Secret(_ context.Context, _ *corev1.Pod, name string) (*corev1.Secret, error) {
	if s, ok := o.secrets[name]; ok {
		return s, nil
	}
	return nil, apierrors.NewNotFound(schema.GroupResource{Resource: "secrets"}, name)
}

func (o *objects) Token(_ context.Context, _ *corev1.Pod, audience string, _ int64) (string, time.Time, error) {
	o.tokens++
	return fmt.Sprintf("token-%s-%d", audience, o.tokens), time.Now().Add(o.life), nil
}

func pod(volumes ...corev1.Volume) *corev1.Pod {
	return &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Name: "web", Namespace: "shop", UID: "u1", Labels: map[string]string{"app": "web"}},
		Spec: corev1.PodSpec{Containers: []corev1.Container{{Name: "main"}}, Volumes: volumes}}
}

func vol(source corev1.VolumeSource) corev1.Volume {
	return corev1.Volume{Name: "v", VolumeSource: source}
}

// ref is an unnamed reference to an object.
func ref(name string) corev1.LocalObjectReference { return corev1.LocalObjectReference{Name: name} }

// tree shows the visible files below dir: path, mode, group and content.
func tree(t *testing.T, dir string) []string {
	t.Helper()
	var out []string
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		if strings.HasPrefix(e.Name(), "..") {
			continue
		}
		path := filepath.Join(dir, e.Name())
		info, err := os.Stat(path)
		if err != nil {
			t.Fatal(err)
		}
		if info.IsDir() {
			for _, line := range tree(t, path) {
				out = append(out, e.Name()+"/"+line)
			}
			continue
		}
		data, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		st := info.Sys().(*syscall.Stat_t)
		out = append(out, fmt.Sprintf("%s %o %d:%d %s", e.Name(), info.Mode().Perm(), st.Uid, st.Gid, data))
	}
	return out
}

func TestSyncProjects(t *testing.T) {
	need.Root(t)
	yes, group, user, mode := true, int64(2000), int64(1000), int32(0o400)
	source := func() *objects {
		return &objects{life: time.Hour,
			configMaps: map[string]*corev1.ConfigMap{"c": {Data: map[string]string{"a": "1", "b": "2"}, BinaryData: map[string][]byte{"bin": {0xff}}}},
			secrets:    map[string]*corev1.Secret{"s": {Data: map[string][]byte{"key": []byte("hush")}}}}
	}
	cases := []struct {
		name string
		pod  *corev1.Pod
		want []string
		err  string
	}{
		{"configMap", pod(vol(corev1.VolumeSource{ConfigMap: &corev1.ConfigMapVolumeSource{LocalObjectReference: ref("c")}})),
			[]string{"a 644 0:0 1", "b 644 0:0 2", "bin 644 0:0 \xff"}, ""},
		{"items and modes", pod(vol(corev1.VolumeSource{ConfigMap: &corev1.ConfigMapVolumeSource{LocalObjectReference: ref("c"), DefaultMode: &mode,
			Items: []corev1.KeyToPath{{Key: "a", Path: "deep/er/a"}, {Key: "b", Path: "b"}}}})), []string{"b 400 0:0 2", "deep/er/a 400 0:0 1"}, ""},
		{"item that is missing", pod(vol(corev1.VolumeSource{ConfigMap: &corev1.ConfigMapVolumeSource{LocalObjectReference: ref("c"), Items: []corev1.KeyToPath{{Key: "x", Path: "x"}}}})),
			nil, `MountVolume.SetUp failed for volume "v" : references non-existent config key: x`},
		{"missing", pod(vol(corev1.VolumeSource{Secret: &corev1.SecretVolumeSource{SecretName: "none"}})), nil, `MountVolume.SetUp failed for volume "v" : secrets "none" not found`},
		{"missing but optional", pod(vol(corev1.VolumeSource{Secret: &corev1.SecretVolumeSource{SecretName: "none", Optional: &yes}})), nil, ""},
		{"path out of the volume", pod(vol(corev1.VolumeSource{ConfigMap: &corev1.ConfigMapVolumeSource{LocalObjectReference: ref("c"), Items: []corev1.KeyToPath{{Key: "a", Path: "../../a"}}}})),
			nil, `MountVolume.SetUp failed for volume "v" : path "../../a" leads out of the volume`},
		{"secret for a group", func() *corev1.Pod {
			p := pod(vol(corev1.VolumeSource{Secret: &corev1.SecretVolumeSource{SecretName: "s", DefaultMode: &mode}}))
			p.Spec.SecurityContext = &corev1.PodSecurityContext{FSGroup: &group}
			return p
		}(), []string{"key 440 0:2000 hush"}, ""},
		{"projected", func() *corev1.Pod {
			p := pod(vol(corev1.VolumeSource{Projected: &corev1.ProjectedVolumeSource{Sources: []corev1.VolumeProjection{
				{ServiceAccountToken: &corev1.ServiceAccountTokenProjection{Path: "token", Audience: "x"}},
				{ConfigMap: &corev1.ConfigMapProjection{LocalObjectReference: ref("c"), Items: []corev1.KeyToPath{{Key: "a", Path: "ca.crt"}}}},
				{DownwardAPI: &corev1.DownwardAPIProjection{Items: []corev1.DownwardAPIVolumeFile{{Path: "namespace", FieldRef: &corev1.ObjectFieldSelector{FieldPath: "metadata.namespace"}}}}},
			}}}))
			p.Spec.SecurityContext = &corev1.PodSecurityContext{RunAsUser: &user}
			return p
		}(), []string{"ca.crt 644 0:0 1", "namespace 644 0:0 shop", "token 600 1000:0 token-x-1"}, ""},
	}
	for _, tc := range cases {
		t.Run(tc.name, func(t *testing.T) {
			v := New(t.TempDir(), source())
			t.Cleanup(func() { _ = v.Teardown(context.Background(), "u1") })
			_, err := v.Sync(t.Context(), downward.Self{Pod: tc.pod})
			if got := fmt.Sprint(err); tc.err != "" && got != tc.err {
				t.Fatalf("error %s, want %s", got, tc.err)
			}
			if tc.err != "" {
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			dir, _ := v.Path(tc.pod, "v")
			if diff := cmp.Diff(tc.want, tree(t, dir)); diff != "" {
				t.Errorf("files (-want +got):\n%s", diff)
			}
		})
	}
}

func TestProjectSwapsAllFilesAtOnce(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "v")
	version := func(n int) content {
		c := content{files: map[string]file{}}
		for _, name := range []string{"a", "b", "sub/c", fmt.Sprintf("only-%d", n%2)} {
			c.files[name] = file{data: fmt.Append(nil, n), mode: 0o644, uid: -1}
		}
		return c
	}
	if err := project(dir, version(0)); err != nil {
		t.Fatal(err)
	}
	stop := make(chan struct{})
	var wg sync.WaitGroup
	wg.Go(func() {
		for {
			select {
			case <-stop:
				return
			default:
			}
			stamp, err := os.Readlink(filepath.Join(dir, "..data"))
			if err != nil {
				t.Errorf("..data is missing for a moment: %v", err)
				return
			}
			a, errA := os.ReadFile(filepath.Join(dir, stamp, "a"))
			c, errC := os.ReadFile(filepath.Join(dir, stamp, "sub", "c"))
			if errA == nil && errC == nil && string(a) != string(c) {
				t.Errorf("a is of version %s, sub/c of %s", a, c)
				return
			}
			if _, err := os.ReadFile(filepath.Join(dir, "a")); err != nil && !errors.Is(err, os.ErrNotExist) {
				t.Errorf("read a: %v", err)
			}
		}
	})
	for n := range 200 {
		if err := project(dir, version(n)); err != nil {
			t.Fatal(err)
		}
	}
	close(stop)
	wg.Wait()
	before, _ := os.Readlink(filepath.Join(dir, "..data"))
	if err := project(dir, version(199)); err != nil {
		t.Fatal(err)
	}
	if after, _ := os.Readlink(filepath.Join(dir, "..data")); after != before {
		t.Error("content that is current was written again")
	}
	entries, _ := os.ReadDir(dir)
	var names []string
	for _, e := range entries {
		if e.Name() != before {
			names = append(names, e.Name())
		}
	}
	if diff := cmp.Diff([]string{"..data", "a", "b", "only-1", "sub"}, names); diff != "" {
		t.Errorf("names (-want +got):\n%s", diff)
	}
}

func TestTokenIsRefreshedAtFourFifthsOfItsLife(t *testing.T) {
	o := &objects{life: time.Hour}
	v := New(t.TempDir(), o)
	key := tokenKey{pod: "u1", volume: "v", path: "token"}
	first, err := v.token(t.Context(), pod(), key)
	if err != nil {
		t.Fatal(err)
	}
	if left := time.Until(first.refresh); left < 47*time.Minute || left > 48*time.Minute {
		t.Errorf("refreshed in %s, want 48 min", left)
	}
	if again, _ := v.token(t.Context(), pod(), key); again != first {
		t.Error("a fresh token was asked for while the old one is good")
	}
	first.refresh = time.Now()
	if again, _ := v.token(t.Context(), pod(), key); again == first {
		t.Error("the old token stays after its time")
	}
}

func TestEmptyDirAndTeardown(t *testing.T) {
	need.Root(t)
	root, group, limit := t.TempDir(), int64(3000), resource.MustParse("1Mi")
	v := New(root, &objects{})
	p := pod(corev1.Volume{Name: "disk", VolumeSource: corev1.VolumeSource{EmptyDir: &corev1.EmptyDirVolumeSource{}}},
		corev1.Volume{Name: "mem", VolumeSource: corev1.VolumeSource{EmptyDir: &corev1.EmptyDirVolumeSource{Medium: corev1.StorageMediumMemory, SizeLimit: &limit}}})
	p.Spec.SecurityContext = &corev1.PodSecurityContext{FSGroup: &group}
	if _, err := v.Sync(t.Context(), downward.Self{Pod: p}); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"disk", "mem"} {
		dir, _ := v.Path(p, name)
		info, err := os.Stat(dir)
		if err != nil {
			t.Fatal(err)
		}
		if st := info.Sys().(*syscall.Stat_t); info.Mode().String() != "dgrwxrwxrwx" || st.Gid != 3000 {
			t.Errorf("%s: %s group %d", name, info.Mode(), st.Gid)
		}
		if err := os.WriteFile(filepath.Join(dir, "kept"), nil, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	mem, _ := v.Path(p, "mem")
	if err := os.WriteFile(filepath.Join(mem, "big"), make([]byte, 2<<20), 0o600); !errors.Is(err, syscall.ENOSPC) {
		t.Errorf("writing beyond the limit: %v, want no space", err)
	}
	if _, err := v.Sync(t.Context(), downward.Self{Pod: p}); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(filepath.Join(mem, "kept")); err != nil {
		t.Errorf("content lost by a second sync: %v", err)
	}
	if err := v.Teardown(t.Context(), "u1"); err != nil {
		t.Fatal(err)
	}
	if left, _ := v.List(); len(left) != 0 {
		t.Errorf("left after teardown: %v", left)
	}
	if err := v.Teardown(t.Context(), ".."); err == nil {
		t.Error("tore down the folder above")
	}
}

func TestSubPathStaysInTheVolume(t *testing.T) {
	need.Root(t)
	root := t.TempDir()
	v := New(root, &objects{})
	podDir, volume := v.PodDir("u1"), filepath.Join(v.PodDir("u1"), "volumes", "v")
	t.Cleanup(func() { _ = v.Teardown(context.Background(), "u1") })
	outside := t.TempDir()
	for _, dir := range []string{volume, filepath.Join(volume, "real"), filepath.Join(volume, "other")} {
		if err := os.MkdirAll(dir, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	for link, to := range map[string]string{"abs": outside, "up": "../../../..", "in": "other"} {
		if err := os.Symlink(to, filepath.Join(volume, link)); err != nil {
			t.Fatal(err)
		}
	}
	for _, sub := range []string{"abs", "up", "../x", "/etc"} {
		if got, err := v.SubPath(podDir, volume, sub, "main-0"); err == nil {
			t.Errorf("subPath %s gave %s", sub, got)
		}
	}
	for i, sub := range []string{"real", "in", "new/er"} {
		got, err := v.SubPath(podDir, volume, sub, fmt.Sprintf("main-%d", i))
		if err != nil {
			t.Fatal(err)
		}
		// The owner of the volume swaps the directory for a link: what was bound stays what it was.
		if err := os.RemoveAll(filepath.Join(volume, sub)); err != nil {
			t.Fatal(err)
		}
		if err := os.Symlink(outside, filepath.Join(volume, sub)); err != nil {
			t.Fatal(err)
		}
		a, errA := os.Stat(got)
		b, errB := os.Stat(outside)
		if errA != nil || errB != nil || os.SameFile(a, b) {
			t.Errorf("subPath %s leads outside after a swap (%v, %v)", sub, errA, errB)
		}
	}
}

func TestHostPathTypes(t *testing.T) {
	dir := t.TempDir()
	file := filepath.Join(dir, "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	cases := []struct {
		kind corev1.HostPathType
		path string
		ok   bool
	}{
		{corev1.HostPathUnset, dir, true}, {corev1.HostPathDirectory, dir, true}, {corev1.HostPathDirectory, file, false}, {corev1.HostPathFile, file, true},
		{corev1.HostPathFile, dir, false}, {corev1.HostPathDirectory, dir + "/none", false}, {corev1.HostPathDirectoryOrCreate, dir + "/a/b", true},
		{corev1.HostPathFileOrCreate, dir + "/f", true}, {corev1.HostPathFileOrCreate, dir + "/no/f", false}, {corev1.HostPathSocket, file, false},
		{corev1.HostPathCharDev, "/dev/null", true}, {corev1.HostPathBlockDev, "/dev/null", false},
	}
	for _, tc := range cases {
		if err := checkHostPath(&corev1.HostPathVolumeSource{Path: tc.path, Type: &tc.kind}); (err == nil) != tc.ok {
			t.Errorf("%q %s: %v, want ok %v", tc.kind, tc.path, err, tc.ok)
		}
	}
}
