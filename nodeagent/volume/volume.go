// Package volume makes the directories and files a Pod's containers mount: emptyDir, configMap, secret, downwardAPI,
// projected and hostPath, and keeps the projected ones current. A Pod's volumes live below <root>/<uid>; names that
// come from outside never lead out of there.
//
// It must not know containers or when a Pod ends: it is told.
package volume

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/slipway-dev/slipway/nodeagent/volume/downward"
)

// Source is where the content of projected volumes comes from. A missing object is an apierrors NotFound.
type Source interface {
	ConfigMap(ctx context.Context, pod *corev1.Pod, name string) (*corev1.ConfigMap, error)
	Secret(ctx context.Context, pod *corev1.Pod, name string) (*corev1.Secret, error)
	// Token asks for a token of the Pod's service account, bound to the Pod.
	Token(ctx context.Context, pod *corev1.Pod, audience string, seconds int64) (token string, expires time.Time, err error)
}

// Volumes owns the volumes of one node's Pods.
type Volumes struct {
	root   string
	source Source
	mu     sync.Mutex
	tokens map[tokenKey]*token
}

// New returns the Volumes below root.
func New(root string, source Source) *Volumes {
	return &Volumes{root: root, source: source, tokens: map[tokenKey]*token{}}
}

// Error says which volume of a Pod is not there, in the kubelet's words.
type Error struct {
	Volume string
	Err    error
}

func (e *Error) Error() string {
	return fmt.Sprintf("MountVolume.SetUp failed for volume %q : %s", e.Volume, e.Err)
}
func (e *Error) Unwrap() error { return e.Err }

// PodDir returns the folder below which everything of a Pod is. Others may keep files in it beside the folders
// "volumes", "projected" and "subpaths".
func (v *Volumes) PodDir(uid types.UID) string { return filepath.Join(v.root, string(uid)) }

// Sync makes the Pod's volumes, or brings their content up to date; it changes nothing that is current. It returns
// when to call again at the latest, zero for never.
func (v *Volumes) Sync(ctx context.Context, self downward.Self) (next time.Time, err error) {
	pod := self.Pod
	if err := os.MkdirAll(v.PodDir(pod.UID), 0o755); err != nil {
		return next, fmt.Errorf("make the Pod's folder: %w", err)
	}
	if slices.ContainsFunc(pod.Spec.Volumes, projects) {
		if err := mountTmpfs(v.projectedDir(pod.UID), tmpfs{mode: 0o755}); err != nil {
			return next, err
		}
	}
	for _, vol := range pod.Spec.Volumes {
		due, err := v.sync(ctx, self, vol)
		if err != nil {
			return next, &Error{Volume: vol.Name, Err: err}
		}
		if !due.IsZero() && (next.IsZero() || due.Before(next)) {
			next = due
		}
	}
	return next, nil
}

func (v *Volumes) sync(ctx context.Context, self downward.Self, vol corev1.Volume) (time.Time, error) {
	switch {
	case vol.EmptyDir != nil:
		return time.Time{}, v.emptyDir(self.Pod, vol)
	case vol.HostPath != nil:
		return time.Time{}, checkHostPath(vol.HostPath)
	case projects(vol):
		content, due, err := v.content(ctx, self, vol)
		if err != nil {
			return due, err
		}
		dir, err := v.Path(self.Pod, vol.Name)
		if err != nil {
			return due, err
		}
		return due, project(dir, content)
	}
	return time.Time{}, errors.New("this kind of volume is not supported")
}

// projects reports whether a volume's files come from API objects.
func projects(vol corev1.Volume) bool {
	return vol.ConfigMap != nil || vol.Secret != nil || vol.DownwardAPI != nil || vol.Projected != nil
}

// Projects reports whether a Pod's volume holds files made from API objects. Containers mount those read-only.
func Projects(pod *corev1.Pod, name string) bool {
	return slices.ContainsFunc(pod.Spec.Volumes, func(vol corev1.Volume) bool { return vol.Name == name && projects(vol) })
}

func (v *Volumes) projectedDir(uid types.UID) string {
	return filepath.Join(v.PodDir(uid), "projected")
}

// Path returns the host path of a Pod's volume.
func (v *Volumes) Path(pod *corev1.Pod, name string) (string, error) {
	i := slices.IndexFunc(pod.Spec.Volumes, func(vol corev1.Volume) bool { return vol.Name == name })
	if i < 0 || !filepath.IsLocal(name) {
		return "", fmt.Errorf("volume %q not found", name)
	}
	switch vol := pod.Spec.Volumes[i]; {
	case vol.HostPath != nil:
		return vol.HostPath.Path, nil
	case projects(vol):
		return filepath.Join(v.projectedDir(pod.UID), name), nil
	}
	return filepath.Join(v.PodDir(pod.UID), "volumes", name), nil
}

func (v *Volumes) emptyDir(pod *corev1.Pod, vol corev1.Volume) error {
	dir, err := v.Path(pod, vol.Name)
	if err != nil {
		return err
	}
	// Once made it is the containers': its mode and owner are theirs to change. So it appears with the right ones.
	mode, group := os.FileMode(0o777), fsGroup(pod)
	if group != nil {
		mode |= os.ModeSetgid
	}
	switch vol.EmptyDir.Medium {
	case corev1.StorageMediumDefault:
		return makeDir(dir, mode, group)
	case corev1.StorageMediumMemory:
		size := int64(0)
		if limit := vol.EmptyDir.SizeLimit; limit != nil {
			size = limit.Value()
		}
		return mountTmpfs(dir, tmpfs{size: size, mode: mode, group: group})
	}
	return fmt.Errorf("medium %q is not supported", vol.EmptyDir.Medium)
}

// makeDir makes a directory, unless there is one, in one step: nobody finds it without its mode and group.
func makeDir(dir string, mode os.FileMode, group *int64) error {
	if _, err := os.Lstat(dir); !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	next := dir + ".next" // no volume has a name with a dot
	if err := errors.Join(os.RemoveAll(next), os.MkdirAll(next, 0o700)); err != nil {
		return err
	}
	if group != nil {
		if err := os.Chown(next, -1, int(*group)); err != nil {
			return err
		}
	}
	if err := os.Chmod(next, mode); err != nil {
		return err
	}
	return os.Rename(next, dir)
}

func fsGroup(pod *corev1.Pod) *int64 {
	if pod.Spec.SecurityContext == nil {
		return nil
	}
	return pod.Spec.SecurityContext.FSGroup
}

// Teardown unmounts and removes everything of a Pod. What does not exist is no error.
func (v *Volumes) Teardown(_ context.Context, uid types.UID) error {
	if !filepath.IsLocal(string(uid)) || uid == "" {
		return fmt.Errorf("pod uid %q is not a name", uid)
	}
	v.forget(uid)
	dir := v.PodDir(uid)
	if _, err := os.Lstat(dir); errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err := unmountBelow(dir); err != nil {
		return err
	}
	if err := os.RemoveAll(dir); err != nil {
		return fmt.Errorf("remove the Pod's folder: %w", err)
	}
	return nil
}

// List returns the Pods that have a folder, sorted.
func (v *Volumes) List() ([]types.UID, error) {
	entries, err := os.ReadDir(v.root)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("list volumes: %w", err)
	}
	uids := make([]types.UID, 0, len(entries))
	for _, e := range entries {
		uids = append(uids, types.UID(e.Name()))
	}
	return uids, nil
}
