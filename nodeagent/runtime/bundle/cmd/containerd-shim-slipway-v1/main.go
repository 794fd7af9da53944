// Command containerd-shim-slipway-v1 is the shim of runtime io.containerd.slipway.v1: containerd's runc shim, which
// also writes the containers' log files.
package main

import (
	"context"

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

func newService(ic *plugin.InitContext) (any, error) {
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
