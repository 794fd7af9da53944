package main

import (
	"github.com/spf13/pflag"
	"k8s.io/apimachinery/pkg/api/resource"

	"github.com/slipway-dev/slipway/nodeagent/engine/containerd"
)

// logOptions bound what containers' logs may hold on disk, as the kubelet's containerLogMaxSize and
// containerLogMaxFiles do. They count for containers that are made from now on.
type logOptions struct {
	size  string
	files int
}

func (o *logOptions) flags(f *pflag.FlagSet) {
	f.StringVar(&o.size, "container-log-max-size", "10Mi", "how large a container's log file may grow before it is rotated")
	f.IntVar(&o.files, "container-log-max-files", 5, "how many log files of a container are kept, the one being written included")
}

// leastLog is the smallest size of a log file: the shim writes lines in pieces of up to 80 KiB.
const leastLog = 128 << 10

// limits reads the options. Commands that make no containers have none: those of the shim count.
func (o logOptions) limits() (containerd.LogLimits, error) {
	if o == (logOptions{}) {
		return containerd.LogLimits{}, nil
	}
	size, err := resource.ParseQuantity(o.size)
	if err != nil || size.Value() < leastLog {
		return containerd.LogLimits{}, usage("--container-log-max-size: got %q, want a size of at least 128Ki, such as 10Mi", o.size)
	}
	if o.files < 2 {
		return containerd.LogLimits{}, usage("--container-log-max-files: got %d, want 2 or more", o.files)
	}
	return containerd.LogLimits{Bytes: size.Value(), Files: o.files}, nil
}
