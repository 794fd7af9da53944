// Command containerd-shim-slipway-v1 is the shim of runtime io.containerd.slipway.v1: containerd's runc shim, which
// also writes the containers' log files.
package main

import (
	"context"
	"os"
	"runtime"
	"runtime/debug"

	"github.com/containerd/containerd/v2/cmd/containerd-shim-runc-v2/manager"
	containerdshim "github.com/containerd/containerd/v2/pkg/shim"
	"github.com/containerd/containerd/v2/pkg/shutdown"
	"github.com/containerd/containerd/v2/plugins"
	"github.com/containerd/plugin"
	"github.com/containerd/plugin/registry"

	"github.com/slipway-dev/slipway/nodeagent/runtime/bundle/shim"
)

// listenerFD is the descriptor on which containerd's start command hands over the socket.
const listenerFD = 3

func main() {
	registry.Register(&plugin.Registration{
		Type:     plugins.TTRPCPlugin,
		ID:       "task",
		Requires: []plugin.Type{plugins.EventPlugin, plugins.InternalPlugin},
		InitFn:   newService,
	})
	containerdshim.RunShim(context.Background(), manager.NewShimManager("io.containerd.slipway.v1"))
}

// heapLimit is where garbage collection begins; a shim at rest holds about 4 MiB.
const heapLimit = 24 << 20

func newService(ic *plugin.InitContext) (any, error) {
	// The library collects at every 40 % of growth, which costs more time than all the rest of a container's start,
	// and returns all it can to the system every 30 seconds, which is enough to keep a shim small.
	debug.SetGCPercent(-1)
	debug.SetMemoryLimit(heapLimit)
	runtime.GOMAXPROCS(2)
	// runc inherits these: it lives for milliseconds, so collecting its garbage and waking threads is all loss.
	os.Setenv("GOGC", "400")
	os.Setenv("GOMAXPROCS", "1")
	publisher, err := ic.GetByID(plugins.EventPlugin, "publisher")
	if err != nil {
		return nil, err
	}
	sd, err := ic.GetByID(plugins.InternalPlugin, "shutdown")
	if err != nil {
		return nil, err
	}
	return shim.New(ic.Context, publisher.(containerdshim.Publisher), sd.(shutdown.Service), listenerFD)
}
