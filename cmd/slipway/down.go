package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"syscall"
	"time"

	"github.com/spf13/cobra"

	"github.com/slipway-dev/slipway/cmd/slipway/account"
)

func downCommand() *cobra.Command {
	var o options
	cmd := &cobra.Command{
		Use:   "down",
		Short: "Remove the containers and everything else Slipway set up on this machine",
		Long: `Ends a running up, removes its containers, networks, packet filter rules and mounts, and ends the container
runtime. What is stored stays: the next up brings everything back.`,
		Example: "  slipway down",
		Args:    cobra.NoArgs,
		RunE:    func(cmd *cobra.Command, _ []string) error { return down(cmd.Context(), o, cmd.OutOrStdout()) },
	}
	f := cmd.Flags()
	f.StringVar(&o.dataDir, "data-dir", defaultDataDir, "data directory of slipway up")
	f.StringVar(&o.podCIDR, "pod-cidr", "10.244.0.0/16", "as given to up")
	f.StringVar(&o.serviceCIDR, "service-cidr", "10.96.0.0/16", "as given to up")
	f.StringVar(&o.containerd, "containerd-address", "", "as given to up")
	f.StringVar(&o.runtimeDir, "runtime-dir", "", "as given to up")
	return cmd
}

func down(ctx context.Context, o options, out io.Writer) error {
	if os.Geteuid() != 0 {
		return usage("removing containers needs root: use sudo")
	}
	if _, err := os.Stat(o.dataDir); err != nil {
		return usage("%w: nothing to take down there", err)
	}
	o.apiAddress = "127.0.0.1:6443"
	a, err := o.addresses()
	if err != nil {
		return err
	}
	data, err := takeOver(ctx, o.dataDir, out)
	if err != nil {
		return err
	}
	defer data.close()
	log, closeLog, err := openLog(data.log(), false)
	if err != nil {
		return failed(err)
	}
	defer closeLog()
	m := &machine{options: o, addresses: a, data: data, log: log, account: account.New(io.Discard)} // the parts are opened to be removed
	summary, err := m.takeDown(ctx)
	if err != nil {
		return failed(err)
	}
	_, err = fmt.Fprintln(out, summary)
	return failed(err)
}

// takeOver opens the data directory, ending the process that holds it.
func takeOver(ctx context.Context, path string, out io.Writer) (*dataDir, error) {
	data, err := openDataDir(path)
	var busy busyError
	if !errors.As(err, &busy) || busy.pid == 0 {
		return data, err
	}
	fmt.Fprintf(out, "ending slipway up, pid %d\n", busy.pid)
	if err := syscall.Kill(busy.pid, syscall.SIGTERM); err != nil {
		return nil, failed(fmt.Errorf("end pid %d: %w", busy.pid, err))
	}
	ctx, cancel := context.WithTimeout(ctx, 30*time.Second)
	defer cancel()
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for {
		data, err := openDataDir(path)
		if err == nil || !errors.As(err, &busy) {
			return data, err
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return nil, failed(fmt.Errorf("pid %d did not end within 30 s", busy.pid))
		}
	}
}
