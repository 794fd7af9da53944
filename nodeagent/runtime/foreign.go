package runtime

import (
	"context"
	"fmt"
	"strconv"
	"strings"

	containerd "github.com/containerd/containerd/v2/client"
	"github.com/containerd/errdefs"
)

// minForeign is the oldest containerd that starts shims the way ours expects.
var minForeign = [2]int{2, 3}

// checkForeign tells whether a containerd that is not ours can be used.
func checkForeign(ctx context.Context, address string) error {
	client, err := containerd.New(address)
	if err != nil {
		return fmt.Errorf("connect to containerd at %s: %w", address, err)
	}
	defer client.Close()
	version, err := client.Version(ctx)
	if err != nil {
		return fmt.Errorf("ask containerd at %s for its version: %w", address, err)
	}
	if !recentEnough(version.Version) {
		return fmt.Errorf("containerd at %s is version %s: %d.%d or later is needed (or leave the address away to run the bundled one)",
			address, version.Version, minForeign[0], minForeign[1])
	}
	caps, err := client.IntrospectionService().Plugins(ctx, `type==io.containerd.snapshotter.v1,id==overlayfs`)
	if err != nil && !errdefs.IsNotFound(err) {
		return fmt.Errorf("ask containerd at %s for its snapshotters: %w", address, err)
	}
	if err != nil || len(caps.Plugins) == 0 || caps.Plugins[0].InitErr != nil {
		return fmt.Errorf("containerd at %s has no working overlayfs snapshotter", address)
	}
	return nil
}

func recentEnough(version string) bool {
	parts := strings.SplitN(strings.TrimPrefix(version, "v"), ".", 3)
	if len(parts) < 2 {
		return false
	}
	major, err1 := strconv.Atoi(parts[0])
	minor, err2 := strconv.Atoi(parts[1])
	if err1 != nil || err2 != nil {
		return false
	}
	return major > minForeign[0] || major == minForeign[0] && minor >= minForeign[1]
}
