package main

import (
	"testing"

	"github.com/slipway-dev/slipway/nodeagent/engine/containerd"
)

func TestLogLimits(t *testing.T) {
	cases := []struct {
		options logOptions
		want    containerd.LogLimits
	}{
		{logOptions{"10Mi", 5}, containerd.LogLimits{Bytes: 10 << 20, Files: 5}},
		{logOptions{"128Ki", 2}, containerd.LogLimits{Bytes: 128 << 10, Files: 2}},
		{logOptions{"100Ki", 5}, containerd.LogLimits{}},
		{logOptions{"-1", 5}, containerd.LogLimits{}},
		{logOptions{"much", 5}, containerd.LogLimits{}},
		{logOptions{"10Mi", 1}, containerd.LogLimits{}},
	}
	for _, c := range cases {
		got, err := c.options.limits()
		if got != c.want || (err != nil) != (c.want.Files == 0) {
			t.Errorf("%+v: got %+v, %v; want %+v", c.options, got, err, c.want)
		}
	}
}
