package imagestore

import (
	"context"
	"errors"
	"io"
	"io/fs"
	"os"
	"time"

	"github.com/containerd/containerd/v2/core/leases"
	"github.com/containerd/containerd/v2/core/mount"
	"github.com/containerd/containerd/v2/core/snapshots"
	"github.com/containerd/errdefs"
	"github.com/google/uuid"

	"github.com/slipway-dev/slipway/nodeagent/engine/runspec"

	"github.com/slipway-dev/slipway/nodeagent/engine/fault"
)

// maxAccountFile bounds what is read of an image's /etc/passwd and /etc/group.
const maxAccountFile = 1 << 20

// inspect looks into an image for what its configuration does not say.
func (s *Store) inspect(ctx context.Context, layer snapshots.Info, image *runspec.Image) error {
	known, ok := layer.Labels[label32]
	image.Programs32 = known == "yes"
	err := s.withRootfs(ctx, layer.Name, func(root *os.Root) (err error) {
		if image.Accounts, err = readAccounts(root); err != nil || ok {
			return err
		}
		image.Programs32, err = find32(root.FS())
		return err
	})
	if err == nil && !ok {
		s.note32(ctx, layer.Name, image.Programs32)
	}
	return err
}

func readAccounts(root *os.Root) (runspec.Accounts, error) {
	passwd, err := readAccountFile(root, "etc/passwd")
	if err != nil {
		return runspec.Accounts{}, err
	}
	defer passwd.Close()
	group, err := readAccountFile(root, "etc/group")
	if err != nil {
		return runspec.Accounts{}, err
	}
	defer group.Close()
	return runspec.ParseAccounts(io.LimitReader(passwd, maxAccountFile), io.LimitReader(group, maxAccountFile)), nil
}

// readAccountFile opens a regular file of the image; one that is missing, or something else, counts as empty. The
// root keeps links within the image.
func readAccountFile(root *os.Root, name string) (io.ReadCloser, error) {
	info, err := root.Stat(name)
	if errors.Is(err, fs.ErrNotExist) || err == nil && !info.Mode().IsRegular() {
		return emptyFile{}, nil
	}
	if err != nil {
		return nil, err
	}
	return root.Open(name)
}

type emptyFile struct{}

func (emptyFile) Read([]byte) (int, error) { return 0, io.EOF }
func (emptyFile) Close() error             { return nil }

// withRootfs mounts an image read-only for a moment.
func (s *Store) withRootfs(ctx context.Context, chainID string, do func(*os.Root) error) error {
	service := s.client.SnapshotService(s.snapshotter)
	key := "slipway-read-" + uuid.NewString()
	ctx, release, err := s.client.WithLease(ctx, leases.WithRandomID())
	if err != nil {
		return fault.Classify("read image", err)
	}
	defer s.removeView(context.WithoutCancel(ctx), key, release)
	mounts, err := service.View(ctx, key, chainID, snapshots.WithLabels(map[string]string{}))
	if err != nil {
		return fault.Classify("read image", err)
	}
	return mount.WithReadonlyTempMount(ctx, mounts, func(path string) error {
		root, err := os.OpenRoot(path)
		if err != nil {
			return err
		}
		defer root.Close()
		return do(root)
	})
}

// How often and how long the removal of a view is tried again while containerd is away.
const (
	removeEvery = time.Second
	removeTries = 300
)

// removeView removes a view with its lease, if need be when containerd is back.
func (s *Store) removeView(ctx context.Context, key string, release func(context.Context) error) {
	remove := func() error {
		return errors.Join(unlessGone(s.client.SnapshotService(s.snapshotter).Remove(ctx, key)), unlessGone(release(ctx)))
	}
	if remove() == nil {
		return
	}
	go func() {
		for range removeTries {
			<-time.After(removeEvery)
			if remove() == nil {
				return
			}
		}
		s.log.Warn("view of an image is left until the next start", "key", key)
	}()
}

func unlessGone(err error) error {
	if errdefs.IsNotFound(err) {
		return nil
	}
	return err
}
